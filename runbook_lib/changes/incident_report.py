"""The report of a recovery's incident: made for its audience, filed in the forge, read back.

What cannot be sent is kept in the attempt's outbox, for ``runbook publish``; the next try looks
first whether it is there by now.
"""

from __future__ import annotations

import string
from datetime import datetime
from pathlib import Path
from typing import Literal

from ..context import Context
from ..errors import SourceError, SourceRefused
from ..evidence import outbox
from ..evidence.comment import code, plain
from ..evidence.incident_file import Incident
from ..evidence.posts import Found, Report, digest, find, read_back, write
from ..markup import visible
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import RecoveryParams
from ..sources.process import Ended
from ..wording import utc
from .apply import Applier, Step
from .incident import note, opened, opened_row
from .incident_facts import NOTHING, Facts, collect, one_line, render, said
from .unsent import keep, later

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


def texts(context: Context, needed: tuple[str, ...]) -> list[Row]:
    """Each text that is needed, FAIL for one that says nothing."""
    params: RecoveryParams = context.params
    rows = []
    for name in needed:
        value = getattr(params, name)
        lines = value if isinstance(value, list) else [value]
        empty = not lines or any(_blank(line) for line in lines)
        got = "nothing said; set it and give a retry_reason" if empty else "there"
        rows.append(check_row(name, "text", "not empty", got, not empty))
    return rows


def _blank(line: str) -> bool:
    kept = line.translate(str.maketrans("", "", string.punctuation + string.whitespace))
    return kept.casefold() in _BLANKS


def plan_incident(context: Context, audience: Audience) -> list[Row]:
    """What would be filed. Only reads; an incident is not opened by a plan."""
    rows = texts(context, NEEDED[audience])
    if any(row.outcome is Outcome.FAIL for row in rows):
        return rows
    would = f"an incident of {context.params.release} is opened, its {audience} report filed"
    return [*rows, check_row("incident", "would be", "", would, Outcome.INCONCLUSIVE)]


# --- filing it ------------------------------------------------------------------------------------


def file_incident(
    context: Context,
    applier: Applier,
    audience: Audience,
    more: tuple[Incident, str] | None = None,
) -> list[Row]:
    """Open the incident, file its report in the forge, read it back. Playbook: recovery.

    ``more`` is an incident that is opened already, and a text to put first.
    """
    rows = texts(context, NEEDED[audience])
    mine = more or _open(context, rows)
    if mine is None:
        return rows
    found, first = mine
    facts = collect(context)
    rows += _collected(facts, len(context.cluster.nodes))
    if any(row.outcome is Outcome.FAIL for row in rows):
        return rows
    report = _report(context, found, audience, facts, first)
    return [*rows, *_file(context, applier, found, report)]


def _open(context: Context, rows: list[Row]) -> tuple[Incident, str] | None:
    told = opened(context)
    if isinstance(told, str):
        rows.append(unknown_row("incident", "opened in the store", "one", told))
        return None
    rows.append(opened_row(told[0]))
    return told[0], ""


def _collected(facts: Facts, nodes: int) -> list[Row]:
    """What the report tells of metrics and gates; the next try fetches what is missing."""
    later = "; the next try collects them"
    figures = [f"{what}: {why}" for what, why in facts.missing if what.startswith("figure")]
    rows = []
    if figures or not facts.figures:
        shown = f"{len(facts.figures)} collected; {''.join(figures[:1])}{later}"
        rows.append(unknown_row("figures", "collected", "every metric", shown))
    else:
        shown = f"{len(facts.figures)} metrics"
        rows.append(check_row("figures", "collected", shown, shown, ok=True))
    if facts.unread:
        names = ", ".join(facts.unread)
        rows.append(unknown_row("gates", "read", f"{nodes} nodes", f"not of {names}{later}"))
    else:
        rows.append(check_row("gates", "read", f"{nodes} nodes", f"{nodes} nodes", ok=True))
    return rows


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
    text = first + render(context, template, facts, values)
    title = f"{_TITLES[audience]} {found.id}: {visible(' '.join(params.summary.split()), 120)}"
    since = datetime.fromisoformat(found.opened["at"])
    return Report(found.id, audience, title, text, since)


def _facts(context: Context, found: Incident) -> str:
    body, glass = found.opened, found.break_glass
    undoes = body["undoes"] or {}
    rows = [
        ("release", f"{code(body['release'])} at {code(body['commit'])}"),
        ("cluster", f"{plain(context.cluster_name, 80)}, {code(context.cluster.chain_id)}"),
        ("taken back", code(undoes["name"]) if undoes else "nothing that was planned"),
        ("its plan", code(undoes["plan"]) if undoes else "none"),
        ("recovery", f"{code(body['attempt'])} by {plain(found.author, 80)}"),
        ("opened", utc(datetime.fromisoformat(body["at"]))),
    ]
    if glass:
        why = f"by {plain(glass['by'], 80)}: {plain(glass['reason'], 500)}"
        rows.append(("break-glass", why))
    return "\n".join(f"| {what} | {text} |" for what, text in rows)


def _ending(found: Incident) -> str:
    """What is to be done with it; no line begins with a verb that counts as somebody's word."""
    lines = [
        "No apply of this release opens until the incident is acknowledged, mitigated, closed, and"
        f" signed off by somebody other than {plain(found.author, 80)}:"
        f" {code(f'runbook incident {found.id}')}."
    ]
    if found.break_glass:
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
        there = find(report.board(context.forge), report.marker)
    except SourceError as error:
        return [keep(context, kind, document, error)]
    made = [there.ours.number] if there.ours is not None and there.holds(report.body) else []
    name = f"{kind}-{digest(report.body).removeprefix('sha256:')[:12]}"
    applier.settle(lambda step: bool(made) and step.startswith(name))
    # By its try: one that was done, and does not stand there any more, is done anew.
    step = _filing(context, there, report.body, f"{name}-{context.scope.number}", made)
    if not made and not applier.step(step):
        keep(context, kind, document, None)
        return [applier.rows.pop()]  # the step's own
    try:
        rows = [*there.rows(), *read_back(there, made[0], report.body)]
    except SourceError as error:
        return [unknown_row("forge", f"{kind} read back", digest(report.body), str(error))]
    if all(row.outcome is Outcome.PASS for row in rows):
        outbox.drop(context.folder, kind)
        by = str(context.journal[0].body["operator"])
        body = {"audience": report.audience, "number": made[0], "by": by}
        note(context, found, "filed", {**body, "at": context.now.isoformat()})
    return rows


def _secret(context: Context, report: Report) -> str:
    return "yes" if context.scope.outside.redactor.found_in(report.body.encode()) else ""


def _filing(context: Context, there: Found, body: str, name: str, made: list[int]) -> Step:
    def run(lock: int, outputs: Path) -> Ended:
        try:
            made.append(write(there, body).number)
        except SourceRefused as refused:
            said = refused.problem.partition(", got ")[2]
            return Ended(1, b"", b"", f"{said}; {later(context)}")
        except SourceError as error:
            return Ended(None, b"", b"", f"{error.problem}; {later(context)}")
        return Ended(0, b"", b"")

    return Step("forge", name, run, expected="filed")
