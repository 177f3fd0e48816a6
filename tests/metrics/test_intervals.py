"""Limits of levels and changes, against textbook values and against what must hold of any limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from runbook_lib.metrics.intervals import (
    Level,
    _read_off,
    difference,
    long_run,
    mean_level,
    ratio,
    tail_level,
)

Floats = NDArray[np.float64]


def level(estimate: float, low: float, high: float) -> Level:
    """A level of one series."""
    flag = np.zeros(1, dtype=np.bool_)
    return Level(*(np.array([each]) for each in (estimate, low, high, 100.0)), flag, flag)


def white(seed: int, rows: int, points: int) -> Floats:
    return 1 + 0.15 * np.random.default_rng(seed).standard_normal((rows, points))


def test_white_noise_has_its_textbook_variance() -> None:
    """Of independent samples the variance of the mean is sd squared over n."""
    run = long_run(white(1, 2000, 240))

    assert run.variance.mean() == pytest.approx(0.15**2 / 240, rel=0.03)
    assert np.median(run.effective) == pytest.approx(240, rel=0.1)
    assert run.drifting.mean() < 0.002


def test_autocorrelation_counts() -> None:
    """Samples that all come in fours are worth a quarter of their number."""
    run = long_run(np.repeat(white(1, 500, 250), 4, axis=-1))

    assert run.variance.mean() == pytest.approx(0.15**2 / 250, rel=0.05)


def test_limits_cover_the_mean_and_the_percentile_at_their_rate() -> None:
    mean = mean_level(white(2, 4000, 240), "gauge", 0.05, 0.01, 0, np.ones(4000))
    tail, truth = tail_level(white(3, 4000, 1000), 0.05, 0.05, 0), 1 + 0.15 * 1.6448536

    assert (mean.low > 1).mean() == pytest.approx(0.05, abs=0.01)
    assert (mean.high < 1).mean() == pytest.approx(0.01, abs=0.005)
    assert (tail.low > truth).mean() == pytest.approx(0.05, abs=0.012)
    assert (tail.high < truth).mean() == pytest.approx(0.05, abs=0.012)
    few = tail_level(white(3, 1, 40), 0.05, 0.05, 0)  # two points are beyond their p95
    assert (few.low[0], few.high[0]) == (-np.inf, np.inf)


@given(st.floats(0, 1), st.integers(2, 40))
def test_a_percentile_is_hazens(share: float, points: int) -> None:
    ordered = np.sort(white(3, 1, points))
    expected = np.quantile(ordered, share, axis=-1, method="hazen")

    assert _read_off(ordered, np.array([share])) == pytest.approx(expected)


def test_nothing_happened_is_not_never_happens() -> None:
    """No event in 2400 points, 240 trials, leaves a limit near 3 / 240: the rule of three."""
    quiet = mean_level(np.zeros((1, 2400)), "proportion", 0.05, 0.05, 0, np.ones(1))

    assert quiet.low[0] == pytest.approx(0, abs=1e-12)
    assert quiet.high[0] == pytest.approx(3 / 240, rel=0.1)


@pytest.mark.parametrize("kind", ["proportion", "count"])
def test_limits_stay_in_range(kind: str) -> None:
    rare = (np.random.default_rng(1).random((200, 240)) < 0.02).astype(float)
    found = mean_level(rare, kind, 0.001, 0.001, 0, np.ones(200))  # type: ignore[arg-type]

    assert found.low.min() >= 0
    assert found.high.max() <= 1


def test_difference_adds_in_quadrature() -> None:
    """Of symmetric limits MOVER gives the classical interval."""
    change, low, high = difference(level(1.0, 0.7, 1.3), level(2.0, 1.6, 2.4))

    assert (change[0], low[0], high[0]) == pytest.approx((1.0, 0.5, 1.5))


def test_ratio_is_fiellers_for_symmetric_limits() -> None:
    """Of symmetric limits MOVER's ratio solves Fieller's equation."""
    change, low, high = ratio(level(10.0, 9.0, 11.0), level(12.0, 10.0, 14.0))

    assert change[0] == pytest.approx(0.2)
    for limit in (low[0], high[0]):
        assert (12 - (1 + limit) * 10) ** 2 == pytest.approx(4 + (1 + limit) ** 2)


def test_ratio_to_what_may_be_zero_is_unbounded_and_to_less_unknown() -> None:
    change, low, high = ratio(level(1.0, -0.1, 2.1), level(2.0, 1.5, 2.5))
    assert (change[0], low[0] < 1.0, high[0]) == (1.0, True, np.inf)

    change, low, high = ratio(level(-1.0, -2.0, -0.5), level(2.0, 1.5, 2.5))
    assert np.isnan(change[0])
    assert (low[0], high[0]) == (-np.inf, np.inf)


SPREAD = st.floats(0.0, 5.0)


@given(st.floats(0.01, 10.0), st.floats(0.0, 10.0), st.tuples(SPREAD, SPREAD, SPREAD, SPREAD))
def test_limits_of_a_ratio_enclose_it(base: float, now: float, spreads: tuple[float, ...]) -> None:
    before, after = (base - spreads[0], base + spreads[1]), (now - spreads[2], now + spreads[3])
    change, low, high = ratio(level(base, *before), level(now, *after))

    assert low[0] - 1e-9 <= change[0] <= high[0] + 1e-9


def test_a_drift_is_told_from_the_lowest_tenth_of_the_spectrum() -> None:
    """A drift that a tenth of the ordinates tells, and an eleventh does not."""
    dice = np.random.default_rng(57)
    series, noise = np.zeros(400), dice.standard_normal(400)
    for at in range(1, 400):
        series[at] = 0.5 * series[at - 1] + noise[at]

    assert long_run((series + np.linspace(0, 1.2, 400))[None]).drifting.tolist() == [True]
