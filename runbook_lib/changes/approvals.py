"""Approvals: a person's word that quotes a digest, read from the release issue or a signed file.

A comment counts when a listed account wrote it, a line of it reads ``approve sha256:...``, and it
was not edited since. A signed file counts when the Ed25519 key of a listed person signed exactly
that digest. An approval that was withdrawn counts no more. Account and key of one person are one
approver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from .. import playbook
from ..errors import ParameterError, SourceError
from ..fields import parse_instant
from ..params import Drop, Waiver
from ..session import OPEN, Session
from ..site import Site
from ..sources.scope import Scope
from ..sources.wordforms import MAX_FILE, Word, parse_signed
from ..sources.words import Heard, Refused, read_words, taken_back, verify
from ..strict import project_path
from .plan import Plan


@dataclass(frozen=True)
class Approval:
    """Who approved, when, and where that can be read."""

    account: str
    at: datetime
    grounds: str


def approvals(
    scope: Scope, site: Site, digest: str, *, issue: int, file: str, release: str = ""
) -> list[Approval]:
    """Every valid approval of ``digest``. Raises SourceError when a place cannot be read.

    With ``release`` the site's folder of signed words is read as well.
    """
    files = [file] if file else []
    heard = hear(scope, site, digest, issue=issue, files=files, release=release)
    found = in_force(site, heard, digest)
    return [Approval(word.account, word.at, word.grounds) for word in found]


def hear(
    scope: Scope, site: Site, digest: str, *, issue: int, files: Sequence[str], release: str
) -> Heard:
    """What was said, and the signed approvals of ``digest`` in ``files``.

    Raises SourceError when a place cannot be read, and for a file that approves anything else.
    """
    given = tuple(_signed(scope, site, digest, file) for file in files)
    heard = Heard()
    if issue or (release and site.words):
        heard = read_words(scope, site, issue=issue, release=release)
    return replace(heard, words=(*given, *heard.words))


def in_force(site: Site, heard: Heard, digest: str) -> list[Word]:
    """Approvals of ``digest`` by listed people that nobody took back."""
    return [
        word
        for word in heard.words
        if (word.kind, word.plan) == ("approve", digest)
        and site.person(word.account) is not None
        and withdrawn(word, heard) is None
    ]


def withdrawn(word: Word, heard: Heard) -> Word | None:
    """The withdrawal by which the same account took its approval back."""
    return taken_back(word, [one for one in heard.withdrawals if one.account == word.account])


def _signed(scope: Scope, site: Site, digest: str, file: str) -> Word:
    try:
        signed = parse_signed(scope.read(project_path(file), limit=MAX_FILE))
        said = signed.statement.said()
        if said.kind != "approve" or said.withdraws:
            raise ValueError(f"a signed {'withdrawal' if said.withdraws else said.kind}")
    except ValueError as error:
        raise SourceError(file, f"expected a signed approval, got: {error}") from error
    if said.plan != digest and site.person(signed.statement.account):
        raise SourceError(file, f"expected an approval of {digest}, got of {said.plan}")
    found = verify(site, signed, Path(file).name, scope.now())
    if isinstance(found, Refused):
        raise SourceError(file, found.why)
    return found


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


def accept_drops(session: Session, plan: Plan) -> Plan:
    """``plan`` without the nodes that this attempt dropped. Raises ParameterError.

    It only shrinks, once somebody else approved that; a dropped node stays dropped in every later
    session of the attempt.
    """
    entries = session.recorded if session.replay else session.record.entries()
    dropped = [entry.body["node"] for entry in entries if entry.kind == "dropped"]
    if not session.replay:
        scope = session.scope(f"{OPEN}/drops", session.number)
        for number, drop in enumerate(getattr(session.params, "drops", [])):
            if drop.node not in dropped:
                body = _dropped(session, scope, drop, plan, f"drops.{number}")
                session.record.append("dropped", body)
                dropped.append(drop.node)
        session.tape.sync()
    for node in dropped:
        plan = plan.without(node)
    return plan


def _dropped(
    session: Session, scope: Scope, drop: Drop, plan: Plan, where: str
) -> dict[str, object]:
    if drop.node not in plan.nodes:
        known = ", ".join(plan.nodes)
        raise ParameterError(f"{where}.node: expected one of {known}, got {drop.node!r}")
    digest = drop.digest(plan.digest, session.params.release, session.stage)
    others = _by_another(session, scope, digest, drop.approval, where)
    return {
        "node": drop.node,
        "reason": drop.reason,
        "digest": digest,
        "plan": plan.digest,
        "approved_by": [one.account for one in others] or [session.operator],
        "self_approved": not others,
    }


def _by_another(
    session: Session, scope: Scope, digest: str, file: str, where: str
) -> tuple[Approval, ...]:
    """What others approved ``digest``; empty where a lone operator may. Raises ParameterError."""
    params = session.params
    try:
        given = approvals(
            scope, session.site, digest, issue=params.issue, file=file, release=params.release
        )
    except SourceError as error:
        raise ParameterError(f"{where}.approval: {error}") from error
    others = tuple(one for one in given if one.account != session.operator)
    if not others and not session.site.single_operator:
        raise ParameterError(
            f"{where}: expected an approval of {digest} by somebody other than {session.operator},"
            f" got {'only their own' if given else 'none'}; comment `approve {digest}` in the"
            " release issue"
        )
    return others


def _accepted(session: Session, scope: Scope, waiver: Waiver, where: str) -> dict[str, object]:
    params, stage = session.params, session.stage
    if waiver.item not in playbook.DECLARED[stage]:
        raise ParameterError(f"{where}.item: expected an item of {stage}, got {waiver.item!r}")
    if parse_instant(waiver.expires) <= scope.now():
        raise ParameterError(f"{where}.expires: expected an instant to come, got {waiver.expires}")
    digest = waiver.digest(params.release, stage)
    by_others = _by_another(session, scope, digest, waiver.approval, where)
    return {
        **waiver.model_dump(mode="json", exclude={"approval"}),
        "expires": parse_instant(waiver.expires).isoformat(),
        "digest": digest,
        "approved_by": [one.account for one in by_others] or [session.operator],
        "self_approved": not by_others,
        "grounds": [one.grounds for one in by_others],
    }
