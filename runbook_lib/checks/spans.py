"""Whole epochs since an instant, out of the metrics store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ..context import Context
from ..metrics import epochs
from ..metrics.epochs import Epoch, Progress
from ..outcomes import Row, unknown_row

LATE = timedelta(minutes=3)
"""A boundary is seen at most so late (``metrics.epochs``)."""

Missing = Callable[[Sequence[Epoch]], int]


def whole_epochs(
    context: Context, since: datetime, missing: Missing, what: str
) -> tuple[tuple[Epoch, ...], list[Row]]:
    """Every whole epoch that began after ``since``, and a row that says when enough will be over.

    ``missing`` says how many more are needed beyond those. Raises SourceError.
    """
    cluster, length = context.cluster, context.cluster.epoch_length
    # From a little before, so that the height is known at once.
    seen = epochs.progress(context.prometheus, context.matchers, since - LATE, context.now, length)
    # A boundary is seen late: one that was passed before ``since`` must not count.
    found = tuple(epoch for epoch in seen.epochs if epoch.start >= since + LATE)
    left = missing(found)
    if left <= 0:
        return found, []
    more = left + (not _under_way(seen, since + LATE, length))
    due = epochs.due(more, seen.height, length, cluster.block_time_ms / 1000, context.now)
    expected = f"{len(found) + left} whole epochs"
    return found, [unknown_row("epochs", what, expected, f"{len(found)} so far", return_at=due)]


def _under_way(seen: Progress, since: datetime, length: int) -> bool:
    """Whether an epoch that counts has begun: its boundary was seen at ``since`` or later."""
    heights = seen.frame.values.iloc[:, 0].dropna()
    before = heights[heights.index < since]
    return len(before) > 0 and seen.height // length > float(before.iloc[-1]) // length
