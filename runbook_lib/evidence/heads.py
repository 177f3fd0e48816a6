"""Heads of attempts as the release issue holds them, compared with the store.

Who can write the store can remove its newest attempts or put yesterday's back; what the issue was
told of them stays. A head is the digest of the newest attested payload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import RunbookError, SourceError
from ..site import Site
from ..sources.github import Comment, GitHub
from ..sources.scope import live_scope
from .comment import SEAL
from .seal import heads
from .store import Store


@dataclass(frozen=True)
class Told:
    """A head that was told of an attempt (RELEASE/STAGE/NNNN)."""

    attempt: str
    head: str


def read_told(site: Site, issue: int) -> list[Told]:
    """Every head in the release issue, by an account of ours. Raises SourceError."""
    with live_scope("heads", site.secret_names(), clock=site.clock) as scope:
        forge = GitHub(scope, site.forge)
        return told(forge.comments(issue), forge.me(), site)


def told(comments: Iterable[Comment], me: str, site: Site) -> list[Told]:
    """The heads that comments tell; one that was edited tells none, nor does a stranger's."""
    found = []
    for comment in comments:
        ours = comment.author == me or site.person(comment.author) is not None
        line = re.match(SEAL, comment.body)
        if line and ours and comment.created_at == comment.updated_at:
            found.append(Told(line[1], line[2]))
    return found


def missing(store: Store, release: str, found: Iterable[Told]) -> list[str]:
    """What the issue was told and the store does not hold, in words."""
    problems = []
    known = {attempt.name: attempt for attempt in store.readable(release)[0]}
    for one in found:
        if one.attempt.partition("/")[0] != release:
            continue
        attempt = known.get(one.attempt)
        try:
            held = heads(attempt.folder, attempt.record.entries()) if attempt else None
        except RunbookError as error:
            problems.append(f"{one.attempt}: {error}")
            continue
        if held is None:
            problems.append(
                f"{one.attempt}: expected the attempt that the release issue tells of, got none;"
                " it was removed: restore it"
            )
        elif one.head not in held:
            problems.append(
                f"{one.attempt}: expected it to hold head {one.head}, as the release issue tells, got"
                " another history; it was replaced: restore it"
            )
    return list(dict.fromkeys(problems))


def compare(site: Site, release: str, issue: int) -> tuple[list[str], str]:
    """What the store lacks of what the release issue tells, and why that was not compared."""
    if not issue:
        return [], ""
    try:
        found = read_told(site, issue)
    except SourceError as error:
        return [], f"heads not compared with the release issue: {error}"
    return missing(Store(site.store_path), release, found), ""
