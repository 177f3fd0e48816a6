"""What people accepted for one attempt: waivers of rows, and nodes left out of its plan.

Each quotes a digest that somebody else approved; a lone operator's own counts where the site says so.
"""

from typing import Any

from .. import playbook
from ..errors import ParameterError, SourceError
from ..evidence.events import NodeDropped, SessionOpened, WaiverAccepted, last, of
from ..outcomes import Outcome
from ..plan import Plan
from ..session import OPEN, Session
from ..sources.quorum import anybody
from ..sources.scope import Scope
from ..sources.words import hear
from ..strict import parse_instant


def accept_waivers(session: Session) -> None:
    """Log this session's waivers that are in force. Raises ParameterError for any that is not."""
    if session.replay:
        begun = last(session.recorded, SessionOpened)
        for accepted in of(session.recorded[begun.seq if begun else 0 :], WaiverAccepted):
            session.log.append(accepted)
        return
    if not session.params.waivers:
        return
    scope, stage = session.scope(f"{OPEN}/waivers", session.number), session.stage
    for number, waiver in enumerate(session.params.waivers):
        where, expires = f"waivers.{number}", parse_instant(waiver.expires)
        if waiver.item not in playbook.DECLARED[stage]:
            raise ParameterError(f"{where}.item: expected an item of {stage}, got {waiver.item!r}")
        if expires <= scope.now():
            got = f"expected an instant to come, got {waiver.expires}"
            raise ParameterError(f"{where}.expires: {got}")
        digest = waiver.digest(release=session.params.release, stage=stage)
        by, grounds = _by_another(session, scope, digest, waiver.approval, where)
        accepted = WaiverAccepted(
            item=waiver.item,
            subjects=tuple(waiver.subjects),
            outcome=Outcome(waiver.outcome),
            reason=waiver.reason,
            expires=expires,
            grounds=grounds,
            **by,
        )
        session.log.append(accepted)
    session.tape.sync()


def accept_drops(session: Session, plan: Plan, dropped: list[str]) -> list[str]:
    """The nodes left out of ``plan``: those that are, and this session's. Raises ParameterError.

    A plan only shrinks, once somebody else approved that; a dropped node stays dropped in every
    later session of the attempt.
    """
    scope = session.scope(f"{OPEN}/drops", session.number)
    for number, drop in enumerate(getattr(session.params, "drops", [])):
        if drop.node in dropped:
            continue
        where, known = f"drops.{number}", ", ".join(plan.nodes)
        if drop.node not in plan.nodes:
            raise ParameterError(f"{where}.node: expected one of {known}, got {drop.node!r}")
        digest = drop.digest(plan=plan.digest, release=session.params.release, stage=session.stage)
        by, _ = _by_another(session, scope, digest, drop.approval, where)
        event = NodeDropped(node=drop.node, reason=drop.reason, plan=plan.digest, **by)
        session.log.append(event)
        dropped = [*dropped, drop.node]
    session.tape.sync()
    return dropped


def _by_another(
    session: Session, scope: Scope, digest: str, file: str, where: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Who else approved ``digest``, a lone operator where that may be, and where. Raises
    ParameterError.
    """
    params, site = session.params, session.site
    issues, release = [params.issue], params.release
    try:
        heard = hear(scope, site, digest, issues=issues, files=[file], release=release)
    except SourceError as error:
        raise ParameterError(f"{where}.approval: {error}") from error
    count = anybody(site, session.operator).count(heard, digest)
    if not count.by:
        raise ParameterError(
            f"{where}: expected an approval of {digest} by somebody other than {session.operator},"
            f" got none; comment `approve {digest}` in the release issue"
        )
    by = {"digest": digest, "approved_by": count.by, "self_approved": count.self_approved}
    return by, tuple(word.grounds for word in count.words)
