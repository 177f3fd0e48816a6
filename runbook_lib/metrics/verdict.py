"""From numbers to PASS, FAIL or INCONCLUSIVE, each with its reason and what would cure it."""

from __future__ import annotations

import math

import numpy as np

from ..outcomes import Outcome
from .change import Change
from .judgement import Rule
from .longrun import MIN_POINTS, Floats
from .windows import Window

MIN_EFFECTIVE = 10.0
"""Below this many independent samples a variance is a guess."""
GAPPY_EFFECTIVE = 1.25 * MIN_EFFECTIVE
"""The same where points are missing: the gaps may hide some of the movement."""
FEW = 8
"""Up to so many values of a share or count, two windows may be equal without being one read twice."""
NEVER = 100
"""A window this many times as long is not worth waiting for."""

Decision = tuple[Outcome, str, int | None]
"""Outcome, reason, and how many more points would help."""


def problem(baseline: Window, current: Window, rule: Rule, row: int) -> Decision | None:
    """Why a series cannot be judged at all."""
    for name, window in (("baseline", baseline), ("current", current)):
        text, more = _window_problem(window, rule, row)
        if not text and rule.kind == "gauge" and _repeats(window.middle[row]):
            text = "holds the same samples over and over: was the same data read twice?"
        if text:
            more = more if name == "current" else None
            return Outcome.INCONCLUSIVE, f"not judged: {name}: {text}", more
    if _identical(baseline.middle[row], current.middle[row], rule):
        text = "both windows hold identical samples: was the same data read twice?"
        return Outcome.INCONCLUSIVE, f"not judged: {text}", None
    return None


def _window_problem(window: Window, rule: Rule, row: int) -> tuple[str, int | None]:
    """What is wrong with a window, or "", and how many more points would mend it."""
    missing, points = int(window.missing[row]), window.points
    if points < MIN_POINTS:
        text = f"expected at least {MIN_POINTS} points, got {points}"
        return text, _whole(MIN_POINTS, rule) - points
    if rule.cycle and points % rule.cycle:
        cycles = f"{points / rule.cycle:.2f}"
        text = f"expected whole cycles of {rule.cycle} points, got {cycles} cycles"
        return text, _whole(points, rule) - points
    if missing > rule.max_missing * points:
        text = f"expected at most {rule.max_missing:.1%} of {points} points missing, got {missing}"
        return text, None
    return window.problems[row], None


def _repeats(series: Floats) -> bool:
    """Whether a series that moves is one stretch repeated: it would look better known than it is."""
    if np.ptp(series) == 0:
        return False
    again = np.flatnonzero(series[: len(series) // 2 + 1] == series[0])[1:]
    return any(
        np.array_equal(series[at : at + 8], series[:8])  # most are told apart by a glance
        and np.array_equal(series[at:], series[:-at])
        for at in again
    )


def _identical(baseline: Floats, current: Floats, rule: Rule) -> bool:
    """Whether one window repeats the other.

    Shares and counts of few values come to the same stretch by themselves: all is well in both, or
    a slot is missed at each epoch's beginning.
    """
    length = min(len(baseline), len(current))
    stretches = ((baseline[:length], current[:length]), (baseline[-length:], current[-length:]))
    return any(
        np.array_equal(before, now) and (rule.kind == "gauge" or len(np.unique(before)) > FEW)
        for before, now in stretches
    )


def unfit(
    change: Change, baseline: Window, current: Window, rule: Rule, row: int
) -> Decision | None:
    """What makes the numbers unfit for a verdict, whatever they say."""
    sides = (
        ("baseline", baseline, change.baseline.middle),
        ("current", current, change.current.middle),
    )
    for name, window, level in sides:
        if rule.kind == "gauge" and level.sparse[row]:
            return Outcome.INCONCLUSIVE, f"not judged: {name} hardly ever moves", None
        needed = GAPPY_EFFECTIVE if window.missing[row] else MIN_EFFECTIVE
        effective = float(level.effective[row])
        if effective < needed:
            growth = needed / effective if effective > 0 else math.inf
            more = _more(growth, window.points, rule) if name == "current" else None
            text = f"not judged: {name} has {effective:.1f} effective samples, needs {needed:g}"
            if more is not None:
                text += f"; about {more} more points would give them"
            return Outcome.INCONCLUSIVE, text, more
        if level.drifting[row]:
            return Outcome.INCONCLUSIVE, f"not judged: {name} drifts or shifts its level", None
    unbounded = rule.kind == "count" and rule.range[1] is None
    if unbounded and not (baseline.high[row].any() or current.high[row].any()):
        text = "not judged: no event in either window and no upper bound says how large one can be"
        return Outcome.INCONCLUSIVE, text, None
    if rule.relative and not change.baseline.down.estimate[row] > 0:
        text = (
            "not judged: a relative tolerance needs a baseline above zero; declare an absolute one"
        )
        return Outcome.INCONCLUSIVE, text, None
    return None


def verdict(change: Change, baseline: Window, current: Window, rule: Rule, row: int) -> Decision:
    """What the limits of one statistic prove."""
    low, high, tolerance = float(change.low[row]), float(change.high[row]), rule.tolerance
    rise, fall = rule.direction != "higher", rule.direction != "lower"
    seen = f"{_amount(float(change.estimate[row]), rule)} ({_amount(low, rule)} to {_amount(high, rule)})"
    limit = f"{_amount(tolerance, rule).lstrip('+')} {_WORSE[rule.direction]}"
    if (high < tolerance or not rise) and (low > -tolerance or not fall):
        return Outcome.PASS, f"{seen}: proven less than {limit}", None
    if (low > tolerance and rise) or (high < -tolerance and fall):
        return Outcome.FAIL, f"{seen}: proven more than {limit}", None
    text = f"{seen}: neither more nor less than {limit} is proven"
    missing = int(baseline.missing[row] + current.missing[row])
    if missing:
        return Outcome.INCONCLUSIVE, f"{text}; {missing} missing points count against it", None
    more = _more(_growth(change, rule, row), current.points, rule)
    if more is None:
        text += "; a longer current window alone would not decide it"
    else:
        text += f"; about {more} more points would decide it"
    return Outcome.INCONCLUSIVE, text, more


_WORSE = {"lower": "higher", "higher": "lower", "either": "away"}


def _growth(change: Change, rule: Rule, row: int) -> float:
    """How many times as long the current window must be to decide, if all stays as it looks.

    Its share of the squared width falls with its length; the baseline's share stays.
    """
    before, after = change.baseline.middle, change.current.middle
    rising = rule.direction == "lower" or (
        rule.direction == "either" and float(change.estimate[row]) > 0
    )
    step = rule.tolerance if rising else -rule.tolerance
    scale = 1 + step if rule.relative else 1.0
    start = float(before.estimate[row])
    gap = float(after.estimate[row]) - (scale * start if rule.relative else start + step)
    if gap < 0:
        own, other = after.high - after.estimate, before.estimate - before.low
    else:
        own, other = after.estimate - after.low, before.high - before.estimate
    room = gap**2 - (scale * float(other[row])) ** 2
    if not room > 0:
        return math.inf
    width = float(own[row])
    if not math.isfinite(width):
        return 2.0  # no width to extrapolate: one more window of the same length
    if after.sparse[row]:
        # Where nothing happens, the width falls with the length; as long as needed is not enough.
        return 1.1 * width / math.sqrt(room)
    return width**2 / room


def _more(growth: float, points: int, rule: Rule) -> int | None:
    if not growth < NEVER:
        return None
    return _whole(max(points + 1, math.ceil(growth * points)), rule) - points


def _whole(points: int, rule: Rule) -> int:
    """Rounded up to whole cycles."""
    return math.ceil(points / rule.cycle) * rule.cycle if rule.cycle else points


def _amount(value: float, rule: Rule) -> str:
    if not math.isfinite(value):
        return "unknown"
    return f"{value:+.1%}" if rule.relative else f"{value:+.4g}"
