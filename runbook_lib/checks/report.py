"""The release report: the four stages of a release on one page, out of their attempts.

Nothing is judged here. Everything is read from the store through the tape, so that a replay shows
the same page.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

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
from ..outcomes import Outcome, Value
from ..playbook import STAGES
from ..verdicts import Verdict
from ..wording import utc

EVENTS = {
    PlanMade: "plan made",
    PlanRefused: "plan refused",
    WaiverAccepted: "waiver accepted",
    RunStopped: "stopped by a person",
    Sealed: "sealed",
    NodeDropped: "node dropped",
}
"""Events of a log that stand in the timeline beside results and changes of nodes."""


@dataclass(frozen=True)
class Told:
    """One attempt, by stage and number: its log and what it amounts to."""

    name: str
    entries: Sequence[Event]
    verdict: Verdict


def attempts(context: Context) -> list[Told]:
    """Every attempt at a stage of the release, oldest first within a stage. Raises SourceError."""
    release = context.params.release
    found = [
        Told(f"{stage} {int(name.rpartition('/')[2])}", entries, verdict(entries))
        for stage in STAGES
        for name, entries in context.ledger.attempts(release, stage)
    ]
    if not found:
        raise SourceError(release, "expected an attempt at a stage in the store, got none")
    return found


def _all(context: Context, kind: type[E]) -> Iterator[tuple[str, E]]:
    """(Attempt, event) of that kind, in order."""
    for told in attempts(context):
        yield from ((told.name, event) for event in of(told.entries, kind))


def verdicts(context: Context) -> Card:
    """Every attempt's verdict, with who ran it, when, and what blocked it."""
    rows: list[Sequence[Value]] = []
    for told in attempts(context):
        v = told.verdict
        why = [f"{each.item}: {each.reason}" for each in v.blocking] + list(v.broken) + [""]
        when = utc(v.started), utc(v.ended)
        rows.append((v.stage, v.attempt, v.mode, v.outcome.value, v.operator, *when, why[0]))
    columns = ("stage", "attempt", "mode", "outcome", "by", "began", "ended", "what blocked it")
    return table_card(f"Verdicts of {context.params.release}", columns, rows)


def timeline(context: Context) -> Card:
    """What happened, in order: plans, changes of nodes, results, waivers, interventions."""
    rows = sorted((at, one.name, what) for one in attempts(context) for at, what in _events(one))
    columns = ("time", "attempt", "what happened")
    return table_card("Timeline", columns, rows)


def _events(told: Told) -> Iterator[tuple[str, str]]:
    nodes: dict[str, list[datetime]] = {}
    for event in told.entries:
        if isinstance(event, RunEnded):
            result = event.result
            yield result.ended.isoformat(), f"{event.item}: {result.outcome}: {result.reason}"
        elif isinstance(event, NodeVerified):
            nodes.setdefault(f"{event.item} {event.phase}".strip(), []).append(event.at)
        elif type(event) in EVENTS:
            yield event.written, f"{EVENTS[type(event)]}{_said(event)}"
    for what, instants in nodes.items():
        since = min(instants).isoformat()
        text = f"{what}: {len(instants)} nodes changed and read back since {since}"
        yield max(instants).isoformat(), text


def _said(event: Event) -> str:
    match event:
        case PlanMade(author=author, digest=digest, approved_by=accounts):
            more = f", approved by {', '.join(accounts)}" if accounts else ""
            return f" by {author}: {digest[:19]}{more}"
        case PlanRefused(reason=reason):
            return f": {reason}"
        case WaiverAccepted(item=item, subjects=subjects):
            return f": {item} on {', '.join(subjects)}"
        case Sealed(outcome=outcome):
            return f": {outcome}"
        case RunStopped(item=what) | NodeDropped(node=what):
            return f": {what}"
    return ""


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


def tries(context: Context) -> Card:
    """Every try that did not pass, and every intervention of a person."""
    rows: list[Sequence[Value]] = []
    for where, event in _all(context, Event):
        if isinstance(event, RunEnded) and (result := event.result).outcome is not Outcome.PASS:
            what = event.item, event.number, result.outcome.value
            rows.append((where, *what, result.reason, event.retry_reason))
        elif isinstance(event, RunStopped | PlanRefused | NodeDropped):
            said = getattr(event, "item", "") or getattr(event, "node", "the plan")
            why = getattr(event, "reason", "")
            rows.append((where, said, "", EVENTS[type(event)], why, ""))
    columns = ("attempt", "item", "try", "outcome", "reason", "why it was tried again")
    return table_card("Tries that did not pass, and interventions", columns, rows or [("none",)])


def metrics(context: Context) -> Card:
    """The median of every baseline metric, stage by stage, out of the pinned frames."""
    pinned = list(_pinned(context))
    units = {name: unit for _, values in pinned for name, (_, unit) in values.items()}
    rows: list[Sequence[Value]] = []
    for name, unit in units.items():
        row: list[Value] = [f"{name} ({unit})" if unit else name]
        row += [values[name][0] if name in values else "" for _, values in pinned]
        rows.append(row)
    columns = ("metric", *(where for where, _ in pinned))
    return table_card("Baseline metrics across the stages", columns, rows or [("none pinned",)])


def _pinned(context: Context) -> Iterator[tuple[str, dict[str, tuple[float, str]]]]:
    """(attempt, metric -> (median, unit)) of every baseline an attempt pinned and passed with."""
    import pandas as pd

    for where, event in _all(context, RunEnded):
        data = event.result.data
        if event.result.outcome is Outcome.PASS and {"digest", "metrics"} <= set(data):
            path = context.store.pinned(str(data["cluster"]), str(data["digest"]), ".parquet")
            table = pd.read_parquet(io.BytesIO(context.scope.read(path)))
            grouped = table.groupby("metric", sort=False)
            medians, units = grouped["value"].median(), grouped["unit"].first()
            yield (
                where,
                {str(n): (float(f"{medians[n]:.6g}"), str(units[n])) for n in medians.index},
            )
