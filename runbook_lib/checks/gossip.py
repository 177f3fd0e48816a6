"""Whether gossip stayed as it was before a change: traffic, drops and latency over whole epochs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..context import Context
from ..errors import SourceError
from ..evidence.order import effect
from ..evidence.record import Entry
from ..metrics.catalogue import Metric, resolve
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..wording import utc
from . import quiet
from .baselines import read_catalogue

if TYPE_CHECKING:
    from ..metrics.coverage import Watched

TRAFFIC = "pipeline_gossip_events_total"
METRICS = ("validator_gossip", "gossip_drops", "quorum_latency")
"""Of the catalogue. Nothing measures how long a message travels: a quorum of votes is the closest."""
BEFORE = timedelta(hours=6)
"""The cluster's own past: so long before the attempt's first change, or as long as the window."""
LOOKS = 4
"""How often a window that is not decided may be looked at, longer each time."""


def after_gate(context: Context) -> list[Row]:
    """testnet.activate.gate, once rolled: validator gossip is stable over whole epochs since."""
    return _stable(context, "testnet.activate.gate", context.params.gossip_epochs)


def relays(context: Context) -> list[Row]:
    """canary.activate.witness-clients, before it: relays are stable over the epochs observed.

    Their witness topics exist once the gate is on; until then it is the gossip they relay.
    """
    if context.params.mode == "plan":
        return []
    return _stable(context, "canary.activate.rewards-gate", context.params.observe_epochs)


def _stable(context: Context, item: str, epochs: int) -> list[Row]:
    from ..metrics.baseline import SETTLE

    journal = _journal(context)
    start = effect(journal, item) + SETTLE
    steps = [entry.body for entry in journal if entry.kind == "step"]
    first = min((_at(body["at"]) for body in steps), default=start - SETTLE)
    # What this very change did already is not the past that it must be judged on.
    own = [_at(body["at"]) for body in steps if body["item"] == context.item != item]
    end = min([context.at, *own])
    row = _epochs(context, start, end, epochs)
    if row.outcome is not Outcome.PASS:
        return [row]
    over = quiet.window(context, start, end)
    before = quiet.window(context, first - max(BEFORE, end - start), first)
    looks = quiet.look(over, _traffic)
    rows = [row, *(row for seen in looks for row in seen.rows())]
    metrics = {metric.name: metric for metric in read_catalogue(context).metrics}
    for name in METRICS:
        try:
            rows += _judged(before, over, metrics[name])
        except (SourceError, KeyError) as error:
            problem = error.problem if isinstance(error, SourceError) else "not in the catalogue"
            rows.append(unknown_row(name, "not worse than before", "comparable", problem))
    return rows


def _journal(context: Context) -> list[Entry]:
    """This attempt's entries, those of this try too; what was verified first counts."""
    found: list[Entry] = []
    seen: set[tuple[str, str, str]] = set()
    for entry in context.so_far:
        if entry.kind == "state":
            key = entry.body["item"], entry.body["node"], entry.body.get("phase", "")
            if key in seen:
                continue
            seen.add(key)
        found.append(entry)
    return found


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _epochs(context: Context, start: datetime, end: datetime, wanted: int) -> Row:
    """Whether so many whole epochs lie in the window, and when they will. SourceError."""
    from ..metrics.coverage import STEP
    from ..metrics.epochs import due, progress

    cluster = context.cluster
    block_s = cluster.block_time_ms / 1000
    what, expected = "whole epochs", f"at least {wanted} since {utc(start)}"
    if end - start < 2 * STEP:
        at = start + timedelta(seconds=block_s * cluster.epoch_length) * (wanted + 1)
        return unknown_row(context.cluster_name, what, expected, "0", return_at=at)
    found = progress(context.prometheus, context.matchers, start, end, cluster.epoch_length)
    if len(found.epochs) >= wanted:
        got = f"{len(found.epochs)}"
        return check_row(context.cluster_name, what, expected, got, ok=True)
    left = wanted - len(found.epochs)
    inside = timedelta(seconds=found.height % cluster.epoch_length * block_s)
    left += not found.epochs and end - inside < start
    at = due(left, found.height, cluster.epoch_length, block_s, end)
    got = f"{len(found.epochs)}"
    return unknown_row(context.cluster_name, what, expected, got, return_at=at)


def _traffic(over: quiet.Window) -> Iterator[quiet.Seen]:
    """Every node spoke in every ten minutes."""
    import numpy as np

    watched = over.read(f"sum by ({over.label}) (rate({TRAFFIC}[3m]))")
    for node in over.context.cluster.nodes:
        values = watched.of(over.label, node.name)
        missing = np.isnan(values)
        allowed = over.context.params.max_missing
        breaks = [
            quiet.Break(start, end, "no data", proven=False)
            for start, end in watched.holes(missing, allowed)
        ]
        breaks += [
            quiet.Break(start, end, "no gossip", proven=True)
            for start, end in watched.runs(values <= 0, quiet.IDLE)
        ]
        mean = f"{np.nanmean(values):.3g} events/s" if not missing.all() else ""
        yield quiet.Seen(node.name, "gossip traffic", "more than 0", mean, tuple(breaks))


def _judged(before: quiet.Window, over: quiet.Window, metric: Metric) -> list[Row]:
    """Non-inferiority of a metric against the cluster's own past. Raises SourceError."""
    import numpy as np

    from ..metrics.compare import rule_of
    from ..metrics.coverage import STEP
    from ..metrics.judge import judge_all
    from ..metrics.windows import Window, observe

    context = over.context
    query = resolve(context.prometheus, metric, context.matchers, over.end).query
    past, now = before.read(query, narrow=False), over.read(query, narrow=False)
    if past.labels != now.labels or not now.values:
        got = f"{len(past.labels)} series before, {len(now.labels)} now"
        raise SourceError("prometheus", f"{metric.name}: expected the same series, got {got}")
    if metric.kind == "count":
        return [_counted(past, now, metric, context.params.max_missing)]
    rule = rule_of(metric, max_missing=context.params.max_missing, looks=LOOKS)
    # An epoch has too few points for a 95th percentile.
    rule = rule.model_copy(update={"statistics": ("location",)})

    def side(watched: Watched) -> Window:
        return observe(np.array([each[watched.kept] for each in watched.values]), rule.range)

    names = [str(labels.get(metric.label, "")) for labels in now.labels]
    rows = []
    for judgement in judge_all(side(past), side(now), rule, names):
        more = judgement.more_needed
        subject = " ".join(filter(None, (metric.name, judgement.subject)))
        tolerance = f"worse by at most {rule.tolerance:{'.0%' if rule.relative else 'g'}}"
        at = over.end + more * STEP if more is not None else None
        rows.append(
            check_row(
                subject,
                "not worse than before",
                tolerance + ("" if rule.relative else f" {metric.unit}"),
                judgement.reason,
                judgement.outcome,
                return_at=at,
            )
        )
    return rows


def _counted(past: Watched, now: Watched, metric: Metric, allowed: float) -> Row:
    """Events that are counted one by one, at an even rate or not at all, are no samples of anything."""
    import numpy as np

    what = "not worse than before"
    tolerance = f"more by at most {metric.tolerance.amount:g} {metric.unit}"
    means = []
    for watched, when in ((past, "before"), (now, "now")):
        values = watched.only()[watched.kept]
        if not len(values) or watched.holes(np.isnan(watched.only()), allowed):
            got = f"data missing {when}"
            return unknown_row(metric.name, what, tolerance, got)
        means.append(float(np.nanmean(values)))
    got = f"{means[0]:.3g} {metric.unit} before, {means[1]:.3g} now"
    ok = means[1] - means[0] <= metric.tolerance.amount
    return check_row(metric.name, what, tolerance, got, ok)
