"""The judge: outcomes and reasons on clean, regressed, gappy, quiet, drifting and short data."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.signal import lfilter

from runbook_lib.metrics.intervals import observe, pair
from runbook_lib.metrics.judge import Judgement, Rule, judge_all
from runbook_lib.outcomes import Outcome

from ..conftest import benchmark
from ..messages import saying
from .samples import judge

Floats = NDArray[np.float64]

RULE = Rule(direction="lower", tolerance=0.1)
LOCATION = Rule(direction="lower", tolerance=0.1, statistics=("location",))
PROPORTION = Rule(direction="higher", tolerance=0.05, relative=False, kind="proportion")
COUNT = Rule(direction="lower", tolerance=0.05, relative=False, kind="count", bounds=(0.0, 2.0))


def ar1(seed: int, points: int = 2000, phi: float = 0.5, sd: float = 0.15) -> Floats:
    """An AR(1) series around 1, as it is after a while."""
    draws = np.random.default_rng(seed).standard_normal(points + 200)
    series = lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], draws)
    return np.asarray(1 + sd * series[200:])


def with_gaps(series: Floats, *places: int) -> Floats:
    """A copy with NaN at ``places``."""
    gappy = series.copy()
    gappy[list(places)] = np.nan
    return gappy


def blips(height: float) -> Floats:
    """A constant with three blips."""
    series = np.ones(2000)
    series[[100, 900, 1500]] = height
    return series


STEP = np.where(np.arange(2000) < 1000, 0.0, 0.15)
NONE, FULL = np.zeros(2000), np.ones(2000)
MANY = np.random.default_rng(1).poisson(0.5, 2000).astype(float).clip(0, 2)
VOTING = (np.random.default_rng(1).random(2000) < 0.8).astype(float)
WAVE = 0.3 * np.sin(2 * np.pi * np.arange(2000) / 200)
HOUR = np.concatenate(([0.98], np.ones(59)))
BEGUN = np.concatenate(([0.98], np.ones(1440)))
SPREAD = 1 - np.abs(ar1(1)) / 1e6
BOUNDED = LOCATION.model_copy(update={"bounds": (0.0, 2.0)})
WIDE = LOCATION.model_copy(update={"bounds": (0.0, 10.0)})
ABSOLUTE = LOCATION.model_copy(update={"tolerance": 0.05, "relative": False})
CYCLE = RULE.model_copy(update={"cycle": 200})
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
GAPS = range(10, 20)


def reason(verdict: Judgement) -> str:
    """The reason of a series that must not have been decided."""
    assert verdict.outcome is INCONCLUSIVE
    return verdict.reason


def test_unchanged_series_pass() -> None:
    verdict = judge(ar1(1), ar1(2), RULE)

    assert verdict.outcome is PASS
    assert verdict.reason == (
        "location -1.3% (-2.9% to +0.1%): proven less than 10.0% higher; "
        "tail -1.4% (-3.5% to +0.1%): proven less than 10.0% higher"
    )
    assert verdict.more_needed is None
    side = verdict.comparisons[0].baseline
    assert (side.samples, side.missing, side.effective) == pytest.approx((2000, 0, 193.2), abs=0.1)


@pytest.mark.parametrize(
    ("direction", "factor", "outcome"),
    [
        ("lower", 1.25, FAIL), ("lower", 0.75, PASS), ("higher", 0.75, FAIL),
        ("higher", 1.25, PASS), ("either", 1.25, FAIL), ("either", 0.75, FAIL),
        ("either", 1.0, PASS),
    ],
)  # fmt: skip
def test_direction_decides(direction: str, factor: float, outcome: Outcome) -> None:
    rule = Rule.model_validate({"direction": direction, "tolerance": 0.1})

    assert judge(ar1(1), ar1(2) * factor, rule).outcome is outcome


@pytest.mark.parametrize(
    ("before", "after", "rule", "outcome", "said"),
    [
        (ar1(1), ar1(2) * 1.25, LOCATION, FAIL,
         "+23.4% (+21.7% to +25.2%): proven more than 10.0% higher"),
        # An absolute tolerance is in the unit of the metric; it needs no baseline above zero.
        (ar1(1) - 1, ar1(2) - 1, ABSOLUTE, PASS, ""),
        (ar1(1) - 1, ar1(2) - 0.9, ABSOLUTE, FAIL, ""),
        # What stands still for hours in both, but for a restart or a slot at each epoch's start.
        (np.ones(1440), BEGUN, PROPORTION, PASS, ""),
        (BEGUN, np.ones(1440), PROPORTION, PASS, ""),
        (np.tile(HOUR, 24), np.tile(HOUR, 20), PROPORTION, PASS, ""),
        # Full participation is proof in a long window and none in a short one.
        (FULL, FULL, PROPORTION, PASS, ""),
        (FULL[:300], FULL[:300], PROPORTION, INCONCLUSIVE,
         "+0 (-0.08761 to +0.08761): neither more nor less"
         " than 0.05 lower is proven; about 279 more points would decide it"),
        (FULL, VOTING, PROPORTION, FAIL, ""),
        (NONE, NONE, COUNT, PASS, ""),
        (NONE, MANY, COUNT, FAIL, ""),
        (MANY, NONE, COUNT, PASS, ""),
        (ar1(1) + WAVE, ar1(2) + WAVE, CYCLE, PASS, ""),
        # Neither PASS nor FAIL rests on what was not seen.
        (ar1(1), with_gaps(ar1(2), 10), WIDE, PASS, ""),
        (ar1(1), with_gaps(ar1(2), *GAPS), WIDE, INCONCLUSIVE,
         "-1.2% (-9.5% to +11.0%): neither more nor less than"
         " 10.0% higher is proven; 10 missing points count against it"),
        (with_gaps(ar1(1), *GAPS), ar1(2) * 1.25, WIDE, INCONCLUSIVE, ""),
    ],
)  # fmt: skip
def test_two_windows_come_to(
    before: Floats, after: Floats, rule: Rule, outcome: Outcome, said: str
) -> None:
    verdict = judge(before, after, rule)

    assert verdict.outcome is outcome
    assert not said or verdict.reason == f"location {said}"
    assert verdict.more_needed is None or outcome is INCONCLUSIVE
    assert Judgement.model_validate_json(verdict.model_dump_json()) == verdict


def test_tail_alone_fails() -> None:
    slow = ar1(2)
    slow[::10] *= 1.5

    verdict = judge(ar1(1), slow, RULE)

    assert verdict.outcome is FAIL
    found = [(each.statistic, each.outcome) for each in verdict.comparisons]
    assert found == [("location", PASS), ("tail", FAIL)]
    assert verdict.decisive.statistic == "tail"


def test_undecided_says_how_much_longer() -> None:
    before, after = ar1(1, 20_000, 0.9), ar1(8, 20_000, 0.9) * 1.03

    verdict = judge(before, after[:300], LOCATION)

    assert verdict.more_needed == 436
    assert reason(verdict) == (
        "location +5.4% (-1.6% to +12.5%): neither more nor less than 10.0% higher is proven; "
        "about 436 more points would decide it"
    )
    assert judge(before, after[:736], LOCATION).outcome is PASS


def test_change_at_the_tolerance_is_not_waited_for() -> None:
    after = ar1(2)
    after *= 1.1 * ar1(1).mean() / after.mean()

    verdict = judge(ar1(1), after, LOCATION)

    assert verdict.more_needed is None
    assert reason(verdict).endswith("; a longer current window alone would not decide it")


TWICE = "both windows hold identical samples: was the same data read twice?"
OVER = "holds the same samples over and over: was the same data read twice?"
MISSING = "expected at most 2.0% of 2000 points missing, got"
LACKS = {
    "current: expected at least 30 points, got 0": 30,
    "current: expected at least 30 points, got 29": 1,
    "current has 3.5 effective samples, needs 10; about 448 more points would give them": 448,
    "current: expected whole cycles of 200 points, got 9.50 cycles": 100,
}
"""Of the current window alone more can be had."""


@pytest.mark.parametrize(
    ("before", "after", "rule", "why"),
    [
        # Too short, or the same samples twice, also as part of a longer window.
        (ar1(1), ar1(2)[:0], LOCATION, "current: expected at least 30 points, got 0"),
        (ar1(1), ar1(2)[:29], LOCATION, "current: expected at least 30 points, got 29"),
        (ar1(2)[:29], ar1(1), LOCATION, "baseline: expected at least 30 points, got 29"),
        (ar1(1), ar1(1), LOCATION, TWICE),
        (ar1(1), ar1(1)[500:], LOCATION, TWICE),
        (np.tile(ar1(1, 300), 2), ar1(2), RULE, f"baseline: {OVER}"),
        (ar1(2), np.tile(ar1(1, 300), 4)[:1050], RULE, f"current: {OVER}"),
        # A gauge that never moves, has a few blips, or shifts its level.
        *((ar1(1), np.full(2000, x), LOCATION, "current hardly ever moves") for x in (0, 1, 1.05)),
        (blips(1.2), ar1(1), LOCATION, "baseline hardly ever moves"),
        (ar1(1), ar1(2) + STEP, LOCATION, "current drifts or shifts its level"),
        # No event anywhere needs a declared bound; a value beyond one is a wrong unit.
        (NONE, NONE, COUNT.model_copy(update={"bounds": (None, None)}), "no event in either window and"
         " no upper bound says how large one can be"),
        (np.ones(100), np.full(100, 99.0), PROPORTION, "current: a value above its declared bound 1: 99"
         " (wrong unit?)"),
        (np.full(100, -1.0), np.ones(100), COUNT, "baseline: a value below its declared bound 0: -1"
         " (wrong unit?)"),
        # Nothing to compare with, few samples worth, a cycle that is cut.
        (ar1(1) - 1.1, ar1(2) - 1.1, LOCATION,
         "a relative tolerance needs a baseline above zero; declare an absolute one"),
        (SPREAD, SPREAD, PROPORTION, TWICE),
        (ar1(1), ar1(1, 240, 0.97), LOCATION,
         "current has 3.5 effective samples, needs 10; about 448 more points"
         " would give them"),
        (ar1(1) + WAVE, (ar1(2) + WAVE)[:1900], CYCLE,
         "current: expected whole cycles of 200 points, got 9.50 cycles"),
        # Missing and infinite points.
        (ar1(1), with_gaps(ar1(2), 5), LOCATION, "current: 1 of 2000 points missing and no bounds"
         " declared to stand in for them"),
        (with_gaps(ar1(1), *range(41)), ar1(2), BOUNDED, f"baseline: {MISSING} 41"),
        (np.full(2000, np.nan), ar1(2), LOCATION, f"baseline: {MISSING} 2000"),
        (ar1(1), np.append(ar1(2), np.inf), LOCATION, "current: 1 of 2001 points are infinite"),
    ],
)  # fmt: skip
def test_what_proves_nothing_is_not_judged(
    before: Floats, after: Floats, rule: Rule, why: str
) -> None:
    verdict = judge(before, after, rule)

    assert reason(verdict) == f"location not judged: {why}"
    assert verdict.more_needed == LACKS.get(why)


def test_random_walk_proves_nothing() -> None:
    steps = np.random.default_rng(7).standard_normal((2, 20, 1000)).cumsum(axis=-1)
    before, after = (observe(1 + 0.01 * part) for part in steps)

    verdicts = judge_all(before, after, RULE, [str(row) for row in range(20)])

    assert {each.outcome for each in verdicts} == {INCONCLUSIVE}


@pytest.mark.parametrize("unit", [1e-3, 1.0, 3600.0])
def test_unit_of_a_count_does_not_matter(unit: float) -> None:
    few = np.zeros((2, 2000))
    few[0, [50, 700, 1500]] = few[1, [20, 300, 900, 1300]] = unit
    rule = Rule(direction="lower", tolerance=0.03 * unit, relative=False, kind="count")

    assert judge(few[0], few[1], rule).outcome is PASS
    assert judge(few[0][:500], few[1][:500], rule).outcome is INCONCLUSIVE


def test_looks_share_the_error_rate() -> None:
    """The last look has half of the rate; nothing is spent beyond what was declared."""
    rules = [LOCATION.model_copy(update={"looks": 12, "look": look}) for look in range(1, 13)]
    undeclared = LOCATION.model_copy(update={"looks": 12})

    assert sum(rule.rates[1] for rule in rules) == pytest.approx(0.05)
    assert rules[-1].rates == (0.025, 0.025)
    assert undeclared.rates == pytest.approx((0.05 / 12, 0.05 / 12))
    assert RULE.rates == (0.025, 0.05)


def test_rows_must_match() -> None:
    with saying(ValueError, "judge: rows: expected 2 in both windows, got (1, 1)"):
        judge_all(observe(ar1(1)), observe(ar1(2)), RULE, ("a", "b"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": "up"}, {"tolerance": 0.0}, {"tolerance": float("nan")}, {"looks": 0},
        {"looks": 2, "look": 3}, {"max_missing": 0.5}, {"statistics": ()},
        {"statistics": ("tail", "tail")}, {"tolerence": 0.1},
    ],
)  # fmt: skip
def test_wrong_rules_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate({"direction": "lower", "tolerance": 0.1, **wrong})


CHANGES = st.floats(0.85, 1.3)
PHI = st.sampled_from([0.0, 0.5, 0.9])
SEED = st.integers(0, 10_000)


@settings(max_examples=60, deadline=None)
@given(seed=SEED, phi=PHI, change=CHANGES, scale=st.floats(1e-6, 1e6))
def test_unit_does_not_matter(seed: int, phi: float, change: float, scale: float) -> None:
    before, after = ar1(seed, 300, phi), ar1(seed + 1, 300, phi) * change
    plain, scaled = judge(before, after, RULE), judge(before * scale, after * scale, RULE)

    assert scaled.outcome is plain.outcome
    assert scaled.decisive.estimate == pytest.approx(plain.decisive.estimate, rel=1e-6, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=SEED, phi=PHI, change=CHANGES, data=st.data())
def test_order_of_series_does_not_matter(
    seed: int, phi: float, change: float, data: st.DataObject
) -> None:
    before = np.array([ar1(seed + row, 300, phi) for row in range(5)])
    after = np.array([ar1(seed + 10 + row, 300, phi) for row in range(5)])
    before[4] = np.nan
    after *= np.array([[1.0], [change], [1.0], [change**2], [1.0]])
    order = data.draw(st.permutations(range(5)))
    names = list("abcde")
    plain = judge_all(observe(before), observe(after), RULE, names)
    assert plain[1] == judge(before[1], after[1], RULE, "b")

    turned = [names[row] for row in order]
    mixed = judge_all(observe(before[order]), observe(after[order]), RULE, turned)

    assert mixed == tuple(plain[row] for row in order)


@settings(max_examples=60, deadline=None)
@given(seed=SEED, phi=PHI, change=CHANGES, looks=st.integers(2, 50))
def test_more_looks_never_decide_more(seed: int, phi: float, change: float, looks: int) -> None:
    before, after = ar1(seed, 300, phi), ar1(seed + 1, 300, phi) * change
    once, again = judge(before, after, RULE), judge(before, after, RULE)
    often = judge(before, after, RULE.model_copy(update={"looks": looks}))

    assert again == once
    assert often.outcome in (once.outcome, INCONCLUSIVE)


def without_points(
    before: Floats, after: Floats, rule: Rule, window: str, start: int, length: int
) -> None:
    """What does not pass whole does not pass without some points of a window, or of both."""
    places = [place % len(before) for place in range(start, start + length)]
    full = judge(before, after, rule)
    gappy = judge(
        before if window == "current" else with_gaps(before, *places),
        after if window == "baseline" else with_gaps(after, *places),
        rule,
    )
    assert full.outcome is PASS or gappy.outcome is not PASS


@settings(max_examples=150, deadline=None)
@given(
    seed=SEED, phi=PHI, change=CHANGES, direction=st.sampled_from(["lower", "higher", "either"]),
    window=st.sampled_from(["baseline", "current", "both"]), start=st.integers(0, 299),
    length=st.integers(1, 8), high=st.floats(2.5, 100.0), bounded=st.booleans(),
)  # fmt: skip
def test_missing_points_never_help(
    seed: int,
    phi: float,
    change: float,
    direction: str,
    window: str,
    start: int,
    length: int,
    high: float,
    bounded: bool,
) -> None:
    bounds = (0.0, high) if bounded else (None, None)
    rule = Rule.model_validate({"direction": direction, "tolerance": 0.1, "bounds": bounds})
    before, after = ar1(seed, 300, phi).clip(0, 1.8), ar1(seed + 1, 300, phi).clip(0, 1.8) * change
    without_points(before, after, rule, window, start, length)


@settings(max_examples=100, deadline=None)
@given(
    seed=SEED, share=st.floats(0.0, 0.2), change=st.floats(-0.1, 0.2),
    window=st.sampled_from(["baseline", "current"]), start=st.integers(0, 599),
    length=st.integers(1, 12),
)  # fmt: skip
def test_missing_points_never_help_a_proportion(
    seed: int, share: float, change: float, window: str, start: int, length: int
) -> None:
    rule = Rule(direction="lower", tolerance=0.08, relative=False, kind="proportion")
    draws = np.random.default_rng(seed).random((2, 600))
    before, after = (draws < [[share], [share + change]]).astype(float)
    without_points(before, after, rule, window, start, length)


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    kind=st.sampled_from(["gauge", "proportion", "count"]),
    relative=st.booleans(),
    points=st.integers(0, 120),
)
def test_any_numbers_get_an_answer(
    data: st.DataObject, kind: str, relative: bool, points: int
) -> None:
    number = st.floats(allow_nan=True, allow_infinity=True, width=64) | st.sampled_from([0.0, 1.0])
    windows = [data.draw(st.lists(number, min_size=points, max_size=points)) for _ in range(2)]
    given = {"direction": "either", "tolerance": 0.1, "kind": kind, "relative": relative}
    rule = Rule.model_validate(given)

    verdict = judge(windows[0], windows[1], rule)

    assert Judgement.model_validate_json(verdict.model_dump_json()) == verdict
    assert verdict.reason


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_error_rates_hold_in_simulation(phi: float) -> None:
    """Beside the tolerance, 400 pairs are judged wrong about as often as the nominal 5 %."""
    before = np.array([ar1(seed, 240, phi) for seed in range(400)])
    after = np.array([ar1(seed, 240, phi) for seed in range(400, 800)])
    names = [str(row) for row in range(400)]

    inside = judge_all(observe(before), observe(after * 1.099), LOCATION, names)
    beyond = judge_all(observe(before), observe(after * 1.101), LOCATION, names)

    assert sum(each.outcome is FAIL for each in inside) <= 28
    assert sum(each.outcome is PASS for each in beyond) <= 28


# --- Windows: what stands in for missing points, and what cancels in a pair ---


GAPPY = [[1.0, np.nan, 3.0, 4.0]]


def members(seed: int, count: int, points: int = 2000, factor: float = 1.0) -> Floats:
    """Validators that share a slow weather and have noise of their own."""
    rng = np.random.default_rng(seed)
    weather = 1 + 0.5 * np.sin(np.cumsum(0.05 * rng.standard_normal(points)))
    return factor * weather * (1 + 0.05 * rng.standard_normal((count, points)))


def test_missing_points_span_their_bounds() -> None:
    """A gap is as low and as high as the metric can be, and interpolated in between."""
    window = observe(GAPPY, (0.0, 9.0))

    np.testing.assert_array_equal(window.low, [[1, 0, 3, 4]])
    np.testing.assert_array_equal(window.middle, [[1, 2, 3, 4]])
    np.testing.assert_array_equal(window.high, [[1, 9, 3, 4]])
    np.testing.assert_array_equal(window.missing, [1])


@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (None, 9.0)])
def test_missing_points_need_both_bounds(bounds: tuple[float | None, float | None]) -> None:
    assert observe(GAPPY, bounds).problems == (
        "1 of 4 points missing and no bounds declared to stand in for them",
    )


def test_memory_layout_does_not_matter() -> None:
    """The transpose of a frame is judged to the last digit like a copy of it."""
    frame = np.asfortranarray(members(1, 3))

    assert observe(frame).middle.flags.c_contiguous


@pytest.mark.parametrize(
    ("own", "weather", "broken", "outcome"),
    [((1, 1), 1.5, 1, PASS), ((2, 2.5), 1.0, 1, FAIL), ((1, 1.25), 1.0, 100, FAIL)],
    ids=["the weather cancels", "slower than before", "one of the rest hangs"],
)
def test_a_canary_is_judged_against_the_rest_at_the_same_time(
    own: tuple[float, float], weather: float, broken: float, outcome: Outcome
) -> None:
    before, after = members(1, 8), members(2, 8, factor=weather)
    before[0] *= own[0]
    after[0] *= own[1]
    after[3] *= broken
    paired = [pair(observe(w[0]), observe(w[1:]), relative=True) for w in (before, after)]

    (found,) = judge_all(*paired, RULE, ("canary",))
    assert found.outcome is outcome


def test_differences_pair_in_the_unit_of_the_metric() -> None:
    rest = observe([[1.0, 1.0], [2.0, 3.0], [9.0, 9.0]])
    paired = pair(observe([5.0, 6.0]), rest, relative=False)

    np.testing.assert_array_equal(paired.middle, [[3.0, 3.0]])
    assert paired.low is paired.middle


def test_missing_points_of_either_side_widen_a_pair() -> None:
    own = observe([[2.0, np.nan, 2.0]], (1.0, 4.0))
    rest = observe([[1.0, 1.0, np.nan]], (0.5, 2.0))

    paired = pair(own, rest, relative=True)

    np.testing.assert_array_equal(paired.low, [[2.0, 1.0, 1.0]])
    np.testing.assert_array_equal(paired.high, [[2.0, 4.0, 4.0]])
    np.testing.assert_array_equal(paired.missing, [2])


@pytest.mark.parametrize(
    ("own", "rest", "problem"),
    [
        ([1.0, 2.0], np.empty((0, 2)), "rest of the set: nobody to compare with"),
        ([1.0, 2.0], [[1.0, np.inf]], "rest of the set: 1 of 2 points are infinite"),
        ([1.0, 2.0], [[0.0, 1.0]], "rest of the set: a ratio needs values above zero"),
        ([-1.0, 2.0], [[1.0, 1.0]], "a ratio needs values of zero or above"),
        ([np.nan, np.nan], [[1.0, 1.0]], "no data"),
    ],
)
def test_impossible_pairs_say_why(own: list[float], rest: Floats, problem: str) -> None:
    assert pair(observe(own), observe(rest), relative=True).problems == (problem,)


def test_an_impossible_pair_is_flat_and_leaves_the_others() -> None:
    paired = pair(observe([[2.0, 4.0], [-1.0, 1.0]]), observe([[2.0, 2.0]]), relative=True)

    np.testing.assert_array_equal(paired.middle, [[1.0, 2.0], [0.0, 0.0]])


def test_pairs_must_cover_the_same_instants() -> None:
    with saying(ValueError, "pair: points: expected 3 as in the rest, got 2"):
        pair(observe([1.0, 2.0]), observe([[1.0, 2.0, 3.0]]), relative=False)


# --- Simulations of ``bench/judge.py`` in small ---------------------------------------------------


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
