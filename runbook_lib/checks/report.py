"""The release report: the four stages of a release on one page, out of their attempts.

Nothing is judged here. Everything is read from the store through the tape, so that a replay shows
the same page.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from ..context import Context
from ..display import Card, table_card
from ..errors import SourceError
from ..evidence.events import (
    E,
    Event,
    NodeDropped,
    NodeVerified,
    PlanMade,
    PlanRefused,
    RunEnded,
    RunStopped,
    Sealed,
    WaiverAccepted,
    of,
)
from ..evidence.status import verdict
from ..metrics.baseline import SUFFIX
from ..outcomes import Outcome, Value
from ..playbook import STAGES
from ..wording import utc
from .baselines import pinned, read_catalogue


def _planned(plan: PlanMade) -> str:
    approved = f", approved by {', '.join(plan.approved_by)}" if plan.approved_by else ""
    return f"plan made by {plan.author}: {plan.digest[:19]}{approved}"


EVENTS: dict[type[Event], Callable[[Any], str]] = {
    PlanMade: _planned,
    PlanRefused: lambda refused: f"plan refused: {refused.reason}",
    WaiverAccepted: lambda one: f"waiver accepted: {one.item} on {', '.join(one.subjects)}",
    RunStopped: lambda stopped: f"stopped by a person: {stopped.item}",
    Sealed: lambda sealed: f"sealed: {sealed.outcome}",
    NodeDropped: lambda dropped: f"node dropped: {dropped.node}",
}
"""Events of a log that stand in the timeline beside results and changes of nodes."""


def attempts(context: Context) -> Sequence[tuple[str, Sequence[Event]]]:
    """Every attempt at a stage of the release and its log, oldest first within a stage.

    Raises SourceError for none.
    """
    release = context.params.release
    found = [
        (f"{stage} {int(name.rpartition('/')[2])}", entries)
        for stage in STAGES
        for name, entries in context.ledger.attempts(release, stage)
    ]
    if not found:
        raise SourceError(release, "expected an attempt at a stage in the store, got none")
    return found


def _all(context: Context, kind: type[E]) -> Iterator[tuple[str, E]]:
    """(Attempt, event) of that kind, in order."""
    for name, entries in attempts(context):
        yield from ((name, event) for event in of(entries, kind))


def verdicts(context: Context) -> Card:
    """Every attempt's verdict, with who ran it, when, and what blocked it."""
    rows: list[Sequence[Value]] = []
    for v in (verdict(entries) for _, entries in attempts(context)):
        why = [f"{each.item}: {each.reason}" for each in v.blocking] + list(v.broken) + [""]
        when = utc(v.started), utc(v.ended)
        rows.append((v.stage, v.attempt, v.mode, v.outcome.value, v.operator, *when, why[0]))
    columns = ("stage", "attempt", "mode", "outcome", "by", "began", "ended", "what blocked it")
    return table_card(f"Verdicts of {context.params.release}", columns, rows)


def timeline(context: Context) -> Card:
    """What happened, in order: plans, changes of nodes, results, waivers, interventions."""
    rows = sorted(
        (at, name, what) for name, entries in attempts(context) for at, what in _happened(entries)
    )
    return table_card("Timeline", ("time", "attempt", "what happened"), rows)


def _happened(entries: Sequence[Event]) -> Iterator[tuple[str, str]]:
    nodes: dict[str, list[datetime]] = {}
    for event in entries:
        if isinstance(event, RunEnded):
            result = event.result
            yield result.ended.isoformat(), f"{event.item}: {result.outcome}: {result.reason}"
        elif isinstance(event, NodeVerified):
            nodes.setdefault(f"{event.item} {event.phase}".strip(), []).append(event.at)
        elif type(event) in EVENTS:
            yield event.written, EVENTS[type(event)](event)
    for what, instants in nodes.items():
        since = min(instants).isoformat()
        text = f"{what}: {len(instants)} nodes changed and read back since {since}"
        yield max(instants).isoformat(), text


def gates(context: Context) -> Card:
    """Every node's gates, channel and build as last verified, cluster by cluster."""
    rows: list[Sequence[Value]] = []
    for name, cluster in context.site.clusters.items():
        known = context.ledger.known(name)
        for node in cluster.nodes:
            if node.name not in known:
                rows.append((name, node.name, "never verified"))
                continue
            one, state = known[node.name], known[node.name].state
            on = ", ".join(gate for gate, value in state.gates.items() if value) or "none"
            by = one.origin, utc(one.at)
            rows.append((name, node.name, on, state.channel, state.binary[:19], *by))
    columns = ("cluster", "node", "gates on", "channel", "build", "verified by", "at")
    return table_card("Gates, as last verified", columns, rows)


def waivers(context: Context) -> Card:
    """Every accepted risk: on whose word, why, until when."""
    rows: list[Sequence[Value]] = []
    for where, one in _all(context, WaiverAccepted):
        own = " (self-approved)" if one.self_approved else ""
        by, subjects = ", ".join(one.approved_by) + own, ", ".join(one.subjects)
        rows.append((where, one.item, subjects, one.reason, by, one.expires.isoformat()))
    columns = ("attempt", "item", "rows", "why", "approved by", "until")
    return table_card("Waivers", columns, rows or [("none",)])


def runs(context: Context) -> Card:
    """Every run that did not pass, and every intervention of a person."""
    rows: list[Sequence[Value]] = []
    for where, event in _all(context, Event):
        if isinstance(event, RunEnded) and (result := event.result).outcome is not Outcome.PASS:
            what = event.item, event.number, result.outcome.value
            rows.append((where, *what, result.reason, event.retry_reason))
        elif isinstance(event, RunStopped | PlanRefused | NodeDropped):
            rows.append((where, "", "", EVENTS[type(event)](event)))
    columns = ("attempt", "item", "run", "outcome", "reason", "why it was tried again")
    return table_card("Runs that did not pass, and interventions", columns, rows or [("none",)])


def metrics(context: Context) -> Card:
    """The median of every baseline metric, stage by stage, out of the pinned frames."""
    pinned = list(_pinned(context))
    units = {m.name: f" ({m.unit})" for m in read_catalogue(context).metrics if m.unit}
    rows: list[Sequence[Value]] = [
        (
            name + units.get(name.removesuffix(SUFFIX), ""),
            *(values.get(name, "") for _, values in pinned),
        )
        for name in dict.fromkeys(name for _, values in pinned for name in values)
    ]
    columns = ("metric", *(where for where, _ in pinned))
    return table_card("Baseline metrics across the stages", columns, rows or [("none pinned",)])


def _pinned(context: Context) -> Iterator[tuple[str, dict[str, float]]]:
    """(attempt, metric -> median) of every baseline an attempt pinned and passed with."""
    for where, event in _all(context, RunEnded):
        data = event.result.data
        if event.result.outcome is Outcome.PASS and {"digest", "metrics"} <= set(data):
            frames = pinned(context, data, where).frames
            medians = {n: np.nanmedian(frame.to_numpy()) for n, frame in frames.items()}
            yield where, {name: float(f"{median:.6g}") for name, median in medians.items()}
