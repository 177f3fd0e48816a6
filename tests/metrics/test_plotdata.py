"""The words and numbers of a figure say what it shows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.metrics.plotdata import (
    Change,
    PlotComparison,
    PlotSeries,
    comparison_data,
    letter,
    number,
    plotted_digest,
    series_data,
    series_words,
)
from runbook_lib.outcomes import Outcome

START = np.datetime64("2026-11-23T13:00:00", "ms")
NAN = float("nan")
INF = float("inf")


def series(*values: float, **more: Any) -> PlotSeries:
    times = START + np.arange(len(values)) * np.timedelta64(15, "s")
    return PlotSeries("Latency", "ms", times, {"dev-1": values}, **more)


def test_words_name_percentiles_limit_samples_and_window() -> None:
    """Everything a panel shows, for who cannot see it."""
    assert series_words(series(100, 200, NAN, 300, limits=(500,))) == (
        "Latency: p5 110 ms, p50 200 ms, p95 290 ms, limit 500 ms; 3 samples, 1 missing, "
        "2026-11-23 13:00:00 to 2026-11-23 13:00:45 UTC"
    )


def test_several_series_name_the_one_that_stands_apart() -> None:
    """The figure draws it apart, so the words name it."""
    two = PlotSeries("Queue", "", [START], {"b": [3], "a": [1], "c": [1]})

    assert series_words(two) == (
        "Queue: p5 1, p50 1, p95 2.8; 3 samples of 3 series (furthest from their median: b), "
        "0 missing, 2026-11-23 13:00:00 to 2026-11-23 13:00:00 UTC"
    )


def test_a_constant_is_called_one() -> None:
    """Zero is a value, and always zero is worth saying."""
    assert series_words(series(0, 0)).startswith("Latency: every sample is 0 ms; 2 samples, ")


@pytest.mark.parametrize("empty", [series(), series(NAN), PlotSeries("Latency", "ms", [], {})])
def test_no_samples_are_said(empty: PlotSeries) -> None:
    """Nothing is not zero."""
    assert series_words(empty).startswith("Latency: no samples, ")
    assert "p50" not in series_data(empty)


def test_left_out_times_count_as_missing_for_every_series() -> None:
    """As NaN does."""
    times = START + np.array([0, 15, 30, 90]) * np.timedelta64(1, "s")
    two = PlotSeries("Latency", "ms", times, {"a": [1, 2, 3, 4], "b": [1, NAN, 3, 4]})

    assert two.missing == 1 + 3 * 2


def test_a_known_step_tells_a_gap_that_the_data_hide() -> None:
    """Every second sample lost looks regular, unless the step is known."""
    times = START + np.arange(3) * np.timedelta64(30, "s")

    assert PlotSeries("a", "", times, {"x": [1, 2, 3]}).missing == 0
    assert PlotSeries("a", "", times, {"x": [1, 2, 3]}, step=15).missing == 2


def test_an_infinite_sample_is_no_sample() -> None:
    """It has no place on an axis."""
    assert series(1, INF).missing == 1


def test_a_pandas_index_with_a_zone_is_taken_as_its_instants() -> None:
    """Frames carry UTC indexes."""
    index = pd.date_range("2026-11-23 14:00", periods=2, freq="15s", tz="Europe/Berlin")
    one = PlotSeries("Latency", "ms", index, {"dev-1": pd.Series([1.0, 2.0], index=index)})

    assert one.grid[0] == START
    assert plotted_digest([one]) == plotted_digest([series(1, 2)])


@pytest.mark.parametrize(
    ("times", "values", "problem"),
    [
        ([START], {"a": [1, 2]}, "Latency: expected one value per time, got ['a']"),
        ([[START]], {}, "Latency: expected one value per time, got (1, 1)"),
        ([START, START], {"a": [1, 2]}, "Latency: expected ascending times"),
    ],
)
def test_data_that_cannot_be_drawn_are_refused(times: Any, values: Any, problem: str) -> None:
    """A wrong figure is worse than none."""
    with pytest.raises(ValueError) as caught:
        PlotSeries("Latency", "ms", times, values)

    assert str(caught.value) == problem


def compared(**more: Any) -> PlotComparison:
    facts: dict[str, Any] = {
        "title": "Latency",
        "changes": (Change("median", 0.1, -0.05, INF), Change("p95", NAN, NAN, NAN)),
        "tolerance": 0.2,
        "direction": "lower",
        "relative": True,
        "outcome": Outcome.INCONCLUSIVE,
        "reason": "too few samples",
    }
    return PlotComparison(**{**facts, **more})


@pytest.mark.parametrize("tolerance", [0.0, -0.1, NAN, INF])
def test_a_tolerance_that_is_none_is_refused(tolerance: float) -> None:
    """Nothing could be drawn in its units."""
    with pytest.raises(ValueError, match=r"^Latency: expected a tolerance above 0, got "):
        compared(tolerance=tolerance)


def test_what_the_judge_cannot_give_is_unbounded_or_unknown() -> None:
    """None is a word of the judge, not a number to draw."""
    assert Change.judged("p95", 0.1, (None, 0.3)) == Change("p95", 0.1, -INF, 0.3)
    assert number(Change.judged("p95", None, (0.1, None)).estimate) == "unknown"


def test_data_for_programs_are_json_with_a_digest() -> None:
    """Unbounded and unknown are words there."""
    data = json.loads(json.dumps(comparison_data([compared()]), allow_nan=False))

    assert data["metrics"][0]["changes"][0] == {
        "name": "median",
        "estimate": 0.1,
        "low": -0.05,
        "high": "unbounded",
    }
    assert data["metrics"][0]["outcome"] == "INCONCLUSIVE"
    assert data["digest"].startswith("sha256:")


@pytest.mark.parametrize(
    "other",
    [
        series(1, 2.5),
        series(1, NAN),
        series(1, 2, limits=(3,)),
        PlotSeries("Latency", "ms", [], {}),
    ],
)
def test_the_digest_is_of_what_is_plotted(other: PlotSeries) -> None:
    """Another sample, gap or limit is another digest."""
    assert plotted_digest([series(1, 2)]) == plotted_digest([series(1, 2)])
    assert plotted_digest([other]) != plotted_digest([series(1, 2)])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (1234.5, "1234"),
        (123456.0, "123,456"),
        (0.00012345, "0.0001234"),
        (NAN, "unknown"),
    ],
)
def test_numbers_have_four_digits(value: float, said: str) -> None:
    """Enough to read, few enough to compare."""
    assert number(value) == said


def test_letters_do_not_run_out() -> None:
    """The twenty-seventh mark is A1."""
    assert [letter(0), letter(25), letter(26), letter(53)] == ["A", "Z", "A1", "B2"]


@given(st.lists(st.floats(width=32), max_size=30))
def test_samples_and_missing_add_up(values: list[float]) -> None:
    """No sample is dropped or invented, whatever it is."""
    one = series(*values)

    assert one.samples.size + one.missing == len(values)
    series_words(one)
