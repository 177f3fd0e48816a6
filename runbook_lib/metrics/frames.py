"""Range answers as pandas frames, aligned to the grid that was asked for.

Nothing is filled and nothing dropped: a point without a sample is NaN in the frame and counted as
missing, a sample whose value is NaN is counted as that, and Inf stays Inf.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..sources.matrix import Matrix, label_text
from ..sources.prometheus import Prometheus

if TYPE_CHECKING:
    import pandas as pd

_MS = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Tally:
    """How the points of one series divide; ``finite`` is the rest."""

    points: int
    missing: int
    nan: int
    inf: int

    @property
    def finite(self) -> int:
        return self.points - self.missing - self.nan - self.inf


@dataclass(frozen=True)
class Frame:
    """Series on one grid. ``values`` has a column per series, float64, and a UTC index.

    ``labels`` and ``tallies`` are in the order of the columns. A frame with ``warnings`` is
    partial: the server left something out, so it proves nothing.
    """

    values: pd.DataFrame
    labels: tuple[dict[str, str], ...]
    tallies: tuple[Tally, ...]
    warnings: tuple[str, ...]

    @property
    def partial(self) -> bool:
        return bool(self.warnings)

    def columns_by(self, label: str) -> dict[str, str]:
        """Label value to column. Raises SourceError when a series lacks it or two share one."""
        found: dict[str, str] = {}
        for labels, column in zip(self.labels, self.values.columns, strict=True):
            value = labels.get(label, "")
            if not value or value in found:
                got = f"{value} twice" if value else f"none in {column}"
                raise SourceError("prometheus", f"expected one series per {label}, got {got}")
            found[value] = column
        return found


def fetch(
    prometheus: Prometheus, query: str, start: datetime, end: datetime, step: timedelta
) -> Frame:
    """The frame of a range query. Raises SourceError; no series at all is an empty frame."""
    matrix = prometheus.range(query, start, end, step)
    return align(f"prometheus: {query}", matrix, start, end, step)


def align(source: str, matrix: Matrix, start: datetime, end: datetime, step: timedelta) -> Frame:
    """A matrix on the grid start, start + step, ... up to end. Raises SourceError off the grid."""
    import pandas as pd

    first = (start - datetime.fromtimestamp(0, UTC)) // _MS
    step_ms, points = step // _MS, (end - start) // step + 1
    values = np.full((len(matrix.series), points), np.nan)
    tallies = []
    for row, series in enumerate(matrix.series):
        at, beside = np.divmod(series.times - first, step_ms)
        if beside.any() or (len(at) and (at[0] < 0 or at[-1] >= points)):
            text = label_text(series.labels)
            raise SourceError(source, f"{text}: expected samples on the grid, got one beside it")
        values[row, at] = series.values
        tallies.append(_tally(series.values, points))
    grid = (first + step_ms * np.arange(points)).astype("datetime64[ms]")
    frame = pd.DataFrame(
        values.T,
        index=pd.DatetimeIndex(grid, tz="UTC", name="time"),
        columns=[label_text(series.labels) for series in matrix.series],
        copy=False,
    )
    labels = tuple(series.labels for series in matrix.series)
    return Frame(frame, labels, tuple(tallies), matrix.warnings)


def _tally(values: npt.NDArray[np.float64], points: int) -> Tally:
    return Tally(
        points=points,
        missing=points - len(values),
        nan=int(np.isnan(values).sum()),
        inf=int(np.isinf(values).sum()),
    )
