"""Baseline against current, metric by metric: judged where the two are comparable."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..outcomes import Row, check_row, unknown_row
from ..wording import quantity, share
from .baseline import Measured, called
from .catalogue import LOAD, Metric
from .frames import STEP, Stretch, cut
from .intervals import Window, observe, pair
from .judge import Judgement, Rule, judge_all

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Compared:
    """One metric. ``incomparable`` says why it was not judged; else ``judgements`` has its series."""

    metric: Metric
    judgements: tuple[Judgement, ...] = ()
    incomparable: str = ""

    def rows(
        self, what: str, due: Callable[[int], datetime | None] = lambda points: None
    ) -> list[Row]:
        """A row a judgement; ``due`` says when so many more points will have been seen."""
        expected = f"proven within {tolerance_words(self.metric)}"
        if not self.judgements:
            return [
                unknown_row(
                    self.metric.name, what, expected, f"not comparable: {self.incomparable}"
                )
            ]
        return [
            check_row(
                f"{self.metric.name} {one.subject}".rstrip(), what, expected, one.reason, one.outcome,
                return_at=due(one.more_needed) if one.more_needed else None,
            )
            for one in self.judgements
        ]  # fmt: skip


def tolerance_words(metric: Metric) -> str:
    """``+10 %`` or ``-5 ms``: the change on the worse side that is still fine."""
    sign = {"lower": "+", "higher": "-", "either": "±"}[metric.direction]
    amount = share(metric.tolerance.amount, metric.tolerance.absolute is None, metric.unit)
    return sign + amount.lstrip("+")


def compare(
    metrics: Sequence[Metric],
    baseline: Measured,
    current: Measured,
    *,
    load: Metric | None,
    names: Mapping[str, str],
    restarts: Sequence[Stretch] = (),
    canaries: Collection[str] = (),
    paired: bool = False,
    **asked: Any,
) -> list[Compared]:
    """Every metric against its baseline, where the clusters had the same ``load``.

    ``names`` maps a validator's address to what the site calls its node; ``restarts`` are planned
    ones, cut out of the current window; ``asked`` are fields of a Rule, the same for every metric.
    A metric whose windows were not measured alike, or not under the same load, is not judged, hence
    INCONCLUSIVE.

    With ``canaries``, names of nodes, a metric of each validator is judged of them alone; ``paired``
    against the other validators at the same instants, then as now.
    """

    def compared(metric: Metric) -> Compared:
        if problem := incomparable(metric, load, baseline, current):
            return Compared(metric, incomparable=problem)
        rule = rule_of(metric, **asked)
        before = _window(baseline.frames[metric.name], rule)
        after = cut(_window(current.frames[metric.name], rule), restarts)
        every = list(before.columns)
        series = every
        if canaries and metric.per == "validator":
            series = [each for each in every if called(each, names) in canaries]
            silent = set(canaries) - {called(each, names) for each in series}
            if silent and series:
                problem = f"canaries: expected a series of each, got none of {_few(silent)}"
                return Compared(metric, incomparable=problem)
        if not series:
            return Compared(metric, incomparable="canaries: none of the series is of one")
        bounds = rule.range
        others = [each for each in every if each not in series]

        def seen(frame: pd.DataFrame) -> Window:
            own = observe(frame[series].to_numpy().T, bounds)
            if not paired:
                return own
            rest = observe(frame[others].to_numpy().T, bounds)
            return pair(own, rest, relative=rule.relative)

        # A ratio or a difference is no proportion or count, and has bounds of its own.
        change = {"kind": "gauge", "bounds": (None, None)} if paired else {}
        subjects = [called(name, names) for name in series]
        judged = judge_all(seen(before), seen(after), rule.model_copy(update=change), subjects)
        return Compared(metric, judged)

    return [compared(metric) for metric in metrics]


def rule_of(metric: Metric, **asked: Any) -> Rule:
    """The judge's rule for a metric of the catalogue, sampled at ``STEP``; ``asked`` are its other
    fields."""
    return Rule(
        direction=metric.direction,
        tolerance=metric.tolerance.amount,
        relative=metric.tolerance.absolute is None,
        kind=metric.kind,
        bounds=(metric.bounds.min, metric.bounds.max) if metric.bounds else (None, None),
        cycle=timedelta(hours=metric.cycle_hours or 0) // STEP,
        **asked,
    )


def incomparable(metric: Metric, load: Metric | None, baseline: Measured, current: Measured) -> str:
    """Why a metric's two windows do not measure the same thing, or "".

    Their loads are compared as they were, not as samples of something: what was asked for is known.
    """
    if metric.name not in baseline.queries:
        return "none of it was pinned"
    then, now = baseline.about, current.about

    def asked(name: str) -> tuple[str, str]:
        return baseline.queries.get(name, "none"), current.queries.get(name, "none")

    facts: dict[str, tuple[object, object]] = {
        "cluster": (then.cluster, now.cluster),
        "validators": (then.validators, now.validators),
        "epoch length": (then.epoch_length, now.epoch_length),
        "query": asked(metric.name),
    }
    for what, (before, after) in facts.items():
        if before != after:
            return f"{what}: {before} in the baseline, {after} now"
    series, others = (set(side.frames[metric.name].columns) for side in (baseline, current))
    if series != others:
        lost, more = _few(series - others), _few(others - series)
        return f"series: {lost} only in the baseline, {more} only now"
    if load is None:
        return f"load: expected a metric of topic {LOAD} in the catalogue, got none"
    shown = ["unknown" if x is None else quantity(x, load.unit) for x in (then.load, now.load)]
    said = f"load: {shown[0]} in the baseline, {shown[1]} now"
    if then.load is None or now.load is None:
        return said
    one, other = asked(load.name)
    if one != other:
        return f"load: measured by {one} in the baseline, by {other} now"
    allowed, relative = load.tolerance.amount, load.tolerance.absolute is None
    if abs(now.load - then.load) <= allowed * (then.load if relative else 1.0):
        return ""
    return f"{said}, more than {share(allowed, relative, load.unit).lstrip('+')} apart"


def _window(frame: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """A frame to judge; a capture's last point begins the next cycle, so it is left out of one."""
    return frame.iloc[:-1] if rule.cycle and len(frame) % rule.cycle == 1 else frame


def _few(names: set[str]) -> str:
    shown = sorted(names)[:3]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(shown) + more) or "none"
