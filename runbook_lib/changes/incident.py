"""A recovery's incident, opened in the store whatever else fails, and added to."""

from __future__ import annotations

import json
from typing import Any

from ..canonical import canonical
from ..context import Context
from ..errors import RunbookError
from ..evidence import incidents
from ..evidence.incident_file import Incident
from ..evidence.incidents import open_incident
from ..evidence.record import Entry
from ..outcomes import Row, check_row


def opened(context: Context) -> tuple[Incident, bool] | str:
    """This recovery's incident and whether it was new; what is wrong where there can be none.

    A later recovery of the same stopped apply joins the incident of an earlier one.
    """
    facts, begun = context.params, context.journal[0].body
    undoes = begun.get("undoes")
    body = {
        "release": facts.release,
        "commit": facts.commit,
        "stage": context.stage,
        "cluster": context.cluster_name,
        "attempt": context.attempt_name,
        "undoes": undoes,
        "author": begun["operator"],
        "by": begun["operator"],
        "at": begun["now"],
        "issue": facts.issue,
        "break_glass": {"by": begun["operator"], "reason": facts.break_glass}
        if facts.break_glass
        else None,
    }

    def ours(one: Incident) -> bool:
        again = undoes is not None and one.opened.get("undoes") == undoes
        joins = again and not body["break_glass"] and one.last("closed") is None
        return one.opened["attempt"] == context.attempt_name or joins

    def compute() -> str:
        try:
            found, new = open_incident(context.store, body, ours)
        except (RunbookError, OSError) as error:
            return canonical({"problem": str(error)}).decode()
        kept = [vars(entry) for entry in found.entries]
        return canonical({"id": found.id, "entries": kept, "new": new}).decode()

    told = json.loads(context.scope.derive("the incident of this recovery", compute))
    if "problem" in told:
        return str(told["problem"])
    found = Incident(told["id"], [Entry(**entry) for entry in told["entries"]])
    named = {"id": found.id, "hash": found.entries[0].hash}
    if not any(e.kind == "incident" and e.body == named for e in context.journal):
        context.record.append("incident", named)
    return found, bool(told["new"])


def note(context: Context, found: Incident, kind: str, body: dict[str, Any]) -> str:
    """Add to the incident, once; what went wrong with that, else nothing."""
    known = {key: value for key, value in body.items() if key != "at"}
    if any(e.kind == kind and known.items() <= e.body.items() for e in found.entries):
        return ""

    def write_it() -> str:
        try:
            incidents.add(context.store, found.id, kind, body)
        except (RunbookError, OSError) as error:
            return str(error)
        return ""

    return context.scope.derive(f"{kind} in {found.id}", write_it)


def opened_row(found: Incident) -> Row:
    return check_row("incident", "opened in the store", found.id, found.id, ok=True)
