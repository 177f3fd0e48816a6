"""How far one statistic of two windows lies apart, gaps in either taken at their worst."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import intervals
from .intervals import Level
from .judgement import Rule, Statistic
from .longrun import Floats
from .windows import Window


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
    # The low limit of a change rests on the low limit of now and the high limit of before.
    largest = _largest(baseline, current, rule)
    before = _levels(statistic, baseline, rule, high, low, largest)
    after = _levels(statistic, current, rule, low, high, largest)
    return Change(
        before,
        after,
        contrast(before.middle, after.middle)[0],
        contrast(before.up, after.down)[1],
        contrast(before.down, after.up)[2],
    )


def _largest(baseline: Window, current: Window, rule: Rule) -> Floats:
    """The largest value of each series: as declared, or as seen in either window."""
    bound = rule.range[1]
    if bound is not None:
        return np.full(len(current.high), bound)
    largest: Floats = np.maximum(baseline.high.max(axis=-1), current.high.max(axis=-1))
    return largest


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
