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
from pathlib import Path
from typing import Any

from ..canonical import canonical, digest
from ..context import Context
from ..errors import SourceError
from ..evidence.record import Entry
from ..files import keep_file
from ..markup import visible
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..playbook import COMMANDER, COUNCIL, ENGINEER
from ..sources import notices
from ..sources.words import Word, read_words, taken_back
from ..wording import utc

Body = dict[str, Any]
KINDS = frozenset({"look", "anomaly", "notified", "acknowledged", "decided", "watched"})
ROLES = {"opened": (COMMANDER,), "escalated": (COUNCIL, ENGINEER)}
FIGURES = "figures"


# --- what a watch has recorded --------------------------------------------------------------------


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


@dataclass(frozen=True)
class Decided:
    """``kind`` is continue, restart or recover."""

    kind: str
    by: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Acknowledged:
    """Who said that they know, and when."""

    by: str
    at: datetime


@dataclass(frozen=True)
class Anomaly:
    """``at`` is the look that found it, ``opened`` when the commander was first to be told."""

    id: str
    subject: str
    query: str
    at: datetime
    opened: datetime
    row: Row
    acknowledged: Acknowledged | None = None
    decided: Decided | None = None

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
    acknowledged = {
        body["id"]: Acknowledged(body["by"], datetime.fromisoformat(body["at"]))
        for body in log.of("acknowledged")
    }
    decided = {body["id"]: _decided(body) for body in log.of("decided")}
    found = [
        Anomaly(
            id=body["id"],
            subject=body["subject"],
            query=body["query"],
            at=datetime.fromisoformat(body["at"]),
            opened=datetime.fromisoformat(body["opened"]),
            row=load_row(body["row"]),
            acknowledged=acknowledged.get(body["id"]),
            decided=decided.get(body["id"]),
        )
        for body in log.of("anomaly")
    ]
    return sorted(found, key=lambda each: (each.at, each.subject))


def _decided(body: Body) -> Decided:
    at = datetime.fromisoformat(body["at"])
    return Decided(body["decision"], body["by"], body["reason"], at)


def open_new(log: Log, attempt: str, now: datetime, queries: Mapping[str, str]) -> list[str]:
    """An anomaly for every finding that is part of none, of any look and of judged windows.

    ``queries`` by subject, for a person to look with. The ids of those that we opened.
    """
    opened = []
    looks = sorted([*log.of("look")], key=lambda body: (body["at"], body["made"]))
    before: set[str] = set()
    for body in [*looks, *log.of("watched")]:
        at = datetime.fromisoformat(body["at"])
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


def figure_name(anomaly: Anomaly) -> str:
    return f"anomaly-{anomaly.id}.png"


def reachable(context: Context) -> Row:
    """Whether there is a commander, a way to tell them, and a place for their word."""
    what, expected = "can be told and answer", "a person, a way to tell them, a place to answer"
    ways = [name for name, there in _ways(context).items() if there]
    if not _accounts(context, (COMMANDER,)):
        problem = f"nobody has the role {COMMANDER}; list them in the site's people"
    elif not ways:
        problem = "no way to tell them; set commands.notify, telemetry.notify or issue"
    elif not (context.params.issue or context.site.words):
        problem = "no place for their answer; set issue, or the site's words"
    else:
        return check_row("release commander", what, expected, ", ".join(ways), ok=True)
    return unknown_row("release commander", what, expected, problem)


def _ways(context: Context) -> dict[str, bool]:
    site = context.site
    return {
        "command": site.commands.notify is not None,
        "webhook": site.telemetry.notify is not None,
        "comment": bool(context.params.issue),
    }


def _accounts(context: Context, roles: tuple[str, ...]) -> list[str]:
    return [p.account for p in context.site.people if any(role in p.roles for role in roles)]


def engage(context: Context, log: Log) -> dict[str, str]:
    """Notify whoever must know, hear what they say; by anomaly's id what went wrong with that."""
    trouble = _deliver(context, log)
    if any(each.decided is None for each in known(log)):
        problem = _listen(context, log)
        for each in known(log):
            if each.decided is None and problem:
                trouble.setdefault(each.id, problem)
    return trouble | _deliver(context, log)  # what was not acknowledged in time, to others


def deadline(context: Context, log: Log) -> datetime | None:
    """When the next of the anomalies that nobody has acknowledged is to be escalated."""
    now, within = context.now, patience(context)
    open_ = [e for e in known(log) if not e.acknowledged and not e.escalated(now, within)]
    return min((each.opened + within for each in open_), default=None)


def patience(context: Context) -> timedelta:
    """How long the release commander may take to acknowledge an anomaly."""
    return timedelta(minutes=context.params.engage_minutes)


def _listen(context: Context, log: Log) -> str:
    """Record what commanders said; what was wrong when it could not be read."""
    params, site = context.params, context.site
    try:
        heard = read_words(context.scope, site, issue=params.issue, release=params.release)
    except SourceError as error:
        return f"answers cannot be read: {error}"
    ids, listed = {each.id for each in known(log)}, _accounts(context, (COMMANDER,))
    for word in sorted(heard.words, key=lambda each: each.at):
        withdrawn = taken_back(word, [w for w in heard.withdrawals if w.account == word.account])
        if word.anomaly in ids and word.account in listed and withdrawn is None:
            _record(log, word)
    return ""


def _record(log: Log, word: Word) -> None:
    """The first word on an anomaly acknowledges it, the first decision stands."""
    body = {"id": word.anomaly, "by": word.account, "at": word.at.isoformat()}
    body["grounds"] = word.grounds
    if not log.has("acknowledged", word.anomaly):
        log.add("acknowledged", word.anomaly, body)
    if word.decision and not log.has("decided", word.anomaly):
        more = {"decision": word.decision, "reason": word.reason}
        log.add("decided", word.anomaly, {**body, **more})


def _deliver(context: Context, log: Log) -> dict[str, str]:
    """Send what was not sent yet; by anomaly's id the first that failed."""
    trouble: dict[str, str] = {}
    for each in known(log):
        late = each.escalated(context.now, patience(context))
        events = ["opened", *(["escalated"] if late else [])]
        for event in events:
            subject, text = _subject(context, each, event), _text(context, each, event)
            for way in _wanted(context, event):
                key = f"{each.id}/{event}/{way}"
                if log.has("notified", key):
                    continue
                name = f"{each.id}-{event}-{way.replace('/', '-')}.txt"
                path = keep_file(context.folder, f"outbox/{name}", f"{subject}\n\n{text}")
                try:
                    _send(context, each, event, way, path)
                except SourceError as error:
                    trouble.setdefault(each.id, f"{way} waits in the outbox: {error}")
                    continue
                log.add("notified", key, {"id": each.id, "at": context.now.isoformat()})
                path.unlink(missing_ok=True)
    return trouble


def _wanted(context: Context, event: str) -> list[str]:
    ways = _ways(context)
    commands = [f"command/{role}" for role in ROLES[event]] if ways["command"] else []
    return [*commands, *(way for way in ("webhook", "comment") if ways[way])]


def _send(context: Context, anomaly: Anomaly, event: str, way: str, path: Path) -> None:
    scope, site, params = context.scope, context.site, context.params
    subject, text = _subject(context, anomaly, event), _text(context, anomaly, event)
    if way.startswith("command/") and site.commands.notify is not None:
        role = way.partition("/")[2]
        notices.by_command(scope, site.commands.notify, role, subject, path)
    elif way == "webhook" and site.telemetry.notify is not None:
        document = {
            "id": anomaly.id,
            "event": event,
            "roles": list(ROLES[event]),
            "accounts": _accounts(context, ROLES[event]),
            "subject": subject,
            "text": text,
            "release": params.release,
            "stage": context.stage,
            "cluster": context.cluster_name,
            "at": anomaly.at.isoformat(),
        }
        notices.by_webhook(scope, site.telemetry.notify, document)
    elif way == "comment":
        people = " ".join(f"@{account}" for account in _accounts(context, ROLES[event]))
        # Indented by four: names of alerts come from outside, and are code there, not markup.
        quoted = "\n".join(f"    {line}" for line in text.splitlines())
        title = "An anomaly of the watch" if event == "opened" else "Not acknowledged in time"
        notices.by_comment(scope, site.forge, params.issue, f"{people}: {title}\n\n{quoted}\n")


def _subject(context: Context, anomaly: Anomaly, event: str) -> str:
    word = "anomaly" if event == "opened" else "NOT ACKNOWLEDGED: anomaly"
    return f"{word} {anomaly.id} on {context.cluster_name}: {visible(anomaly.subject, 100)}"


def _text(context: Context, anomaly: Anomaly, event: str) -> str:
    """What was seen, by which query, and what to answer; no verb of ours begins a line of it."""
    params, name = context.params, anomaly.id
    place = f"as a comment in issue {params.issue}" if params.issue else "by a signed file"
    lines = [
        f"{context.cluster.chain_id}, {params.release}, watch of {context.attempt_name}",
        f"seen: {visible(anomaly.summary, 300)}",
        f"at: {utc(anomaly.at)}",
        f"query: {visible(anomaly.query, 1000)}",
        f"figure: {FIGURES}/{figure_name(anomaly)} of the attempt, for a metric",
        f"answer within {params.engage_minutes:g} min, {place}:",
        f"  `acknowledge-anomaly {name}`",
        f"then, with the reason: `decide {name} continue|restart|recover REASON`",
    ]
    if event == "escalated":
        lines.insert(
            0, f"The release commander has not acknowledged it since {utc(anomaly.opened)}."
        )
    return "\n".join(lines) + "\n"
