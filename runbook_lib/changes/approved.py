"""An approved plan: found in the store, approved by others, and still true of the world.

A person approves a digest; what is applied is the plan of that digest and no other. It is made again
from the world as it is, and any difference refuses it, saying what moved.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ..canonical import canonical
from ..context import Context
from ..errors import RecordDamaged, SourceError
from ..evidence.record import parse
from ..outcomes import Outcome, Row, check_row, worst
from ..params import RolloutParams
from .approvals import hear, in_force
from .approvers import approved
from .plan import Plan, moved


@dataclass(frozen=True)
class Ruling:
    """``plan`` may be applied when every row holds."""

    plan: Plan | None
    author: str = ""
    rows: list[Row] = field(default_factory=list)
    approved_by: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        return worst(row.outcome for row in self.rows)


def needs_approval(context: Context) -> bool:
    """Whether this run applies a plan that others made and approved."""
    return isinstance(context.params, RolloutParams) and context.params.mode == "apply"


def rule(context: Context, fresh: Plan) -> Ruling:
    """Whether the approved plan may be applied, given one freshly made. Raises SourceError."""
    wanted = context.params.approved_plan
    found = _stored(context, wanted)
    if found is None:
        got = f"none with that digest for {context.params.release}/{context.stage}"
        row = check_row("approved_plan", "a plan run in the store", wanted, got, ok=False)
        return Ruling(None, rows=[row])
    plan, author = found
    rows = [
        check_row(subject, f"{what} (planned, now)", planned, now, ok=False)
        for subject, what, planned, now in moved(plan, fresh)
    ]
    if plan.window and context.now >= datetime.fromisoformat(plan.window[1]):
        got = f"its window ended {plan.window[1]}"
        rows.append(check_row("the plan", "not expired", "a window to come", got, ok=False))
    if not rows:
        rows.append(check_row("the plan", "still true of the world", wanted, wanted, ok=True))
    by, more = approval(context, wanted, author)
    return Ruling(plan, author, [*rows, *more], by)


def approval(context: Context, digest: str, author: str) -> tuple[tuple[str, ...], list[Row]]:
    """Who approved ``digest``, and whether that is enough for this stage."""
    params, site = context.params, context.site
    heard = hear(
        context.scope,
        site,
        digest,
        issue=params.issue,
        files=params.approvals,
        release=params.release,
    )
    names = tuple(dict.fromkeys(word.account for word in in_force(site, heard, digest)))
    rows = approved(site, heard, author, context.stage, digest=digest)
    return names or ((author,) if site.single_operator else ()), rows


def _stored(context: Context, wanted: str) -> tuple[Plan, str] | None:
    """The plan of that digest that a plan run of this release and stage left, and its author."""
    scope, root = context.scope, context.store.root
    folder = root / context.params.release / context.stage
    for number in scope.listing(folder):
        if not number.isdigit():
            continue
        where = f"{context.params.release}/{context.stage}/{number}"
        entries, _ = parse(scope.read(folder / number / "record.jsonl"), where)
        opened = entries[0].body if entries else {}
        if opened.get("mode") != "plan" or opened.get("source") == "replay":
            continue
        for entry in entries:
            if entry.kind == "plan" and entry.body["digest"] == wanted:
                plan = _load(entry.body["plan"], where)
                if plan.digest != wanted:
                    raise RecordDamaged(f"{where}: expected plan {wanted}, got {plan.digest}")
                return plan, str(entry.body["author"])
    return None


def _load(value: object, where: str) -> Plan:
    try:
        return Plan.model_validate_json(canonical(value))
    except ValueError as error:
        raise SourceError(where, f"expected a plan of this version, got: {error}") from error
