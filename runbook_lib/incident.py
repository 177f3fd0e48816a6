"""``runbook incident``: what became of an incident, and the steps that end it.

Acknowledged, mitigated and closed by whoever runs the command; signed off by somebody else's
approval of the closing statement's digest, in an issue or a signed file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import display
from .canonical import digest
from .commands.printing import print_json
from .errors import ParameterError, StoreError
from .evidence import incidents
from .evidence.incident_file import Incident
from .evidence.incidents import blocking
from .evidence.store import Store
from .verdicts import ExitCode
from .wording import utc

if TYPE_CHECKING:
    from .site import Site
    from .sources.scope import Scope

MIN_REASON = 10


def incident(args: argparse.Namespace) -> int:
    """Show incidents, or take one a step further; 4 while somebody's word is missing."""
    from .opening import find_operator
    from .site import read_site
    from .sources.clock import read_clock

    site = read_site(args.site)
    store = Store(site.store_path)
    found = _find(store, args.what)
    if not args.step:
        return _show(found, store, site, args)
    if len(found) != 1:
        names = ", ".join(one.id for one in found) or "none"
        raise ParameterError(f"{args.what}: expected one incident, got {names}; name it")
    step = Step(
        store, site, found[0], find_operator(site, "apply"), read_clock(site.clock)[0], args
    )
    changed = step.take()
    code = ExitCode.PASSED if changed is not None else ExitCode.WAITING
    _show([changed or found[0]], store, site, args)
    return int(code)


def _find(store: Store, what: str) -> list[Incident]:
    if incidents.is_id(what) and incidents.path_of(store, what).exists():
        return [incidents.load(store, what)]
    found = incidents.incidents_of(store, what)
    # Nothing that is known by a misspelt name must not read as nothing that is wrong.
    if not found and store.readable(what) == ([], []):
        raise ParameterError(
            f"{what}: expected an incident's id, or a release with attempts in the store, got neither"
        )
    return found


@dataclass(frozen=True)
class Step:
    """A step that ``operator`` takes an incident."""

    store: Store
    site: Site
    one: Incident
    operator: str
    now: datetime
    args: argparse.Namespace

    def take(self) -> Incident | None:
        """The incident after it; None while a word is missing. Raises StoreError."""
        match self.args.step:
            case "acknowledge":
                return self._add("acknowledged", self._told, first=True)
            case "mitigated":
                return self._add("mitigated", self._told, after="acknowledged", first=True)
            case "close":
                return self._close()
            case "ratify":
                return self._ratify()
        return self._sign_off()

    @property
    def _told(self) -> dict[str, Any]:
        return {"by": self.operator, "at": self.now.isoformat()}

    def _add(self, kind: str, body: dict[str, Any], **when: Any) -> Incident:
        return incidents.add(self.store, self.one.id, kind, body, **when)

    def _close(self) -> Incident:
        reason = self.args.reason.strip()
        if len(reason) < MIN_REASON:
            raise ParameterError(
                f"--reason: expected why it is over, in {MIN_REASON} characters or more,"
                f" got {self.args.reason!r}"
            )
        said = self.one.statement(reason, self.operator, self.now.isoformat())
        return self._add("closed", {**said, "digest": digest(said)}, after="mitigated")

    def _sign_off(self) -> Incident | None:
        from .changes.approvals import in_force

        one, closed = self.one, self.one.last("closed")
        if closed is None:
            raise StoreError(f"{one.id}: expected it closed first, got it {one.standing}")
        with _reading(self.site) as scope:
            words = in_force(self.site, self._heard(scope, closed["digest"]), closed["digest"])
        others = [w for w in words if w.account.casefold() != one.author.casefold()]
        body = {"digest": closed["digest"], "recorded_by": self.operator}
        if others:
            first = min(others, key=lambda word: word.at)
            body |= {"by": first.account, "account": first.account, "at": first.at.isoformat()}
            body["grounds"] = first.grounds
        elif self.site.single_operator and self.operator == one.author:
            body |= {**self._told, "account": self.operator, "self_approved": True}
        else:
            return None
        return self._add("signed-off", body, after="closed")

    def _ratify(self) -> Incident | None:
        from .changes.convening import count_votes, decision

        one, wanted = self.one, self.one.to_ratify
        if one.break_glass is None:
            raise StoreError(f"{one.id}: expected a break-glass to ratify, got none")
        with _reading(self.site) as scope:
            votes = count_votes(self.site, self._heard(scope, wanted), wanted)
        body = decision(one, votes, wanted, ratifies=True)
        if body is None:
            return one if one.ratified else None
        return self._add("decision", body)

    def _heard(self, scope: Scope, wanted: str) -> Any:
        from .changes.convening import hear_all

        args, one = self.args, self.one
        issues = [args.issue, int(one.opened.get("issue", 0)), *one.filed]
        return hear_all(
            scope, self.site, wanted, issues=issues, file=args.approval, release=one.release
        )


@contextmanager
def _reading(site: Site) -> Iterator[Scope]:
    """A scope whose tape goes away: what counts is kept in the incident."""
    from .sources.redact import Redactor
    from .sources.scope import Outside, Scope
    from .sources.tape import LiveTape

    redactor = Redactor(site.secret_names())
    outside = Outside(redactor)
    with tempfile.TemporaryDirectory(prefix="runbook-incident-") as scratch:
        try:
            yield Scope(LiveTape(Path(scratch), redactor), outside, "incident", 1, clock=site.clock)
        finally:
            outside.close()


# --- showing them -------------------------------------------------------------------------------


def _show(found: list[Incident], store: Store, site: Site, args: argparse.Namespace) -> int:
    """Print them, and what the store misses of a release's; 2 while anything blocks."""
    told = [document(one, site) for one in found]
    release = found[0].release if found else args.what
    only = {one.id for one in found} if found and args.what != release else None
    blocks = [
        {"id": block.name, "problem": block.problem}
        for block in blocking(store, release, single_operator=site.single_operator)
        if only is None or block.name in only
    ]
    if args.json:
        print_json({"incidents": told, "blocks": blocks})
    else:
        columns = ("incident", "standing", "what", "when", "who")
        rows = [
            (one.id, one.standing, what, utc(at), by) for one in found for what, at, by in one.times
        ]
        print(display.table_card(release, columns, rows or [("none yet",)]).text)
        for each in blocks:
            print(f"blocks  {each['id']}: {each['problem']}")
        for one in found:
            for line in missing(one, site, args.site):
                print(line)
    return int(ExitCode.INCONCLUSIVE if blocks else ExitCode.PASSED)


def document(one: Incident, site: Site) -> dict[str, Any]:
    """An incident as ``--json`` prints it."""
    closed = one.last("closed")
    return {
        "id": one.id,
        "stage": one.opened["stage"],
        "standing": one.standing,
        "author": one.author,
        "attempt": one.opened["attempt"],
        "times": [{"what": w, "at": at.isoformat(), "by": by} for w, at, by in one.times],
        "issues": one.filed,
        "closing": closed["digest"] if closed else None,
        "ratify": one.to_ratify if one.break_glass else None,
        "problem": one.problem(site.single_operator),
    }


def missing(one: Incident, site: Site, path: str) -> list[str]:
    """What is to be said or done next, as lines to copy."""
    again = f"runbook incident {one.id} --site {path}"
    lines = []
    if one.break_glass and one.ratified is None:
        lines.append(
            f"ratify  the council, until {utc(one.ratify_until)}:"
            f" comment `approve {one.to_ratify}`, then {again} --ratify"
        )
    step = {"opened": "--acknowledge", "acknowledged": "--mitigated", "mitigated": "--close"}
    if one.step in step:
        reason = " --reason WHY" if one.step == "mitigated" else ""
        lines.append(f"next  {again} {step[one.step]}{reason}")
    if one.step == "closed" and (closed := one.last("closed")):
        who = "anybody" if site.single_operator else f"somebody other than {one.author}"
        lines.append(f"next  {who}: comment `approve {closed['digest']}`, then {again} --sign-off")
    return lines
