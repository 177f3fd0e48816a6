"""Heads of attempts, as the release issue was told of them, against what the store holds.

Who can write the store can remove its newest attempts or put yesterday's back; what the release
issue was told of their heads stays. A head is the digest of the newest attested payload.
"""

import re
from collections.abc import Iterable

from ..errors import RunbookError, SourceError, tried
from ..site import Site
from ..sources.github import GitHub, Post
from ..sources.scope import live_scope
from .comment import SEAL
from .seal import heads
from .store import Store


def told(comments: Iterable[Post], me: str, site: Site) -> list[tuple[str, str]]:
    """(RELEASE/STAGE/NNNN, head) that comments tell; one that was edited, or a stranger's, tells none."""
    found = []
    for comment in comments:
        ours = comment.author == me or site.person(comment.author) is not None
        line = re.match(SEAL, comment.body)
        if line and ours and comment.created_at == comment.updated_at:
            found.append((line[1], line[2]))
    return found


def missing(store: Store, release: str, found: Iterable[tuple[str, str]]) -> list[str]:
    """What the issue was told and the store does not hold, in words."""
    problems = []
    known = {attempt.name: attempt for attempt in store.readable(release)[0]}
    for name, head in found:
        if name.partition("/")[0] != release:
            continue
        attempt = known.get(name)
        try:
            held = heads(attempt.folder, attempt.log.events()) if attempt else None
        except RunbookError as error:
            problems.append(f"{name}: {error}")
            continue
        if held is None:
            problems.append(
                f"{name}: expected the attempt that the release issue tells of, got none;"
                " it was removed: restore it"
            )
        elif head not in held:
            problems.append(
                f"{name}: expected it to hold head {head}, as the release issue tells, got"
                " another history; it was replaced: restore it"
            )
    return list(dict.fromkeys(problems))


def compare_heads(site: Site, release: str, issue: int) -> tuple[list[str], str]:
    """What the store lacks of what the release issue tells, and why that was not compared."""
    if not issue:
        return [], ""
    with live_scope("heads", site.secret_names(), clock=site.clock) as scope:
        forge = GitHub(scope, site.forge)
        found = tried(lambda: told(forge.comments(issue), forge.me(), site))
    if isinstance(found, SourceError):
        return [], f"heads not compared with the release issue: {found}"
    return missing(Store(site.store_path), release, found), ""
