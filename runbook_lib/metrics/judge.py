"""Is the current window no worse than the baseline? PASS, FAIL or INCONCLUSIVE, with proof.

Three-way non-inferiority: PASS when the confidence limits of the change lie inside the tolerance,
FAIL when they lie beyond it, INCONCLUSIVE otherwise, saying how many points are still needed. The
limits are those of ``intervals``: valid under autocorrelation, for the mean ("location") and the
95th percentile ("tail").

Error rates. A truth beyond the tolerance is judged PASS in at most ``RATE`` of all watches, and a
truth inside it FAIL in at most ``RATE``, as long as no more than the declared ``looks`` are taken.
The looks share it by the union bound, so they may be taken at any time. When the caller says which
look this is, the last has half of it and the earlier ones share the other half, which costs the
decisive look little; else each has an equal share. One statistic's FAIL is enough for FAIL, so
location and tail share that rate; PASS needs both, so each may use all of it (intersection-union).
Metrics and validators are not corrected for each other.

Fail closed: fewer than ten effective samples, constant or hardly moving series,
identical windows, values outside their bounds, too many missing points, windows that are not
whole cycles: INCONCLUSIVE. A missing point is every value its bounds allow (``intervals``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ..outcomes import Model, Outcome, worst
from ..playbook import MAX_MISSING
from . import intervals
from .intervals import MIN_POINTS, Bounds, Floats, Kind, Level, Window

# --- What the judge is asked and what it answers ---

Direction = Literal["lower", "higher", "either"]
Statistic = Literal["location", "tail"]

RATE = 0.05
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Rule(Model):
    """What is judged: which way is better, and how much worse is still acceptable.

    ``direction``: "lower" is better, "higher" is better, "either" change is worse.
    ``tolerance``: share of the baseline when ``relative``, else in the unit of the metric.
    ``cycle``: points of a daily cycle, 0 for none; windows must cover whole ones.
    ``looks``: how often this watch is judged at most; ``look``: which one this is, counted from 1;
    a caller says so at every look of a watch or at none.
    """

    direction: Direction
    tolerance: Positive
    relative: bool = True
    kind: Kind = "gauge"
    statistics: tuple[Statistic, ...] = Field(default=("location", "tail"), min_length=1)
    bounds: Bounds = (None, None)
    max_missing: float = Field(default=MAX_MISSING, ge=0, le=MAX_MISSING)
    cycle: int = Field(default=0, ge=0)
    looks: int = Field(default=1, ge=1)
    look: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Rule:
        if len(set(self.statistics)) != len(self.statistics):
            raise ValueError(f"statistics: expected each once, got {self.statistics}")
        if self.look is not None and self.look > self.looks:
            raise ValueError(f"look: expected at most the {self.looks} declared, got {self.look}")
        return self

    @property
    def judged(self) -> tuple[Statistic, ...]:
        """The p95 of a proportion or of sparse counts says nothing: only their mean is judged."""
        return self.statistics if self.kind == "gauge" else ("location",)

    @property
    def range(self) -> Bounds:
        """The declared bounds, or those that the kind implies."""
        implied = {"gauge": (None, None), "proportion": (0.0, 1.0), "count": (0.0, None)}
        low, high = implied[self.kind]
        return (
            low if self.bounds[0] is None else self.bounds[0],
            high if self.bounds[1] is None else self.bounds[1],
        )

    @property
    def rates(self) -> tuple[float, float]:
        """One-sided error rates of the low and of the high limit at this look."""
        if self.look is None or self.looks == 1:
            share = RATE / self.looks
        elif self.look == self.looks:
            share = RATE / 2
        else:
            share = RATE / 2 / (self.looks - 1)
        fail = share / len(self.judged)
        return {"lower": (fail, share), "higher": (share, fail), "either": (fail, fail)}[
            self.direction
        ]


class Side(Model):
    """One window of one series. ``value`` is the statistic, in the unit of the metric."""

    value: float | None
    samples: int
    missing: int
    effective: float


class Comparison(Model):
    """One statistic of one series. Changes are shares of the baseline when the rule is relative.

    An interval's limit is None where the data give none. ``more_needed`` is how many more points
    the current window needs; None when none are, or when no number would do.
    """

    statistic: Statistic
    outcome: Outcome
    reason: str
    estimate: float | None
    interval: Bounds
    baseline: Side
    current: Side
    more_needed: int | None = None


class Judgement(Model):
    """What the judge says of one series; ``comparisons`` has one entry a statistic."""

    subject: str
    rule: Rule
    comparisons: tuple[Comparison, ...] = Field(min_length=1)

    @property
    def outcome(self) -> Outcome:
        return worst(comparison.outcome for comparison in self.comparisons)

    @property
    def decisive(self) -> Comparison:
        """The comparison that made the outcome: the first of the worst."""
        return next(each for each in self.comparisons if each.outcome is self.outcome)

    @property
    def reason(self) -> str:
        if self.outcome is Outcome.PASS:
            return "; ".join(each.reason for each in self.comparisons)
        return self.decisive.reason

    @property
    def more_needed(self) -> int | None:
        """Points the current window still needs, when time would decide; else None."""
        if self.outcome is not Outcome.INCONCLUSIVE:
            return None
        undecided = [each for each in self.comparisons if each.outcome is not Outcome.PASS]
        needed = [each.more_needed for each in undecided if each.more_needed is not None]
        return max(needed) if len(needed) == len(undecided) else None


# --- The changes of all series at once, then what each proves ---


@dataclass(frozen=True)
class Range:
    """Levels of one window: with its gaps at their low bounds, interpolated, at their high ones."""

    down: Level
    middle: Level
    up: Level


@dataclass(frozen=True)
class Change:
    """One statistic of S series; arrays have shape (S,)."""

    baseline: Range
    current: Range
    estimate: Floats
    low: Floats
    high: Floats


def compare(statistic: Statistic, baseline: Window, current: Window, rule: Rule) -> Change:
    """The change of one statistic with the limits that ``rule`` asks for at this look."""
    contrast = intervals.ratio if rule.relative else intervals.difference
    low, high = rule.rates
    # The largest value of each series: as declared, or as seen in either window.
    bound, seen = rule.range[1], np.maximum(baseline.high.max(axis=-1), current.high.max(axis=-1))
    largest = seen if bound is None else np.full(len(current.high), bound)
    # The low limit of a change rests on the low limit of now and the high limit of before.
    before = _levels(statistic, baseline, rule, high, low, largest)
    after = _levels(statistic, current, rule, low, high, largest)
    return Change(
        before,
        after,
        contrast(before.middle, after.middle)[0],
        contrast(before.up, after.down)[1],
        contrast(before.down, after.up)[2],
    )


def _levels(
    statistic: Statistic, window: Window, rule: Rule, low: float, high: float, largest: Floats
) -> Range:
    def measure(series: Floats) -> Level:
        if statistic == "tail":
            return intervals.tail_level(series, low, high, rule.cycle)
        return intervals.mean_level(series, rule.kind, low, high, rule.cycle, largest)

    middle = measure(window.middle)
    if window.low is window.middle:
        return Range(middle, middle, middle)
    # No way to fill the gaps may make a series look calmer than another way does.
    fills = (measure(window.low), middle, measure(window.high))
    below = np.max([fill.estimate - fill.low for fill in fills], axis=0)
    above = np.max([fill.high - fill.estimate for fill in fills], axis=0)
    effective = np.min([fill.effective for fill in fills], axis=0)
    sparse = np.any([fill.sparse for fill in fills], axis=0)
    drifting = np.any([fill.drifting for fill in fills], axis=0)

    def widened(level: Level) -> Level:
        low_limit, high_limit = level.estimate - below, level.estimate + above
        return Level(level.estimate, low_limit, high_limit, effective, sparse, drifting)

    return Range(*map(widened, fills))


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
        text = "a relative tolerance needs a baseline above zero; declare an absolute one"
        return Outcome.INCONCLUSIVE, f"not judged: {text}", None
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
    shown = f"{value:+.1%}" if rule.relative else f"{value:+.4g}"
    return shown if math.isfinite(value) else "unknown"


def judge_all(
    baseline: Window, current: Window, rule: Rule, subjects: Sequence[str]
) -> tuple[Judgement, ...]:
    """Judge S series by one rule; both windows have S rows, in the order of ``subjects``.

    Deterministic, and each series is judged on its own: neither order nor company matter.
    """
    rows = (len(baseline.middle), len(current.middle))
    if rows != (len(subjects), len(subjects)):
        raise ValueError(f"judge: rows: expected {len(subjects)} in both windows, got {rows}")
    problems = [problem(baseline, current, rule, row) for row in range(len(subjects))]
    changes: dict[Statistic, Change] = {}
    if None in problems:
        # Location always: where the mean is not fit to be judged, the tail is not either.
        needed = dict.fromkeys(("location", *rule.judged))
        changes = {each: compare(each, baseline, current, rule) for each in needed}

    def comparison(statistic: Statistic, row: int) -> Comparison:
        decision, change = problems[row], None
        if decision is None:
            change = changes[statistic]
            fit = unfit(changes["location"], baseline, current, rule, row)
            decision = fit or verdict(change, baseline, current, rule, row)
        outcome, reason, more = decision
        return Comparison(
            statistic=statistic,
            outcome=outcome,
            reason=f"{statistic} {reason}",
            estimate=_number(change.estimate[row]) if change else None,
            interval=(_number(change.low[row]), _number(change.high[row]))
            if change
            else (None, None),
            baseline=_side(baseline, row, change.baseline.middle if change else None),
            current=_side(current, row, change.current.middle if change else None),
            more_needed=more,
        )

    return tuple(
        Judgement(
            subject=subject,
            rule=rule,
            comparisons=tuple(comparison(statistic, row) for statistic in rule.judged),
        )
        for row, subject in enumerate(subjects)
    )


def _side(window: Window, row: int, level: Level | None) -> Side:
    return Side(
        value=None if level is None else _number(level.estimate[row]),
        samples=window.points,
        missing=int(window.missing[row]),
        effective=0.0 if level is None else _number(level.effective[row]) or 0.0,
    )


def _number(value: float) -> float | None:
    """Nine digits: the same on every machine, whose last digits differ with its vector units."""
    return float(f"{value:.9g}") if math.isfinite(value) else None
