"""Approvals: a person's word that quotes a digest, read from the release issue or a signed file.

A comment counts when a listed account wrote it, a line of it reads ``approve sha256:...``, and it
was not edited since. A signed file counts when the Ed25519 key of a listed person signed exactly
that digest. Account and key of one person are one approver.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, ValidationError

from .. import playbook
from ..canonical import canonical
from ..errors import ParameterError, SourceError
from ..outcomes import Model
from ..params import Drop, Waiver, parse_instant, project_path
from ..session import OPEN, Session
from ..site import Site
from ..sources.forge import GitHub
from ..sources.tape import Scope
from .plan import Plan

_LINE = re.compile(r"^\s*/?approve\s+(sha256:[0-9a-f]{64})\s*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Approval:
    """Who approved, when, and where that can be read."""

    account: str
    at: datetime
    grounds: str


class Statement(Model):
    approve: str
    account: str
    at: AwareDatetime


class SignedApproval(Model):
    """An approval file: the statement, and an Ed25519 signature over its canonical JSON (base64)."""

    statement: Statement
    signature: str


def approvals(scope: Scope, site: Site, digest: str, *, issue: int, file: str) -> list[Approval]:
    """Every valid approval of ``digest``. Raises SourceError when a place cannot be read."""
    found = [_signed(scope, site, digest, file)] if file else []
    if issue:
        for comment in GitHub(scope, site.forge).comments(issue):
            quoted = {text.lower() for text in _LINE.findall(comment.body)}
            listed = site.person(comment.author) is not None
            if listed and digest in quoted and comment.updated_at == comment.created_at:
                found.append(Approval(comment.author, comment.created_at, comment.html_url))
    return found


def _signed(scope: Scope, site: Site, digest: str, file: str) -> Approval:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signed = SignedApproval.model_validate_json(scope.read(project_path(file)))
    except ValidationError as error:
        raise SourceError(
            file, f"expected a signed approval, got: {error.errors()[0]['msg']}"
        ) from error
    person = site.person(signed.statement.account)
    if person is None or not person.key:
        raise SourceError(
            file, f"expected a listed person with a key, got {signed.statement.account!r}"
        )
    if signed.statement.approve != digest:
        raise SourceError(
            file, f"expected an approval of {digest}, got of {signed.statement.approve}"
        )
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(person.key.removeprefix("ed25519:")))
    try:
        signature = base64.b64decode(signed.signature, validate=True)
        key.verify(signature, canonical(signed.statement.model_dump(mode="json")))
    except (InvalidSignature, ValueError) as error:
        raise SourceError(file, f"expected a signature by {person.account}, got another") from error
    return Approval(person.account, signed.statement.at, Path(file).name)


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
    names = _by_another(session, scope, digest, drop.approval, where)
    return {
        "node": drop.node,
        "reason": drop.reason,
        "digest": digest,
        "plan": plan.digest,
        "approved_by": list(names) or [session.operator],
        "self_approved": not names,
    }


def _by_another(
    session: Session, scope: Scope, digest: str, file: str, where: str
) -> tuple[str, ...]:
    """Who else approved ``digest``; empty where a lone operator may. Raises ParameterError."""
    try:
        given = approvals(scope, session.site, digest, issue=session.params.issue, file=file)
    except SourceError as error:
        raise ParameterError(f"{where}.approval: {error}") from error
    others = tuple(one.account for one in given if one.account != session.operator)
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
    try:
        given = approvals(scope, session.site, digest, issue=params.issue, file=waiver.approval)
    except SourceError as error:
        raise ParameterError(f"{where}.approval: {error}") from error
    by_others = [one for one in given if one.account != session.operator]
    if not by_others and not session.site.single_operator:
        raise ParameterError(
            f"{where}: expected an approval of {digest} by somebody other than {session.operator},"
            f" got {'only their own' if given else 'none'}; comment `approve {digest}` in the"
            " release issue"
        )
    names = [one.account for one in by_others] or [session.operator]
    return {
        **waiver.model_dump(mode="json", exclude={"approval"}),
        "expires": parse_instant(waiver.expires).isoformat(),
        "digest": digest,
        "approved_by": names,
        "self_approved": not by_others,
        "grounds": [one.grounds for one in by_others],
    }
