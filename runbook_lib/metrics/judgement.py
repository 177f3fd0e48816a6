"""What the judge is asked and what it answers: rules and judgements as frozen models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..outcomes import Model, Outcome, worst
from ..playbook import MAX_MISSING
from .intervals import Kind

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
