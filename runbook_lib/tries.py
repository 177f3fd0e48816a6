"""One try of an item: whether a new one is due and may begin, what it came to, and its log.

Every try begins with "started" in the log and ends with "result", "planned" or "not-reached";
one that has no end was interrupted.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from . import display, playbook
from .changes.approvals import Ruling, needs_approval, rule
from .changes.power import margin_facts
from .context import Context, Judge
from .errors import ParameterError, RunbookError, SourceError
from .evidence import events as kinds
from .evidence import standing as standings
from .outcomes import CheckResult, Outcome, Value, explain, unknown_row
from .plan import Plan
from .session import Session
from .verdicts import Standing
from .wording import utc

# --- What blocks an item ---
#
# ``blocker`` is asked before any try begins. ``Guard`` is asked when a change begins, and before each
# of its waves: every item before it whose truth has aged is judged again. Such a judgement is recorded
# under the change; unless it holds, or a waiver that has not ended covers what does not, nothing more
# is begun.


def blocker(session: Session, item: str) -> Standing | None:
    """The first earlier item that stands in the way of ``item``; in a recovery none does."""
    if session.recovery:
        return None
    before = before_item(session.stage, item)
    downstream = any(playbook.ITEMS[i].kind == "change" for i in (*before, item))
    # What a change would do can be said while those before it are planned, too.
    drafts = session.mode == "plan" and playbook.ITEMS[item].kind == "change"
    known = session.journal(item, session.next_try(item))
    for earlier in before:
        standing = standings.standing(known, earlier)
        if drafts and standing.state == "planned":
            continue
        if standing.state == "missing" or (downstream and standing.outcome is not Outcome.PASS):
            return standing
    return _plan_missing(known) if needs_plan(session.stage, item) else None


def before_item(stage: str, item: str) -> Sequence[str]:
    """The items that a stage declares before ``item``, in the playbook's order."""
    declared = playbook.DECLARED[stage]
    return declared[: declared.index(item)]


def needs_plan(stage: str, item: str) -> bool:
    """Whether ``item`` follows the plan of its stage."""
    first = playbook.PLAN_BEFORE.get(stage)
    return first == item or first in before_item(stage, item)


def _plan_missing(known: Sequence[kinds.Event]) -> Standing | None:
    """What stands in the way of whatever needs the plan: none was made, or it is refused."""
    match plans(known)[-1:]:
        case [kinds.PlanMade()]:
            return None
        case [kinds.PlanRefused(reason=why)]:
            reason = f"refused: {why}"
        case _:
            reason = "none was made"
    return Standing(item="the plan", kind="check", state="missing", reason=reason)


def stale(
    standing: Standing, now: datetime, valid_for: timedelta, judged: datetime | None = None
) -> bool:
    """Whether a PASS that ages is older than ``valid_for``; ``judged`` is when it was again.

    One by a clock that was fast has no age that could be told: it would be young for too long.
    """
    if playbook.ITEMS[standing.item].ages != "clock" or standing.result is None:
        return False
    age = now - (judged or standing.result.started)
    return not -playbook.NOW_SOURCE_LAG <= age <= valid_for


def waiver_ended(standing: Standing, now: datetime) -> str:
    """Why a PASS by waiver is none any more; empty for what needs no waiver that has ended."""
    left = tuple(row for row in standing.waived if row.expires > now)
    if standing.model_copy(update={"waived": left}).outcome is standing.outcome:
        return ""
    ended = max(row.expires for row in standing.waived if row.expires <= now)
    return f"the waiver of {standing.item} ended at {utc(ended)}; continue with one in force"


Run = Callable[[Context], CheckResult | None]
"""Comes to a result; to None when it has recorded its own end."""


def context_of(session: Session, item: str, number: int, plan: Plan | None = None) -> Context:
    """What try ``number`` of ``item`` gets."""
    return Context(
        item=item,
        stage=session.promoted,
        params=session.params_of(item, number),
        site=session.site,
        scope=session.scope(item, number),
        store=session.store,
        folder=session.attempt.folder,
        log=session.log,
        journal=session.journal(item, number),
        plan=plan,
        attempt_name=session.attempt.name,
        source=session.world,
        private=session.private,
    )


@dataclass
class Tries:
    """The tries of one opening of an attempt.

    ``plan`` is the attempt's, once it has one. ``checks`` are those whose cells ran: a guard that
    has aged can be judged again by them.
    """

    session: Session
    plan: Plan | None = None
    checks: dict[str, Judge] = field(default_factory=dict)
    _shown: set[str] = field(default_factory=set)

    def context(self, item: str, number: int) -> Context:
        """What try ``number`` of ``item`` gets, the plan with it."""
        return context_of(self.session, item, number, self.plan)

    def standing(self, item: str) -> Standing:
        """Where ``item`` stands after its last try."""
        return standings.standing(self.session.log.events(), item)

    def run(self, item: str, run: Run) -> Standing:
        """Where ``item`` stands after a new try, or after its last one where none is due.

        Raises RunbookError for an item that the stage does not declare.
        """
        stage = self.session.stage
        if item not in playbook.DECLARED[stage]:
            raise RunbookError(
                f"{stage}: {item}: expected an item this stage declares, got another"
            )
        note = self._last_stands(item)
        if note is None and self._begin(item):
            number = self._start(item)
            context = self.context(item, number)
            result = self._ended(context, run)
            if result is not None:
                self._judged(item, number, result)
        self._shown.add(item)
        standing = self.standing(item)
        if note:
            standing = standing.model_copy(update={"reason": f"{standing.reason} ({note})"})
        return standing

    def again(self, context: Context, check: Judge, under: str) -> CheckResult:
        """A guard judged again; what is not PASS becomes a try of its item."""
        session = self.session
        result = self._ended(context, check)
        assert result is not None
        session.tape.sync()
        number = context.scope.number
        judged = kinds.PrerequisiteJudged(
            change=under.partition("/")[0], item=check.item, number=number, result=result
        )
        session.log.append(judged)
        if result.outcome is not Outcome.PASS and not session.replay:
            tried = self._claim(check.item)
            self._judged(check.item, tried, result, under=(under, number))
        return result

    def not_reached(self, item: str, number: int, why: str, due: datetime | None) -> None:
        """Log that a try ended before anything was asked; ``due`` is when to come back."""
        made = kinds.NotReached(item=item, number=number, reason=f"not reached: {why}", due=due)
        self.session.log.append(made)

    # --- whether it begins ----------------------------------------------------------------------

    def _last_stands(self, item: str) -> str | None:
        """Why the last try stands without a new one; None when a new one is due."""
        if self.session.replay:
            return None
        before = self.standing(item)
        if before.outcome is Outcome.PASS and item not in self._shown and not self._stale(before):
            return f"judged by an earlier try, {before.number}"
        last = before.result or (before.earlier[-1] if before.earlier else None)
        failed = last is not None and last.outcome is Outcome.FAIL
        if failed and not self.session.params.retry_reason:
            return "a FAIL stands; to try again, continue with a retry_reason"
        return None

    def _stale(self, standing: Standing) -> bool:
        now = self.session.scope(f"{standing.item}/age", self.session.number).now()
        return stale(standing, now, self.session.params.valid_for)

    def _begin(self, item: str) -> bool:
        """Whether ``item`` may run; when not, that it was not reached is recorded."""
        session = self.session
        if session.replay and session.next_try(item) == 0:
            self.not_reached(item, 0, "the recording ends before it", None)
            return False
        blocking = blocker(session, item)
        if blocking is None:
            return True
        planned = session.mode == "plan" and blocking.state == "planned"
        if planned and playbook.ITEMS[item].kind == "change":
            return True  # behind another it can still be planned
        number = self._start(item)
        if planned:
            reason = f"planned: follows {blocking.item}"
            session.log.append(kinds.Planned(item=item, number=number, reason=reason))
        else:
            why = f" {blocking.reason}" if blocking.item == "the plan" and blocking.reason else ""
            self.not_reached(item, number, f"blocked by {blocking.item}{why}", blocking.return_at)
        return False

    def _start(self, item: str) -> int:
        """Log that a try begins, and its number; in replay behind the recorded tries before it."""
        session, number = self.session, self.session.next_try(item)
        if session.replay and item not in self._shown:
            for ended in kinds.of(session.recorded, kinds.RunEnded):
                if ended.item == item and ended.number < number:
                    session.log.append(ended)
        return self._claim(item)

    def _claim(self, item: str) -> int:
        """A number that no run beside us has: each is told apart on the tape by its own."""

        def begin(known: list[kinds.Event]) -> kinds.RunStarted:
            return kinds.RunStarted(item=item, number=self.session.next_try(item, known))

        started = self.session.log.append_if(begin)
        assert started is not None
        return started.number

    # --- how it ends ----------------------------------------------------------------------------

    def _ended(self, context: Context, run: Run) -> CheckResult | None:
        """What ``run`` comes to; what cannot be read, or breaks within us, is INCONCLUSIVE."""
        session = self.session
        try:
            return run(context)
        except SourceError as error:
            row = unknown_row(error.source, "readable", "an answer", error.problem)
            return context.conclude([row], passed="", empty="")
        except RunbookError:
            raise
        except KeyboardInterrupt:
            session.tape.sync()
            session.log.append(kinds.RunStopped(item=context.item, number=context.scope.number))
            raise
        except Exception as error:
            clean = session.outside.redactor.clean_text
            got = f"internal error: {clean(repr(error))}"
            row = unknown_row(context.item, "completes", "a result", got)
            text = clean(traceback.format_exc())
            return context.conclude([row], passed="", empty="", data={"traceback": text})

    def _judged(
        self, item: str, number: int, result: CheckResult, under: tuple[str, int] | None = None
    ) -> None:
        self.session.tape.sync()
        why = self.session.params.retry_reason
        ended = kinds.RunEnded(
            item=item, number=number, result=result, retry_reason=why, under=under
        )
        self.session.log.append(ended)


@dataclass
class Guard:
    """Call it: what stands in the way of the change now, in words; empty when nothing does.

    ``context`` is that of the change's try; ``due`` is then when to come back, where that is known.
    """

    tries: Tries
    context: Context
    due: datetime | None = None
    _judged: dict[str, datetime] = field(default_factory=dict)
    _rounds: int = 0

    def __call__(self) -> str:
        session, scope = self.tries.session, self.context.scope
        now = scope.reread() if self._rounds else scope.now()
        self._rounds += 1
        for item in before_item(session.stage, self.context.item):
            standing = standings.standing(self.context.journal, item)
            judged = self._judged.get(item)
            if stale(standing, now, session.params.valid_for, judged) and (
                why := self._judge(item, now)
            ):
                return why
            if why := waiver_ended(self._found(item), now):
                return why
        return ""

    def _found(self, item: str) -> Standing:
        context = self.context
        known = self.tries.session.aftermath(context.item, context.scope.number)
        return standings.standing(known, item)

    def _judge(self, item: str, now: datetime) -> str:
        change, number = self.context.item, self.context.scope.number
        session, check = self.tries.session, self.tries.checks.get(item)
        if check is None or not session.may_judge_again(change, item, number):
            return f"{item} is too old; run its cell again"
        # Each round of one try has a place of its own on the tape.
        under = f"{change}/{item}" + (f"#{self._rounds}" if self._rounds > 1 else "")
        scope = session.scope(under, number)
        mine = replace(self.context, item=item, scope=scope, findings=[])
        self.tries.again(mine, check, under)
        self._judged[item] = now
        found = self._found(item)
        if found.outcome is Outcome.PASS:
            return ""
        self.due = found.return_at
        return f"blocked by {item}"


# --- The plan of an attempt: made and ruled on once, then shown; of a refused one, why ---

PLAN = "stage.plan"
Margins = Sequence[tuple[str, Value]]


def plans(events: Sequence[kinds.Event]) -> list[kinds.PlanMade | kinds.PlanRefused]:
    """The plans that were made or refused; the last one counts."""
    return kinds.of(events, kinds.PlanMade, kinds.PlanRefused)


def recorded_plan(session: Session) -> Plan | None:
    """The plan that a continued attempt has, without the nodes that were dropped since."""
    if session.replay:
        return None
    made = kinds.last(session.log.events(), kinds.PlanMade)
    return _shrunk(session, made.plan) if made else None


def _shrunk(session: Session, plan: Plan) -> Plan:
    """``plan`` without the nodes that this attempt dropped."""
    events = session.recorded if session.replay else session.log.events()
    dropped = [event.node for event in kinds.of(events, kinds.NodeDropped)]
    if not session.replay and getattr(session.params, "drops", []):
        from .changes.accepted import accept_drops

        dropped = accept_drops(session, plan, dropped)
    for node in dropped:
        plan = plan.without(node)
    return plan


def next_plan(session: Session) -> int:
    """The number of the next try of a plan; in replay that of the recorded one, 0 for none."""
    if session.replay:
        return len(plans(session.recorded))
    return len(plans(session.log.events())) + 1


def show_plan(session: Session, plan: Plan) -> display.Card:
    """The plan that this attempt has already."""
    made = kinds.of(session.log.events(), kinds.PlanMade)[-1]
    return plan_card(plan, made.approved_by, made.margins)


def make_plan(
    session: Session, context: Context, build: Callable[[Context], Plan]
) -> tuple[Plan | None, display.Card]:
    """A plan, in apply one that others approved, and its card; None when there is none to follow."""
    try:
        made = build(context)
        if session.mode == "apply" and session.recovery:
            from .changes.back import ruling as rule_on_recovery

            ruling = rule_on_recovery(context, made)
        else:
            ruling = rule(context, made) if needs_approval(context) else Ruling(made)
    except (SourceError, ParameterError) as error:
        return None, display.table_card("No plan could be made", ("why",), [(str(error),)])
    margins = margin_facts(context, made) if made.window else []
    session.tape.sync()
    plan = ruling.plan
    if plan is None or (ruling.rows and ruling.outcome is not Outcome.PASS):
        return None, _refused(session, ruling)
    return _kept(session, plan, ruling, margins)


def _refused(session: Session, ruling: Ruling) -> display.Card:
    reason, rows = explain(ruling.rows, "", ""), tuple(ruling.rows)
    session.log.append(kinds.PlanRefused(rows=rows, reason=reason, outcome=ruling.outcome))
    columns = ("outcome", "subject", "what", "expected", "observed")
    shown = [
        (row.outcome.value, row.subject, row.what, row.expected, row.observed)
        for row in ruling.rows
    ]
    return display.table_card(f"{ruling.outcome}: the plan is refused", columns, shown)


def _kept(
    session: Session, plan: Plan, ruling: Ruling, margins: Margins
) -> tuple[Plan, display.Card]:
    if session.replay:
        plan = _shrunk(session, plan)
    made = kinds.PlanMade(
        digest=plan.digest,
        plan=plan,
        author=ruling.author or session.operator,
        approved_by=tuple(ruling.approved_by),
        margins=tuple(margins),
        rows=tuple(ruling.rows),
    )
    session.log.append(made)
    return plan, plan_card(plan, ruling.approved_by, margins)


def plan_card(plan: Plan, approved_by: Sequence[str], margins: Margins) -> display.Card:
    """Per node every key before and after, and what the plan is held to."""
    changes: list[tuple[str, str, Value, Value]] = [
        (node.node, key, before, after)
        for _, node in plan.changes()
        for key, before, after in node.changes()
    ]
    facts: list[tuple[str, Value]] = [
        ("artifact", plan.artifact.digest),
        ("binary", plan.artifact.binary),
        ("waves", sum(len(phase.waves) for phase in plan.phases)),
        ("policy", plan.policy),
    ]
    if plan.window:
        facts.append(("window", " to ".join(plan.window)))
    if approved_by:
        facts.append(("approved by", ", ".join(approved_by)))
    facts += margins
    return display.plan_card(changes, digest=plan.digest, facts=facts)
