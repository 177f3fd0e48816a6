"""What a watch has recorded: looks, status lines, anomalies and what became of them.

The cell of the watch, ``--continue`` and ``runbook watch`` write to one record, at once if need be.
Each entry has a key, and of two that would add the same one does. What others added meanwhile goes
through the tape, so that a replay learns of it at the same place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..canonical import canonical
from ..context import Context
from ..evidence.record import Entry
from ..outcomes import Row

Body = dict[str, Any]
KINDS = frozenset(
    {"look", "status", "anomaly", "notified", "acknowledged", "escalated", "decided", "watched"}
)


def load_row(value: Any) -> Row:
    """A row as it was recorded."""
    return Row.model_validate_json(json.dumps(value))


class Log:
    """The watch's entries of an attempt, oldest first, as far as this try knows them."""

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
