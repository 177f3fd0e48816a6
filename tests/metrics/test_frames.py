"""Frames: on the grid or refused; nothing filled, nothing dropped."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import SourceError
from runbook_lib.metrics.frames import Frame, align
from runbook_lib.sources.matrix import Matrix, Series

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=60)
FIRST = round(START.timestamp() * 1000)


def series(samples: dict[int, float], **labels: str) -> Series:
    """Samples by number of the grid's point."""
    times = np.array([FIRST + 60_000 * point for point in samples], np.int64)
    return Series(labels, times, np.array(list(samples.values()), float))


def frame(*found: Series, points: int = 4) -> Frame:
    return align("prometheus: up", Matrix(found), START, START + (points - 1) * STEP, STEP)


def test_missing_nan_and_infinite_points_stay_what_they_are() -> None:
    """None of them becomes a finite sample."""
    got = frame(series({0: 1.0, 1: math.nan, 3: math.inf}, a="1"), series({2: -math.inf}, a="2"))
    expected = pd.DataFrame(
        {
            '{a="1"}': [1.0, math.nan, math.nan, math.inf],
            '{a="2"}': [math.nan, math.nan, -math.inf, math.nan],
        },
        index=pd.DatetimeIndex([START + n * STEP for n in range(4)], tz="UTC", name="time").as_unit(
            "ms"
        ),
    )
    pd.testing.assert_frame_equal(got.values, expected)
    assert got.labels == ({"a": "1"}, {"a": "2"})


def test_no_series_is_an_empty_frame_on_the_same_grid() -> None:
    """Whoever judges it has nothing to judge."""
    got = frame()
    assert got.values.shape == (4, 0)
    assert (got.labels, got.partial) == ((), False)


@given(st.dictionaries(st.integers(0, 9), st.floats(), min_size=1))
def test_every_sample_is_at_its_instant(samples: dict[int, float]) -> None:
    """Whatever is missing around it."""
    ordered = dict(sorted(samples.items()))
    got = frame(series(ordered), points=10)
    column = got.values["{}"]
    for point, value in ordered.items():
        at = column.loc[pd.Timestamp(START + point * STEP)]
        assert at == value or (math.isnan(at) and math.isnan(value))
    assert column.notna().sum() == sum(not math.isnan(value) for value in samples.values())


@pytest.mark.parametrize("shift_ms", [1, -60_000, 4 * 60_000])
def test_a_sample_beside_the_grid_is_an_error(shift_ms: int) -> None:
    """Between two points, before the first, after the last."""
    times = np.array([FIRST + shift_ms], np.int64)
    with pytest.raises(SourceError) as caught:
        frame(Series({"a": "b"}, times, np.array([1.0])))
    assert str(caught.value) == (
        'prometheus: up: {a="b"}: expected samples on the grid, got one beside it'
    )


def test_a_partial_answer_stays_partial() -> None:
    """The warning travels with the frame."""
    got = align("p", Matrix((), ("shard down",)), START, START, STEP)
    assert (got.partial, got.warnings) == (True, ("shard down",))


def test_columns_by_a_label() -> None:
    """Each validator has one series, or it is an error."""
    got = frame(series({0: 1.0}, validator="v1"), series({0: 1.0}, validator="v2"))
    assert got.columns_by("validator") == {"v1": '{validator="v1"}', "v2": '{validator="v2"}'}
    with pytest.raises(SourceError) as caught:
        got.columns_by("instance")
    assert str(caught.value) == (
        'prometheus: expected one series per instance, got none in {validator="v1"}'
    )
    twice = frame(series({0: 1.0}, validator="v1", a="1"), series({0: 1.0}, validator="v1", a="2"))
    with pytest.raises(SourceError) as caught:
        twice.columns_by("validator")
    assert str(caught.value) == "prometheus: expected one series per validator, got v1 twice"
