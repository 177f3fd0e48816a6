"""Convening the governance council: told of the incident, its decision heard and recorded.

What it decides on is the measures of this recovery, by their digest; two thirds of its members
approve it within 24 h of the recovery, in an issue or by signed files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..canonical import digest
from ..context import Context
from ..errors import RunbookError, SourceError
from ..evidence import incidents, outbox
from ..evidence.comment import code, plain
from ..evidence.incident_file import Incident
from ..files import replace_file
from ..markup import visible
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import RecoveryParams
from ..playbook import COUNCIL
from ..site import Person, Site
from ..sources import notices
from ..sources.scope import Scope
from ..sources.words import Heard
from ..wording import utc
from .apply import Applier
from .approvals import hear, in_force
from .incident import note, opened, opened_row
from .incident_facts import Facts, render, said
from .incident_report import file_incident, texts
from .unsent import keep, waits, was_kept


@dataclass(frozen=True)
class Votes:
    """Who of the members approved a digest; ``at`` is when they became two thirds."""

    members: tuple[Person, ...]
    by: tuple[str, ...]
    grounds: tuple[str, ...]
    at: datetime | None

    @property
    def needed(self) -> int:
        return -(-2 * len(self.members) // 3)

    def __str__(self) -> str:
        by = f": {', '.join(self.by)}" if self.by else ""
        return f"{len(self.by)} of {len(self.members)} members{by}"


def members(site: Site) -> tuple[Person, ...]:
    return tuple(person for person in site.people if COUNCIL in person.roles)


def hear_all(
    scope: Scope, site: Site, digest: str, *, issues: Iterable[int], file: str, release: str
) -> Heard:
    """What was said in several issues, a file and the site's folder. Raises SourceError."""
    files, all_of_them = [file] if file else [], Heard()
    for issue in dict.fromkeys(filter(None, issues)) or [0]:
        found = hear(scope, site, digest, issue=issue, files=files, release=release)
        all_of_them = replace(
            all_of_them,
            words=(*all_of_them.words, *found.words),
            withdrawals=(*all_of_them.withdrawals, *found.withdrawals),
        )
        files = []
    return all_of_them


def count_votes(site: Site, heard: Heard, digest: str) -> Votes:
    """Approvals of ``digest`` by council members that stand, each member counted once."""
    seated = members(site)
    accounts = {person.account for person in seated}
    words = sorted(in_force(site, heard, digest), key=lambda word: word.at)
    first = {word.account: word for word in reversed(words) if word.account in accounts}
    given = sorted(first.values(), key=lambda word: (word.at, word.account))
    votes = Votes(
        seated,
        tuple(word.account for word in given),
        tuple(word.grounds for word in given),
        None,
    )
    if not seated or len(given) < votes.needed:
        return votes
    return replace(votes, at=given[votes.needed - 1].at)


def decision(
    incident: Incident, votes: Votes, digest: str, ratifies: bool
) -> dict[str, Any] | None:
    """The entry that records a decision; None while there is none, or it is recorded already."""
    if votes.at is None or incident.decided(digest) is not None:
        return None
    return {
        "by": ", ".join(votes.by),
        "at": votes.at.isoformat(),
        "digest": digest,
        "grounds": list(votes.grounds),
        "ratifies": ratifies,
        "late": incident.is_late(votes.at),
    }


NEEDED = ("summary", "impact", "mitigations")
NOTICE = "council-notice"


def measures(context: Context, found: Incident) -> str:
    """The digest of what is to be decided: the same on every try that proposes the same."""
    params: RecoveryParams = context.params
    return digest(
        {
            "decides": found.id,
            "opened": found.entries[0].hash,
            "undoes": found.opened["undoes"],
            "break_glass": found.break_glass,
            "mitigations": params.mitigations,
            "next_steps": params.next_steps,
        }
    )


def plan_council(context: Context) -> list[Row]:
    """Whom it would convene. Only reads."""
    rows = [*texts(context, NEEDED), _seated(context)]
    if any(row.outcome is Outcome.FAIL for row in rows):
        return rows
    would = "told, and asked for a decision within 24 h"
    return [*rows, check_row("council", "would be", "", would, Outcome.INCONCLUSIVE)]


def convene(context: Context, applier: Applier) -> list[Row]:
    """Tell the council, hear it, record its decision. Playbook: mainnet recovery, 3."""
    rows = [*texts(context, NEEDED), _seated(context)]
    if any(row.outcome is not Outcome.PASS for row in rows):
        return rows
    told = opened(context)
    if isinstance(told, str):
        return [*rows, unknown_row("incident", "opened in the store", "one", told)]
    found, wanted = told[0], measures(context, told[0])
    text = _text(context, found, wanted)
    rows += [opened_row(found), *file_incident(context, applier, "governance", (found, text))]
    rows += [*_tell(context, found, wanted), *_decided(context, found, wanted)]
    # The texts and the incident were looked at twice.
    return list(dict.fromkeys(rows))


def _seated(context: Context) -> Row:
    seated = [person.account for person in members(context.site)]
    expected = f"people with the role {COUNCIL}"
    if not seated:
        got = "nobody in the site's people has it"
        return unknown_row("council", "members", expected, got)
    return check_row("council", "members", expected, ", ".join(seated), ok=True)


def _text(context: Context, found: Incident, wanted: str) -> str:
    params: RecoveryParams = context.params
    seated = members(context.site)
    glass = found.break_glass
    values = {
        "release": params.release,
        "cluster": plain(context.cluster_name, 80),
        "incident": found.id,
        "opened": utc(found.opened_at),
        "measures": said([*params.mitigations, *params.next_steps]),
        "break_glass": f"Break-glass by {plain(glass['by'], 80)}: {plain(glass['reason'], 500)}"
        if glass
        else "It does what was approved together with the plan it takes back.",
        "needed": str(-(-2 * len(seated) // 3)),
        "members": str(len(seated)),
        "names": ", ".join(f"@{person.account}" for person in seated),
        "digest": wanted,
        "due": utc(found.ratify_until),
    }
    return render(context, "decision.md", Facts(), values) + "\n"


def _tell(context: Context, found: Incident, wanted: str) -> list[Row]:
    """Page the council, once for each thing to decide."""
    what, command = "told", context.site.commands.notify
    sent = [e.body for e in context.journal if e.kind == "convened"]
    once = [check_row("council", what, "once", "once", ok=True)]
    if any(body["digest"] == wanted for body in sent):
        return once
    if _published(context, wanted):
        context.record.append("convened", {"digest": wanted, "at": context.now.isoformat()})
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
        if command is None:
            raise SourceError("commands.notify", "expected commands.notify in the site, got none")
        notices.by_command(context.scope, command, COUNCIL, subject, Path(path))
    except SourceError as error:
        document = {"kind": "notice", "role": COUNCIL, "subject": subject, "text": text}
        return [keep(context, NOTICE, {**document, "digest": wanted}, error, about=wanted)]
    outbox.drop(context.folder, NOTICE)
    context.record.append("convened", {"digest": wanted, "at": context.now.isoformat()})
    return once


def _published(context: Context, wanted: str) -> bool:
    """Whether ``runbook publish`` sent the notice that an earlier try kept."""
    if not was_kept(context, NOTICE, wanted):
        return False

    def look() -> str:
        return "waits" if waits(context, NOTICE) else "sent"

    return context.scope.derive("what became of the notice", look) == "sent"


def _decided(context: Context, found: Incident, wanted: str) -> list[Row]:
    what, due = "decided", found.ratify_until
    expected = f"by two thirds until {utc(due)}"
    filed = [*found.filed, *_filed_now(context, found)]
    try:
        heard = hear_all(
            context.scope,
            context.site,
            wanted,
            issues=[context.params.issue, *filed],
            file="",
            release=context.params.release,
        )
    except SourceError as error:
        return [unknown_row("council", what, expected, str(error))]
    votes = count_votes(context.site, heard, wanted)
    body = decision(found, votes, wanted, ratifies=found.break_glass is not None)
    if body is not None and (problem := note(context, found, "decision", body)):
        return [unknown_row("council", "decision recorded", found.id, problem)]
    if votes.at is None:
        late = context.now > due
        got = f"{votes}{'; later than 24 h after the recovery' if late else ''}"
        if late:
            return [check_row("council", what, expected, got, ok=False)]
        return [unknown_row("council", what, expected, got, return_at=due)]
    got = f"{votes}, at {utc(votes.at)}"
    if votes.at > due:
        got += ", later than 24 h after the recovery"
    return [check_row("council", what, expected, got, votes.at <= due)]


def _filed_now(context: Context, found: Incident) -> list[int]:
    """The issue of this try, which the incident as it was read does not name yet."""

    def look() -> str:
        try:
            return " ".join(map(str, incidents.load(context.store, found.id).filed))
        except RunbookError:  # removed meanwhile: promotion notices that
            return ""

    return [int(number) for number in context.scope.derive("issues of it", look).split()]
