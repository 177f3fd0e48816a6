"""A recovery's incident: opened in the store, reported in the forge, decided on by the council.

It is opened whatever else fails. What cannot be sent is kept in the attempt's outbox, for
``runbook publish``; the next try looks first whether it is there by now. The council decides on the
measures of this recovery, by their digest: two thirds of its members approve it within 24 h of the
recovery, in an issue or by signed files.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from string import Template
from typing import Literal

from ..canonical import canonical
from ..canonical import digest as digest_of
from ..context import Context
from ..errors import ParameterError, RecordDamaged, RunbookError, SourceError
from ..evidence import incidents, outbox
from ..evidence.comment import LIMIT, code, digest, find, plain, read_back, write
from ..evidence.events import (
    BreakGlass,
    Convened,
    CouncilDecided,
    Event,
    IncidentClosed,
    IncidentFiled,
    IncidentNamed,
    IncidentOpened,
    Told,
    of,
    read_line,
)
from ..evidence.incident_issues import Issues, Report
from ..evidence.incidents import Incident, open_incident
from ..evidence.record import opened_by, recorded
from ..files import replace_file
from ..outcomes import Outcome, Row, check_row, unknown_row, value_text
from ..params import RecoveryParams
from ..playbook import COUNCIL, GATE_STEPS
from ..site import Person, Site
from ..sources.process import Ended
from ..sources.running import tell
from ..sources.words import Heard, hear, in_force
from ..strict import project_path
from ..wording import count, utc, visible
from .apply import Applier, Step, all_pass, asked, keep, later, was_sent
from .power import two_thirds
from .state import states

Audience = Literal["internal", "governance", "public"]
NEEDED: dict[Audience, tuple[str, ...]] = {
    "internal": ("summary",),
    "governance": ("summary", "impact"),
    "public": ("summary", "impact", "mitigations", "next_steps"),
}
"""The texts that an audience's report cannot be without."""
_TITLES: dict[Audience, str] = {
    "internal": "Incident",
    "governance": "Governance incident",
    "public": "Incident report",
}
_BLANKS = frozenset({"", "tbd", "todo", "fixme", "na", "none", "nothing"})
_DECIDED = ("summary", "impact", "mitigations")
_NOTICE = "council-notice"
ROWS = (300, 100, 30, 10)
"""Rows of a table, fewer until the whole fits."""
NOTHING = "nothing said"
CHARS = 300
TOPICS = ("consensus_latency", "block_production", "finality_lag", "proof_latency",
          "proof_queue_depth", "vrf_participation", "network_churn")  # fmt: skip
GATES = tuple(dict.fromkeys(gate for steps in GATE_STEPS.values() for gate in steps))


# --- in the store ---------------------------------------------------------------------------------


def _opened(context: Context, rows: list[Row]) -> Incident | None:
    """This recovery's incident; None where there can be none. A row says which.

    A later recovery of the same stopped apply joins the incident of an earlier one.
    """
    facts, begun = context.params, context.opened
    by, reason = begun.operator, facts.break_glass
    opened = IncidentOpened(
        release=facts.release,
        commit=facts.commit,
        stage=context.stage,
        cluster=context.cluster_name,
        attempt=context.attempt_name,
        undoes=begun.undoes,
        author=by,
        by=by,
        at=begun.now,
        issue=facts.issue,
        break_glass=BreakGlass(by=by, reason=reason) if reason else None,
    )

    def ours(one: Incident) -> bool:
        again = begun.undoes is not None and one.opened.undoes == begun.undoes
        joins = again and not reason and one.last(IncidentClosed) is None
        return one.opened.attempt == context.attempt_name or joins

    def compute() -> str:
        try:
            found = open_incident(context.store, opened, ours)
        except (RunbookError, OSError) as error:
            return canonical({"problem": str(error)}).decode()
        kept = [event.line().decode() for event in found.events]
        return canonical({"id": found.id, "events": kept}).decode()

    told = json.loads(context.scope.derive("the incident of this recovery", compute))
    if "problem" in told:
        rows.append(unknown_row("incident", "opened in the store", "one", told["problem"]))
        return None
    found = Incident(told["id"], [read_line(line.encode()) for line in told["events"]])
    named = IncidentNamed(id=found.id, first=found.opened.hash)
    if named.content not in [event.content for event in of(context.journal, IncidentNamed)]:
        context.record.append(named)
    rows.append(check_row("incident", "opened in the store", found.id, found.id, ok=True))
    return found


def _note(context: Context, found: Incident, event: Told) -> str:
    """Add to the incident, once; what went wrong with that, else nothing."""
    known = [{**each.content, "at": ""} for each in of(found.events, type(event))]
    if {**event.content, "at": ""} in known:
        return ""

    def write_it() -> str:
        try:
            incidents.add(context.store, found.id, event)
        except (RunbookError, OSError) as error:
            return str(error)
        return ""

    return context.scope.derive(f"{event.kind} in {found.id}", write_it)


def _texts(context: Context, needed: tuple[str, ...]) -> list[Row]:
    """Each text that is needed, FAIL for one that says nothing."""
    params: RecoveryParams = context.params
    rows, ignored = [], str.maketrans("", "", string.punctuation + string.whitespace)
    for name in needed:
        value = getattr(params, name)
        lines = value if isinstance(value, list) else [value]
        there = bool(lines) and not any(x.translate(ignored).casefold() in _BLANKS for x in lines)
        got = "there" if there else "nothing said; set it and give a retry_reason"
        rows.append(check_row(name, "text", "not empty", got, there))
    return rows


def plan_incident(context: Context, audience: Audience) -> list[Row]:
    """What would be filed. Only reads; an incident is not opened by a plan."""
    rows = _texts(context, NEEDED[audience])
    if any(row.outcome is Outcome.FAIL for row in rows):
        return rows
    would = f"an incident of {context.params.release} is opened, its {audience} report filed"
    return [*rows, unknown_row("incident", "would be", "", would)]


# --- in the forge ---------------------------------------------------------------------------------


def file_incident(context: Context, applier: Applier, audience: Audience) -> list[Row]:
    """Open the incident, file its report in the forge, read it back. Playbook: recovery."""
    rows = _texts(context, NEEDED[audience])
    found = _opened(context, rows)
    if found is None:
        return rows
    facts = collect(context)
    rows += _collected(facts, len(context.cluster.nodes))
    if any(row.outcome is Outcome.FAIL for row in rows):
        return rows
    return [*rows, *_file(context, applier, found, _report(context, found, audience, facts, ""))]


def _collected(facts: Facts, nodes: int) -> list[Row]:
    """What the report tells of metrics and gates; the next try fetches what is missing."""
    later = "; the next try collects them"
    figures = [f"{what}: {why}" for what, why in facts.missing if what.startswith("figure")]
    rows = [check_row("figures", "collected", known := f"{len(facts.figures)} metrics", known)]
    if figures or not facts.figures:
        shown = f"{len(facts.figures)} collected; {''.join(figures[:1])}{later}"
        rows = [unknown_row("figures", "collected", "every metric", shown)]
    if not facts.unread:
        return [*rows, check_row("gates", "read", f"{nodes} nodes", f"{nodes} nodes")]
    got = f"not of {', '.join(facts.unread)}{later}"
    return [*rows, unknown_row("gates", "read", f"{nodes} nodes", got)]


def _report(
    context: Context, found: Incident, audience: Audience, facts: Facts, first: str
) -> Report:
    params: RecoveryParams = context.params
    values = {
        "incident": found.id,
        "release": params.release,
        "cluster": plain(context.cluster_name, 80),
        "summary": one_line(params.summary),
        "impact": one_line(params.impact) or NOTHING,
        "mitigations": said(params.mitigations),
        "next_steps": said(params.next_steps),
        "facts": _facts(context, found),
        "ending": _ending(found),
    }
    template = "public_report.md" if audience == "public" else "incident.md"
    text = first + render(context, template, values, facts)
    title = f"{_TITLES[audience]} {found.id}: {visible(' '.join(params.summary.split()), 120)}"
    return Report(found.id, audience, title, text, found.opened.at)


def _facts(context: Context, found: Incident) -> str:
    opened, undoes, glass = found.opened, found.opened.undoes, found.opened.break_glass
    rows = [
        ("release", f"{code(opened.release)} at {code(opened.commit)}"),
        ("cluster", f"{plain(context.cluster_name, 80)}, {code(context.cluster.chain_id)}"),
        ("taken back", code(undoes.name) if undoes else "nothing that was planned"),
        ("its plan", code(undoes.plan) if undoes else "none"),
        ("recovery", f"{code(opened.attempt)} by {plain(opened.author, 80)}"),
        ("opened", utc(opened.at)),
    ]
    if glass:
        rows.append(("break-glass", f"by {plain(glass.by, 80)}: {plain(glass.reason, 500)}"))
    return "\n".join(f"| {what} | {text} |" for what, text in rows)


def _ending(found: Incident) -> str:
    """What is to be done with it; no line begins with a verb that counts as somebody's word."""
    lines = [
        "No apply of this release opens until the incident is acknowledged, mitigated, closed, and"
        f" signed off by somebody other than {plain(found.opened.author, 80)}:"
        f" {code(f'runbook incident {found.id}')}."
    ]
    if found.opened.break_glass:
        due = utc(found.ratify_until)
        lines.append(
            f"Its break-glass is to be ratified by the governance council until {due}: a comment"
            f" here that says just `approve {found.to_ratify}`."
        )
    return "\n\n".join(lines)


def _file(context: Context, applier: Applier, found: Incident, report: Report) -> list[Row]:
    kind = f"{report.audience}-report"
    document = {**vars(report), "kind": "issue", "since": report.since.isoformat()}
    if context.scope.derive(f"a secret in the {kind}", lambda: _secret(context, report)):
        return [check_row(kind, "secrets", "none", "one; take it out of the texts", ok=False)]
    try:
        there = find(report.board(Issues(context.scope, context.site.forge)), report.marker)
    except SourceError as error:
        return [keep(context, kind, document, error)]
    made = [there.ours.number] if there.ours is not None and there.holds(report.body) else []
    name = f"{kind}-{digest(report.body).removeprefix('sha256:')[:12]}"
    applier.settle(lambda step: bool(made) and step.startswith(name))
    # By its try: one that was done, and does not stand there any more, is done anew.
    name, more = f"{name}-{context.scope.number}", f"; {later(context)}"

    def run(*_: object) -> Ended:
        return asked(lambda: made.append(write(there, report.body).number), more)

    step = Step("forge", name, run, expected="filed")
    if not made and not applier.step(step):
        keep(context, kind, document, None)
        return [applier.rows.pop()]  # the step's own
    try:
        rows = [*there.rows(), *read_back(there, made[0], report.body)]
    except SourceError as error:
        return [unknown_row("forge", f"{kind} read back", digest(report.body), str(error))]
    if all_pass(rows):
        outbox.drop(context.folder, kind)
        by, audience, at = context.opened.operator, report.audience, context.now
        filed = IncidentFiled(audience=audience, number=made[0], by=by, at=at)
        _note(context, found, filed)
    return rows


def _secret(context: Context, report: Report) -> str:
    return "yes" if context.scope.outside.redactor.found_in(report.body.encode()) else ""


# --- the council ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Votes:
    """Who of the members approved a digest; ``at`` is when they became two thirds."""

    members: tuple[Person, ...]
    by: tuple[str, ...]
    grounds: tuple[str, ...]
    at: datetime | None

    def __str__(self) -> str:
        by = f": {', '.join(self.by)}" if self.by else ""
        return f"{len(self.by)} of {len(self.members)} members{by}"


def members(site: Site) -> tuple[Person, ...]:
    return tuple(person for person in site.people if COUNCIL in person.roles)


def count_votes(site: Site, heard: Heard, digest: str) -> Votes:
    """Approvals of ``digest`` by council members that stand, each member counted once."""
    seated = members(site)
    accounts = {person.account for person in seated}
    words = sorted(in_force(site, heard, digest), key=lambda word: word.at)
    first = {word.account: word for word in reversed(words) if word.account in accounts}
    given = sorted(first.values(), key=lambda word: (word.at, word.account))
    enough = bool(seated) and len(given) >= two_thirds(len(seated))
    return Votes(
        seated,
        tuple(word.account for word in given),
        tuple(word.grounds for word in given),
        given[two_thirds(len(seated)) - 1].at if enough else None,
    )


def decision(
    incident: Incident, votes: Votes, digest: str, ratifies: bool
) -> CouncilDecided | None:
    """The event that records a decision; None while there is none, or it is recorded already."""
    if votes.at is None or incident.decided(digest) is not None:
        return None
    return CouncilDecided(
        by=", ".join(votes.by),
        at=votes.at,
        digest=digest,
        grounds=tuple(votes.grounds),
        ratifies=ratifies,
        late=votes.at > incident.ratify_until,
    )


def _measures(context: Context, found: Incident) -> str:
    """The digest of what is to be decided: the same on every try that proposes the same."""
    params: RecoveryParams = context.params
    return digest_of(
        {
            "decides": found.id,
            "opened": found.opened.hash,
            "undoes": dict(found.opened.undoes or ()),
            "break_glass": dict(found.opened.break_glass or ()),
            "mitigations": params.mitigations,
            "next_steps": params.next_steps,
        }
    )


def plan_council(context: Context) -> list[Row]:
    """Whom it would convene. Only reads."""
    rows = [*_texts(context, _DECIDED), _seated(context)]
    if any(row.outcome is Outcome.FAIL for row in rows):
        return rows
    would = "told, and asked for a decision within 24 h"
    return [*rows, unknown_row("council", "would be", "", would)]


def convene(context: Context, applier: Applier) -> list[Row]:
    """Tell the council, hear it, record its decision. Playbook: mainnet recovery, 3."""
    rows = [*_texts(context, _DECIDED), _seated(context)]
    if not all_pass(rows):
        return rows
    found = _opened(context, rows)
    if found is None:
        return rows
    wanted = _measures(context, found)
    facts, text = collect(context), _text(context, found, wanted)
    rows += _collected(facts, len(context.cluster.nodes))
    rows += _file(context, applier, found, _report(context, found, "governance", facts, text))
    return [*rows, *_tell(context, found, wanted), *_decided(context, found, wanted)]


def _seated(context: Context) -> Row:
    seated = ", ".join(person.account for person in members(context.site))
    got = seated or "nobody in the site's people has it"
    outcome = Outcome.PASS if seated else Outcome.INCONCLUSIVE
    return check_row("council", "members", f"people with the role {COUNCIL}", got, outcome)


def _text(context: Context, found: Incident, wanted: str) -> str:
    params: RecoveryParams = context.params
    seated, glass = members(context.site), found.opened.break_glass
    why = "It does what was approved together with the plan it takes back."
    if glass:
        why = f"Break-glass by {plain(glass.by, 80)}: {plain(glass.reason, 500)}"
    values = {
        "release": params.release,
        "cluster": plain(context.cluster_name, 80),
        "incident": found.id,
        "opened": utc(found.opened.at),
        "measures": said([*params.mitigations, *params.next_steps]),
        "break_glass": why,
        "needed": str(two_thirds(len(seated))),
        "members": str(len(seated)),
        "names": ", ".join(f"@{person.account}" for person in seated),
        "digest": wanted,
        "due": utc(found.ratify_until),
    }
    return render(context, "decision.md", values) + "\n"


def _tell(context: Context, found: Incident, wanted: str) -> list[Row]:
    """Page the council, once for each thing to decide."""
    what, commands = "told", context.site.commands
    sent = of(context.journal, Convened)
    once = [check_row("council", what, "once", "once", ok=True)]
    if any(told.digest == wanted for told in sent):
        return once
    if was_sent(context, _NOTICE, wanted, "the notice"):
        context.record.append(Convened(digest=wanted, at=context.now))
        return once
    subject = f"council convened: {found.id} on {context.cluster_name}"
    text = (
        f"{context.cluster.chain_id}, {context.params.release}: {visible(context.params.summary)}\n"
        f"to be decided until {utc(found.ratify_until)}\n"
        f"in the issue of {code(found.id)} or the release issue, by a comment that says just\n"
        f"  `approve {wanted}`\n"
    )
    path = context.folder / "council.txt"
    replace_file(path, text)
    try:
        tell(context.scope, commands, "notify", role=COUNCIL, subject=subject, text=str(path))
    except SourceError as error:
        document = {"kind": "notice", "role": COUNCIL, "subject": subject, "text": text}
        return [keep(context, _NOTICE, {**document, "digest": wanted}, error, about=wanted)]
    outbox.drop(context.folder, _NOTICE)
    context.record.append(Convened(digest=wanted, at=context.now))
    return once


def _decided(context: Context, found: Incident, wanted: str) -> list[Row]:
    what, due = "decided", found.ratify_until
    expected = f"by two thirds until {utc(due)}"
    try:
        issues = [context.params.issue, *found.filed, *_filed_now(context, found)]
        release = context.params.release
        heard = hear(context.scope, context.site, wanted, issues=issues, release=release)
    except SourceError as error:
        return [unknown_row("council", what, expected, str(error))]
    votes = count_votes(context.site, heard, wanted)
    made = decision(found, votes, wanted, ratifies=found.opened.break_glass is not None)
    if made is not None and (problem := _note(context, found, made)):
        return [unknown_row("council", "decision recorded", found.id, problem)]
    if votes.at is None and context.now <= due:
        return [unknown_row("council", what, expected, str(votes), return_at=due)]
    got = f"{votes}, at {utc(votes.at)}, " if votes.at else f"{votes}; "
    late = votes.at is None or votes.at > due
    got = f"{got}later than 24 h after the recovery" if late else got.removesuffix(", ")
    return [check_row("council", what, expected, got, not late)]


def _filed_now(context: Context, found: Incident) -> list[int]:
    """The issue of this try, which the incident as it was read does not name yet."""

    def look() -> str:
        with suppress(RunbookError):  # removed meanwhile: promotion notices that
            return " ".join(map(str, incidents.load(context.store, found.id).filed))
        return ""

    return [int(number) for number in context.scope.derive("issues of it", look).split()]


# --- what an incident is told with: gates of the nodes and figures, as cells of Markdown tables ---
# What others wrote is shown as just that; what could not be read is listed, never left out. What ran
# and when stands in the attempt's record, which the incident names.


@dataclass
class Facts:
    """Tables of an incident, their cells Markdown; ``missing`` names what could not be read."""

    nodes: list[tuple[str, ...]] = field(default_factory=list)
    figures: list[tuple[str, ...]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    def tables(self, limit: int) -> dict[str, str]:
        """Markdown of each, of at most ``limit`` rows."""
        gates = ("node", "run by", *(f"`{gate}`" for gate in GATES), "channel", "seen")
        figures = ("metric", "when the apply began", "now")
        missing = [f"{plain(what, 80)}: {plain(why, CHARS)}" for what, why in self.missing[:limit]]
        if (cut := len(self.missing) - limit) > 0:
            missing.append(f"and {cut} more; see the record")
        return {
            "gates": _table(gates, self.nodes, limit),
            "figures": _table(figures, self.figures, limit, right=2),
            "missing": _bullets(missing) or "nothing: all of it was read",
        }


def render(
    context: Context, template: str, values: dict[str, str], facts: Facts | None = None
) -> str:
    """The template of that name, filled. Raises SourceError for one that cannot be.

    ``values`` are Markdown already; tables are cut until a forge takes the whole.
    """
    path, known = project_path(f"params/templates/{template}"), values
    try:
        made = Template(context.scope.read(path).decode())
        for limit in ROWS:
            known = values | (facts.tables(limit) if facts is not None else {})
            text = made.substitute(known).strip() + "\n"
            if len(text.encode("utf-16-le")) // 2 <= LIMIT - 200:
                return text
    except (KeyError, ValueError) as error:
        names = ", ".join(f"${name}" for name in sorted(known))
        raise SourceError(f"template {template}", f"expected {names}, got {error!r}") from error
    raise SourceError(f"template {template}", f"expected at most {LIMIT} characters, got more")


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], limit: int, *, right: int = 0
) -> str:
    """A Markdown table, its last ``right`` columns to the right; of no rows, that there are none."""
    if not rows:
        return "none"
    marks = [":--"] * (len(columns) - right) + ["--:"] * right
    lines = [f"| {' | '.join(row)} |" for row in (columns, marks, *rows[:limit])]
    if len(rows) > limit:
        lines += ["", f"{count(len(rows) - limit, 'more row')}; see the record"]
    return "\n".join(lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def said(texts: Sequence[str]) -> str:
    """What a person wrote, a bullet each."""
    return _bullets([one_line(text) for text in texts if text.strip()]) or NOTHING


def one_line(text: str) -> str:
    """What a person wrote, as just that."""
    return plain(" ".join(text.split()), 2000)


def collect(context: Context) -> Facts:
    """Everything that can be read now. Raises nothing but what a replay lacks."""
    facts = Facts()
    undoes = context.opened.undoes
    forward: list[Event] = []
    if undoes:
        try:
            forward = recorded(context.scope, context.store, undoes.name)
        except (SourceError, RecordDamaged) as error:
            facts.missing.append((f"record of {undoes.name}", str(error)))
    # What this very item did before is in its own issue, not in its own words.
    mine = [e for e in context.journal if getattr(e, "item", "") != context.item]
    _nodes(context, facts, [*forward, *mine])
    begun = opened_by(forward, "forward") if forward else context.opened
    _figures(context, facts, begun.now)
    return facts


def _nodes(context: Context, facts: Facts, known: Sequence[Event]) -> None:
    """Every node's gates: as it answers, else as it was last read back."""
    try:
        last = dict(states(known, context.attempt_name))
        seen = context.fleet.rollout()
    except (SourceError, RecordDamaged) as error:
        facts.missing.append(("gates of the nodes", str(error)))
        facts.unread = [node.name for node in context.cluster.nodes]
        return
    for node in context.cluster.nodes:
        now = seen[node.name]
        if isinstance(now, SourceError):
            facts.unread.append(node.name)
            facts.missing.append((f"gates of {node.name}", now.problem))
            before = last.get(node.name)
            gates = before.state.gates if before else {}
            when = f"read back {utc(before.at)}" if before else "never read back"
            channel = before.state.channel if before else "?"
        else:
            gates, channel, when = now.feature_gates, now.release_channel, "now"
        on = {True: "**on**", False: "off"}
        words = [on[bool(gates.get(gate))] if gates else "?" for gate in GATES]
        who = node.operator or "us"
        facts.nodes.append((code(node.name), plain(who, 60), *words, code(channel), when))


def _figures(context: Context, facts: Facts, begun: datetime) -> None:
    """Each metric when the apply began, and now."""
    from ..metrics.catalogue import narrow, parse_catalogue

    path = project_path("params/metrics.yaml")
    try:
        catalogue = parse_catalogue(context.scope.read(path), path.name)
        metrics = [m for m in catalogue.metrics if m.per == "aggregate" and m.topic in TOPICS]
        asked = {metric.name: narrow(metric, context.matchers) for metric in metrics}
        queries = list(dict.fromkeys(query for many in asked.values() for query in many))
        then = context.prometheus.instants(queries, begun)
        now = context.prometheus.instants(queries, context.at)
    except (SourceError, ParameterError) as error:
        facts.missing.append(("figures", str(error)))
        return
    for metric in metrics:
        pairs = [(_value(then[query]), _value(now[query])) for query in asked[metric.name]]
        found = next((pair for pair in pairs if pair[1] is not None), None)
        failed = next((now[q] for q in asked[metric.name] if isinstance(now[q], SourceError)), None)
        if found is None and isinstance(failed, SourceError):
            facts.missing.append((f"figure {metric.name}", failed.problem))
            continue
        before, after = (_shown(value, metric.unit) for value in found or (None, None))
        facts.figures.append((plain(metric.title, 80), before, after))


def _value(found: object) -> float | None:
    samples = getattr(found, "samples", ())
    return samples[0].value if samples and not getattr(found, "partial", False) else None


def _shown(value: float | None, unit: str) -> str:
    return "no data" if value is None or value != value else plain(value_text(value, unit), 40)
