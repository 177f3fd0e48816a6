"""The facade a stage notebook imports: open a stage, check, plan, change, enforce.

One rule guards every change, and every check that follows one: it runs only when all items before
it are PASS or waived, and those that age are younger than ``valid_for``. Otherwise it is "not
reached", and nothing is asked of the world on its behalf. The rule is in ``runs.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from . import display, playbook, wording
from .changes.apply import Applier, Change
from .context import Context, Judge
from .errors import LockHeld, SourceError, StageRefused, Stopped, StoreError, guarded, tried
from .evidence import events as kinds
from .evidence.ledger import Ledger
from .evidence.status import verdict
from .evidence.store import WAY_BACK, Lock
from .next_steps import refusal, verdict_card
from .outcomes import CheckResult, Outcome, Row, Value, unknown_row
from .params import taken
from .plan import Plan
from .runs import (
    context_of,
    make_plan,
    needs_plan,
    not_reached,
    recorded_plan,
    refresh,
    run_item,
    stale_before,
    unfit_between_waves,
)
from .session import Session
from .sources.scope import Scope
from .verdicts import ExitCode, Verdict

EXPECT = "stage.expect"
T = TypeVar("T", covariant=True)


class Shown(Protocol[T]):
    """What a cell shows of an attempt: a card over what the store holds, or a figure (PNG and the
    same in words). Raises SourceError.
    """

    __name__: str

    def __call__(self, context: Context) -> T: ...


@guarded()
def open_stage(stage: str, namespace: Mapping[str, Any], /) -> Stage:
    """Open ``stage`` with the parameters that its notebook's ``globals()`` hold.

    Without a site the recording that ships with us is replayed: nothing outside is asked, nothing
    changed. Raises ParameterError for a wrong, missing or misspelt parameter.
    """
    given = taken(stage, namespace)
    replayed = os.environ.get("RUNBOOK_REPLAY")
    if replayed or not given["site"]:
        from .recording import open_replay, recording

        session = open_replay(stage, Path(replayed) if replayed else recording(stage))
    else:
        from .opening import open_live

        session = open_live(stage, given)
    try:
        return Stage(session)
    except BaseException:
        session.close()
        raise


P = ParamSpec("P")
R = TypeVar("R")


def cell(make: Callable[Concatenate[Stage, P], R]) -> Callable[Concatenate[Stage, P], R]:
    """A cell's method: it runs while the attempt is this kernel's, and ends in a sentence."""

    @wraps(make)
    def run(stage: Stage, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with guarded():
            stage._session.require_writer()
            return make(stage, *args, **kwargs)

    return run


class Stage:
    """An open stage: the cells of its notebook. Their results go into the log as they happen."""

    def __init__(self, session: Session) -> None:
        self._session = session
        session.plan = recorded_plan(session)
        if session.params.waivers or kinds.of(session.recorded, kinds.WaiverAccepted):
            from .changes.accepted import accept_waivers

            accept_waivers(session)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        return display.banner_card(self.verdict())._repr_mimebundle_()

    @property
    def folder(self) -> Path:
        """The attempt's folder in the store."""
        return self._session.attempt.folder

    def close(self) -> None:
        """Let go of connections and scratch folders; a kernel's end does so as well."""
        self._session.close()

    def verdict(self) -> Verdict:
        """What the attempt amounts to so far."""
        return verdict(self._session.log.events())

    def context(self, item: str, number: int = 1) -> Context:
        """What run ``number`` of ``item`` gets."""
        return context_of(self._session, item, number)

    @cell
    def expect(self, rows: Callable[[Context], Sequence[tuple[str, str, Value]]]) -> display.Card:
        """What must hold, with its thresholds, before any data is read."""
        said = rows(self.context(EXPECT, self._session.number))
        columns = ("item", "what must hold", "threshold")
        return self._marked(display.table_card("What must hold", columns, said))

    @cell
    def check(self, check: Judge) -> display.Card:
        """Run a check, unless an item before it stands in the way, and show where it stands."""
        self._session.checks[check.item] = check
        return self._marked(display.result_card(run_item(self._session, check.item, check)))

    @cell
    def refresh(self) -> display.Card:
        """Run again every check whose PASS is too old for the change that follows."""
        found = [(one.item, str(one.outcome), one.reason) for one in refresh(self._session)]
        columns, none = ("item", "outcome", "reason"), [("nothing", "", "no result is too old")]
        return self._marked(display.table_card("Refreshed", columns, found or none))

    @cell
    def plan(self, build: Callable[[Context], Plan]) -> display.Card:
        """Make the plan, or show the one this attempt has; in apply, one that others approved."""
        return self._marked(make_plan(self._session, build))

    @cell
    def change(self, change: Change) -> display.Card:
        """Plan or make a change, unless an item before it stands in the way."""
        session = self._session
        make = plan_change if session.mode == "plan" else apply_change
        found = run_item(session, change.item, lambda context: make(session, change, context))
        return self._marked(display.result_card(found))

    @cell
    def show(self, show: Shown[display.Card]) -> display.Card:
        """A page of the release report."""
        card = tried(show, self.context(f"stage.show.{show.__name__}"))
        return display.why_card("Nothing to show", card) if isinstance(card, SourceError) else card

    @cell
    def plot(self, draw: Shown[tuple[bytes, str]]) -> display.Card:
        """A figure of what this attempt recorded; without one, why not."""
        drawn = tried(draw, self.context(f"stage.plot.{draw.__name__}"))
        if isinstance(drawn, SourceError):
            return display.why_card("No figure", drawn)
        return display.figure_card(*drawn)

    @cell
    def enforce(self) -> display.Card:
        """The last cell: raises StageRefused unless everything holds."""
        self._session.log.append(kinds.Enforced(number=self._session.number))
        verdict = self.verdict()
        card = verdict_card(verdict, None if self._session.replay else self.folder)
        if verdict.exit_code is not ExitCode.PASSED:
            raise StageRefused(refusal(verdict), int(verdict.exit_code))
        return card

    def _marked(self, card: display.Card) -> display.Card:
        """A recorded recovery must not be taken for one that is under way."""
        recorded = self._session.replay and self._session.recovery
        return display.marked(card, wording.RECORDING) if recorded else card


# --- A change, planned or made: under the cluster's lock, behind its guards, its way back ---


@contextmanager
def cluster_lock(context: Context, owner: str, change: Change, *, waits: bool) -> Iterator[Lock]:
    """The cluster's lock; another one for a change that alters no node.

    A lock of the file system may hold on one host alone: who took it and gave it back stands in the
    log. A recovery ``waits`` for it, and for no log. Raises LockHeld, naming the owner.
    """
    name = context.cluster_name if change.exclusive else f"{context.cluster_name}.words"
    if waits and context.scope.live and change.exclusive:
        from .changes.takeover import wait_for_lock

        wait_for_lock(context, name, owner)
    with context.store.cluster_lock(name, owner) as lock:
        taken = context.log.append(kinds.LockTaken(cluster=name, owner=owner))
        try:
            if change.exclusive and not waits:
                _require_free(context)
            yield replace(lock, fence=taken.seq)
        except Exception:
            _release(context, lock, name)
            raise
        _release(context, lock, name)


def _release(context: Context, lock: Lock, name: str) -> None:
    context.log.append(kinds.LockReleased(cluster=name))
    if context.scope.live and (left := lock.give_back(context.folder / "steps")):
        text = f"{name}: its lock was left to {left}: start nodes so that they close descriptors"
        context.log.append(kinds.Status(text=text))


def _require_free(context: Context) -> None:
    """Raises LockHeld for another attempt that took the cluster's lock and never gave it back."""
    ledger = Ledger(context.store)

    def look() -> str:
        try:
            taken = list(ledger.took_lock(context.cluster_name))
        except StoreError as error:
            return f"nobody knows whether it is: {error}"
        for one in taken:
            about = playbook.RECOVERY.get(one.stage, one.stage)
            if one.name == context.attempt_name or (
                one.stage == about and ledger.undoing(one.release, about, one.number)
            ):
                continue
            go_on = f"runbook run {about} --continue or " if one.stage == about else ""
            first = f"end it first: {go_on}runbook recover {about}"
            return f"taken by {one.name}, which is open and unfinished; {first}"
        return ""

    if by := context.scope.notice("lock", look):
        raise LockHeld(f"{context.cluster_name}: lock: expected it free, got {by}")


def plan_change(session: Session, change: Change, context: Context) -> CheckResult | None:
    """Log its rows as planned, and None; what already fails is a result."""
    found = change.plan(context)
    if any(row.outcome is Outcome.FAIL for row in found):
        return context.conclude(found)
    session.tape.sync()
    number, reason = context.scope.number, "planned; nothing was changed"
    made = kinds.Planned(item=change.item, number=number, reason=reason, rows=tuple(found))
    session.log.append(made)
    return None


def apply_change(session: Session, change: Change, context: Context) -> CheckResult | None:
    """The change's result; None when a prerequisite no longer held and it was not reached."""
    owner = f"{session.operator} ({session.attempt.name})"
    context = replace(context, require_going_on=partial(_require_going_on, session, context.scope))
    try:
        with cluster_lock(context, owner, change, waits=session.recovery) as lock:
            going_on = partial(_require_going_on, session, context.scope, lock)
            mine = replace(context, require_going_on=going_on)
            going_on()
            if refused := stale_before(session, mine):
                not_reached(session, change.item, context.scope.number, refused)
                return None
            if missing := _prepare_way_back(session, change, mine):
                return context.conclude(missing)
            guard = partial(unfit_between_waves, session, mine)
            applier = Applier(mine, lock.descriptor, guard, context.findings, lock.fence)
            result = change.apply(mine, applier)
        if change.observe is not None and result.outcome is Outcome.PASS:
            return change.observe(context, result)
        return result
    except LockHeld as error:
        said = ("lock", "free", str(error).partition(", got ")[2])
    except Stopped as stopped:
        said = ("goes on", "still approved, and not undone", str(stopped))
    row = unknown_row(context.cluster_name, *said)
    return context.conclude([*context.findings, row])


def _require_going_on(session: Session, scope: Scope, lock: Lock | None = None) -> None:
    """Raises Stopped once a recovery undoes this attempt, LockHeld once the lock is not ours."""
    attempt, ledger = session.attempt, Ledger(session.store)

    def look() -> str:
        return str(ledger.undoing(attempt.release, attempt.stage, attempt.number) or "")

    if not session.recovery and (by := scope.notice("recovery of this attempt", look)):
        raise Stopped(f"stopped: recovery {by}")
    if lock and (why := scope.notice("lock lost", partial(lock.lost, session.log))):
        cluster = session.site.cluster_name(session.promoted)
        raise LockHeld(f"{cluster}: lock: expected it ours to the end, got {why}")


def _prepare_way_back(session: Session, change: Change, context: Context) -> list[Row]:
    """Before the first step that the plan is needed for: the way back, or what hinders it."""
    stage, item = session.stage, change.item
    if stage not in playbook.STAGES or item == playbook.DOCUMENT or not needs_plan(stage, item):
        return []
    known = bool(kinds.of(context.journal, kinds.KitWritten))
    if context.scope.live and not (context.folder / WAY_BACK).exists():
        from .changes.kit import prepare

        prepare(context)
    if context.plan is None or known:
        return []
    from .changes.kit import write_kit

    return write_kit(context, context.plan)
