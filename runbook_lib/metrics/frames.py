"""Range answers as frames, aligned to the grid that was asked for, and windows of them.

Nothing is filled and nothing dropped: a point without a sample is NaN in the frame, and Inf stays
Inf; neither is a sample. Planned restarts are left out of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..sources.matrix import Series, label_text
from ..sources.prometheus import Prometheus

if TYPE_CHECKING:
    import pandas as pd


STEP = timedelta(seconds=60)
LOOK = timedelta(minutes=2)
"""What each point of a window looks back on, so that nothing short is lost between two points;
queries say it as ``[2m]``. (An instant query would hide a hole of five minutes.)"""
LONGEST = timedelta(minutes=5)
"""A longer hole is no coverage; Prometheus itself bridges one of five minutes in silence."""

Stretch = tuple[datetime, datetime]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Frame:
    """Series on one grid. ``values`` has a column per series, float64, and a UTC index.

    ``labels`` are in the order of the columns. Points in ``planned`` restarts are not judged.
    """

    values: pd.DataFrame
    labels: tuple[Mapping[str, str], ...]
    planned: Sequence[Stretch] = ()

    @cached_property
    def instants(self) -> list[datetime]:
        """The grid, UTC."""
        import pandas as pd

        return list(pd.DatetimeIndex(self.values.index).to_pydatetime())

    @cached_property
    def kept(self) -> Flags:
        """Which points are judged."""
        return _outside(self.values, self.planned)

    @property
    def points(self) -> int:
        """How many points are judged."""
        return int(self.kept.sum())

    @property
    def series(self) -> Iterator[tuple[Mapping[str, str], Floats]]:
        """(Labels, values) of each."""
        return zip(self.labels, self.values.to_numpy().T, strict=True)

    def of(self, label: str, value: str) -> Floats:
        """The series with that label; of none, one without a sample."""
        none = np.full(len(self.instants), np.nan)
        return next((each for labels, each in self.series if labels.get(label) == value), none)

    def only(self) -> Floats:
        """The one series of an aggregate. Raises SourceError for none or several."""
        if len(self.labels) != 1:
            got = f"{len(self.labels)}"
            raise SourceError("prometheus", f"expected one series in the window, got {got}")
        column: Floats = self.values.to_numpy()[:, 0]
        return column

    def by(self, label: str) -> pd.DataFrame:
        """Values with the label's for columns. SourceError when a series lacks it or two share one."""
        names = [labels.get(label, "") for labels in self.labels]
        wrong = [name for name in names if not name or names.count(name) > 1]
        if wrong:
            got = f"{wrong[0]} twice" if wrong[0] else "none"
            raise SourceError("prometheus", f"expected one series per {label}, got {got}")
        return self.values.set_axis(names, axis=1)

    def runs(self, flags: Flags, longer: timedelta = timedelta(0)) -> list[Stretch]:
        """Stretches of judged points at which ``flags`` hold, those that last longer alone."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], flags & self.kept, [False]))))
        found = [
            (self.instants[first], self.instants[last - 1] + STEP)
            for first, last in zip(edges[::2], edges[1::2], strict=True)
        ]
        return [(start, end) for start, end in found if end - start > longer]

    def holes(self, missing: Flags, allowed: float) -> list[Stretch]:
        """Where coverage breaks: holes that are too long, or all of them when too much is missing."""
        if not self.points:
            return [(self.instants[0], self.instants[-1])]
        every = self.runs(missing)
        if (missing & self.kept).sum() > allowed * self.points:
            return every
        return [(start, end) for start, end in every if end - start > LONGEST - LOOK]


def fetch(
    prometheus: Prometheus,
    query: str,
    start: datetime,
    end: datetime,
    planned: Sequence[Stretch] = (),
) -> Frame:
    """The frame of a range query. Raises SourceError; no series at all is an empty frame."""
    found = prometheus.range(query, start, end, STEP)
    return align(f"prometheus: {query}", found, start, end, planned)


def align(
    source: str,
    found: Sequence[Series],
    start: datetime,
    end: datetime,
    planned: Sequence[Stretch] = (),
) -> Frame:
    """Series on the grid start, start + STEP, ... up to end. Raises SourceError off the grid."""
    import pandas as pd

    first = (start - datetime.fromtimestamp(0, UTC)) // _MS
    step_ms, points = STEP // _MS, (end - start) // STEP + 1
    values = np.full((len(found), points), np.nan)
    for row, series in enumerate(found):
        at, beside = np.divmod(series.times - first, step_ms)
        if beside.any() or (len(at) and (at[0] < 0 or at[-1] >= points)):
            text = label_text(series.labels)
            raise SourceError(source, f"{text}: expected samples on the grid, got one beside it")
        values[row, at] = series.values
    grid = (first + step_ms * np.arange(points)).astype("datetime64[ms]")
    frame = pd.DataFrame(
        values.T,
        index=pd.DatetimeIndex(grid, tz="UTC", name="time"),
        columns=[label_text(series.labels) for series in found],
        copy=False,
    )
    return Frame(frame, tuple(series.labels for series in found), planned)


def cut(frame: pd.DataFrame, stretches: Sequence[Stretch]) -> pd.DataFrame:
    """``frame`` without the points of planned restarts: they say nothing of the release."""
    return frame[_outside(frame, stretches)]


def _outside(frame: pd.DataFrame, stretches: Sequence[Stretch]) -> Flags:
    kept = np.ones(len(frame), dtype=bool)
    for start, end in stretches:
        kept &= (frame.index < start) | (frame.index >= end)
    return kept
