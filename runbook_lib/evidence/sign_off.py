"""Whether those who ended an incident still say so: its file in the store is no proof of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SourceError
from ..playbook import COUNCIL
from ..site import Site
from ..sources.scope import live_scope
from ..sources.words import Heard, hear, in_force
from .incidents import Incident

SIGNED, ISSUE = "signed_file", "in_issue"
"""Where else than in the incident's own issues a word was found, in the entry that counts it."""


def heard_about(one: Incident, site: Site, wanted: str, where: Mapping[str, Any]) -> Heard:
    """What was said of a digest: in the issues of the incident, and ``where`` else. Raises SourceError."""
    issues = [int(where.get(ISSUE, 0)), int(one.opened.get("issue", 0)), *one.filed]
    signed = [str(where.get(SIGNED, "")).encode()]
    with live_scope("incident", site.secret_names(), clock=site.clock) as scope:
        return hear(scope, site, wanted, issues=issues, files=signed, release=one.release)


def unsaid(one: Incident, site: Site) -> str:
    """Why nobody's word ends a signed-off incident; empty where people still say what ends it."""
    closed, signed, ratified = one.last("closed"), one.last("signed-off"), one.ratified
    try:
        if closed and signed and not (site.single_operator and signed.get("self_approved")):
            said = in_force(
                site, heard_about(one, site, closed["digest"], signed), closed["digest"]
            )
            if signed["account"] not in {word.account for word in said}:
                return f"expected it signed off by {signed['account']}, got no such word"
        if one.break_glass and ratified:
            said = in_force(site, heard_about(one, site, one.to_ratify, ratified), one.to_ratify)
            seated = {person.account for person in site.people if COUNCIL in person.roles}
            if not seated or 3 * len({word.account for word in said} & seated) < 2 * len(seated):
                return "expected its break-glass ratified by the council, got no such words"
    except SourceError as error:
        return f"expected what ended it read again, got: {error}"
    return ""
