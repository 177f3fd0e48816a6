"""Whole epochs of a window, and when enough of them will be over."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ..context import Context
from ..metrics.frames import LATE, Epoch, progress
from ..metrics.frames import due as due_epochs

Missing = Callable[[Sequence[Epoch]], int]
"""How many more whole epochs are needed beyond those found."""


def whole_epochs(
    context: Context,
    since: datetime,
    missing: Missing,
    *,
    until: datetime,
    begun: datetime | None = None,
    length: int = 0,
) -> tuple[tuple[Epoch, ...], datetime | None]:
    """Whole epochs of a window that began at ``begun`` (its start) or later, and when to return.

    None when none are ``missing``. ``length`` is that of the cluster's epochs unless given. Raises SourceError.
    """
    begun, length = begun or since, length or context.cluster.epoch_length
    block_s = context.cluster.block_time_ms / 1000
    if until - since < LATE:
        return (), since + timedelta(seconds=block_s * length) * (missing(()) + 1)
    epochs, height, boundary = progress(context.prometheus, context.matchers, since, until, length)
    found = tuple(epoch for epoch in epochs if epoch.start >= begun)
    left = missing(found)
    if left <= 0:
        return found, None
    # The epoch under way counts if its beginning was seen.
    left += boundary is None or boundary < begun
    at = due_epochs(left, height, length, block_s, until)
    return found, at + max(begun - until, timedelta(0))


def epochs_since(
    context: Context, since: datetime, missing: Missing, what: str
) -> tuple[Epoch, ...]:
    """Every whole epoch that began after ``since``; a finding says when enough will be over.

    ``missing`` says how many more are needed beyond those. Raises SourceError.
    """
    # From a little before, so that the height is known at once; a boundary that was passed before
    # ``since`` may be seen until ``LATE`` after it, and must not count.
    found, due = whole_epochs(context, since - LATE, missing, until=context.now, begun=since + LATE)
    if due is not None:
        expected = f"{len(found) + missing(found)} whole epochs"
        context.unknown("epochs", what, expected, f"{len(found)} so far", due)
    return found
