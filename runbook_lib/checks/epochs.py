"""Whole epochs by when the chain crossed each boundary, and when enough of them will be over.

An epoch is height // epoch length (the chain's rpp/storage/ledger.rs); nothing exports its number as
a gauge, and RPC knows only the present. The chain records heights as a histogram, so a rate over
three minutes is the mean height of that time: a boundary is seen up to three minutes late, never
early.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from ..context import Context
from ..errors import SourceError
from ..metrics.catalogue import Metric, resolve
from ..metrics.frames import Floats, fetch
from ..outcomes import Outcome
from ..wording import count, utc

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
        "unit": "blocks",
        "queries": [f"max(rate({_SUM}[3m]) / rate({_COUNT}[3m]))", "max(chain_block_height)"],
        "direction": "higher",
        "tolerance": {"absolute": 1.0},
        "critical": True,
    }
)


@dataclass(frozen=True)
class Span:
    """A named stretch of time: an epoch from when its first block was seen to the next one's."""

    name: str
    start: datetime
    end: datetime


Missing = Callable[[Sequence[Span]], int]
"""How many more whole epochs are needed beyond those found."""


def whole_epochs(
    context: Context,
    what: str,
    since: datetime,
    missing: Missing,
    *,
    until: datetime | None = None,
    length: int = 0,
    why: str = "",
) -> list[Span]:
    """Whole epochs that began after ``since``, and a finding that says when enough will be over.

    ``length`` is that of the cluster's epochs unless given. A boundary that was passed before
    ``since`` may be seen until ``LATE`` after it, and does not count. Raises SourceError.
    """
    until, length = until or context.at, length or context.cluster.epoch_length
    block = timedelta(milliseconds=context.cluster.block_time_ms)
    found, due = list[Span](), None
    if until <= since:
        due = since + block * length * (missing([]) + 1)
    else:
        query = resolve(context.prometheus, HEIGHT, context.matchers, until)
        # From a little before, so that the height is known at once.
        frame = fetch(context.prometheus, query, since - LATE, until)
        heights, begun = frame.only(), since + LATE
        finite = np.isfinite(heights)
        if not finite.any():
            raise SourceError("prometheus", "height: expected samples in the window, got none")
        epochs, boundary = crossings(heights, frame.instants, length)
        found = [epoch for epoch in epochs if epoch.start >= begun]
        if (left := missing(found)) > 0:
            # The epoch under way counts if its beginning was seen.
            left += boundary is None or boundary < begun
            height = float(heights[finite][-1])
            blocks = (height // length + left) * length - height
            due = until + block * blocks + LATE + max(begun - until, timedelta(0))
    expected = f"at least {len(found) + max(missing(found), 0)} of {length} blocks"
    got = f"{count(len(found), 'whole epoch')} since {utc(since)}{why}"
    outcome = Outcome.INCONCLUSIVE if due else Outcome.PASS
    context.judge(context.cluster_name, what, expected, got, outcome, return_at=due)
    return found


def crossings(
    heights: Floats, instants: Sequence[datetime], epoch_length: int
) -> tuple[list[Span], datetime | None]:
    """Whole epochs in a series of heights, and when the last boundary was seen.

    Raises SourceError for a height that falls back.
    """
    finite = np.isfinite(heights)
    seen, at = heights[finite], [instants[int(i)] for i in np.flatnonzero(finite)]
    if (np.maximum.accumulate(seen) - seen > FALL * epoch_length).any():
        raise SourceError("prometheus", "height: expected it to grow, got it falling back")
    numbers = np.floor(np.maximum.accumulate(seen) / epoch_length).astype(int)
    found: list[Span] = []
    began: tuple[int, datetime] | None = None
    for index in np.flatnonzero(np.diff(numbers)) + 1:
        number, instant = int(numbers[index]), at[index]
        if began is not None:
            # Several boundaries between two samples: each is known only to lie before this one.
            found += [Span(f"epoch {n}", began[1], instant) for n in range(began[0], number)]
        began = (number, instant)
    return found, began[1] if began is not None else None
