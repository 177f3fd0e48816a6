"""The governance council's decision: approvals of a digest by two thirds of its members."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..evidence.incident_file import Incident
from ..playbook import COUNCIL
from ..site import Person, Site
from ..sources.scope import Scope
from ..sources.words import Heard
from .approvals import hear, in_force


@dataclass(frozen=True)
class Votes:
    """Who of the members approved a digest; ``at`` is when they became two thirds."""

    members: tuple[Person, ...]
    by: tuple[str, ...]
    grounds: tuple[str, ...]
    at: datetime | None

    @property
    def needed(self) -> int:
        return -(-2 * len(self.members) // 3)

    def __str__(self) -> str:
        by = f": {', '.join(self.by)}" if self.by else ""
        return f"{len(self.by)} of {len(self.members)} members{by}"


def members(site: Site) -> tuple[Person, ...]:
    return tuple(person for person in site.people if COUNCIL in person.roles)


def hear_all(
    scope: Scope, site: Site, digest: str, *, issues: Iterable[int], file: str, release: str
) -> Heard:
    """What was said in several issues, a file and the site's folder. Raises SourceError."""
    files, all_of_them = [file] if file else [], Heard()
    for issue in dict.fromkeys(filter(None, issues)) or [0]:
        found = hear(scope, site, digest, issue=issue, files=files, release=release)
        all_of_them = replace(
            all_of_them,
            words=(*all_of_them.words, *found.words),
            withdrawals=(*all_of_them.withdrawals, *found.withdrawals),
        )
        files = []
    return all_of_them


def count_votes(site: Site, heard: Heard, digest: str) -> Votes:
    """Approvals of ``digest`` by council members that stand, each member counted once."""
    seated = members(site)
    accounts = {person.account for person in seated}
    words = sorted(in_force(site, heard, digest), key=lambda word: word.at)
    first = {word.account: word for word in reversed(words) if word.account in accounts}
    given = sorted(first.values(), key=lambda word: (word.at, word.account))
    votes = Votes(
        seated,
        tuple(word.account for word in given),
        tuple(word.grounds for word in given),
        None,
    )
    if not seated or len(given) < votes.needed:
        return votes
    return replace(votes, at=given[votes.needed - 1].at)


def decision(
    incident: Incident, votes: Votes, digest: str, ratifies: bool
) -> dict[str, Any] | None:
    """The entry that records a decision; None while there is none, or it is recorded already."""
    if votes.at is None or incident.decided(digest) is not None:
        return None
    return {
        "by": ", ".join(votes.by),
        "at": votes.at.isoformat(),
        "digest": digest,
        "grounds": list(votes.grounds),
        "ratifies": ratifies,
        "late": incident.is_late(votes.at),
    }
