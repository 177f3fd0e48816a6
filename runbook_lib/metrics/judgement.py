"""What the judge is asked and what it answers: rules and judgements as frozen models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from ..outcomes import Model, Outcome, worst
from ..playbook import MAX_MISSING
from .intervals import Floats, Kind

# --- Windows of samples, and what stands in for missing points ---
#
# A missing point (NaN) is not left out, which would let a dying exporter look healthy. It is kept as
# the two values it could have had at worst, by the metric's declared bounds, so that a verdict must
# hold whichever it was. Without bounds nothing can be said about it, and the judge says so.

Bounds = tuple[float | None, float | None]

LARGEST = 1e100
"""No metric is larger, and the square of what is smaller can be computed with."""


@dataclass(frozen=True)
class Window:
    """S series of n points: ``low`` <= truth <= ``high``, each of shape (S, n).

    ``middle`` has missing points interpolated in time, for judging how the series moves. Nothing
    missing: all three are the same array. ``missing`` counts points, shape (S,); ``problems``
    says for each series why it cannot be judged, or "".
    """

    low: Floats
    middle: Floats
    high: Floats
    missing: NDArray[np.int64]
    problems: tuple[str, ...]

    @property
    def points(self) -> int:
        return int(self.middle.shape[-1])


def observe(values: ArrayLike, bounds: Bounds = (None, None)) -> Window:
    """A window from samples in time order, shape (n,) or (S, n), NaN where one is missing.

    ``bounds`` are the lowest and highest value the metric can have, in its unit.
    """
    # Contiguous, so that sums come out the same to the last digit whatever the memory layout.
    seen = np.ascontiguousarray(np.atleast_2d(np.asarray(values, dtype=np.float64)))
    gaps = np.isnan(seen)
    missing = gaps.sum(axis=-1)
    problems = tuple(
        _problem(row, int(count), bounds) for row, count in zip(seen, missing, strict=True)
    )
    # Series with a problem are never judged; zeros keep the arithmetic of the others vectorised.
    bad = np.array([bool(problem) for problem in problems], dtype=np.bool_)
    if bad.any():
        seen = np.where(bad[:, None], 0.0, seen)
        gaps &= ~bad[:, None]
    if not gaps.any():
        return Window(seen, seen, seen, missing, problems)
    low, high = (float(bound) for bound in bounds if bound is not None)
    return Window(
        np.where(gaps, low, seen),
        _interpolated(seen, gaps),
        np.where(gaps, high, seen),
        missing,
        problems,
    )


def pair(own: Window, rest: Window, *, relative: bool) -> Window:
    """Each own series against the rest of the set at the same time: ratio or difference.

    What moves all members alike (weather, load) cancels. ``rest`` holds one row a member; the
    median over members is taken, so that one broken member cannot hide a regression. Comparing
    the result of two windows is a difference in differences. The windows must cover the same
    instants; a missing point of either side stays as wide as both could make it.
    """
    if own.points != rest.points:
        raise ValueError(f"pair: points: expected {rest.points} as in the rest, got {own.points}")
    problems = tuple(
        problem
        or _rest_problem(rest, relative)
        or ("a ratio needs values of zero or above" if relative and row.min() < 0 else "")
        for problem, row in zip(own.problems, own.low, strict=True)
    )
    usable = np.array([not problem for problem in problems], dtype=np.bool_)[:, None]

    def against(mine: Floats, others: Floats) -> Floats:
        if not usable.any():
            return np.zeros_like(mine)
        other = np.median(others, axis=0)
        return np.where(usable, mine / other if relative else mine - other, 0.0)

    middle = against(own.middle, rest.middle)
    if own.low is own.middle and rest.low is rest.middle:
        return Window(middle, middle, middle, own.missing, problems)
    low, high = against(own.low, rest.high), against(own.high, rest.low)
    missing = own.missing + int(np.ceil(rest.missing.sum() / max(1, len(rest.missing))))
    return Window(low, middle, high, missing, problems)


def _rest_problem(rest: Window, relative: bool) -> str:
    if not len(rest.low):
        return "rest of the set: nobody to compare with"
    for problem in rest.problems:
        if problem:
            return f"rest of the set: {problem}"
    if relative and not np.median(rest.low, axis=0).min() > 0:
        return "rest of the set: a ratio needs values above zero"
    return ""


def _problem(row: Floats, missing: int, bounds: Bounds) -> str:
    low, high = bounds
    if missing == len(row):
        return "no data"
    infinite = int(np.sum(np.abs(row) > LARGEST))
    if infinite:
        return f"{infinite} of {len(row)} points are infinite"
    if missing and (low is None or high is None):
        return f"{missing} of {len(row)} points missing and no bounds declared to stand in for them"
    if low is not None and np.nanmin(row) < low:
        return f"a value below its declared bound {low:g}: {np.nanmin(row):g} (wrong unit?)"
    if high is not None and np.nanmax(row) > high:
        return f"a value above its declared bound {high:g}: {np.nanmax(row):g} (wrong unit?)"
    return ""


def _interpolated(seen: Floats, gaps: NDArray[np.bool_]) -> Floats:
    filled = seen.copy()
    place = np.arange(seen.shape[-1])
    for row in np.flatnonzero(gaps.any(axis=-1)):
        gap = gaps[row]
        filled[row, gap] = np.interp(place[gap], place[~gap], seen[row, ~gap])
    return filled


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
    bounds: tuple[float | None, float | None] = (None, None)
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
    def range(self) -> tuple[float | None, float | None]:
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
    interval: tuple[float | None, float | None]
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
