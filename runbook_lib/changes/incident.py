"""A recovery's incident: opened in the store, reported in the forge, decided on by the council.

It is opened whatever else fails. What cannot be sent is kept in the attempt's outbox, for
``runbook publish``; the next run looks first whether it is there by now. The council decides on the
measures of this recovery, by their digest: two thirds of its members approve it within 24 h of the
recovery, in an issue or by signed files.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from string import Template
from typing import Any, Literal

from ..canonical import digest as digest_of
from ..context import Context
from ..errors import LogDamaged, ParameterError, RunbookError, SourceError
from ..evidence.comment import LIMIT, code, plain
from ..evidence.events import Event, IncidentNamed, of
from ..evidence.incidents import (
    Agreed,
    Incident,
    IncidentFiled,
    IncidentOpened,
    Incidents,
    Told,
    read_line,
)
from ..evidence.ledger import states
from ..evidence.log import opened_by
from ..evidence.posts import Post, short
from ..findings import Findings
from ..outcomes import Outcome, Row, value_text
from ..params import RecoveryParams
from ..playbook import COUNCIL, GATE_STEPS
from ..sources.prometheus import Vector
from ..sources.quorum import council
from ..sources.words import hear
from ..strict import project_path
from ..wording import utc, visible
from .apply import Applier, all_pass, derived
from .posts import publish

Audience = Literal["internal", "governance", "public"]
AUDIENCES: dict[Audience, tuple[str, tuple[str, ...]]] = {
    "internal": ("Incident", ("summary",)),
    "governance": ("Governance incident", ("summary", "impact")),
    "public": ("Incident report", ("summary", "impact", "mitigations", "next_steps")),
}
"""How an audience's report is called, and the texts that it cannot be without."""
_BLANKS = frozenset({"", "tbd", "todo", "fixme", "na", "none", "nothing"})
_DECIDED = ("summary", "impact", "mitigations")
ROWS = 40
"""Rows of a table; the rest is in the log."""
NOTHING = "nothing said"
CHARS = 300
TOPICS = ("consensus_latency", "block_production", "finality_lag", "proof_latency",
          "proof_queue_depth", "vrf_participation", "network_churn")  # fmt: skip
GATES = tuple(dict.fromkeys(gate for steps in GATE_STEPS.values() for gate in steps))


# --- in the store ---------------------------------------------------------------------------------


def _opened(context: Context) -> Incident | None:
    """This recovery's incident; None where there can be none. A finding says which.

    A later recovery of the same stopped apply joins the incident of an earlier one.
    """
    facts, begun = context.params, context.opened
    opened = IncidentOpened(
        release=facts.release,
        commit=facts.commit,
        stage=context.stage,
        cluster=context.cluster_name,
        attempt=context.attempt_name,
        undoes=begun.undoes,
        by=begun.operator,
        at=begun.now,
        issue=facts.issue,
        break_glass=facts.break_glass,
    )

    def ours(one: Incident) -> bool:
        again = begun.undoes is not None and one.opened.undoes == begun.undoes
        joins = again and not facts.break_glass and one.closed is None
        return one.opened.attempt == context.attempt_name or joins

    def compute() -> dict[str, Any]:
        try:
            found = Incidents(context.store).open(opened, ours)
        except (RunbookError, OSError) as error:
            return {"problem": str(error)}
        return {"id": found.id, "events": [event.line().decode() for event in found.events]}

    told = derived(context, "the incident of this recovery", compute)
    if "problem" in told:
        context.unknown("incident", "opened in the store", "one", told["problem"])
        return None
    found = Incident(told["id"], [read_line(line.encode()) for line in told["events"]])
    named = IncidentNamed(id=found.id, first=found.opened.hash)
    if named.content not in [event.content for event in of(context.journal, IncidentNamed)]:
        context.log.append(named)
    context.judge("incident", "opened in the store", found.id, found.id)
    return found


def _note(context: Context, found: Incident, event: Told) -> str:
    """Add to the incident, once; what went wrong with that, else nothing."""

    def write_it() -> str:
        try:
            Incidents(context.store).add(found.id, event)
        except (RunbookError, OSError) as error:
            return str(error)
        return ""

    return context.scope.derive(f"{event.kind} in {found.id}", write_it)


def _said(context: Context, needed: tuple[str, ...]) -> bool:
    """Whether each text that is needed says something; FAIL for one that does not."""
    params: RecoveryParams = context.params
    ignored = str.maketrans("", "", string.punctuation + string.whitespace)
    for name in needed:
        value = getattr(params, name)
        lines = value if isinstance(value, list) else [value]
        there = bool(lines) and not any(x.translate(ignored).casefold() in _BLANKS for x in lines)
        got = "there" if there else "nothing said; set it and give a retry_reason"
        context.judge(name, "text", "not empty", got, there)
    return context.holds


def plan_incident(context: Context, audience: Audience) -> list[Row]:
    """What would be filed. Only reads; an incident is not opened by a plan."""
    if _said(context, AUDIENCES[audience][1]):
        would = f"an incident of {context.params.release} is opened, its {audience} report filed"
        context.unknown("incident", "would be", "", would)
    return context.findings


# --- in the forge ---------------------------------------------------------------------------------


def file_incident(context: Context, applier: Applier, audience: Audience) -> None:
    """Open the incident, file its report in the forge, read it back. Playbook: recovery."""
    whole = _said(context, AUDIENCES[audience][1])
    if (found := _opened(context)) is not None:
        facts = collect(context)
        if whole:
            _file(context, applier, found, _report(context, found, audience, facts))


def _report(
    context: Context, found: Incident, audience: Audience, facts: Facts, first: str = ""
) -> Post:
    template = "public_report.md" if audience == "public" else "incident.md"
    marker = f"<!-- rpp-runbook incident={found.id} audience={audience} -->"
    text = first + render(context, template, _values(context, found), facts)
    summary = visible(" ".join(context.params.summary.split()), 120)
    return Post(
        step=f"{audience}-report",
        subject="forge",
        text=f"{marker}\n{text}",
        title=f"{AUDIENCES[audience][0]} {found.id}: {summary}",
        since=found.opened.at,
        incident=found.id,
    )


def _values(context: Context, found: Incident, wanted: str = "") -> dict[str, str]:
    """What is told of an incident, and of what the council is to decide, as Markdown."""
    params: RecoveryParams = context.params
    glass, members = found.opened.break_glass, context.site.holders(COUNCIL)
    why = "It does what was approved together with the plan it takes back."
    if glass:
        why = f"Break-glass by {plain(found.opened.by, 80)}: {plain(glass, 500)}"
    return {
        "incident": found.id,
        "release": params.release,
        "cluster": plain(context.cluster_name, 80),
        "opened": utc(found.opened.at),
        "summary": one_line(params.summary),
        "impact": one_line(params.impact) or NOTHING,
        "mitigations": said(params.mitigations),
        "next_steps": said(params.next_steps),
        "measures": said([*params.mitigations, *params.next_steps]),
        "break_glass": why,
        "needed": str(len(council(context.site).seats)),
        "members": str(len(members)),
        "names": ", ".join(f"@{account}" for account in members),
        "digest": wanted,
        "due": utc(found.ratify_until),
        "facts": _facts(context, found),
        "ending": _ending(found),
    }


def _facts(context: Context, found: Incident) -> str:
    opened, undoes = found.opened, found.opened.undoes
    rows = [
        ("release", f"{code(opened.release)} at {code(opened.commit)}"),
        ("cluster", f"{plain(context.cluster_name, 80)}, {code(context.cluster.chain_id)}"),
        ("taken back", code(undoes.name) if undoes else "nothing that was planned"),
        ("its plan", code(undoes.plan) if undoes else "none"),
        ("recovery", f"{code(opened.attempt)} by {plain(opened.by, 80)}"),
        ("opened", utc(opened.at)),
    ]
    if opened.break_glass:
        rows.append(("break-glass", plain(opened.break_glass, 500)))
    return "\n".join(f"| {what} | {text} |" for what, text in rows)


def _ending(found: Incident) -> str:
    """What is to be done with it; no line begins with a verb that counts as somebody's word."""
    lines = [
        "No apply of this release opens until the incident is closed, and signed off by somebody"
        f" other than {plain(found.opened.by, 80)}: {code(f'runbook incident {found.id}')}."
    ]
    if found.opened.break_glass:
        due = utc(found.ratify_until)
        lines.append(
            f"Its break-glass is to be ratified by the governance council until {due}: a comment"
            f" here that says just `approve {found.to_ratify}`."
        )
    return "\n\n".join(lines)


def _file(context: Context, applier: Applier, found: Incident, report: Post) -> list[int]:
    """File a report as an issue and read it back; its number, none where it is not there."""
    rows, number = publish(context, applier, report)
    context.findings += rows
    if not all_pass(rows):
        return []
    _note(context, found, IncidentFiled(number=number, by=context.opened.operator, at=context.now))
    return [number]


# --- the council ----------------------------------------------------------------------------------


def plan_council(context: Context) -> list[Row]:
    """Whom it would convene. Only reads."""
    _called(context)
    if all(row.outcome is not Outcome.FAIL for row in context.findings):
        would = "told, and asked for a decision within 24 h"
        context.unknown("council", "would be", "", would)
    return context.findings


def convene(context: Context, applier: Applier) -> None:
    """Tell the council, hear it, log its decision. Playbook: mainnet recovery, 3."""
    if not _called(context) or (found := _opened(context)) is None:
        return
    params: RecoveryParams = context.params
    measures = {
        "decides": found.id,
        "opened": found.opened.hash,
        "undoes": dict(found.opened.undoes or ()),
        "break_glass": found.opened.break_glass,
        "mitigations": params.mitigations,
        "next_steps": params.next_steps,
    }
    wanted = digest_of(measures)  # the same on every run that proposes the same
    text = render(context, "decision.md", _values(context, found, wanted)) + "\n"
    facts = collect(context)
    filed = _file(context, applier, found, _report(context, found, "governance", facts, text))
    _tell(context, applier, found, wanted)
    _decided(context, found, wanted, [context.params.issue, *found.filed, *filed])


def _called(context: Context) -> bool:
    """Whether there is something to decide, and somebody who can."""
    _said(context, _DECIDED)
    got = ", ".join(context.site.holders(COUNCIL))
    ok = bool(got) or Outcome.INCONCLUSIVE
    got = got or "nobody in the site's people has it"
    context.judge("council", "members", f"people with the role {COUNCIL}", got, ok)
    return context.holds


def _tell(context: Context, applier: Applier, found: Incident, wanted: str) -> None:
    """Page the council, once for each thing to decide."""
    text = (
        f"{context.cluster.chain_id}, {context.params.release}: {visible(context.params.summary)}\n"
        f"to be decided until {utc(found.ratify_until)}\n"
        f"in the issue of {code(found.id)} or the release issue, by a comment that says just\n"
        f"  `approve {wanted}`\n"
    )
    subject = f"council convened: {found.id} on {context.cluster_name}"
    notice = Post(
        step=f"convene-{short(wanted)}",
        subject="council",
        text=text,
        command="notify",
        values={"role": COUNCIL, "subject": subject},
    )
    context.findings += publish(context, applier, notice)[0]


def _decided(context: Context, found: Incident, wanted: str, issues: Sequence[int]) -> None:
    due, release = found.ratify_until, context.params.release
    what, expected = "decided", f"by two thirds until {utc(due)}"
    judge = partial(context.judge, "council", what, expected)
    with context.reading(what, expected, "council"):
        heard = hear(context.scope, context.site, wanted, issues=issues, release=release)
        count = council(context.site).count(heard, wanted)
        by = f": {count}" if count.words else ""
        said = f"{len(count.words)} of {len(context.site.holders(COUNCIL))} members{by}"
        if count.at is not None and found.agreed(wanted) is None:
            grounds = tuple(word.grounds for word in count.words)
            made = Agreed(by=str(count), at=count.at, digest=wanted, grounds=grounds)
            if problem := _note(context, found, made):
                context.unknown("council", "decision recorded", found.id, problem)
        if count.at is not None and count.at <= due:
            judge(f"{said}, at {utc(count.at)}", ok=True)
        elif count.at is None and context.now <= due:
            judge(said, Outcome.INCONCLUSIVE, return_at=due)
        else:
            at = f", at {utc(count.at)}, " if count.at else "; "
            judge(f"{said}{at}later than 24 h after the recovery", ok=False)


# --- what an incident is told with: gates of the nodes and figures, as cells of Markdown tables ---
# What others wrote is shown as just that; what could not be read is listed, never left out. What ran
# and when stands in the attempt's log, which the incident names.


@dataclass
class Facts(Findings):
    """Tables of an incident, their cells Markdown; a finding is what could not be read."""

    nodes: list[tuple[str, ...]] = field(default_factory=list)
    figures: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def missing(self) -> list[tuple[str, str]]:
        return [(row.what, str(row.observed)) for row in self.findings]

    def lacks(self, what: str) -> AbstractContextManager[None]:
        """What cannot be read in here is missing."""
        problems = SourceError, LogDamaged, ParameterError
        return self.reading(what, "readable", "incident", problems)

    def tables(self) -> dict[str, str]:
        """Markdown of each."""
        gates = ("node", "run by", *(f"`{gate}`" for gate in GATES), "channel", "seen")
        figures = ("metric", "when the apply began", "now")
        missing = [f"{plain(what, 80)}: {plain(why, CHARS)}" for what, why in self.missing]
        return {
            "gates": _table(gates, self.nodes),
            "figures": _table(figures, self.figures, right=2),
            "missing": _bullets(_cut(missing)) or "nothing: all of it was read",
        }


def render(
    context: Context, template: str, values: dict[str, str], facts: Facts | None = None
) -> str:
    """The template of that name, filled. Raises SourceError for one that cannot be.

    ``values`` are Markdown already.
    """
    path = project_path(f"params/templates/{template}")
    known = values | (facts.tables() if facts is not None else {})
    try:
        text = Template(context.scope.read(path).decode()).substitute(known).strip() + "\n"
    except (KeyError, ValueError) as error:
        names = ", ".join(f"${name}" for name in sorted(known))
        raise SourceError(f"template {template}", f"expected {names}, got {error!r}") from error
    if (size := len(text.encode("utf-16-le")) // 2) > LIMIT - 200:
        raise SourceError(f"template {template}", f"expected {LIMIT} characters, got {size}")
    return text


def _cut(lines: Sequence[str]) -> list[str]:
    more = len(lines) - ROWS
    return [*lines[:ROWS], *([f"and {more} more; see the log"] if more > 0 else [])]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> str:
    """A Markdown table, its last ``right`` columns to the right; of no rows, that there are none."""
    if not rows:
        return "none"
    marks = [":--"] * (len(columns) - right) + ["--:"] * right
    head = [f"| {' | '.join(row)} |" for row in (columns, marks)]
    return "\n".join([*head, *_cut([f"| {' | '.join(row)} |" for row in rows])])


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def said(texts: Sequence[str]) -> str:
    """What a person wrote, a bullet each."""
    return _bullets([one_line(text) for text in texts if text.strip()]) or NOTHING


def one_line(text: str) -> str:
    """What a person wrote, as just that."""
    return plain(" ".join(text.split()), 2000)


def collect(context: Context) -> Facts:
    """Everything that can be read now; two findings say whether metrics and gates of all were."""
    facts, forward, undoes = Facts(), list[Event](), context.opened.undoes
    if undoes:
        with facts.lacks(f"log of {undoes.name}"):
            forward = context.ledger.events(undoes.name)
    # What this very item did before is in its own issue, not in its own words.
    mine = [e for e in context.journal if getattr(e, "item", "") != context.item]
    silent = [node.name for node in context.cluster.nodes]
    with facts.lacks("gates of the nodes"):
        silent = _nodes(context, facts, [*forward, *mine])
    with facts.lacks("figures"):
        begun = opened_by(forward, "forward") if forward else context.opened
        _figures(context, facts, begun.now)
    later, known = "; the next run collects them", f"{len(facts.figures)} metrics"
    figures = [f"{what}: {why}" for what, why in facts.missing if what.startswith("figure")]
    if figures or not facts.figures:
        got = f"{len(facts.figures)} collected; {''.join(figures[:1])}{later}"
        context.unknown("figures", "collected", "every metric", got)
    else:
        context.judge("figures", "collected", known, known)
    known = f"{len(context.cluster.nodes)} nodes"
    got = f"not of {', '.join(silent)}{later}" if silent else known
    context.judge("gates", "read", known, got, not silent or Outcome.INCONCLUSIVE)
    return facts


def _nodes(context: Context, facts: Facts, known: Sequence[Event]) -> list[str]:
    """Every node's gates: as it answers, else as it was last read back. Those that do not answer."""
    last = dict(states(known, context.attempt_name))
    seen = context.fleet.rollout()
    for node in context.cluster.nodes:
        now, before = seen.known.get(node.name), last.get(node.name)
        channel, when = "?", "never read back"
        gates: Mapping[str, bool] = {}
        if now is not None:
            gates, channel, when = now.feature_gates, now.release_channel, "now"
        else:
            why = seen.failed[node.name].problem
            facts.unknown("incident", f"gates of {node.name}", "an answer", why)
            if before is not None:
                gates, channel = before.state.gates, before.state.channel
                when = f"read back {utc(before.at)}"
        on = {True: "**on**", False: "off"}
        words = [on[bool(gates.get(gate))] if gates else "?" for gate in GATES]
        who = node.operator or "us"
        facts.nodes.append((code(node.name), plain(who, 60), *words, code(channel), when))
    return list(seen.failed)


def _figures(context: Context, facts: Facts, begun: datetime) -> None:
    """Each metric when the apply began, and now."""
    from ..metrics.catalogue import narrow, parse_catalogue

    path = project_path("params/metrics.yaml")
    catalogue = parse_catalogue(context.scope.read(path), path.name)
    metrics = [m for m in catalogue.metrics if m.per == "aggregate" and m.topic in TOPICS]
    asked = {metric.name: narrow(metric, context.matchers) for metric in metrics}
    queries = list(dict.fromkeys(query for many in asked.values() for query in many))
    then = context.prometheus.instants(queries, begun)
    now = context.prometheus.instants(queries, context.at)
    for metric in metrics:
        mine = asked[metric.name]
        pairs = [(_value(then.known.get(q)), _value(now.known.get(q))) for q in mine]
        found = next((pair for pair in pairs if pair[1] is not None), None)
        if found is None and (failed := [now.failed[q] for q in mine if q in now.failed]):
            facts.unknown("incident", f"figure {metric.name}", "an answer", failed[0].problem)
            continue
        before, after = (_shown(value, metric.unit) for value in found or (None, None))
        facts.figures.append((plain(metric.title, 80), before, after))


def _value(found: Vector | None) -> float | None:
    return found[0].value if found else None


def _shown(value: float | None, unit: str) -> str:
    return "no data" if value is None or value != value else plain(value_text(value, unit), 40)
