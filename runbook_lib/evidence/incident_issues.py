"""An incident on the forge: an issue for each audience, and whether those who ended it still say so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..errors import SourceError
from ..playbook import COUNCIL
from ..site import Site
from ..sources.github import GitHub, Issue
from ..sources.scope import live_scope
from ..sources.words import Heard, hear, in_force
from .comment import Board
from .events import IncidentClosed, IncidentSignedOff, Spoken
from .incidents import Incident

CLOCKS_APART = timedelta(days=1)
"""How far the forge's clock may lag behind the site's."""


class Issues(GitHub):
    """Reads and writes the issues of one repository."""

    def issue_if_there(self, number: int) -> Issue | None:
        """The same; None for one that does not exist, or that the token may not see."""
        got = self.get(f"forge: issue {number}", f"{self.base}/issues/{number}", absent=True)
        return None if got.status == 404 else self.decoded(number, got)

    def issues(self, since: datetime) -> list[Issue]:
        """Issues (and pull requests), open or closed, updated at ``since`` or later."""
        source, at = "forge: issues", since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # By number: what is updated meanwhile does not change its place.
        order = {"sort": "created", "direction": "asc"}
        return self.listed(source, "/issues", Issue, state="all", since=at, **order)

    def create_issue(self, title: str, body: str) -> Issue:
        """A new issue."""
        given = {"title": title, "body": body}
        return self.written("forge: a new issue", "POST", "/issues", given, Issue)

    def update_issue(self, number: int, body: str) -> Issue:
        """Another text for an issue."""
        source, path = f"forge: issue {number}", f"/issues/{number}"
        return self.written(source, "PATCH", path, {"body": body}, Issue)


@dataclass(frozen=True)
class Report:
    """What an incident's issue is to hold. ``since``: nothing of it can have been filed before."""

    incident: str
    audience: str
    title: str
    text: str
    since: datetime

    @property
    def marker(self) -> str:
        return f"<!-- rpp-runbook incident={self.incident} audience={self.audience} -->"

    @property
    def body(self) -> str:
        return f"{self.marker}\n{self.text}"

    def board(self, forge: Issues) -> Board:
        """The issues among which it is filed."""
        return Board(
            "issue",
            forge.me,
            lambda: forge.issues(self.since - CLOCKS_APART),
            lambda body: forge.create_issue(self.title, body),
            forge.update_issue,
            forge.issue_if_there,
        )


# --- whether those who ended an incident still say so: its file is no proof of that ---------------

Where = tuple[int, str]
"""An issue and a signed file's text: where else than in the incident's issues a word may be."""


def heard_about(one: Incident, site: Site, wanted: str, where: Where) -> Heard:
    """What was said of a digest: in the issues of the incident, and ``where`` else. Raises SourceError."""
    issues, signed = [where[0], one.opened.issue, *one.filed], [where[1].encode()]
    release = one.opened.release
    with live_scope("incident", site.secret_names(), clock=site.clock) as scope:
        return hear(scope, site, wanted, issues=issues, files=signed, release=release)


def _where(event: Spoken) -> Where:
    return event.in_issue, event.signed_file


def unsaid(one: Incident, site: Site) -> str:
    """Why nobody's word ends a signed-off incident; empty where people still say what ends it."""
    closed, signed, ratified = one.last(IncidentClosed), one.last(IncidentSignedOff), one.ratified
    try:
        if closed and signed and not (site.single_operator and signed.self_approved):
            heard = heard_about(one, site, closed.digest, _where(signed))
            if signed.account not in {w.account for w in in_force(site, heard, closed.digest)}:
                return f"expected it signed off by {signed.account}, got no such word"
        if one.opened.break_glass and ratified:
            heard = heard_about(one, site, one.to_ratify, _where(ratified))
            said = in_force(site, heard, one.to_ratify)
            seated = {person.account for person in site.people if COUNCIL in person.roles}
            if not seated or 3 * len({word.account for word in said} & seated) < 2 * len(seated):
                return "expected its break-glass ratified by the council, got no such words"
    except SourceError as error:
        return f"expected what ended it read again, got: {error}"
    return ""
