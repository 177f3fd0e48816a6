"""The facade a stage notebook imports: open a stage, check, plan, change, enforce.

One rule guards every change, and every check that follows one: it runs only when all items before
it are PASS or waived, and those whose truth ages are younger than ``valid_for``. Otherwise it is
"not reached", and nothing is asked of the world on its behalf.
"""

from __future__ import annotations

import os
import shlex
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import display, playbook, wording
from .changes.apply import Applier, Change
from .changes.approvals import accept_drops, accept_waivers
from .changes.approved import Ruling, needs_approval, rule
from .changes.back import ruling as ruling_back
from .changes.kit import write_kit
from .changes.plan import Plan
from .changes.power import margin_facts
from .changes.takeover import cluster_lock
from .changes.wayback import FOLDER, laid_ready, prepare
from .context import Context, Judge
from .errors import LockHeld, ParameterError, RunbookError, SourceError, StageRefused, Stopped
from .evidence import standing as standings
from .evidence.record import Entry, Record
from .evidence.undoing import undone_by
from .guards import Guard, stale
from .outcomes import (
    CheckResult,
    ExitCode,
    Outcome,
    Row,
    Standing,
    Value,
    Verdict,
    explain,
    unknown_row,
)
from .session import Session, check_names, open_live, open_replay, recording

if TYPE_CHECKING:
    from .metrics.compare import Windows
    from .metrics.plots import Drawn

PLAN = "stage.plan"
EXPECT = "stage.expect"


class Compare(Protocol):
    """Compares two windows metric by metric. Raises SourceError where there is nothing to compare."""

    __name__: str

    def __call__(self, context: Context) -> Windows: ...


@dataclass(frozen=True)
class Comparison:
    """What a comparison shows: a table, and the same as figures: ``overview`` and ``plot``."""

    card: display.Card
    folder: Path
    windows: Windows | None = None

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        return self.card._repr_mimebundle_()

    def overview(self) -> display.Card:
        """All metrics on one axis, each against its tolerance; without a comparison, why not."""
        return self._figure("overview", lambda windows: windows.overview())

    def plot(self, family: str = "") -> display.Card:
        """Each metric, or each of a family, over time and as judged; without a comparison, why not.

        Raises ParameterError for a family that no compared metric is of.
        """
        if family and self.windows is not None and family not in self.windows.families:
            known = ", ".join(self.windows.families) or "none"
            raise ParameterError(f"plot: family: expected one of {known}, got {family}")
        name = f"comparison-{family}" if family else "comparison"
        return self._figure(name, lambda windows: windows.figure(family))

    def _figure(self, name: str, draw: Callable[[Windows], Drawn]) -> display.Card:
        """The figure, kept in the attempt as well."""
        if self.windows is None or not self.windows.compared:
            return self.card
        png, text, data = draw(self.windows)
        self.folder.mkdir(exist_ok=True)
        (self.folder / f"{name}.png").write_bytes(png)
        return display.figure_card(png, text, data)


class Show(Protocol):
    """A card over what the store holds. Raises SourceError where it holds nothing."""

    __name__: str

    def __call__(self, context: Context) -> display.Card: ...


class Draw(Protocol):
    """A figure of an attempt: PNG, the same in words, and for programs; None for nothing."""

    __name__: str

    def __call__(self, context: Context) -> tuple[bytes, str, dict[str, Any]] | None: ...


def open_stage(stage: str, /, **given: Any) -> Stage:
    """Open ``stage`` with every parameter of its notebook passed as ``name=name``.

    Without a site the recording that ships with us is replayed: nothing outside is asked, nothing
    changed. Raises ParameterError for a wrong, missing or misspelt parameter.
    """
    check_names(stage, given)
    replayed = os.environ.get("RUNBOOK_REPLAY")
    if replayed:
        session = open_replay(stage, Path(replayed))
    elif not given["site"]:
        session = open_replay(stage, recording(stage))
    else:
        session = open_live(stage, given)
    try:
        return Stage(session)
    except BaseException:
        session.close()
        raise


class Stage:
    """An open stage. Its results go into the record as they happen."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._checks: dict[str, Judge] = {}
        self._shown: set[str] = set()
        self._plan = self._recorded_plan()
        self._accept_waivers()

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
        return standings.verdict(self._session.record.entries())

    # --- the cells of a notebook ----------------------------------------------------------------

    def expect(self, rows: Callable[[Context], Sequence[tuple[str, str, Value]]]) -> display.Card:
        """What must hold, with its thresholds, before any data is read."""
        said = rows(self._context(EXPECT, self._session.number))
        return self._marked(display.thresholds_card(said))

    def check(self, check: Judge) -> display.Card:
        """Run a check, unless an item before it stands in the way, and show where it stands."""
        self._checks[check.item] = check
        return self._try(check.item, lambda: self._judge(check))

    def plan(self, build: Callable[[Context], Plan]) -> display.Card:
        """Make the plan, or show the one this attempt has; in apply, one that others approved."""
        return self._marked(self._make_plan(build))

    def _make_plan(self, build: Callable[[Context], Plan]) -> display.Card:
        session = self._session
        if session.replay and not _plans(session.recorded):
            return display.table_card("No plan was made", ("why",), [("the recording has none",)])
        if self._plan is not None:
            made_at = _plans(session.record.entries())[-1].body
            approved_by, margins = made_at["approved_by"], made_at["margins"]
            return _plan_card(self._plan, approved_by, [(str(a), str(b)) for a, b in margins])
        before = _plans(session.recorded if session.replay else session.record.entries())
        context = self._context(PLAN, len(before) + (0 if session.replay else 1))
        try:
            made = build(context)
            ruling = self._rule(context, made)
        except (SourceError, ParameterError) as error:
            return display.table_card("No plan could be made", ("why",), [(str(error),)])
        margins = margin_facts(context, made) if made.window else []
        session.tape.sync()
        return self._ruled(ruling, margins)

    def _rule(self, context: Context, made: Plan) -> Ruling:
        if self._session.mode == "apply" and self._session.recovery:
            return ruling_back(context, made)
        return rule(context, made) if needs_approval(context) else Ruling(made)

    def _ruled(self, ruling: Ruling, margins: list[tuple[str, str]]) -> display.Card:
        session, plan = self._session, ruling.plan
        rows = [row.model_dump(mode="json") for row in ruling.rows]
        if plan is None or (rows and ruling.outcome is not Outcome.PASS):
            reason = explain(ruling.rows, "", "")
            body = {"rows": rows, "reason": reason, "outcome": ruling.outcome.value}
            session.record.append("plan-refused", body)
            shown = [(row.outcome.value, row.subject, row.what, row.expected, row.observed)
                     for row in ruling.rows]  # fmt: skip
            columns = ("outcome", "subject", "what", "expected", "observed")
            return display.table_card(f"{ruling.outcome}: the plan is refused", columns, shown)
        self._plan = accept_drops(session, plan) if session.replay else plan
        session.record.append(
            "plan",
            {
                "digest": plan.digest,
                "plan": plan.model_dump(mode="json"),
                "author": ruling.author or session.operator,
                "approved_by": list(ruling.approved_by),
                "margins": margins,
                "rows": rows,
            },
        )
        return _plan_card(plan, ruling.approved_by, margins)

    def change(self, change: Change) -> display.Card:
        """Plan or make a change, unless an item before it stands in the way."""
        return self._try(change.item, lambda: self._change(change))

    def show(self, show: Show) -> display.Card:
        """A page of the release report."""
        try:
            return show(self._context(f"stage.show.{show.__name__}", 1))
        except SourceError as error:
            return display.table_card("Nothing to show", ("why",), [(str(error),)])

    def plot(self, draw: Draw) -> display.Card:
        """A figure of what this attempt recorded."""
        drawn = draw(self._context(f"stage.plot.{draw.__name__}", 1))
        if drawn is None:
            rows = [("nothing was recorded that could be drawn",)]
            return display.table_card("No figure", ("why",), rows)
        png, text, data = drawn
        return display.figure_card(png, text, data)

    def compare(self, compare: Compare) -> Comparison:
        """Two windows side by side. It is shown, and judges no item."""
        context, folder = self._context(f"stage.compare.{compare.__name__}", 1), self.folder
        try:
            windows = compare(context)
        except SourceError as error:
            card = display.table_card("Nothing to compare with", ("why",), [(str(error),)])
            return Comparison(card, folder / "figures")
        columns = ("metric", "change", "interval", "tolerance", "outcome", "reason")
        rows = [one.row() for one in windows.compared]
        card = display.table_card("Now against before", columns, rows)
        return Comparison(card, folder / "figures", windows)

    def enforce(self) -> display.Card:
        """The last cell: raises StageRefused unless everything holds."""
        self._session.record.append("enforced", {"number": self._session.number})
        verdict = self.verdict()
        folder = None if self._session.replay else self.folder
        card = verdict_card(verdict, folder)
        if verdict.exit_code is not ExitCode.PASSED:
            raise StageRefused(refusal(verdict), int(verdict.exit_code))
        return card

    # --- one try --------------------------------------------------------------------------------

    def _try(self, item: str, run: Callable[[], None]) -> display.Card:
        self._require_declared(item)
        before = self._standing(item)
        note = self._keep(item, before)
        if note is None:
            run()
        self._shown.add(item)
        standing = self._standing(item)
        if note:
            standing = standing.model_copy(update={"reason": f"{standing.reason} ({note})"})
        return self._marked(display.result_card(standing))

    def _marked(self, card: display.Card) -> display.Card:
        """A recorded recovery must not be taken for one that is under way."""
        recorded = self._session.replay and self._session.recovery
        return display.marked(card, wording.RECORDING) if recorded else card

    def _keep(self, item: str, before: Standing) -> str | None:
        """Why the last try stands without a new one; None when a new one is due."""
        if self._session.replay:
            return None
        if before.outcome is Outcome.PASS and item not in self._shown and not self._stale(before):
            return f"judged by an earlier try, {before.number}"
        last = before.result or (before.earlier[-1] if before.earlier else None)
        failed = last is not None and last.outcome is Outcome.FAIL
        if failed and not self._session.params.retry_reason:
            return "a FAIL stands; to try again, continue with a retry_reason"
        return None

    def _judge(self, check: Judge) -> None:
        if not self._begin(check.item):
            return
        number = self._session.next_try(check.item)
        context = self._started(check.item, number)
        self._result(context, number, lambda: check(context))

    def _change(self, change: Change) -> None:
        session = self._session
        if not self._begin(change.item):
            return
        number = session.next_try(change.item)
        context = self._started(change.item, number)
        make = self._plan_change if session.mode == "plan" else self._apply
        self._result(context, number, lambda: make(change, context))

    def _plan_change(self, change: Change, context: Context) -> CheckResult | None:
        """Its rows, planned; what already fails is a result."""
        found = change.plan(context)
        if any(row.outcome is Outcome.FAIL for row in found):
            return context.conclude(found, passed="", empty="")
        self._session.tape.sync()
        rows = [row.model_dump(mode="json") for row in found]
        body = {"item": change.item, "number": context.scope.number, "rows": rows}
        self._session.record.append("planned", {**body, "reason": "planned; nothing was changed"})
        return None

    def _apply(self, change: Change, context: Context) -> CheckResult | None:
        """The change's result; None when a guard no longer held and it was not reached."""
        session, rows = self._session, list[Row]()
        owner = f"{session.operator} ({session.attempt.name})"
        context = replace(context, undone=lambda: self._undone(context))
        try:
            with cluster_lock(context, owner, change, waits=session.recovery) as descriptor:
                context.require_going_on()
                guard = Guard(self._session, self._checks, change.item, context, self._again)
                if refused := guard():
                    self._not_reached(change.item, context.scope.number, refused, guard.due)
                    return None
                if missing := self._prepare_way_back(change, context):
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

    def _undone(self, context: Context) -> str:
        """By which recovery this attempt is undone; a recovery itself never is."""
        session, attempt = self._session, self._session.attempt
        if session.recovery:
            return ""

        def look() -> str:
            return undone_by(session.store, attempt.release, attempt.stage, attempt.number)

        return context.scope.notice("recovery of this attempt", look)

    def _prepare_way_back(self, change: Change, context: Context) -> list[Row]:
        """Before the first step that the plan is needed for: the way back, or what hinders it."""
        stage = self._session.stage
        if stage not in playbook.STAGES or change.item == playbook.DOCUMENT:
            return []
        declared = playbook.DECLARED[stage]
        if not self._needs_plan(change.item, declared[: declared.index(change.item)]):
            return []
        prepare(context)
        return write_kit(context)

    def _result(self, context: Context, number: int, run: Callable[[], CheckResult | None]) -> None:
        """Record what ``run`` came to; nothing when it recorded its own end."""
        result = self._ended(context, run)
        if result is not None:
            self._judged(context.item, number, result)

    def _again(self, context: Context, check: Judge, under: str) -> CheckResult:
        """A guard judged again; what is not PASS becomes a try of its item."""
        session = self._session
        result = self._ended(context, lambda: check(context))
        assert result is not None
        session.tape.sync()
        number = context.scope.number
        body = {"change": under.partition("/")[0], "item": check.item, "number": number}
        session.record.append("guard", {**body, "result": result.model_dump(mode="json")})
        if result.outcome is not Outcome.PASS and not session.replay:
            tried = session.next_try(check.item)
            session.record.append("started", {"item": check.item, "number": tried})
            self._judged(check.item, tried, result, under=[under, number])
        return result

    def _judged(self, item: str, number: int, result: CheckResult, **more: Any) -> None:
        self._session.tape.sync()
        if self._session.params.retry_reason:
            more["retry_reason"] = self._session.params.retry_reason
        body = {"item": item, "number": number, "result": result.model_dump(mode="json")}
        self._session.record.append("result", {**body, **more})

    def _ended(self, context: Context, run: Callable[[], CheckResult | None]) -> CheckResult | None:
        """What ``run`` comes to; what cannot be read, or breaks within us, is INCONCLUSIVE."""
        session = self._session
        try:
            return run()
        except SourceError as error:
            row = unknown_row(error.source, "readable", "an answer", error.problem)
            return context.conclude([row], passed="", empty="")
        except RunbookError:
            raise
        except KeyboardInterrupt:
            session.tape.sync()
            body = {"item": context.item, "number": context.scope.number}
            session.record.append("stopped", body)
            raise
        except Exception as error:
            row = unknown_row(context.item, "completes", "a result", f"internal error: {error!r}")
            text = session.outside.redactor.clean_text(traceback.format_exc())
            return context.conclude([row], passed="", empty="", data={"traceback": text})

    def _started(self, item: str, number: int) -> Context:
        session = self._session
        self._copy_earlier(item, number)
        session.record.append("started", {"item": item, "number": number})
        return self._context(item, number)

    def _context(self, item: str, number: int) -> Context:
        session = self._session
        return Context(
            item=item,
            stage=session.promoted,
            params=session.params_of(item, number),
            site=session.site,
            scope=session.scope(item, number),
            store=session.store,
            folder=session.attempt.folder,
            record=session.record,
            journal=session.journal(item, number),
            plan=self._plan,
            attempt_name=session.attempt.name,
            source=session.world,
            private=session.private,
        )

    # --- the rule -------------------------------------------------------------------------------

    def _begin(self, item: str) -> bool:
        """Whether ``item`` may run; when not, that it was not reached is recorded."""
        session = self._session
        if session.replay and session.next_try(item) == 0:
            self._not_reached(item, 0, "the recording ends before it", None)
            return False
        blocker = self._blocker(item)
        if blocker is None:
            return True
        planned = session.mode == "plan" and blocker.state == "planned"
        if planned and playbook.ITEMS[item].kind == "change":
            return True  # behind another it can still be planned
        number = session.next_try(item)
        self._copy_earlier(item, number)
        session.record.append("started", {"item": item, "number": number})
        if planned:
            reason = f"planned: follows {blocker.item}"
            session.record.append("planned", {"item": item, "number": number, "reason": reason})
        else:
            why = f" {blocker.reason}" if blocker.item == "the plan" and blocker.reason else ""
            self._not_reached(item, number, f"blocked by {blocker.item}{why}", blocker.return_at)
        return False

    def _blocker(self, item: str) -> Standing | None:
        """The first earlier item that stands in the way of ``item``; in a recovery none does."""
        if self._session.recovery:
            return None
        declared = playbook.DECLARED[self._session.stage]
        before = declared[: declared.index(item)]
        downstream = any(playbook.ITEMS[i].kind == "change" for i in (*before, item))
        # What a change would do can be said while those before it are planned, too.
        drafts = self._session.mode == "plan" and playbook.ITEMS[item].kind == "change"
        known = self._session.journal(item, self._session.next_try(item))
        for earlier in before:
            standing = standings.standing(known, earlier)
            if drafts and standing.state == "planned":
                continue
            if standing.state == "missing" or (downstream and standing.outcome is not Outcome.PASS):
                return standing
        return self._plan_missing(known) if self._needs_plan(item, before) else None

    def _needs_plan(self, item: str, before: Sequence[str]) -> bool:
        first = playbook.PLAN_BEFORE.get(self._session.stage)
        return first == item or first in before

    @staticmethod
    def _plan_missing(known: Sequence[Entry]) -> Standing | None:
        """What stands in the way of whatever needs the plan: none was made, or it is refused."""
        plans = _plans(known)
        if plans and plans[-1].kind == "plan":
            return None
        reason = f"refused: {plans[-1].body['reason']}" if plans else "none was made"
        return Standing(item="the plan", kind="check", state="missing", reason=reason)

    def _not_reached(self, item: str, number: int, why: str, due: datetime | None) -> None:
        body = {"item": item, "number": number, "reason": f"not reached: {why}"}
        self._session.record.append(
            "not-reached", {**body, "due": due.isoformat() if due else None}
        )

    def _stale(self, standing: Standing) -> bool:
        now = self._session.scope(f"{standing.item}/age", self._session.number).now()
        return stale(standing, now, self._session.params.valid_for)

    # --- small things ---------------------------------------------------------------------------

    def _standing(self, item: str) -> Standing:
        return standings.standing(self._session.record.entries(), item)

    def _require_declared(self, item: str) -> None:
        if item not in playbook.DECLARED[self._session.stage]:
            raise RunbookError(
                f"{self._session.stage}: {item}: expected an item this stage declares, got another"
            )

    def _copy_earlier(self, item: str, number: int) -> None:
        """In replay, show the recorded tries that came before the one that counts."""
        session = self._session
        if not session.replay or item in self._shown:
            return
        for entry in session.recorded:
            body = entry.body
            if entry.kind == "result" and body["item"] == item and body["number"] < number:
                session.record.append("result", body)

    def _recorded_plan(self) -> Plan | None:
        if self._session.replay:
            return None
        plans = [e for e in self._session.record.entries() if e.kind == "plan"]
        return accept_drops(self._session, _load_plan(plans[-1])) if plans else None

    def _accept_waivers(self) -> None:
        accept_waivers(self._session)


def _load_plan(entry: Entry) -> Plan:
    from .canonical import canonical

    return Plan.model_validate_json(canonical(entry.body["plan"]))


def _plans(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.kind in ("plan", "plan-refused")]


def _plan_card(
    plan: Plan, approved_by: Sequence[str], margins: Sequence[tuple[str, str]]
) -> display.Card:
    changes: list[tuple[str, str, Value, Value]] = [
        (node.node, key, before, after)
        for _, node in plan.changes()
        for key, before, after in node.changes()
    ]
    facts: list[tuple[str, Value]] = [
        ("artifact", plan.artifact.digest),
        ("waves", sum(len(phase.waves) for phase in plan.phases)),
        ("policy", plan.policy),
    ]
    if plan.window:
        facts.append(("window", " to ".join(plan.window)))
    if approved_by:
        facts.append(("approved by", ", ".join(approved_by)))
    facts += margins
    return display.plan_card(changes, digest=plan.digest, facts=facts)


def refusal(verdict: Verdict) -> str:
    """One line a person can act on."""
    blocking = verdict.blocking
    first = f"; first: {blocking[0].item}: {blocking[0].reason}" if blocking else ""
    broken = f"; {verdict.broken[0]}" if verdict.broken else ""
    return f"{verdict.stage}: {verdict.outcome} (exit {int(verdict.exit_code)}){broken}{first}"


def _drops(verdict: Verdict) -> list[str]:
    """Leaving out a node that stops a rollout; only a plan that others approved can shrink."""
    first = verdict.blocking[0]
    if first.kind != "change" or verdict.stage == "development" or first.result is None:
        return []
    nodes = {row.subject for row in first.open_rows if row.outcome is Outcome.FAIL}
    again = f"runbook run {verdict.stage} --continue -f PARAMS"
    return [
        f"Or leave {node} out, with an approval: `{again} --drop {node} --reason 'WHY'`"
        for node in sorted(nodes)[:3]
    ]


def verdict_card(verdict: Verdict, folder: Path | None) -> display.Card:
    """The card of an attempt in ``folder``; of a replay, which has none that lasts, without links."""
    ready = folder is not None and laid_ready(folder) is not None
    link = f"{FOLDER}/{playbook.NOTEBOOKS[f'{verdict.stage}_recovery']}" if ready else ""
    steps = next_steps(verdict, folder)
    return display.verdict_card(verdict, next_steps=steps, recovery_link=link)


def _ways_back(verdict: Verdict, folder: Path | None) -> list[str]:
    """The commands that undo an apply which began a change, or go on with that."""
    if folder is None or verdict.exit_code in (ExitCode.PASSED, ExitCode.WAITING):
        return []
    stage = playbook.RECOVERY.get(verdict.stage, verdict.stage)
    if stage != verdict.stage:
        undoes = Record(folder / "record.jsonl").entries()[0].body.get("undoes") or {"name": ""}
        folder = folder.parents[2] / undoes["name"]
    path = laid_ready(folder)
    if path is None:
        return []
    command = f"runbook recover {stage} -f {shlex.quote(str(path))}"
    if stage != verdict.stage:
        return [f"Once what is named can be reached: `{command}`"]
    return [f"Or take all of it back: `{command}`", f"Or some nodes only: `{command} --nodes NODE`"]


def next_steps(verdict: Verdict, folder: Path | None = None) -> list[str]:
    """What to do next, as commands; ``folder`` is the attempt's, where it lasts."""
    back = _ways_back(verdict, folder)
    if verdict.stage in playbook.RECOVERY and back:
        return back
    if verdict.stage == playbook.PREFLIGHT and verdict.exit_code is ExitCode.PASSED:
        return ["Nothing of the preflight stands in the way of opening the stage."]
    again = f"runbook run {verdict.stage} -f PARAMS -p attempt {verdict.attempt}"
    match verdict.exit_code:
        case ExitCode.PASSED if verdict.mode == "plan":
            return ["Have the plan approved, then run with mode: apply."]
        case ExitCode.PASSED:
            return []
        case ExitCode.WAITING:
            return [f"Come back then: `{again}`"]
        case ExitCode.REFUSED:
            return [f"Mend it, then: `{again} -p retry_reason 'WHY'`", *_drops(verdict), *back]
        case _:
            return [f"Mend what could not be read, then: `{again}`", *back]
