"""Approvals: a person's word that quotes a digest, read from the release issue or a signed file.

A comment counts when a listed account wrote it, a line of it reads ``approve sha256:...``, and it
was not edited since. A signed file counts when the Ed25519 key of a listed person signed exactly
that digest. An approval that was withdrawn counts no more. Account and key of one person are one
approver. Before each node approvals are asked again, and whether the site's policy moved.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from .. import playbook
from ..context import Context
from ..errors import LogDamaged, ParameterError, SourceError, Stopped, tried
from ..evidence.events import PlanMade, of
from ..evidence.log import opened_by
from ..findings import Findings
from ..outcomes import Outcome, Row, check_row, explain, unknown_row, worst
from ..params import RecoveryParams, RolloutParams
from ..plan import Plan, moved
from ..site import Site, parse_site
from ..sources.quorum import approvers
from ..sources.words import Heard, hear
from ..strict import project_path

# --- An approved plan: found in the store, approved by others, and still true of the world ---

SUBJECT, OWN = "approval", "(self-approved)"
UNREAD = (SourceError, ParameterError)


Approval = tuple[tuple[str, ...], list[Row]]
"""Who approved, and whether that is enough."""


def approved(site: Site, heard: Heard, author: str, stage: str, *, digest: str) -> Approval:
    """One row per seat that must approve ``digest``, one per forged or withdrawn approval, and one
    per file that cannot be read.

    An account fills one seat. On a ``single_operator`` site the author fills what others leave
    open; the row says *self-approved*. A stage without a policy is INCONCLUSIVE.
    """
    policy, person = playbook.APPROVERS.get(stage), site.person(author)
    if policy is None:
        expected = "a policy that says who approves"
        return (), [unknown_row(SUBJECT, stage, expected, "none for this stage")]
    if person is None:
        expected = "one of the site's people"
        return (), [check_row(SUBJECT, "author", expected, author, ok=False)]
    quorum = approvers(site, stage, author)
    count = quorum.count(heard, digest)
    rows = []
    seats = zip(policy.seats, quorum.seats, count.seats, strict=True)
    for number, (seat, holders, word) in enumerate(seats, 1):
        what = f"seat {number} of {len(quorum.seats)}"
        expected = f"by {' or '.join(sorted(seat))}, not {author} alone"
        if word or count.author:
            by = f"{word.account} ({word.grounds})" if word else f"{count.author} {OWN}"
            rows.append(check_row(SUBJECT, what, expected, by, ok=True))
            continue
        can = sorted(account for account in holders if account != person.account)
        how = f"`approve {digest}` in the release issue, or `runbook approve`"
        got = f"nobody yet; {how}, by {' or '.join(can) or 'somebody the site must list'}"
        rows.append(unknown_row(SUBJECT, what, expected, got))
    for one in heard.refused:
        said = one.said and (one.said.kind, one.said.plan)
        if one.fault == "forged" and said == ("approve", digest):
            got = f"forged, passed over: {one.grounds}"
            rows.append(check_row(SUBJECT, one.who, "its own key", got, ok=True))
        elif one.fault == "unreadable":  # it may be somebody's withdrawal
            rows.append(unknown_row(SUBJECT, f"signed word {one.who}", "readable", one.why))
    for word in count.withdrawn if count.at is None else ():
        got, what = f"withdrawn: {word.grounds}", "an approval that stands"
        rows.append(check_row(SUBJECT, word.account, what, got, ok=False))
    own = (f"{count.author} {OWN}",) if count.self_approved else ()
    return (*(word.account for word in count.words), *own), rows


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
    if plan.policy in context.policies:  # what moved of it since was accepted
        fresh = Plan.model_validate({**fresh.model_dump(), "policy": plan.policy})
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


def approval(context: Context, digest: str, author: str, *, local: bool = False) -> Approval:
    """Who approved ``digest``, and whether that is enough for this stage; ``local``: signed files."""
    params, site = context.params, context.site
    issues = [] if local else [params.issue]
    files, release = params.approvals, params.release
    heard = hear(context.scope, site, digest, issues=issues, files=files, release=release)
    return approved(site, heard, author, context.stage, digest=digest)


PAUSES_S = (10.0, 20.0, 30.0, 60.0, 120.0)
"""Between looks for approvals while the forge is down."""


def require_standing(context: Context) -> None:
    """Ask again whether the site's policy and the plan's approval stand. Raises Stopped.

    A recovery was approved together with its plan, or needs nobody's approval.
    """
    if isinstance(context.params, RecoveryParams):
        return
    path, found = context.params.site, Findings()
    what, expected = "policy", "the site file as this session opened it"
    with found.reading(what, expected, path, UNREAD):
        now = parse_site(context.scope.read(project_path(path)), path)
        if now.policy_digest != context.site.policy_digest:
            from ..evidence.policy import policy_moved

            got = f"{policy_moved(context.site, now)}; put it back"
            found.judge(path, what, expected, got, ok=False)
    if needs_approval(context) and context.plan is not None:
        found.findings += _approval_rows(context, context.plan.digest)
    if bad := [row for row in found.findings if row.outcome is not Outcome.PASS]:
        raise Stopped(f"stopped: {explain(bad, '', '')}")


def _approval_rows(context: Context, plan: str) -> list[Row]:
    """A forge that is down is asked again, inside the window; signed files alone serve as well."""
    made = of(context.so_far, PlanMade)
    author, (_, end) = made[-1].author, context.params.window
    for pause in (*PAUSES_S, None):
        found = tried(approval, context, plan, author)
        if not isinstance(found, SourceError):
            return found[1]
        down = [check_row(found.source, "approvals", "asked again before each node", found)]
        with suppress(SourceError):
            rows = approval(context, plan, author, local=True)[1]
            if all(row.outcome is Outcome.PASS for row in rows):
                return rows
        due = context.scope.reread() + timedelta(seconds=pause or 0.0)
        if pause is None or due >= end:
            break
        from .waiting import hold_until

        hold_until(context, due, "the forge")
    return down


def _stored(context: Context, wanted: str) -> tuple[Plan, str] | None:
    """The plan of that digest that a plan run of this release and stage left, and its author."""
    for where, events in context.ledger.attempts(context.params.release, context.stage, PlanMade):
        opened = opened_by(events, where)
        if opened.mode != "plan" or opened.source == "replay":
            continue
        for made in of(events, PlanMade):
            if made.digest == wanted:
                if made.plan.digest != wanted:
                    raise LogDamaged(f"{where}: expected plan {wanted}, got {made.plan.digest}")
                return made.plan, made.author
    return None
