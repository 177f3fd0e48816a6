"""What people accepted for one attempt: waivers of rows, and nodes left out of its plan.

Each quotes a digest that somebody else approved; a lone operator's own counts where the site says so.
"""

from __future__ import annotations

from .. import playbook
from ..errors import ParameterError, SourceError
from ..params import Drop, Waiver
from ..session import OPEN, Session
from ..sources.scope import Scope
from ..sources.words import hear, in_force
from ..strict import parse_instant
from .plan import Plan


def accept_waivers(session: Session) -> None:
    """Record this session's waivers that are in force. Raises ParameterError for any that is not."""
    if session.replay:
        begun = max((e.seq for e in session.recorded if e.kind == "session"), default=0)
        for entry in session.recorded[begun:]:
            if entry.kind == "waiver":
                session.record.append("waiver", entry.body)
        return
    if not session.params.waivers:
        return
    scope = session.scope(f"{OPEN}/waivers", session.number)
    for number, waiver in enumerate(session.params.waivers):
        session.record.append("waiver", _accepted(session, scope, waiver, f"waivers.{number}"))
    session.tape.sync()


def accept_drops(session: Session, plan: Plan, dropped: list[str]) -> list[str]:
    """The nodes left out of ``plan``: those that are, and this session's. Raises ParameterError.

    A plan only shrinks, once somebody else approved that; a dropped node stays dropped in every
    later session of the attempt.
    """
    scope = session.scope(f"{OPEN}/drops", session.number)
    for number, drop in enumerate(getattr(session.params, "drops", [])):
        if drop.node not in dropped:
            session.record.append(
                "dropped", _dropped(session, scope, drop, plan, f"drops.{number}")
            )
            dropped = [*dropped, drop.node]
    session.tape.sync()
    return dropped


def _dropped(
    session: Session, scope: Scope, drop: Drop, plan: Plan, where: str
) -> dict[str, object]:
    if drop.node not in plan.nodes:
        known = ", ".join(plan.nodes)
        raise ParameterError(f"{where}.node: expected one of {known}, got {drop.node!r}")
    digest = drop.digest(plan.digest, session.params.release, session.stage)
    by, _ = _by_another(session, scope, digest, drop.approval, where)
    return {"node": drop.node, "reason": drop.reason, "plan": plan.digest, **by}


def _by_another(
    session: Session, scope: Scope, digest: str, file: str, where: str
) -> tuple[dict[str, object], list[str]]:
    """Who else approved ``digest``, a lone operator where that may be, and where. Raises
    ParameterError.
    """
    params, site = session.params, session.site
    issues, release = [params.issue], params.release
    try:
        heard = hear(scope, site, digest, issues=issues, files=[file], release=release)
    except SourceError as error:
        raise ParameterError(f"{where}.approval: {error}") from error
    given = in_force(site, heard, digest)
    others = [one for one in given if one.account != session.operator]
    if not others and not site.single_operator:
        raise ParameterError(
            f"{where}: expected an approval of {digest} by somebody other than {session.operator},"
            f" got {'only their own' if given else 'none'}; comment `approve {digest}` in the"
            " release issue"
        )
    accounts = [one.account for one in others] or [session.operator]
    by = {"digest": digest, "approved_by": accounts, "self_approved": not others}
    return by, [one.grounds for one in others]


def _accepted(session: Session, scope: Scope, waiver: Waiver, where: str) -> dict[str, object]:
    params, stage = session.params, session.stage
    if waiver.item not in playbook.DECLARED[stage]:
        raise ParameterError(f"{where}.item: expected an item of {stage}, got {waiver.item!r}")
    if parse_instant(waiver.expires) <= scope.now():
        raise ParameterError(f"{where}.expires: expected an instant to come, got {waiver.expires}")
    digest = waiver.digest(params.release, stage)
    by, grounds = _by_another(session, scope, digest, waiver.approval, where)
    return {
        **waiver.model_dump(mode="json", exclude={"approval"}),
        "expires": parse_instant(waiver.expires).isoformat(),
        **by,
        "grounds": grounds,
    }
