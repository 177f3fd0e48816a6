"""An approved plan: found in the store, approved by others, and still true of the world.

A person approves a digest; what is applied is the plan of that digest and no other. It is made again
from the world as it is, and any difference refuses it, saying what moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import permutations

from .. import playbook
from ..canonical import canonical
from ..context import Context
from ..errors import RecordDamaged, SourceError
from ..evidence.record import parse
from ..outcomes import Outcome, Row, check_row, unknown_row, worst
from ..params import RolloutParams
from ..site import Site
from ..sources.words import Heard
from .approvals import hear, in_force, withdrawn
from .plan import Plan, moved

SUBJECT = "approval"


def approved(site: Site, heard: Heard, author: str, stage: str, *, digest: str) -> list[Row]:
    """One row per seat that must approve ``digest``, one per forged or withdrawn approval, and one
    per file that cannot be read.

    An account fills one seat. On a ``single_operator`` site the author fills what others leave
    open; the row says *self-approved*. A stage without a policy is INCONCLUSIVE.
    """
    policy = playbook.APPROVERS.get(stage)
    if policy is None:
        return [
            unknown_row(SUBJECT, stage, "a policy that says who approves", "none for this stage")
        ]
    given = {word.account: word.grounds for word in in_force(site, heard, digest)}
    alone = set(given) <= {author}
    if not policy.author or alone:
        given.pop(author, None)
    seated = _seat(site, policy, list(given))
    rows = [
        _row(site, seat, account, given, author, f"seat {number} of {len(seated)}", digest)
        for number, (seat, account) in enumerate(zip(policy.seats, seated, strict=True), 1)
    ]
    return rows + _objections(site, heard, digest, full=all(seated))


def _seat(site: Site, policy: playbook.Approvers, accounts: list[str]) -> tuple[str, ...]:
    """Who fills which seat, so that as many as can be are filled; empty where nobody can."""

    def fits(account: str, seat: frozenset[str]) -> bool:
        person = site.person(account)
        return person is not None and not seat.isdisjoint(person.roles)

    def filled(order: tuple[str, ...]) -> tuple[str, ...]:
        pairs = zip(order, policy.seats, strict=True)
        return tuple(account if fits(account, seat) else "" for account, seat in pairs)

    nobody = [""] * len(policy.seats)
    orders = permutations([*accounts, *nobody], len(policy.seats))
    return max(map(filled, orders), key=lambda seats: sum(map(bool, seats)))


def _row(
    site: Site,
    seat: frozenset[str],
    account: str,
    given: Mapping[str, str],
    author: str,
    what: str,
    digest: str,
) -> Row:
    expected = f"by {' or '.join(sorted(seat))}, not {author} alone"
    if account:
        return check_row(SUBJECT, what, expected, f"{account} ({given[account]})", ok=True)
    if site.single_operator:
        return check_row(SUBJECT, what, expected, f"{author} (self-approved)", ok=True)
    can = sorted(p.account for p in site.people if seat & set(p.roles) and p.account != author)
    how = f"`approve {digest}` in the release issue, or `runbook approve`"
    got = f"nobody yet; {how}, by {' or '.join(can) or 'somebody the site must list'}"
    return unknown_row(SUBJECT, what, expected, got)


def _objections(site: Site, heard: Heard, digest: str, *, full: bool) -> list[Row]:
    rows = [
        check_row(SUBJECT, one.who, "signed with its own key", f"forged: {one.grounds}", ok=False)
        for one in heard.refused
        if one.fault == "forged" and one.said is not None
        if (one.said.kind, one.said.plan) == ("approve", digest)
    ]
    # It may be somebody's withdrawal.
    rows += [
        unknown_row(SUBJECT, f"signed word {one.who}", "readable", one.why)
        for one in heard.refused
        if one.fault == "unreadable"
    ]
    standing = {word.account for word in in_force(site, heard, digest)}
    for word in () if full else heard.words:
        mine = (word.kind, word.plan) == ("approve", digest) and site.person(word.account)
        back = withdrawn(word, heard)
        if mine and back is not None and word.account not in standing:
            got = f"withdrawn: {back.grounds}"
            rows.append(
                check_row(SUBJECT, word.account, "an approval that stands", got, Outcome.FAIL)
            )
    return rows


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
