"""Range answers as pandas frames, aligned to the grid that was asked for.

Nothing is filled and nothing dropped: a point without a sample is NaN in the frame, and Inf stays
Inf; neither is a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..sources.matrix import Matrix, label_text
from ..sources.prometheus import Prometheus
from .catalogue import Metric, resolve

if TYPE_CHECKING:
    import pandas as pd


_MS = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Frame:
    """Series on one grid. ``values`` has a column per series, float64, and a UTC index.

    ``labels`` are in the order of the columns. A frame with ``warnings`` is partial: the server left
    something out, so it proves nothing.
    """

    values: pd.DataFrame
    labels: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]

    @property
    def partial(self) -> bool:
        return bool(self.warnings)

    @property
    def instants(self) -> list[datetime]:
        """The grid, UTC."""
        import pandas as pd

        return list(pd.DatetimeIndex(self.values.index).to_pydatetime())

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
    return align(
        f"prometheus: {query}", prometheus.range(query, start, end, step), start, end, step
    )


def align(source: str, matrix: Matrix, start: datetime, end: datetime, step: timedelta) -> Frame:
    """A matrix on the grid start, start + step, ... up to end. Raises SourceError off the grid."""
    import pandas as pd

    first = (start - datetime.fromtimestamp(0, UTC)) // _MS
    step_ms, points = step // _MS, (end - start) // step + 1
    values = np.full((len(matrix.series), points), np.nan)
    for row, series in enumerate(matrix.series):
        at, beside = np.divmod(series.times - first, step_ms)
        if beside.any() or (len(at) and (at[0] < 0 or at[-1] >= points)):
            text = label_text(series.labels)
            raise SourceError(source, f"{text}: expected samples on the grid, got one beside it")
        values[row, at] = series.values
    grid = (first + step_ms * np.arange(points)).astype("datetime64[ms]")
    frame = pd.DataFrame(
        values.T,
        index=pd.DatetimeIndex(grid, tz="UTC", name="time"),
        columns=[label_text(series.labels) for series in matrix.series],
        copy=False,
    )
    labels = tuple(series.labels for series in matrix.series)
    return Frame(frame, labels, matrix.warnings)


# --- A window point by point, planned restarts left out ---
#
# Planned restarts are left out. A point says what the two minutes before it held, so that nothing
# short is lost between two points; an instant query would hide a hole of five minutes.

STEP = timedelta(seconds=60)
LOOK = timedelta(minutes=2)
"""What each point of a window looks back on; queries say it as ``[2m]``."""
LONGEST = timedelta(minutes=5)
"""A longer hole is no coverage; Prometheus itself bridges one of five minutes in silence."""

Stretch = tuple[datetime, datetime]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def cut(frame: pd.DataFrame, stretches: Sequence[Stretch]) -> pd.DataFrame:
    """``frame`` without the points of planned restarts: they say nothing of the release."""
    for start, end in stretches:
        frame = frame[(frame.index < start) | (frame.index >= end)]
    return frame


@dataclass(frozen=True)
class Watched:
    """Series on one grid. ``kept`` are the points outside planned restarts; NaN is no sample."""

    instants: tuple[datetime, ...]
    labels: tuple[Mapping[str, str], ...]
    values: tuple[Floats, ...]
    kept: Flags

    @property
    def points(self) -> int:
        """How many points are judged."""
        return int(self.kept.sum())

    def of(self, label: str, value: str) -> Floats:
        """The series with that label; of none, one without a sample."""
        for labels, values in zip(self.labels, self.values, strict=True):
            if labels.get(label) == value:
                return values
        return np.full(len(self.instants), np.nan)

    def only(self) -> Floats:
        """The one series of an aggregate. Raises SourceError for none or several."""
        if len(self.values) != 1:
            got = f"{len(self.values)}"
            raise SourceError("prometheus", f"expected one series in the window, got {got}")
        return self.values[0]

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


def read(
    prometheus: Prometheus, query: str, start: datetime, end: datetime, planned: Sequence[Stretch]
) -> Watched:
    """A window of ``query``, ``planned`` stretches cut out. Raises SourceError."""
    frame = fetch(prometheus, query, start, end, STEP)
    if frame.partial:
        raise SourceError(f"prometheus: {query}", f"expected all of it, got {frame.warnings[0]}")
    instants = tuple(frame.instants)
    kept = [not any(begun <= at < over for begun, over in planned) for at in instants]
    values = tuple(frame.values.to_numpy().T)
    return Watched(instants, frame.labels, values, np.array(kept, dtype=bool))


# --- Epochs, by when the chain crossed each boundary ---
#
# An epoch is height // epoch length (the chain's rpp/storage/ledger.rs); nothing exports its number as
# a gauge, and RPC knows only now. The chain records heights as a histogram, so a rate over three
# minutes is the mean height of that time: a boundary is seen up to three minutes late, never early.

LATE = timedelta(minutes=3)
"""A boundary is seen at most so late."""
FALL = 0.1
"""Share of an epoch that the mean may fall back by: a node that restarts forgets some of the three
minutes, so that its mean runs ahead of the others' for a while. It never passes the true height."""
_SUM, _COUNT = "rpp_runtime_chain_block_height_sum", "rpp_runtime_chain_block_height_count"
HEIGHT = Metric.model_validate(
    {
        "name": "block_height",
        "title": "Height of the chain",
        "topic": "height",
        "family": "consensus",
        "unit": "blocks",
        "queries": [f"max(rate({_SUM}[3m]) / rate({_COUNT}[3m]))", "max(chain_block_height)"],
        "direction": "higher",
        "tolerance": {"absolute": 1.0},
        "critical": True,
    }
)


@dataclass(frozen=True)
class Epoch:
    """A whole epoch: from when its first block was seen to when the next epoch's was."""

    number: int
    start: datetime
    end: datetime


def progress(
    prometheus: Prometheus,
    matchers: Mapping[str, str],
    since: datetime,
    until: datetime,
    epoch_length: int,
) -> tuple[list[Epoch], float, datetime | None]:
    """Whole epochs that began at or after ``since`` and ended by ``until``.

    Beside them the height at the window's end, and when its last boundary was seen. Raises
    SourceError.
    """
    if until - since < STEP:
        raise SourceError("epochs", f"expected a window of at least {STEP}, got {until - since}")
    query = resolve(prometheus, HEIGHT, matchers, until)
    frame = fetch(prometheus, query, since, until, STEP)
    if frame.partial:
        raise SourceError("prometheus", f"height: expected a whole answer, got {frame.warnings[0]}")
    if frame.values.shape[1] != 1:
        raise SourceError("prometheus", f"height: expected one series, got {frame.values.shape[1]}")
    heights = frame.values.to_numpy()[:, 0]
    if not np.isfinite(heights).any():
        raise SourceError("prometheus", "height: expected samples in the window, got none")
    epochs, boundary = crossings(heights, frame.instants, epoch_length)
    return epochs, float(heights[np.isfinite(heights)][-1]), boundary


def crossings(
    heights: Floats, instants: list[datetime], epoch_length: int
) -> tuple[list[Epoch], datetime | None]:
    """Whole epochs in a series of heights, and when the last boundary was seen.

    Raises SourceError for a height that falls back.
    """
    finite = np.isfinite(heights)
    seen, at = heights[finite], [instants[i] for i in np.flatnonzero(finite)]
    if (np.maximum.accumulate(seen) - seen > FALL * epoch_length).any():
        raise SourceError("prometheus", "height: expected it to grow, got it falling back")
    numbers = np.floor(np.maximum.accumulate(seen) / epoch_length).astype(int)
    found: list[Epoch] = []
    began: tuple[int, datetime] | None = None
    for index in np.flatnonzero(np.diff(numbers)) + 1:
        number, instant = int(numbers[index]), at[index]
        if began is not None:
            # Several boundaries between two samples: each is known only to lie before this one.
            found += [Epoch(n, began[1], instant) for n in range(began[0], number)]
        began = (number, instant)
    return found, began[1] if began is not None else None


def due(
    epochs_left: int, height: float, epoch_length: int, block_time_s: float, now: datetime
) -> datetime:
    """When that many more boundaries will have been crossed, at the chain's own pace."""
    target = (height // epoch_length + epochs_left) * epoch_length
    return now + timedelta(seconds=(target - height) * block_time_s) + LATE
