"""A window read point by point: where series were missing, and where they said something.

Planned restarts are left out. A point says what the two minutes before it held, so that nothing
short is lost between two points; an instant query would hide a hole of five minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..sources.prometheus import Prometheus
from .frames import fetch

STEP = timedelta(seconds=60)
LOOK = timedelta(minutes=2)
"""What each point of a window looks back on; queries say it as ``[2m]``."""
LONGEST = timedelta(minutes=5)
"""A longer hole is no coverage; Prometheus itself bridges one of five minutes in silence."""

Stretch = tuple[datetime, datetime]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


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
    prometheus: Prometheus, query: str, start: datetime, end: datetime, cut: Sequence[Stretch]
) -> Watched:
    """A window of ``query``, planned stretches ``cut`` out. Raises SourceError."""
    frame = fetch(prometheus, query, start, end, STEP)
    if frame.partial:
        raise SourceError(f"prometheus: {query}", f"expected all of it, got {frame.warnings[0]}")
    instants = tuple(stamp.to_pydatetime() for stamp in frame.values.index)
    kept = np.ones(len(instants), dtype=bool)
    for begun, over in cut:
        kept &= np.array([not begun <= instant < over for instant in instants], dtype=bool)
    values = tuple(frame.values.to_numpy().T)
    return Watched(instants, frame.labels, values, kept)
