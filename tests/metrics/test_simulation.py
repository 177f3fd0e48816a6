"""The simulations of ``bench/judge.py`` in small: the judge is rarely wrong, and decides when it can.

Few trials, fixed seeds: the thresholds are what such a number allows, not the claims, which the
benchmark measures.
"""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from runbook_lib.metrics.judge import Rule
from runbook_lib.outcomes import Outcome

from ..conftest import benchmark

SHORT, LONG = 240, 10_080
PERIODS = {SHORT: 24, LONG: 1440}
ROUGH: dict[str, Callable[[ModuleType, int], object]] = {
    "walk": lambda bench, points: bench.walk(1.0),
    "noisy walk": lambda bench, points: bench.walk(0.5),
    "shift": lambda bench, points: bench.shift(0.5),
    "cycle": lambda bench, points: bench.cycles(0.5, PERIODS[points]),
    "heavy tails": lambda bench, points: bench.heavy(0.5),
}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The benchmark as a module, drawing fewer series at a time."""
    module = benchmark("judge")
    module.CHUNK = 20  # type: ignore[attr-defined]
    return module


def test_strong_autocorrelation_in_a_short_window_is_not_judged(bench: ModuleType) -> None:
    """Under four effective samples prove nothing either way."""
    found = [
        bench.run(bench.ar1(0.97), change, SHORT, (SHORT,), bench.LOCATION, 100, 1)
        for change in (0.099, 0.101)
    ]

    assert max(found[0].ever_fail, found[1].ever_pass) <= 0.03
    assert found[0].undecided >= 0.9


@pytest.mark.parametrize("phi", [0.5, 0.97])
def test_twelve_looks_of_a_week_are_rarely_wrong_and_decide(bench: ModuleType, phi: float) -> None:
    ends = tuple(LONG * look // 12 for look in range(1, 13))
    same, inside, beyond, worse = (
        bench.run(bench.ar1(phi), change, LONG, ends, bench.BOTH, 20, 3)
        for change in (0.0, 0.099, 0.101, 0.25)
    )

    assert max(same.ever_fail, inside.ever_fail, beyond.ever_pass) <= 0.15
    assert (same.passed, worse.ever_fail) == (1.0, 1.0)


@pytest.mark.parametrize("points", [SHORT, LONG])
@pytest.mark.parametrize("name", ROUGH)
def test_what_is_not_autoregressive_is_rarely_judged_wrong(
    bench: ModuleType, name: str, points: int
) -> None:
    statistics, trials = (bench.LOCATION, 100) if points == SHORT else (bench.BOTH, 20)
    same, inside, beyond = (
        bench.run(ROUGH[name](bench, points), change, points, (points,), statistics, trials, 5)
        for change in (0.0, 0.099, 0.101)
    )

    assert max(inside.ever_fail, beyond.ever_pass) <= (0.1 if points == SHORT else 0.15)
    if points == LONG and name in ("cycle", "heavy tails"):
        assert same.undecided <= 0.5


@pytest.mark.parametrize("length", [1, 10])
def test_shares_of_time_are_rarely_judged_wrong(bench: ModuleType, length: int) -> None:
    rule = Rule(direction="lower", tolerance=0.05, relative=False, kind="proportion")
    wrong = []
    for more, outcome in ((0.0495, Outcome.FAIL), (0.0505, Outcome.PASS)):
        rng, seen = np.random.default_rng(3), list[str]()
        for _ in range(5):
            before = bench.episodes(rng, 2000, 0.01, length)
            seen += bench.judged(before, bench.episodes(rng, 2000, 0.01 + more, length), rule)
        wrong.append(seen.count(outcome) / len(seen))

    assert max(wrong) <= 0.12


def test_kayentas_rule_is_told_from_ours(bench: ModuleType) -> None:
    theirs, ours = bench.alarms(0.9, SHORT, (SHORT,), 0.0, 40).split(", ")

    assert float(theirs.rstrip("%")) > 5
    assert ours == "0.0%"
