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


def keep(
    context: Context, kind: str, document: Mapping[str, Any], error: SourceError | None
) -> Row:
    """Keep what could not be sent; the row that says so."""
    earlier = sum(entry.kind == "outbox" for entry in context.journal)
    own = sum(entry.kind == "outbox" for entry in context.record.entries()[len(context.journal) :])
    number = 1 + earlier + (own if context.scope.live else 0)
    context.record.append("outbox", outbox.keep(context.folder, kind, number, document))
    why = f"{error}; " if error is not None else ""
    return unknown_row(kind, "sent", "and read back", f"{why}{later(context)}")
