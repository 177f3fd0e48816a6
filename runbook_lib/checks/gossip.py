"""Whether gossip stayed as it was before a change."""

from collections.abc import Iterator
from datetime import timedelta

import numpy as np

from ..context import Context
from ..errors import SourceError
from ..evidence.events import Event, NodeVerified, StepTaken, of
from ..evidence.status import effect
from ..metrics.baseline import SETTLE
from ..metrics.catalogue import Metric, resolve
from ..metrics.frames import STEP, Frame
from .baselines import read_catalogue
from .epochs import whole_epochs
from .quiet import IDLE, Seen, Window, breaks, judge, window

TRAFFIC = "pipeline_gossip_events_total"
TOPICS = ("validator_gossip", "gossip_drops")
METRICS = (*TOPICS, "quorum_latency")
"""Of the catalogue. Nothing measures how long a message travels: a quorum of votes is the closest."""
BEFORE = timedelta(hours=6)
"""The cluster's own past: so long before the attempt's first change, or as long as the window."""
NO_WORSE = "not worse than before"
LOOKS = 4
"""How often a window that is not decided may be looked at, longer each time."""


def after_gate(context: Context) -> None:
    """testnet.activate.gate, once rolled: validator gossip is stable over whole epochs since."""
    _stable(context, "testnet.activate.gate", context.params.gossip_epochs)


def relays(context: Context) -> None:
    """canary.activate.witness-clients, before it: relays are stable over the epochs observed.

    Their witness topics exist once the gate is on; until then it is the gossip they relay.
    """
    if context.params.mode != "plan":
        _stable(context, "canary.activate.rewards-gate", context.params.observe_epochs)


def _stable(context: Context, item: str, epochs: int) -> None:
    journal = _journal(context)
    start = effect(journal, item) + SETTLE
    steps = of(journal, StepTaken)
    first = min((step.at for step in steps), default=start - SETTLE)
    # What this very change did already is not the past that it must be judged on.
    own = [step.at for step in steps if step.item == context.item != item]
    end = min([context.at, *own])
    found = whole_epochs(context, "whole epochs", start, lambda seen: epochs - len(seen), until=end)
    if len(found) < epochs:
        return
    over = window(context, start, end)
    before = window(context, first - max(BEFORE, end - start), first)
    judge(over, _traffic)
    metrics = {metric.name: metric for metric in read_catalogue(context).metrics}
    for name in METRICS:
        with context.reading(NO_WORSE, "comparable", name):
            if name not in metrics:
                raise SourceError(name, "not in the catalogue")
            _judge(before, over, metrics[name])


def _journal(context: Context) -> list[Event]:
    """This attempt's events, those of this run too; what was verified first counts."""
    found: dict[object, Event] = {}
    for number, event in enumerate(context.so_far):
        key: object = number
        if isinstance(event, NodeVerified):
            key = event.item, event.node, event.phase
        found.setdefault(key, event)
    return list(found.values())


def _traffic(over: Window) -> Iterator[Seen]:
    """Every node spoke in every ten minutes."""
    watched = over.read(f"sum by ({over.label}) (rate({TRAFFIC}[3m]))")
    for node in over.context.cluster.nodes:
        values = watched.of(over.label, node.name)
        missing = np.isnan(values)
        allowed = over.context.params.max_missing
        found = breaks(watched.holes(missing, allowed), "no data", proven=False)
        found += breaks(watched.runs(values <= 0, IDLE), "no gossip")
        mean = f"{np.nanmean(values):.3g} events/s" if not missing.all() else ""
        yield Seen(node.name, "gossip traffic", "more than 0", mean, found)


def _judge(before: Window, over: Window, metric: Metric) -> None:
    """Non-inferiority of a metric against the cluster's own past. Raises SourceError."""
    from ..metrics.compare import Compared, rule_of
    from ..metrics.intervals import observe
    from ..metrics.judge import judge_all

    context = over.context
    query = resolve(context.prometheus, metric, context.matchers, over.end)
    past, now = before.read(query, narrow=False), over.read(query, narrow=False)
    if past.labels != now.labels or not now.labels:
        got = f"{len(past.labels)} series before, {len(now.labels)} now"
        raise SourceError("prometheus", f"{metric.name}: expected the same series, got {got}")
    if metric.kind == "count":
        _count(context, past, now, metric)
        return
    # An epoch has too few points for a 95th percentile.
    asked = {"max_missing": context.params.max_missing, "statistics": ("location",)}
    rule = rule_of(metric, looks=LOOKS, **asked)
    first, second = (
        observe(side.values.to_numpy()[side.kept].T, rule.range) for side in (past, now)
    )
    names = [str(labels.get(metric.label, "")) for labels in now.labels]
    compared = Compared(metric, judge_all(first, second, rule, names))
    context.findings += compared.rows(NO_WORSE, lambda points: over.end + points * STEP)


def _count(context: Context, past: Frame, now: Frame, metric: Metric) -> None:
    """Events that are counted one by one, at an even rate or not at all, are no samples of anything."""
    amount, means = metric.tolerance.amount, list[float]()
    with context.finding(
        metric.name, NO_WORSE, f"more by at most {amount:g} {metric.unit}"
    ) as told:
        for watched, when in ((past, "before"), (now, "now")):
            values, missing = watched.only()[watched.kept], np.isnan(watched.only())
            if not len(values) or watched.holes(missing, context.params.max_missing):
                raise SourceError(metric.name, f"data missing {when}")
            means.append(float(np.nanmean(values)))
        got = f"{means[0]:.3g} {metric.unit} before, {means[1]:.3g} now"
        told(got, means[1] - means[0] <= amount)
