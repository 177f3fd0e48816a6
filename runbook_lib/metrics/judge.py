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
whole cycles: INCONCLUSIVE. A missing point is every value its bounds allow (``windows``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from . import verdict
from .change import Change, compare
from .intervals import Level
from .judgement import Comparison, Judgement, Rule, Side, Statistic
from .windows import Window, observe


def judge(baseline: ArrayLike, current: ArrayLike, rule: Rule, subject: str = "value") -> Judgement:
    """Judge one series: samples in time order at a constant step, NaN where one is missing."""
    before = observe(np.ravel(baseline), rule.range)
    after = observe(np.ravel(current), rule.range)
    return judge_all(before, after, rule, (subject,))[0]


def judge_all(
    baseline: Window, current: Window, rule: Rule, subjects: Sequence[str]
) -> tuple[Judgement, ...]:
    """Judge S series by one rule; both windows have S rows, in the order of ``subjects``.

    Deterministic, and each series is judged on its own: neither order nor company matter.
    """
    rows = (len(baseline.middle), len(current.middle))
    if rows != (len(subjects), len(subjects)):
        raise ValueError(f"judge: rows: expected {len(subjects)} in both windows, got {rows}")
    problems = [verdict.problem(baseline, current, rule, row) for row in range(len(subjects))]
    changes: dict[Statistic, Change] = {}
    if None in problems:
        # Location always: where the mean is not fit to be judged, the tail is not either.
        needed = dict.fromkeys(("location", *rule.judged))
        changes = {each: compare(each, baseline, current, rule) for each in needed}

    def comparison(statistic: Statistic, row: int) -> Comparison:
        problem = problems[row]
        if problem:
            return _comparison(statistic, problem, baseline, current, row, None)
        change = changes[statistic]
        decision = verdict.unfit(
            changes["location"], baseline, current, rule, row
        ) or verdict.verdict(change, baseline, current, rule, row)
        return _comparison(statistic, decision, baseline, current, row, change)

    return tuple(
        Judgement(
            subject=subject,
            rule=rule,
            comparisons=tuple(comparison(statistic, row) for statistic in rule.judged),
        )
        for row, subject in enumerate(subjects)
    )


def _comparison(
    statistic: Statistic,
    decision: verdict.Decision,
    baseline: Window,
    current: Window,
    row: int,
    change: Change | None,
) -> Comparison:
    outcome, reason, more = decision
    return Comparison(
        statistic=statistic,
        outcome=outcome,
        reason=f"{statistic} {reason}",
        estimate=_number(change.estimate[row]) if change else None,
        interval=(_number(change.low[row]), _number(change.high[row])) if change else (None, None),
        baseline=_side(baseline, row, change.baseline.middle if change else None),
        current=_side(current, row, change.current.middle if change else None),
        more_needed=more,
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
