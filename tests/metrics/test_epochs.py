"""Whole epochs counted from heights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import SourceError
from runbook_lib.metrics.frames import Epoch, crossings, due

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def minutes(*numbers: int) -> list[datetime]:
    return [T0 + timedelta(minutes=number) for number in numbers]


def test_only_whole_epochs_count() -> None:
    """The one under way at the start has no beginning, the last one no end."""
    heights = np.array([5.0, 9.0, 10.0, 15.0, 21.0, 29.0, 30.0, 35.0])

    assert crossings(heights, minutes(*range(8)), 10) == (
        [Epoch(1, *minutes(2, 4)), Epoch(2, *minutes(4, 6))],
        *minutes(6),
    )


def test_a_gap_moves_the_boundary_to_the_next_sample() -> None:
    """Never earlier than it was seen; two boundaries in one gap are both counted."""
    heights = np.array([9.0, 10.0, np.nan, np.nan, 31.0, 40.0])

    assert crossings(heights, minutes(*range(6)), 10)[0] == [
        Epoch(1, *minutes(1, 4)),
        Epoch(2, *minutes(1, 4)),
        Epoch(3, *minutes(4, 5)),
    ]


def test_a_chain_that_falls_back_is_an_error() -> None:
    """A restored snapshot is no progress."""
    with pytest.raises(SourceError, match="height: expected it to grow, got it falling back"):
        crossings(np.array([10.0, 20.0, 12.0]), minutes(0, 1, 2), 5)


def test_a_mean_that_ran_ahead_after_a_restart_is_no_fall() -> None:
    """By less than a tenth of an epoch; the boundary stays where it was first seen."""
    heights = np.array([90.0, 101.0, 97.0, 110.0, 201.0])

    assert crossings(heights, minutes(*range(5)), 100)[0] == [Epoch(1, *minutes(1, 4))]


def test_the_next_boundaries_are_due_at_the_chains_pace() -> None:
    """And three minutes for the mean to show them."""
    assert due(2, 15.0, 10, 60.0, T0) == T0 + timedelta(minutes=15 + 3)


@given(
    steps=st.lists(st.integers(0, 30), min_size=2, max_size=80),
    length=st.integers(1, 40),
)
def test_epochs_follow_each_other_and_lie_inside(steps: list[int], length: int) -> None:
    """Numbers without a gap, never more than the heights hold."""
    heights = np.cumsum(np.array(steps, dtype=float))
    instants = minutes(*range(len(steps)))

    found, _ = crossings(heights, instants, length)

    numbers = [epoch.number for epoch in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    assert all(instants[0] < epoch.start <= epoch.end <= instants[-1] for epoch in found)
    whole = heights[-1] // length - heights[0] // length - 1
    assert len(found) <= max(whole, 0)  # fewer where the first boundaries lie between two samples
