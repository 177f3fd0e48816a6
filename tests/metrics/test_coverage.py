"""Where a window has no data, and where it says something."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import SourceError
from runbook_lib.metrics.frames import STEP, Watched

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def watched(points: int, *cut: int) -> Watched:
    kept = np.array([point not in cut for point in range(points)])
    instants = tuple(T0 + number * STEP for number in range(points))
    return Watched(instants, ({"instance": "dev-1"},), (np.ones(points),), kept)


def flags(points: int, *on: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.isin(np.arange(points), on)


def minutes(*pairs: tuple[int, int]) -> list[tuple[datetime, datetime]]:
    return [(T0 + first * STEP, T0 + last * STEP) for first, last in pairs]


def test_a_run_reaches_a_step_beyond_its_last_point() -> None:
    """At either end of the window, too."""
    found = watched(9).runs(flags(9, 0, 1, 4, 8))

    assert found == minutes((0, 2), (4, 5), (8, 9))


def test_a_planned_restart_is_no_hole() -> None:
    """Its points are not judged; what is left of a run is."""
    found = watched(400, 3, 4, 5, 6)

    assert found.holes(flags(400, 3, 4, 5, 6), 0.02) == []
    assert found.points == 396


@pytest.mark.parametrize(("long", "holes"), [(3, 0), (4, 1)])
def test_a_hole_of_more_than_five_minutes_is_one(long: int, holes: int) -> None:
    """Each point has looked two minutes back already."""
    assert len(watched(1000).holes(flags(1000, *range(10, 10 + long)), 0.02)) == holes


def test_many_small_holes_are_one_lack_of_data() -> None:
    """More than the share that is allowed: then all of them are named."""
    on = range(0, 100, 10)

    assert watched(100).holes(flags(100, *on), 0.1) == []
    assert len(watched(100).holes(flags(100, *on), 0.09)) == 10


def test_a_window_without_a_judged_point_is_a_hole() -> None:
    """All of it planned away is no proof of anything."""
    assert len(watched(3, 0, 1, 2).holes(flags(3), 0.02)) == 1


def test_a_series_that_is_not_there_has_no_sample() -> None:
    """And an aggregate of several series is no aggregate."""
    found = watched(3)

    assert np.isnan(found.of("instance", "dev-2")).all()
    assert found.of("instance", "dev-1").tolist() == [1.0, 1.0, 1.0]
    none = Watched(found.instants, (), (), found.kept)
    with pytest.raises(SourceError, match="expected one series in the window, got 0"):
        none.only()


@given(on=st.lists(st.booleans(), min_size=1, max_size=60))
def test_runs_hold_every_point_once(on: list[bool]) -> None:
    """Their lengths add up to the points, and between two of them lies a point that is not on."""
    found = watched(len(on)).runs(np.array(on))

    assert sum((end - start for start, end in found), timedelta(0)) == sum(on) * STEP
    assert all(one[1] < two[0] for one, two in pairwise(found))
