"""Anomalies of a watch: what is wrong, who is notified, who acknowledged, and what was decided.

A finding of a look (or of the judged window) is part of the anomaly of its subject that is open;
once that is decided, a finding that begins anew is a new one. Whether an anomaly was acknowledged
in time is computed from timestamps by each look; there is no timer. A notification that cannot be
sent lies in ``outbox/`` of the attempt and goes out with the next look; one that went out as we
died is sent again. Nothing here keeps the watch from looking.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..canonical import canonical, digest
from ..context import Context
from ..evidence.record import Entry
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..playbook import COMMANDER
from ..wording import utc

Body = dict[str, Any]
KINDS = frozenset({"look", "anomaly", "notified", "acknowledged", "decided", "watched"})


# --- what a watch has recorded --------------------------------------------------------------------


_at = datetime.fromisoformat


def load_row(value: Any) -> Row:
    """A row as it was recorded."""
    return Row.model_validate_json(json.dumps(value))


class Log:
    """The watch's entries of an attempt, oldest first, as far as this run knows them.

    The watch's cell, ``--continue`` and ``runbook watch`` write to one record, at once if need be:
    appends are idempotent by key. What others added goes through the tape, so that a replay learns
    of it at the same place.
    """

    def __init__(self, context: Context) -> None:
        self._scope, self._record = context.scope, context.record
        journal = context.journal
        self._known = journal[-1].seq + 1 if journal else 0
        self._entries = [(e.kind, e.body) for e in journal if e.kind in KINDS]
        self._own: set[int] = set()
        self._rows: dict[str, list[Row]] = {}

    def of(self, kind: str) -> Iterator[Body]:
        """The bodies of the entries of a kind."""
        return (body for found, body in self._entries if found == kind)

    def rows_of(self, body: Body) -> list[Row]:
        """The rows of a look or of a judged window, read once: a watch goes over all at each look."""
        if body["key"] not in self._rows:
            self._rows[body["key"]] = [load_row(row) for row in body["rows"]]
        return self._rows[body["key"]]

    def has(self, kind: str, key: str) -> bool:
        return any(body["key"] == key for body in self.of(kind))

    def refresh(self) -> None:
        """Learn what others have added."""

        def news() -> str:
            added = self._record.entries()[self._known :]
            self._known += len(added)
            theirs = [e for e in added if e.kind in KINDS and e.seq not in self._own]
            return canonical([[entry.kind, entry.body] for entry in theirs]).decode()

        found = json.loads(self._scope.derive("what others added to the watch", news))
        self._entries += [(kind, body) for kind, body in found]

    def add(self, kind: str, key: str, body: Body) -> bool:
        """Add an entry, unless there is one of that kind and key. Whether it was added by us."""
        if self.has(kind, key):
            return False
        full = {**body, "key": key}

        def claim() -> str:
            def make(entries: list[Entry]) -> Body | None:
                there = any(e.kind == kind and e.body.get("key") == key for e in entries)
                return None if there else full

            entry = self._record.append_if(kind, make)
            if entry is not None:
                self._own.add(entry.seq)
            return "ours" if entry is not None else "another's"

        ours = self._scope.derive(f"{kind} {key}", claim) == "ours"
        if ours:
            if not self._scope.live:
                self._record.append(kind, full)
            self._entries.append((kind, full))
        else:
            self.refresh()
        return ours


# --- anomalies ------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a commander said, and when; ``kind`` of a decision is continue, restart or recover."""

    by: str
    at: datetime
    kind: str
    reason: str


@dataclass(frozen=True)
class Anomaly:
    """``at`` is the look that found it, ``opened`` when the commander was first to be told."""

    id: str
    subject: str
    query: str
    at: datetime
    opened: datetime
    row: Row
    acknowledged: Answer | None = None
    decided: Answer | None = None

    @property
    def summary(self) -> str:
        row = self.row
        return f"{row.subject}: {row.what}: expected {row.expected}, got {row.observed} {row.unit}"

    @property
    def restarted(self) -> datetime | None:
        """Where the watch begins anew by its decision: never before what was found.

        A word is of the instant that its speaker's clock says; a wrong one would leave the window
        as it is, and the finding out of it.
        """
        if self.decided is None or self.decided.kind != "restart":
            return None
        return max(self.decided.at, self.at)

    def escalated(self, now: datetime, within: timedelta) -> bool:
        """Whether nobody acknowledged it within that time, whatever came later."""
        answered = self.acknowledged.at if self.acknowledged else now
        return min(now, answered) >= self.opened + within

    def rows(self, trouble: str, *, escalated: bool) -> list[Row]:
        """The finding, until a decision restarts the watch, and who decided what of it.

        ``trouble`` says what could not be sent or read. That the watch goes on needs a waiver of
        the finding.
        """
        subject, what, expected = f"anomaly {self.id}", "decided", "continue, restart or recover"
        finding = self.row.model_copy(update={"what": f"{self.row.what} ({utc(self.at)})"})
        done = self.decided
        if done is None:
            known = self.acknowledged
            word = f"acknowledged by {known.by} {utc(known.at)}" if known else "not acknowledged"
            word += ", escalated" if escalated else ""
            got = f"undecided, {word}" + (f"; {trouble}" if trouble else "")
            return [finding, unknown_row(subject, what, expected, got)]
        got = f"{done.kind} by {done.by} {utc(done.at)}: {done.reason}"
        decision = check_row(subject, what, expected, got, done.kind != "recover")
        if done.kind != "restart":
            return [finding, decision]
        # Named for ever; the window that it spoilt is no longer judged.
        got = f"{finding.observed} {finding.unit}, the watch was restarted"
        past = check_row(finding.subject, finding.what, finding.expected, got, Outcome.PASS)
        return [past, decision]


def known(log: Log) -> list[Anomaly]:
    """Every anomaly of the attempt, in the order of its looks."""
    acknowledged, decided = (
        {
            b["id"]: Answer(b["by"], _at(b["at"]), b.get("decision", ""), b.get("reason", ""))
            for b in log.of(kind)
        }
        for kind in ("acknowledged", "decided")
    )
    found = [
        Anomaly(
            id=body["id"],
            subject=body["subject"],
            query=body["query"],
            at=_at(body["at"]),
            opened=_at(body["opened"]),
            row=load_row(body["row"]),
            acknowledged=acknowledged.get(body["id"]),
            decided=decided.get(body["id"]),
        )
        for body in log.of("anomaly")
    ]
    return sorted(found, key=lambda each: (each.at, each.subject))


def open_new(log: Log, attempt: str, now: datetime, queries: Mapping[str, str]) -> list[str]:
    """An anomaly for every finding that is part of none, of any look and of judged windows.

    ``queries`` by subject, for a person to look with. The ids of those that we opened.
    """
    opened = []
    looks = sorted([*log.of("look")], key=lambda body: (body["at"], body["made"]))
    before: set[str] = set()
    for body in [*looks, *log.of("watched")]:
        at = _at(body["at"])
        failing = [row for row in log.rows_of(body) if row.outcome is Outcome.FAIL]
        for row in failing:
            if not _part(known(log), row.subject, at, before, whole="start" in body):
                opened += _open(log, attempt, row, at, now, queries)
        before = {row.subject for row in failing}
    return opened


def _part(
    anomalies: Sequence[Anomaly], subject: str, at: datetime, before: set[str], *, whole: bool
) -> bool:
    """Whether a finding is part of what is known; one of a whole window is of any in it."""
    last = next((each for each in reversed(anomalies) if each.subject == subject), None)
    if last is None:
        return False
    if last.decided is None or at <= last.decided.at:
        return True
    return last.decided.kind == "continue" and (whole or subject in before)


def _open(
    log: Log, attempt: str, row: Row, at: datetime, now: datetime, queries: Mapping[str, str]
) -> list[str]:
    key = {"attempt": attempt, "subject": row.subject, "at": at.isoformat()}
    name = "A" + digest(key).removeprefix("sha256:")[:8]
    first, _, rest = row.subject.partition(" ")
    alert = f'ALERTS{{alertstate="firing",alertname="{rest}"}}'
    query = alert if first == "alert" else queries.get(first, f"{row.what}, by its own source")
    body = {
        "id": name,
        "subject": row.subject,
        "query": query,
        "at": at.isoformat(),
        "opened": now.isoformat(),
        "row": row.model_dump(mode="json"),
    }
    return [name] if log.add("anomaly", name, body) else []


# --- people ---------------------------------------------------------------------------------------


def reachable(context: Context) -> Row:
    """Whether there is a commander, a way to tell them, and a place for their word."""
    what, expected = "can be told and answer", "a person, a way to tell them, a place to answer"
    ways = [name for name, there in ways_of(context).items() if there]
    if not accounts(context, (COMMANDER,)):
        problem = f"nobody has the role {COMMANDER}; list them in the site's people"
    elif not ways:
        problem = "no way to tell them; set commands.notify, telemetry.notify or issue"
    elif not (context.params.issue or context.site.words):
        problem = "no place for their answer; set issue, or the site's words"
    else:
        return check_row("release commander", what, expected, ", ".join(ways), ok=True)
    return unknown_row("release commander", what, expected, problem)


def ways_of(context: Context) -> dict[str, bool]:
    site = context.site
    return {
        "command": site.commands.notify is not None,
        "webhook": site.telemetry.notify is not None,
        "comment": bool(context.params.issue),
    }


def accounts(context: Context, roles: tuple[str, ...]) -> list[str]:
    return [p.account for p in context.site.people if any(role in p.roles for role in roles)]


def deadline(context: Context, log: Log) -> datetime | None:
    """When the next of the anomalies that nobody has acknowledged is to be escalated."""
    now, within = context.now, patience(context)
    open_ = [e for e in known(log) if not e.acknowledged and not e.escalated(now, within)]
    return min((each.opened + within for each in open_), default=None)


def patience(context: Context) -> timedelta:
    """How long the release commander may take to acknowledge an anomaly."""
    return timedelta(minutes=context.params.engage_minutes)
