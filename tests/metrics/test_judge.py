"""The judge: outcomes on clean, regressed, gappy, constant and short data."""

import numpy as np
import pytest
from numpy.typing import NDArray

from runbook_lib.metrics.judge import judge
from runbook_lib.metrics.judgement import Rule
from runbook_lib.outcomes import Outcome

RULE = Rule(direction="lower", tolerance=0.1)
LOCATION = Rule(direction="lower", tolerance=0.1, statistics=("location",))


def ar1(seed: int, points: int = 2000, phi: float = 0.5, sd: float = 0.15) -> NDArray[np.float64]:
    """An AR(1) series around 1."""
    draws = np.random.default_rng(seed).standard_normal(points + 200)
    level, series = 0.0, []
    for draw in draws:
        level = phi * level + np.sqrt(1 - phi**2) * draw
        series.append(level)
    return 1 + sd * np.array(series[200:])


def test_unchanged_series_pass() -> None:
    """Two windows of one process pass, on location and on tail."""
    verdict = judge(ar1(1), ar1(2), RULE)

    assert verdict.outcome is Outcome.PASS
    assert [each.statistic for each in verdict.comparisons] == ["location", "tail"]


@pytest.mark.parametrize(
    ("direction", "factor", "outcome"),
    [
        ("lower", 1.25, Outcome.FAIL),
        ("lower", 0.75, Outcome.PASS),
        ("higher", 0.75, Outcome.FAIL),
        ("higher", 1.25, Outcome.PASS),
        ("either", 1.25, Outcome.FAIL),
        ("either", 0.75, Outcome.FAIL),
        ("either", 1.0, Outcome.PASS),
    ],
)
def test_direction_decides(direction: str, factor: float, outcome: Outcome) -> None:
    """A change of 25 % fails in the bad direction only."""
    rule = Rule.model_validate({"direction": direction, "tolerance": 0.1})

    assert judge(ar1(1), ar1(2) * factor, rule).outcome is outcome
