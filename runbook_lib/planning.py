"""The plan of an attempt: made and ruled on once, then shown; of a refused one, why."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import display
from .changes.approvals import Ruling, accept_drops, needs_approval, rule
from .changes.plan import Plan, load_plan
from .changes.power import margin_facts
from .context import Context
from .errors import ParameterError, SourceError
from .evidence.record import Entry
from .outcomes import Outcome, Value, explain
from .session import Session

PLAN = "stage.plan"
Margins = Sequence[tuple[str, str]]


def plans(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of plans that were made or refused; the last one counts."""
    return [entry for entry in entries if entry.kind in ("plan", "plan-refused")]


def recorded_plan(session: Session) -> Plan | None:
    """The plan that a continued attempt has, without the nodes that were dropped since."""
    if session.replay:
        return None
    made = [entry for entry in session.record.entries() if entry.kind == "plan"]
    return accept_drops(session, load_plan(made[-1].body["plan"], PLAN)) if made else None


def next_plan(session: Session) -> int:
    """The number of the next try of a plan; in replay that of the recorded one, 0 for none."""
    if session.replay:
        return len(plans(session.recorded))
    return len(plans(session.record.entries())) + 1


def show_plan(session: Session, plan: Plan) -> display.Card:
    """The plan that this attempt has already."""
    made = plans(session.record.entries())[-1].body
    margins = [(str(what), str(value)) for what, value in made["margins"]]
    return plan_card(plan, made["approved_by"], margins)


def make_plan(
    session: Session, context: Context, build: Callable[[Context], Plan]
) -> tuple[Plan | None, display.Card]:
    """A plan, in apply one that others approved, and its card; None when there is none to follow."""
    try:
        made = build(context)
        ruling = _rule(session, context, made)
    except (SourceError, ParameterError) as error:
        return None, display.table_card("No plan could be made", ("why",), [(str(error),)])
    margins = margin_facts(context, made) if made.window else []
    session.tape.sync()
    plan = ruling.plan
    if plan is None or (ruling.rows and ruling.outcome is not Outcome.PASS):
        return None, _refused(session, ruling)
    return _kept(session, plan, ruling, margins)


def _rule(session: Session, context: Context, made: Plan) -> Ruling:
    if session.mode == "apply" and session.recovery:
        from .changes.back import ruling

        return ruling(context, made)
    return rule(context, made) if needs_approval(context) else Ruling(made)


def _refused(session: Session, ruling: Ruling) -> display.Card:
    session.record.append(
        "plan-refused",
        {
            "rows": [row.model_dump(mode="json") for row in ruling.rows],
            "reason": explain(ruling.rows, "", ""),
            "outcome": ruling.outcome.value,
        },
    )
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
        plan = accept_drops(session, plan)
    session.record.append(
        "plan",
        {
            "digest": plan.digest,
            "plan": plan.model_dump(mode="json"),
            "author": ruling.author or session.operator,
            "approved_by": list(ruling.approved_by),
            "margins": margins,
            "rows": [row.model_dump(mode="json") for row in ruling.rows],
        },
    )
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
