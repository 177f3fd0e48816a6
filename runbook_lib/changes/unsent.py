"""What could not be sent: kept in the attempt's outbox, and said so in a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..context import Context
from ..errors import SourceError
from ..evidence import outbox
from ..outcomes import Row, unknown_row


def later(context: Context) -> str:
    return f"kept in the outbox: runbook publish {context.attempt_name}"


def was_kept(context: Context, kind: str, about: str = "") -> bool:
    """Whether the last of a kind that an earlier try kept is ``about`` that."""
    kept = [e.body for e in context.journal if e.kind == "outbox" and e.body["kind"] == kind]
    return bool(kept) and str(kept[-1].get("about", "")) == about


def waits(context: Context, kind: str) -> bool:
    """Whether one of a kind lies in the outbox; what was kept and does not was sent since."""
    return any(outbox.kind_of(path) == kind for path in outbox.pending(context.folder))


def keep(
    context: Context,
    kind: str,
    document: Mapping[str, Any],
    error: SourceError | None,
    about: str = "",
) -> Row:
    """Keep what could not be sent; the row that says so. ``about`` goes into the record with it."""
    earlier = sum(entry.kind == "outbox" for entry in context.journal)
    own = sum(entry.kind == "outbox" for entry in context.record.entries()[len(context.journal) :])
    number = 1 + earlier + (own if context.scope.live else 0)
    body = outbox.keep(context.folder, kind, number, document)
    context.record.append("outbox", body | ({"about": about} if about else {}))
    why = f"{error}; " if error is not None else ""
    return unknown_row(kind, "sent", "and read back", f"{why}{later(context)}")
