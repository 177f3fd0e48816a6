"""What a watch has recorded, and who must be reachable while it goes on.

A notification that cannot be sent lies in ``outbox/`` of the attempt and goes out with the next look;
one that went out as we died is sent again. Nothing here keeps the watch from looking.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ..canonical import canonical
from ..context import Context
from ..evidence.record import Entry
from ..outcomes import Outcome, Row
from ..playbook import COMMANDER

Body = dict[str, Any]
KINDS = frozenset({"look", "anomaly", "notified", "acknowledged", "decided", "watched"})


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

    def judged(self) -> list[Body]:
        """What has rows: looks in the order of their instants, then judged windows."""
        looks = sorted(self.of("look"), key=lambda body: (body["at"], body["made"]))
        return [*looks, *self.of("watched")]

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


def reachable(context: Context) -> None:
    """Whether there is a commander, a way to tell them, and a place for their word."""
    what, expected = "can be told and answer", "a person, a way to tell them, a place to answer"
    problem = ""
    ways = [name for name, there in ways_of(context).items() if there]
    if not context.site.holders(COMMANDER):
        problem = f"nobody has the role {COMMANDER}; list them in the site's people"
    elif not ways:
        problem = "no way to tell them; set commands.notify, telemetry.notify or issue"
    elif not (context.params.issue or context.site.words):
        problem = "no place for their answer; set issue, or the site's words"
    outcome = Outcome.INCONCLUSIVE if problem else Outcome.PASS
    context.judge("release commander", what, expected, problem or ", ".join(ways), outcome)


def ways_of(context: Context) -> dict[str, bool]:
    site = context.site
    return {
        "command": site.commands.notify is not None,
        "webhook": site.telemetry.notify is not None,
        "comment": bool(context.params.issue),
    }


def patience(context: Context) -> timedelta:
    """How long the release commander may take to acknowledge an anomaly."""
    return timedelta(minutes=context.params.engage_minutes)
