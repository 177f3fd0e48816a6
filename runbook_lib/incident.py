"""``runbook incident``: what became of an incident, and the steps that end it.

Closed by whoever runs the command; signed off by somebody else's approval of the closing's digest,
in an issue or a signed file.
"""

import argparse
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from . import display
from .commands.printing import print_json
from .errors import ParameterError, StoreError
from .evidence.incidents import (
    Agreed,
    Incident,
    IncidentClosed,
    Incidents,
    Told,
    agreement,
)
from .evidence.store import Store
from .opening import find_operator
from .site import Site, read_site
from .sources.keys import MAX_SIGNED
from .sources.quorum import anybody, council
from .sources.scope import live_scope, read_clock
from .strict import NAME, project_path
from .verdicts import ExitCode
from .wording import utc

MIN_REASON = 10


def incident(args: argparse.Namespace) -> int:
    """Show incidents, or take one a step further; 4 while somebody's word is missing."""
    site = read_site(args.site)
    incidents = Incidents(Store(site.store_path))
    found = _find(incidents, args.what)
    if not args.step:
        return _show(found, incidents, site, args)
    if len(found) != 1:
        names = ", ".join(one.id for one in found) or "none"
        raise ParameterError(f"{args.what}: expected one incident, got {names}; name it")
    proven = args.step in ("close", "sign-off")
    one, operator = found[0], find_operator(site, "apply", proven=proven)
    made = _step(one, site, operator, read_clock(site.clock)[0], args)
    if made is not None:
        one = incidents.add(one.id, made)
    _show([one], incidents, site, args)
    return int(ExitCode.WAITING if made is None else ExitCode.PASSED)


def _find(incidents: Incidents, what: str) -> list[Incident]:
    if NAME.fullmatch(what) and incidents.path(what).exists():
        return [incidents.load(what)]
    found = incidents.of(what)
    # Nothing that is known by a misspelt name must not read as nothing that is wrong.
    if not found and incidents.store.readable(what) == ([], []):
        raise ParameterError(
            f"{what}: expected an incident's id, or a release with attempts in the store, got neither"
        )
    return found


def _step(
    one: Incident, site: Site, operator: str, now: datetime, args: argparse.Namespace
) -> Told | None:
    """The event of a step; None while a word is missing.

    Raises ParameterError, StoreError.
    """
    if args.step == "close":
        if len(reason := args.reason.strip()) < MIN_REASON:
            raise ParameterError(
                f"--reason: expected why it is over, in {MIN_REASON} characters or more,"
                f" got {args.reason!r}"
            )
        return IncidentClosed(head=one.events[-1].hash, reason=reason, by=operator, at=now)
    author, closed, said = one.opened.by, one.closed, _where(site, args)
    if args.step == "ratify":
        if not one.opened.break_glass:
            raise StoreError(f"{one.id}: expected a break-glass to ratify, got none")
        quorum, wanted = council(site), one.to_ratify
    elif closed is None:
        raise StoreError(f"{one.id}: expected it closed first, got it {one.status}")
    else:
        quorum, wanted = anybody(site, author), closed.digest
    count = agreement(one, site, quorum, wanted, **said)
    alone = count.self_approved and operator == author
    if not (alone or count.at):
        return None
    grounds = tuple(word.grounds for word in count.words)
    at, by = (now, operator) if alone or count.at is None else (count.at, str(count))
    return Agreed(by=by, at=at, digest=wanted, grounds=grounds, self_approved=alone, **said)


def _where(site: Site, args: argparse.Namespace) -> dict[str, Any]:
    """Where else than in its issues words about it are; kept with what they ended."""
    signed = ""
    if args.approval:
        with live_scope("incident", site) as scope:
            data = scope.read(project_path(args.approval), limit=MAX_SIGNED)
            signed = data.decode("utf-8", "replace")
    return {"in_issue": args.issue or 0, "signed_file": signed}


# --- showing them -------------------------------------------------------------------------------


def _show(found: list[Incident], incidents: Incidents, site: Site, args: argparse.Namespace) -> int:
    """Print them, and what the store misses of a release's; 2 while anything blocks."""
    release = found[0].opened.release if found else args.what
    only = {one.id for one in found} if found and args.what != release else None
    blocks = [
        {"id": block.name, "problem": block.problem}
        for block in incidents.blocking(release, single_operator=site.single_operator)
        if only is None or block.name in only
    ]
    if args.json:
        print_json({"incidents": [document(one, site) for one in found], "blocks": blocks})
        return int(ExitCode.INCONCLUSIVE if blocks else ExitCode.PASSED)
    columns = ("incident", "status", "what", "when", "who")
    rows = [(one.id, one.status, what, utc(at), by) for one in found for what, at, by in one.times]
    print(display.table_card(release, columns, rows or [("none yet",)]).text)
    for each in blocks:
        print(f"blocks  {each['id']}: {each['problem']}")
    for one in found:
        for line in missing(one, site, args.site):
            print(line)
    return int(ExitCode.INCONCLUSIVE if blocks else ExitCode.PASSED)


def document(one: Incident, site: Site) -> dict[str, Any]:
    """An incident as ``--json`` prints it."""
    closed, opened = one.closed, one.opened
    return {
        "id": one.id,
        "stage": opened.stage,
        "status": one.status,
        "author": opened.by,
        "attempt": opened.attempt,
        "times": [{"what": w, "at": at.isoformat(), "by": by} for w, at, by in one.times],
        "issues": one.filed,
        "closing": closed.digest if closed else None,
        "ratify": one.to_ratify if opened.break_glass else None,
        "problem": one.problem(site.single_operator),
    }


def missing(one: Incident, site: Site, path: str) -> Iterator[str]:
    """What is to be said or done next, as lines to copy."""
    again = f"runbook incident {one.id} --site {path}"
    if one.opened.break_glass and one.agreed(one.to_ratify) is None:
        due = utc(one.ratify_until)
        yield (
            f"ratify  the council, until {due}: comment `approve {one.to_ratify}`,"
            f" then {again} --ratify"
        )
    if isinstance(closed := one.newest, IncidentClosed):
        who = "anybody" if site.single_operator else f"somebody other than {one.opened.by}"
        yield f"next  {who}: comment `approve {closed.digest}`, then {again} --sign-off"
    if one.status == "open":
        yield f"next  {again} --close --reason WHY"
