"""Epochs out of the metrics store: when the chain crossed each boundary.

An epoch is height // epoch length (the chain's rpp/storage/ledger.rs); nothing exports its number as
a gauge, and RPC knows only now. The chain records heights as a histogram, so a rate over three
minutes is the mean height of that time: a boundary is seen up to three minutes late, never early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from ..errors import SourceError
from ..sources.prometheus import Prometheus
from .catalogue import Metric, resolve
from .frames import Frame, fetch

STEP = timedelta(seconds=60)
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
        "queries": [
            f"max(rate({_SUM}[3m]) / rate({_COUNT}[3m]))",
            "max(chain_block_height)",
        ],
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


@dataclass(frozen=True)
class Progress:
    """The whole epochs of a window, the height at its end, and the frame they were read from."""

    epochs: tuple[Epoch, ...]
    height: float
    frame: Frame


def progress(
    prometheus: Prometheus,
    matchers: Mapping[str, str],
    since: datetime,
    until: datetime,
    epoch_length: int,
) -> Progress:
    """Whole epochs that began at or after ``since`` and ended by ``until``. Raises SourceError."""
    if until - since < STEP:
        raise SourceError("epochs", f"expected a window of at least {STEP}, got {until - since}")
    found = resolve(prometheus, HEIGHT, matchers, until)
    frame = fetch(prometheus, found.query, since, until, STEP)
    if frame.partial:
        raise SourceError("prometheus", f"height: expected a whole answer, got {frame.warnings[0]}")
    if frame.values.shape[1] != 1:
        raise SourceError("prometheus", f"height: expected one series, got {frame.values.shape[1]}")
    heights = frame.values.to_numpy()[:, 0]
    if not np.isfinite(heights).any():
        raise SourceError("prometheus", "height: expected samples in the window, got none")
    instants = [stamp.to_pydatetime() for stamp in frame.values.index]
    epochs = tuple(crossings(heights, instants, epoch_length))
    return Progress(epochs, float(heights[np.isfinite(heights)][-1]), frame)


def crossings(
    heights: np.ndarray[tuple[int], np.dtype[np.float64]],
    instants: list[datetime],
    epoch_length: int,
) -> list[Epoch]:
    """Whole epochs in a series of heights; a height that falls back ends the counting with an error.

    Raises SourceError.
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
    return found


def due(
    epochs_left: int, height: float, epoch_length: int, block_time_s: float, now: datetime
) -> datetime:
    """When that many more boundaries will have been crossed, at the chain's own pace."""
    target = (height // epoch_length + epochs_left) * epoch_length
    return now + timedelta(seconds=(target - height) * block_time_s) + timedelta(minutes=3)
