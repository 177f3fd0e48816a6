"""What of a site's policy moved since an attempt was made under it, and whether somebody accepted that.

The site file as an attempt read it lies on its tape; its digest stands in the attempt's log.
"""

from pathlib import Path

from ..errors import ParameterError, RunbookError, SourceError, tried
from ..site import Site, parse_site
from ..sources.config import diff, flatten
from ..sources.quorum import anybody
from ..sources.scope import live_scope
from ..sources.tape import read_body, read_entries
from ..sources.words import read_words
from .events import PolicyAccepted


def policy_moved(was: Site, now: Site) -> str:
    """Each key of the policy that differs, before and now; empty where nothing does."""
    found = diff(flatten(was.policy), flatten(now.policy))
    return "; ".join(f"{one.key}: expected {one.expected!r}, got {one.observed!r}" for one in found)


def accepted_policy(
    folder: Path, policy: str, now: Site, issue: int, release: str, by: str
) -> PolicyAccepted | None:
    """The statement that accepts the site ``now`` after an attempt in ``folder`` made under ``policy``.

    None where it is the same. It is by one of the people of before, other than ``by`` unless that
    site had a single operator. Raises ParameterError showing what moved.
    """
    if policy == now.policy_digest:
        return None
    was = _site_of(folder, policy)
    differs = f"the site's policy moved since {folder.parent.name} attempt {int(folder.name)}: "
    if was is None:
        raise ParameterError(f"{differs}expected a site file of {policy} on its tape, got none")
    differs += policy_moved(was, now)
    line = f"accept-policy {now.policy_digest}"
    with live_scope("policy", was) as scope:
        heard = tried(read_words, scope, was, issue=issue, release=release)
    if isinstance(heard, SourceError):
        raise ParameterError(f"{differs}; whether `{line}` was said: {heard}") from heard
    # A lone operator accepts it as well, in so many words.
    quorum = anybody(was, "" if was.single_operator else by)
    words = quorum.count(heard, now.policy_digest, "accept-policy").words
    if not words:
        raise ParameterError(
            f"{differs}; put the site file back, or have somebody other than {by} comment"
            f" `{line}` in the release issue"
        )
    word = words[0]
    return PolicyAccepted(
        before=policy,
        policy=now.policy_digest,
        moved=policy_moved(was, now),
        by=word.account + (" (self-approved)" if word.account.casefold() == by.casefold() else ""),
        at=word.at,
        grounds=word.grounds,
    )


def _site_of(folder: Path, policy: str) -> Site | None:
    """The site of that policy as a session of the attempt read it."""
    try:
        for entry in read_entries(folder / "tape"):
            if entry.item == "stage.open" and entry.key.startswith("READ "):
                site = parse_site(read_body(folder / "tape", entry.body), entry.key)
                if site.policy_digest == policy:
                    return site
    except (RunbookError, OSError):
        pass  # as one that is not there
    return None
