"""A change, planned or made: under the cluster's lock, behind its guards, its way back prepared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from . import playbook
from .changes.apply import Applier, Change
from .changes.kit import prepare, write_kit
from .context import Context
from .errors import LockHeld, Stopped
from .evidence.order import undone_by
from .outcomes import CheckResult, Outcome, Row, unknown_row
from .session import Session
from .sources.process import end_left_behind
from .tries import Guard, Tries, needs_plan

POLL_S = 0.2
GRACE_S = 10.0
"""How long a lock may stay held once the commands that held it are ended."""


@contextmanager
def cluster_lock(context: Context, owner: str, change: Change, *, waits: bool) -> Iterator[int]:
    """The descriptor of the cluster's lock; of another one for a change that alters no node.

    A recovery ``waits`` for it. Raises LockHeld, naming the owner.
    """
    name = context.cluster_name if change.exclusive else f"{context.cluster_name}.words"
    if waits and context.scope.live and change.exclusive:
        _wait(context, name, owner)
    with context.store.cluster_lock(name, owner) as descriptor:
        yield descriptor


def _wait(context: Context, name: str, owner: str) -> None:
    """Until the lock is free, or cannot be had. Says once who holds it."""
    begun, ended, said = time.monotonic(), 0.0, ""
    patience = context.params.takeover_minutes * 60
    while True:
        try:
            with context.store.cluster_lock(name, owner):
                return
        except LockHeld as held:
            now = time.monotonic()
            holder = str(held).partition("held by ")[2].partition(" since ")[0]
            if holder != said:
                said = holder
                context.record.append("status", {"text": f"waiting for the lock of {holder}"})
            if ended and now - ended > GRACE_S:
                raise
            if not ended and now - begun > patience:
                ended = now
                pids = [*end_left_behind(_of_undone(context)), *_end_own(context)]
                body = {"holder": holder, "ended": pids, "waited_s": round(now - begun)}
                context.record.append("takeover", body)
        time.sleep(POLL_S)


def _of_undone(context: Context) -> list[str]:
    """Path stems of the commands that the undone apply began."""
    undoes = context.journal[0].body.get("undoes") if context.journal else None
    return _stems(context.store.root / undoes["name"]) if undoes else []


def _end_own(context: Context) -> list[int]:
    """End what killed runs of this stage's recoveries left at work: a live run goes on with its own."""
    attempts = sorted(context.folder.parent.glob("[0-9]*"))
    return end_left_behind([stem for one in attempts for stem in _stems(one)], orphans=True)


def _stems(attempt: Path) -> list[str]:
    return sorted({str(path.with_suffix("")) for path in (attempt / "steps").glob("*.pid")})


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
            guard = Guard(tries, context)
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
