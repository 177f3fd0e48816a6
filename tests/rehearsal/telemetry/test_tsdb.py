"""Samples in memory and how they are written."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_rehearsal.telemetry.tsdb import KEPT_MS, Store, format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (180.0, "180"),
        (0.1, "0.1"),
        (1.5e7, "15000000"),
        (1e-7, "1e-07"),
        (1e22, "1e+22"),
        (-0.25, "-0.25"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
    ],
)
def test_values_are_printed_as_prometheus_prints_them(value: float, text: str) -> None:
    """No exponent between a millionth and 1e21."""
    assert format_value(value) == text


@given(st.floats(allow_nan=False))
def test_a_printed_value_reads_as_the_same_number(value: float) -> None:
    """Nothing is rounded."""
    assert float(format_value(value)) == value


def test_the_first_sample_of_an_instant_stays() -> None:
    """What comes again, or too late, is dropped."""
    store = Store()
    labels = {"__name__": "x"}
    store.append(labels, np.array([1, 2]), np.array([1.0, 2.0]))
    store.append(labels, np.array([2, 3]), np.array([9.0, 3.0]))

    (series,) = store
    assert (series.times.tolist(), series.values.tolist()) == ([1, 2, 3], [1.0, 2.0, 3.0])


def test_a_series_that_ends_is_marked_once() -> None:
    """A staleness marker follows the last sample, also when it ends between two batches."""
    store = Store()
    labels = {"__name__": "x"}
    there = np.array([True, True])
    store.append_while(labels, np.array([1, 2]), np.ones(2), there)
    store.append_while(labels, np.array([3, 4]), np.ones(2), ~there)
    store.append_while(labels, np.array([5, 6]), np.ones(2), ~there)

    (series,) = store
    assert series.times.tolist() == [1, 2, 3]
    assert series.is_stale().tolist() == [False, False, True]
    assert series.samples().times.tolist() == [1, 2]


def test_what_nobody_looks_back_to_is_dropped() -> None:
    """The days that are kept stay as they were."""
    store, begin, hour = Store(), 1_700_000_000_000, 3_600_000
    for day in range(40):
        times = begin + day * 24 * hour + np.arange(0, 24 * hour, hour)
        store.append({"__name__": "x"}, times, times / 1000.0)
    (series,) = store

    assert series.times[-1] - series.times[0] == KEPT_MS
    assert (np.diff(series.times) == hour).all()
    assert (series.values == series.times / 1000.0).all()
    assert series.times[-1] == times[-1]
