"""An incident on the forge: an issue for each audience, and whether those who ended it still say so."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from ..errors import SourceError, tried
from ..playbook import COUNCIL
from ..site import Site
from ..sources.github import GitHub, Issue, numbered
from ..sources.scope import live_scope
from ..sources.words import Word, hear, in_force
from .comment import Board
from .incident_events import CouncilDecided, IncidentClosed, IncidentSignedOff
from .incidents import Incident

CLOCKS_APART = timedelta(days=1)
"""How far the forge's clock may lag behind the site's."""


class Issues(GitHub):
    """Reads and writes the issues of one repository."""

    def issue_if_there(self, number: int) -> Issue | None:
        """The same; None for one that does not exist, or that the token may not see."""
        found = self.find(f"forge: issue {number}", f"/issues/{number}", Issue)
        return found and numbered(number, found)

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
        listed = partial(forge.issues, self.since - CLOCKS_APART)
        create = partial(forge.create_issue, self.title)
        return Board("issue", forge.me, listed, create, forge.update_issue, forge.issue_if_there)


# --- whether those who ended an incident still say so: its file is no proof of that ---------------


def approvals_of(
    one: Incident, site: Site, wanted: str, issue: int, signed: str = ""
) -> list[Word]:
    """Approvals of a digest: in the issues of the incident, in ``issue``, in a ``signed`` text.

    Raises SourceError.
    """
    issues, release = [issue, one.opened.issue, *one.filed], one.opened.release
    with live_scope("incident", site.secret_names(), clock=site.clock) as scope:
        files = [signed.encode()]
        heard = hear(scope, site, wanted, issues=issues, files=files, release=release)
        return in_force(site, heard, wanted)


class Votes:
    """The council's approvals of a digest, one of each member, oldest first.

    ``at`` is when they became ``needed``, two thirds of the members; None while they are fewer.
    """

    def __init__(self, site: Site, words: Iterable[Word]) -> None:
        members, first = site.holders(COUNCIL), dict[str, Word]()
        for word in sorted(words, key=lambda word: (word.at, word.account)):
            if word.account in members:
                first.setdefault(word.account, word)
        self.words, self.members = list(first.values()), members
        self.needed = -(-2 * len(members) // 3)
        self.at = self.words[self.needed - 1].at if 0 < self.needed <= len(first) else None

    def __str__(self) -> str:
        by = f": {', '.join(word.account for word in self.words)}" if self.words else ""
        return f"{len(self.words)} of {len(self.members)} members{by}"

    def decision(self, incident: Incident, digest: str, *, ratifies: bool) -> CouncilDecided | None:
        """The event that records a decision; None while there is none, or it is recorded already."""
        if self.at is None or incident.decided(digest) is not None:
            return None
        return CouncilDecided(
            by=", ".join(word.account for word in self.words),
            at=self.at,
            digest=digest,
            grounds=tuple(word.grounds for word in self.words),
            ratifies=ratifies,
            late=self.at > incident.ratify_until,
        )


def unsaid(one: Incident, site: Site) -> str:
    """Why nobody's word ends a signed-off incident; empty where people still say what ends it."""
    said = tried(_unsaid, one, site)
    return (
        f"expected what ended it read again, got: {said}" if isinstance(said, SourceError) else said
    )


def _unsaid(one: Incident, site: Site) -> str:
    closed, signed = one.last(IncidentClosed), one.last(IncidentSignedOff)
    if closed and signed and not (site.single_operator and signed.self_approved):
        words = approvals_of(one, site, closed.digest, signed.in_issue, signed.signed_file)
        if signed.account not in {word.account for word in words}:
            return f"expected it signed off by {signed.account}, got no such word"
    if one.opened.break_glass and (made := one.ratified):
        words = approvals_of(one, site, one.to_ratify, made.in_issue, made.signed_file)
        if Votes(site, words).at is None:
            return "expected its break-glass ratified by the council, got no such words"
    return ""
