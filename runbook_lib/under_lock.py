"""A change, planned or made: under the cluster's lock, behind its guards, its way back prepared."""

from __future__ import annotations

from dataclasses import replace

from . import playbook
from .changes.apply import Applier, Change
from .changes.kit import write_kit
from .changes.takeover import cluster_lock
from .changes.wayback import prepare
from .context import Context
from .errors import LockHeld, Stopped
from .evidence.undoing import undone_by
from .guards import Guard, needs_plan
from .outcomes import CheckResult, Outcome, Row, unknown_row
from .session import Session
from .tries import Tries


def plan_change(tries: Tries, change: Change, context: Context) -> CheckResult | None:
    """Record its rows as planned, and None; what already fails is a result."""
    found = change.plan(context)
    if any(row.outcome is Outcome.FAIL for row in found):
        return context.conclude(found, passed="", empty="")
    session = tries.session
    session.tape.sync()
    rows = [row.model_dump(mode="json") for row in found]
    body = {"item": change.item, "number": context.scope.number, "rows": rows}
    session.record.append("planned", {**body, "reason": "planned; nothing was changed"})
    return None


def apply_change(tries: Tries, change: Change, context: Context) -> CheckResult | None:
    """The change's result; None when a guard no longer held and it was not reached."""
    session, rows = tries.session, list[Row]()
    owner = f"{session.operator} ({session.attempt.name})"
    context = replace(context, undone=lambda: _undone(session, context))
    try:
        with cluster_lock(context, owner, change, waits=session.recovery) as descriptor:
            context.require_going_on()
            guard = Guard(session, tries.checks, change.item, context, tries.again)
            if refused := guard():
                tries.not_reached(change.item, context.scope.number, refused, guard.due)
                return None
            if missing := _prepare_way_back(session, change, context):
                return context.conclude(missing, passed="", empty="")
            result = change.apply(context, Applier(context, descriptor, guard, rows))
        if change.observe is not None and result.outcome is Outcome.PASS:
            return change.observe(context, result)
        return result
    except LockHeld as held:
        held_by = str(held).partition(", got ")[2]
        row = unknown_row(context.cluster_name, "lock", "free", held_by)
        return context.conclude([row], passed="", empty="")
    except Stopped as stopped:
        what, expected = "goes on", "no recovery of this attempt"
        row = unknown_row(context.cluster_name, what, expected, str(stopped))
        return context.conclude([*rows, row], passed="", empty="")


def _undone(session: Session, context: Context) -> str:
    """By which recovery this attempt is undone; a recovery itself never is."""
    attempt = session.attempt
    if session.recovery:
        return ""

    def look() -> str:
        return undone_by(session.store, attempt.release, attempt.stage, attempt.number)

    return context.scope.notice("recovery of this attempt", look)


def _prepare_way_back(session: Session, change: Change, context: Context) -> list[Row]:
    """Before the first step that the plan is needed for: the way back, or what hinders it."""
    if session.stage not in playbook.STAGES or change.item == playbook.DOCUMENT:
        return []
    if not needs_plan(session.stage, change.item):
        return []
    prepare(context)
    return write_kit(context)
