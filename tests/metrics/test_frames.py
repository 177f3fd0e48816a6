"""Frames: on the grid or refused; nothing filled, nothing dropped."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.checks.epochs import Span, crossings
from runbook_lib.errors import SourceError
from runbook_lib.metrics.frames import STEP, Frame, align
from runbook_lib.sources.matrix import Series

from ..messages import saying
from .samples import samples

START = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = round(START.timestamp() * 1000)


def series(values: dict[int, float], **labels: str) -> Series:
    return samples(START, values, **labels)


def frame(*found: Series, points: int = 4) -> Frame:
    return align("prometheus: up", found, START, START + (points - 1) * STEP)


def test_missing_nan_and_infinite_points_stay_what_they_are() -> None:
    got = frame(series({0: 1.0, 1: math.nan, 3: math.inf}, a="1"), series({2: -math.inf}, a="2"))
    instants = [START + n * STEP for n in range(4)]
    index = pd.DatetimeIndex(instants, tz="UTC", name="time").as_unit("ms")
    first, second = [1.0, math.nan, math.nan, math.inf], [math.nan, math.nan, -math.inf, math.nan]
    expected = pd.DataFrame({'{a="1"}': first, '{a="2"}': second}, index=index)
    pd.testing.assert_frame_equal(got.values, expected)
    assert got.labels == ({"a": "1"}, {"a": "2"})
    assert (frame().values.shape, frame().labels) == ((4, 0), ())


@given(st.dictionaries(st.integers(0, 9), st.floats(), min_size=1))
def test_every_sample_is_at_its_instant(values: dict[int, float]) -> None:
    ordered = dict(sorted(values.items()))
    got = frame(series(ordered), points=10)
    column = got.values["{}"]
    for point, value in ordered.items():
        at = column.loc[pd.Timestamp(START + point * STEP)]
        assert at == value or (math.isnan(at) and math.isnan(value))
    assert column.notna().sum() == sum(not math.isnan(value) for value in values.values())


@pytest.mark.parametrize("shift_ms", [1, -60_000, 4 * 60_000])
def test_a_sample_beside_the_grid_is_an_error(shift_ms: int) -> None:
    times = np.array([FIRST + shift_ms], np.int64)
    said = 'prometheus: up: {a="b"}: expected samples on the grid, got one beside it'
    with saying(SourceError, said):
        frame(Series({"a": "b"}, times, np.array([1.0])))


def test_columns_by_a_label() -> None:
    got = frame(series({0: 1.0}, validator="v1"), series({0: 1.0}, validator="v2"))
    assert list(got.by("validator")) == ["v1", "v2"]
    with saying(SourceError, "prometheus: expected one series per instance, got none"):
        got.by("instance")
    twice = frame(series({0: 1.0}, validator="v1", a="1"), series({0: 1.0}, validator="v1", a="2"))
    with saying(SourceError, "prometheus: expected one series per validator, got v1 twice"):
        twice.by("validator")


# --- Where a window has no data, and where it says something ---


def watched(points: int, *cut: int) -> Frame:
    found = series(dict.fromkeys(range(points), 1.0), instance="dev-1")
    planned = [at_minutes(point, point + 1) for point in cut]
    return align("p", [found], START, START + (points - 1) * STEP, planned)  # type: ignore[arg-type]


def flags(points: int, *on: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.isin(np.arange(points), on)


def at_minutes(*numbers: int) -> tuple[datetime, ...]:
    return tuple(START + number * STEP for number in numbers)


def test_a_run_reaches_a_step_beyond_its_last_point() -> None:
    found = watched(9).runs(flags(9, 0, 1, 4, 8))

    assert found == [at_minutes(0, 2), at_minutes(4, 5), at_minutes(8, 9)]


@pytest.mark.parametrize(
    ("points", "cut", "on", "share", "holes"),
    [
        # More than five minutes: each point has looked two minutes back already.
        (1000, (), range(10, 13), 0.02, 0),
        (1000, (), range(10, 14), 0.02, 1),
        # Many small ones are one lack of data, which names all of them.
        (100, (), range(0, 100, 10), 0.1, 0),
        (100, (), range(0, 100, 10), 0.09, 10),
        # A planned restart is none; a window without a judged point is.
        (400, range(3, 7), range(3, 7), 0.02, 0),
        (3, range(3), (), 0.02, 1),
    ],
)
def test_a_hole_is_long_or_one_of_too_many(
    points: int, cut: Sequence[int], on: Sequence[int], share: float, holes: int
) -> None:
    window = watched(points, *cut)

    assert window.points == points - len(cut)
    assert len(window.holes(flags(points, *on), share)) == holes


def test_a_series_that_is_not_there_has_no_sample() -> None:
    found = watched(3)

    assert np.isnan(found.of("instance", "dev-2")).all()
    assert found.of("instance", "dev-1").tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(SourceError, match="expected one series in the window, got 0"):
        frame().only()


@given(on=st.lists(st.booleans(), min_size=1, max_size=60))
def test_runs_hold_every_point_once(on: list[bool]) -> None:
    found = watched(len(on)).runs(np.array(on))

    assert sum((end - start for start, end in found), timedelta(0)) == sum(on) * STEP
    assert all(one[1] < two[0] for one, two in pairwise(found))


# --- Whole epochs counted from heights ---


@pytest.mark.parametrize(
    ("heights", "length", "epochs"),
    [
        ([5, 9, 10, 15, 21, 29, 30, 35], 10, [(1, 2, 4), (2, 4, 6)]),
        # A gap moves the boundary to the next sample; two boundaries in one gap are both counted.
        ([9, 10, np.nan, np.nan, 31, 40], 10, [(1, 1, 4), (2, 1, 4), (3, 4, 5)]),
        # A mean that ran ahead after a restart, by less than a tenth of an epoch, is no fall.
        ([90, 101, 97, 110, 201], 100, [(1, 1, 4)]),
    ],
    ids=["whole ones only", "gap", "ran ahead"],
)
def test_epochs_are_counted_from_the_heights_seen(
    heights: list[float], length: int, epochs: list[tuple[int, int, int]]
) -> None:
    found, _ = crossings(np.array(heights, float), at_minutes(*range(len(heights))), length)

    assert found == [
        Span(f"epoch {number}", *at_minutes(start, end)) for number, start, end in epochs
    ]


def test_a_chain_that_falls_back_is_an_error_and_the_last_boundary_is_told() -> None:
    with pytest.raises(SourceError, match="height: expected it to grow, got it falling back"):
        crossings(np.array([10.0, 20.0, 12.0]), at_minutes(0, 1, 2), 5)
    assert crossings(np.array([9.0, 10.0, 21.0]), at_minutes(0, 1, 2), 10)[1] == at_minutes(2)[0]


@given(
    steps=st.lists(st.integers(0, 30), min_size=2, max_size=80),
    length=st.integers(1, 40),
)
def test_epochs_follow_each_other_and_lie_inside(steps: list[int], length: int) -> None:
    heights = np.cumsum(np.array(steps, dtype=float))
    instants = at_minutes(*range(len(steps)))

    found, _ = crossings(heights, instants, length)

    numbers = [int(epoch.name.removeprefix("epoch ")) for epoch in found]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    assert all(instants[0] < epoch.start <= epoch.end <= instants[-1] for epoch in found)
    whole = heights[-1] // length - heights[0] // length - 1
    assert len(found) <= max(whole, 0)  # fewer where the first boundaries lie between two samples
