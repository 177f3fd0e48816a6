"""Windows: what stands in for missing points, and what cancels in a pair."""

import numpy as np
import pytest
from numpy.typing import NDArray

from runbook_lib.metrics.judge import judge_all
from runbook_lib.metrics.judgement import Rule, Window, observe, pair
from runbook_lib.outcomes import Outcome

Floats = NDArray[np.float64]

RULE = Rule(direction="lower", tolerance=0.1)
GAPPY = [[1.0, np.nan, 3.0, 4.0]]


def members(seed: int, count: int, points: int = 2000, factor: float = 1.0) -> Floats:
    """Validators that share a slow weather and have noise of their own."""
    rng = np.random.default_rng(seed)
    weather = 1 + 0.5 * np.sin(np.cumsum(0.05 * rng.standard_normal(points)))
    return factor * weather * (1 + 0.05 * rng.standard_normal((count, points)))


def outcome(before: Window, after: Window) -> Outcome:
    return judge_all(before, after, RULE, ("canary",))[0].outcome


def test_nothing_missing_is_one_array() -> None:
    """A complete window holds its samples once."""
    window = observe([1.0, 2.0, 3.0])

    assert window.low is window.middle is window.high
    assert (window.points, window.problems) == (3, ("",))


def test_missing_points_span_their_bounds() -> None:
    """A gap is as low and as high as the metric can be, and interpolated in between."""
    window = observe(GAPPY, (0.0, 9.0))

    np.testing.assert_array_equal(window.low, [[1, 0, 3, 4]])
    np.testing.assert_array_equal(window.middle, [[1, 2, 3, 4]])
    np.testing.assert_array_equal(window.high, [[1, 9, 3, 4]])
    np.testing.assert_array_equal(window.missing, [1])


@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (None, 9.0)])
def test_missing_points_need_both_bounds(bounds: tuple[float | None, float | None]) -> None:
    """Half a range is no range."""
    assert observe(GAPPY, bounds).problems == (
        "1 of 4 points missing and no bounds declared to stand in for them",
    )


def test_memory_layout_does_not_matter() -> None:
    """The transpose of a frame is judged to the last digit like a copy of it."""
    frame = np.asfortranarray(members(1, 3))

    assert observe(frame).middle.flags.c_contiguous


def test_common_weather_cancels() -> None:
    """A canary is judged against the rest at the same time, whatever the weather did."""
    before, after = members(1, 8), members(2, 8, factor=1.5)

    alone = judge_all(observe(before[0]), observe(after[0]), RULE, ("canary",))[0]
    paired = outcome(
        pair(observe(before[0]), observe(before[1:]), relative=True),
        pair(observe(after[0]), observe(after[1:]), relative=True),
    )

    assert alone.outcome is not Outcome.PASS
    assert paired is Outcome.PASS


def test_regressed_canary_fails() -> None:
    """A canary that got slower than the rest did fails, although it was always slower."""
    before, after = members(1, 8), members(2, 8)
    before[0] *= 2
    after[0] *= 2 * 1.25

    paired = outcome(
        pair(observe(before[0]), observe(before[1:]), relative=True),
        pair(observe(after[0]), observe(after[1:]), relative=True),
    )

    assert paired is Outcome.FAIL


def test_broken_member_does_not_hide_a_regression() -> None:
    """One member of the rest that hangs does not make the canary look good."""
    before, after = members(1, 8), members(2, 8)
    after[0] *= 1.25
    after[3] *= 100

    paired = outcome(
        pair(observe(before[0]), observe(before[1:]), relative=True),
        pair(observe(after[0]), observe(after[1:]), relative=True),
    )

    assert paired is Outcome.FAIL


def test_differences_pair_in_the_unit_of_the_metric() -> None:
    """An absolute pair is own minus the rest's median."""
    paired = pair(
        observe([5.0, 6.0]), observe([[1.0, 1.0], [2.0, 3.0], [9.0, 9.0]]), relative=False
    )

    np.testing.assert_array_equal(paired.middle, [[3.0, 3.0]])
    assert paired.low is paired.middle


def test_missing_points_of_either_side_widen_a_pair() -> None:
    """A pair is as uncertain as both of its sides."""
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
    """What cannot be paired is not judged."""
    paired = pair(observe(own), observe(rest), relative=True)

    assert paired.problems == (problem,)


def test_an_impossible_pair_is_flat_and_leaves_the_others() -> None:
    """What is not judged cannot trouble the arithmetic of those that are."""
    paired = pair(observe([[2.0, 4.0], [-1.0, 1.0]]), observe([[2.0, 2.0]]), relative=True)

    np.testing.assert_array_equal(paired.middle, [[1.0, 2.0], [0.0, 0.0]])


def test_pairs_must_cover_the_same_instants() -> None:
    """Windows of different length are a programming error."""
    with pytest.raises(ValueError, match=r"^pair: points: expected 3 as in the rest, got 2$"):
        pair(observe([1.0, 2.0]), observe([[1.0, 2.0, 3.0]]), relative=False)
