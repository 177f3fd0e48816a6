"""One run of an item: whether a new one is due and may begin, what it came to, and its log.

Every run begins with "started" in the log and ends with "result", "planned" or "not-reached";
one that has no end was interrupted.
"""

import traceback
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from . import display, playbook
from .changes.approvals import Ruling, needs_approval, rule
from .context import Context
from .errors import ParameterError, RunbookError, SourceError
from .evidence import events as kinds
from .evidence.status import item_status, statuses
from .outcomes import CheckResult, Outcome, Value, explain, unknown_row
from .plan import Plan
from .session import Session
from .sources.scope import read_clock
from .verdicts import ItemStatus
from .wording import utc

# --- What blocks an item ---
#
# ``blocker`` is asked before any run begins, ``stale_before`` when a change does. Nothing is judged
# again behind a change: ``refresh`` is a cell of its own. Between waves a change asks itself.


def blocker(session: Session, item: str) -> ItemStatus | None:
    """The first earlier item that stands in the way of ``item``; in a recovery none does."""
    if session.recovery:
        return None
    before = before_item(session.stage, item)
    downstream = any(playbook.ITEMS[i].kind == "change" for i in (*before, item))
    # What a change would do can be said while those before it are planned, too.
    drafts = session.mode == "plan" and playbook.ITEMS[item].kind == "change"
    known = session.journal(item, session.next_run(item))
    for earlier in before:
        standing = item_status(known, earlier)
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


def _plan_missing(known: Sequence[kinds.Event]) -> ItemStatus | None:
    """What stands in the way of whatever needs the plan: none was made, or it is refused."""
    match plans(known)[-1:]:
        case [kinds.PlanMade()]:
            return None
        case [kinds.PlanRefused(reason=why)]:
            reason = f"refused: {why}"
        case _:
            reason = "none was made"
    return ItemStatus(item="the plan", kind="check", state="missing", reason=reason)


def stale(standing: ItemStatus, now: datetime, valid_for: timedelta) -> bool:
    """Whether a PASS that ages is older than ``valid_for``.

    A result dated in the future is stale, too (clock skew).
    """
    if playbook.ITEMS[standing.item].ages != "clock" or standing.result is None:
        return False
    age = now - standing.result.started
    return not -playbook.NOW_SOURCE_LAG <= age <= valid_for


def waiver_ended(standing: ItemStatus, now: datetime) -> str:
    """Why a PASS by waiver is none any more; empty for what needs no waiver that has ended."""
    left = tuple(row for row in standing.waived if row.expires > now)
    if standing.model_copy(update={"waived": left}).outcome is standing.outcome:
        return ""
    ended = max(row.expires for row in standing.waived if row.expires <= now)
    return f"the waiver of {standing.item} ended at {utc(ended)}; continue with one in force"


Run = Callable[[Context], CheckResult | None]
"""Comes to a result; to None when it has recorded its own end."""


def context_of(session: Session, item: str, number: int) -> Context:
    """What run ``number`` of ``item`` gets."""
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
        plan=session.plan,
        attempt_name=session.attempt.name,
        source=session.world,
        private=session.private,
    )


def status(session: Session, item: str) -> ItemStatus:
    """Where ``item`` stands after its last run."""
    return item_status(session.log.events(), item)


def run_item(session: Session, item: str, run: Run) -> ItemStatus:
    """Where ``item`` stands after a new run, or after its last one where none is due.

    Raises RunbookError for an item that the stage does not declare.
    """
    if item not in playbook.DECLARED[session.stage]:
        raise RunbookError(
            f"{session.stage}: {item}: expected an item this stage declares, got another"
        )
    note = _last_stands(session, item)
    if note is None and _begin(session, item):
        number = start(session, item)
        if (result := _ended(session, context_of(session, item, number), run)) is not None:
            end(session, item, number, result)
    session.shown.add(item)
    found = status(session, item)
    return found.model_copy(update={"reason": f"{found.reason} ({note})"}) if note else found


def not_reached(
    session: Session, item: str, number: int, why: str, due: datetime | None = None
) -> None:
    """Log that a run ended before anything was asked; ``due`` is when to come back."""
    made = kinds.NotReached(item=item, number=number, reason=f"not reached: {why}", due=due)
    session.log.append(made)


def _last_stands(session: Session, item: str) -> str | None:
    """Why the last run stands without a new one; None when a new one is due."""
    if session.replay:
        return None
    before = status(session, item)
    made = playbook.ITEMS[item].kind == "change"  # and is not made again
    if before.outcome is Outcome.PASS and (made or item not in session.shown):
        now = session.scope(f"{item}/age", session.number).now()
        if not stale(before, now, session.params.valid_for):
            return f"by run {before.number}"
    last = before.result or (before.earlier[-1] if before.earlier else None)
    failed = last is not None and last.outcome is Outcome.FAIL
    if failed and not session.params.retry_reason:
        return "a FAIL stands; to try again, continue with a retry_reason"
    return None


def _begin(session: Session, item: str) -> bool:
    """Whether ``item`` may run; when not, that it was not reached is recorded."""
    if session.replay and session.next_run(item) == 0:
        not_reached(session, item, 0, "the recording ends before it")
        return False
    blocking = blocker(session, item)
    if blocking is None:
        return True
    planned = session.mode == "plan" and blocking.state == "planned"
    if planned and playbook.ITEMS[item].kind == "change":
        return True  # behind another it can still be planned
    number = start(session, item)
    if planned:
        reason = f"planned: follows {blocking.item}"
        session.log.append(kinds.Planned(item=item, number=number, reason=reason))
    else:
        why = f" {blocking.reason}" if blocking.item == "the plan" and blocking.reason else ""
        why = f"blocked by {blocking.item}{why}"
        not_reached(session, item, number, why, blocking.return_at)
    return False


def start(session: Session, item: str) -> int:
    """Log that a run begins, and its number; in replay behind the recorded runs before it."""
    number = session.next_run(item)
    if session.replay and item not in session.shown:
        for ended in kinds.of(session.recorded, kinds.RunEnded):
            if ended.item == item and ended.number < number:
                session.log.append(ended)
    return session.log.append(kinds.RunStarted(item=item, number=number)).number


def _ended(session: Session, context: Context, run: Run) -> CheckResult | None:
    """What ``run`` comes to; what cannot be read, or breaks within us, is INCONCLUSIVE."""
    data = {}
    try:
        return run(context)
    except SourceError as error:
        row = unknown_row(error.source, "readable", "an answer", error.problem)
    except RunbookError:
        raise
    except KeyboardInterrupt:
        session.tape.sync()
        session.log.append(kinds.RunStopped(item=context.item, number=context.scope.number))
        raise
    except Exception as error:
        clean = session.tape.redactor.clean_text
        got = f"internal error: {clean(repr(error))}"
        row = unknown_row(context.item, "completes", "a result", got)
        data["traceback"] = clean(traceback.format_exc())
    return context.conclude([row], data=data)


def end(
    session: Session,
    item: str,
    number: int,
    result: CheckResult,
) -> None:
    """Log what a run came to."""
    session.tape.sync()
    why = session.params.retry_reason
    ended = kinds.RunEnded(item=item, number=number, result=result, retry_reason=why)
    session.log.append(ended)


def stale_before(session: Session, context: Context) -> str:
    """Which items before a change are too old for it, or passed by a waiver that ended.

    Empty when it may begin.
    """
    before = _before(session, context)
    old = [one.item for one in before if stale(one, context.now, session.params.valid_for)]
    if old:
        return f"too old: {', '.join(old)}; run the refresh cell above it, or continue"
    return next(filter(None, (waiver_ended(one, context.now) for one in before)), "")


def unfit_between_waves(session: Session, context: Context) -> str:
    """Why the next wave must wait: something pages, or a waiver ended. Empty when it may begin."""
    from .checks.observability import ITEM, paging

    now, before = context.scope.reread(), _before(session, context)
    if ended := next(filter(None, (waiver_ended(one, now) for one in before)), ""):
        return ended
    return paging(context) if ITEM in {one.item for one in before} else ""


def _before(session: Session, context: Context) -> list[ItemStatus]:
    """Where the items before a run stood when it began."""
    items = before_item(session.stage, context.item) if not session.recovery else ()
    return [item_status(context.journal, item) for item in items]


def refresh(session: Session) -> list[ItemStatus]:
    """Run again every check whose PASS is stale; where those items stand then.

    One whose cell did not run in this kernel stays as it is. A replay has the last runs' answers.
    """
    if session.replay:
        return []
    events = session.log.events()
    now, _ = read_clock(session.site.clock)
    known = [one for one in statuses(events) if stale(one, now, session.params.valid_for)]
    return [
        run_item(session, one.item, session.checks[one.item])
        if one.item in session.checks
        else one.model_copy(update={"reason": "too old; run its cell"})
        for one in known
    ]


# --- The plan of an attempt: made and ruled on once, then shown; of a refused one, why ---

PLAN = "stage.plan"


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


def make_plan(session: Session, build: Callable[[Context], Plan]) -> display.Card:
    """Make the plan, or show the one this attempt has; in apply, one that others approved."""
    known = session.recorded if session.replay else session.log.events()
    if session.plan is not None:
        made = kinds.of(session.log.events(), kinds.PlanMade)[-1]
        return plan_card(session.plan, made.approved_by)
    number = len(plans(known)) + (not session.replay)
    if not number:
        return display.why_card("No plan was made", "the recording has none")
    context = context_of(session, PLAN, number)
    try:
        plan = build(context)
        if session.mode == "apply" and session.recovery:
            from .changes.back import ruling as rule_on_recovery

            ruling = rule_on_recovery(context, plan)
        else:
            ruling = rule(context, plan) if needs_approval(context) else Ruling(plan)
    except (SourceError, ParameterError) as error:
        return display.why_card("No plan could be made", error)
    session.tape.sync()
    rows, outcome = tuple(ruling.rows), ruling.outcome
    if ruling.plan is None or (rows and outcome is not Outcome.PASS):
        reason = explain(rows, "", "")
        session.log.append(kinds.PlanRefused(rows=rows, reason=reason, outcome=outcome))
        return display.rows_card(f"{outcome}: the plan is refused", rows)
    session.plan = _shrunk(session, ruling.plan) if session.replay else ruling.plan
    made = kinds.PlanMade(
        digest=session.plan.digest,
        plan=session.plan,
        author=ruling.author or session.operator,
        approved_by=tuple(ruling.approved_by),
        rows=rows,
    )
    session.log.append(made)
    return plan_card(session.plan, made.approved_by)


def plan_card(plan: Plan, approved_by: Sequence[str]) -> display.Card:
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
    return display.plan_card(changes, digest=plan.digest, facts=facts)
