"""Which apply a recovery undoes, and by which recovery an apply was undone.

The opened recovery attempt itself is the request to stop: an apply that finds one begins nothing
more, now or later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import RunbookError
from ..playbook import APPROVERS, RECOVERY
from .record import Entry
from .store import Attempt, Store


@dataclass(frozen=True)
class Undoing:
    """A recovery that undoes an apply: its attempt, who opened it and when; no ``nodes`` are all."""

    name: str
    operator: str
    at: datetime
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} by {self.operator}"


def undone_by(store: Store, release: str, stage: str, attempt: int) -> str:
    """``RECOVERY by OPERATOR`` of the first recovery that undoes an apply; empty for none."""
    return str(undoing(store, release, stage, attempt) or "")


def undoing(store: Store, release: str, stage: str, attempt: int) -> Undoing | None:
    """The first recovery that undoes an apply."""
    for runbook in (name for name, about in RECOVERY.items() if about == stage):
        if not (store.root / release / runbook).is_dir():
            continue
        for one in store.readable(release, runbook)[0]:
            opened = store.opened(one)
            undoes = opened.get("undoes") or {}
            if opened["mode"] == "apply" and undoes.get("attempt") == attempt:
                at = datetime.fromisoformat(opened["now"])
                nodes = tuple(opened["params"].get("nodes", ()))
                return Undoing(one.name, opened["operator"], at, nodes)
    return None


def what_to_undo(
    store: Store, release: str, stage: str, source: str, number: int = 0
) -> tuple[dict[str, Any] | None, str]:
    """The apply that a recovery of ``stage`` undoes, and why that was not approved (or is none).

    ``number`` 0 is the newest that began a change, else the newest that has a plan. One that was
    undone before a newer one was opened is over: it is that one that must be stopped.
    """
    found = []
    for attempt in store.readable(release, stage)[0]:
        opened, entries = store.opened(attempt), _entries(attempt)
        if opened["mode"] != "apply" or opened["source"] != source:
            continue
        if number in (0, attempt.number) and (plan := plan_of(entries)) is not None:
            found.append((any(entry.kind == "step" for entry in entries), attempt, plan))
    if not found:
        which = f"apply attempt {number}" if number else "apply attempt"
        return None, f"expected an {which} of {release}/{stage} with a plan, got none"
    newest = max(found, key=lambda one: (one[0], one[1].number))
    if (by := undoing(store, release, stage, newest[1].number)) is not None:
        later = [one for one in found if one[1].number > newest[1].number]
        newest = next((one for one in reversed(later) if _opened_at(store, one[1]) > by.at), newest)
    _, attempt, plan = newest
    undoes = {"attempt": attempt.number, "plan": plan.body["digest"], "name": attempt.name}
    if stage in APPROVERS and not plan.body["approved_by"]:
        return undoes, f"expected the plan of {attempt.name} approved, got nobody's approval"
    return undoes, ""


def _opened_at(store: Store, attempt: Attempt) -> datetime:
    return datetime.fromisoformat(store.opened(attempt)["now"])


def plan_of(entries: Sequence[Entry]) -> Entry | None:
    """The entry of the plan that an attempt has."""
    plans = [entry for entry in entries if entry.kind == "plan"]
    return plans[-1] if plans else None


def _entries(attempt: Attempt) -> list[Entry]:
    try:
        return attempt.record.entries()
    except (RunbookError, OSError):
        return []
