"""What is judged before an attempt opens: heads, the site's policy, what a recovery undoes.

Who can write the store can remove its newest attempts or put yesterday's back; what the release
issue was told of their heads stays. A head is the digest of the newest attested payload. The site
file as an attempt read it lies on its tape; its digest stands in the attempt's log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import ParameterError, RunbookError, SourceError
from ..outcomes import Row, check_row, unknown_row
from ..playbook import APPROVERS
from ..signers import Trust
from ..site import Site, parse_site
from ..sources.config import diff, flatten
from ..sources.github import GitHub, Post
from ..sources.scope import live_scope
from ..sources.tape import read_body, read_entries
from ..sources.words import Word, in_force, read_words
from .comment import SEAL
from .incidents import blocking
from .order import BEFORE, find_earlier, plan_of, undoing
from .record import Entry, Record
from .seal import heads
from .store import Attempt, Store


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
            held = heads(attempt.folder, attempt.record.entries()) if attempt else None
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
    try:
        with live_scope("heads", site.secret_names(), clock=site.clock) as scope:
            forge = GitHub(scope, site.forge)
            found = told(forge.comments(issue), forge.me(), site)
    except SourceError as error:
        return [], f"heads not compared with the release issue: {error}"
    return missing(Store(site.store_path), release, found), ""


# --- what of the site's policy moved, and whether somebody else accepted that ---------------------


def policy_moved(was: Site, now: Site) -> str:
    """Each key of the policy that differs, before and now; empty where nothing does."""
    found = diff(flatten(was.policy), flatten(now.policy))
    return "; ".join(f"{one.key}: expected {one.expected!r}, got {one.observed!r}" for one in found)


def accepted_policy(
    folder: Path, policy: str, now: Site, issue: int, release: str, by: str
) -> dict[str, Any]:
    """The statement that accepts the site ``now`` after an attempt in ``folder`` made under ``policy``.

    Empty where it is the same. It is by one of the people of before, other than ``by`` unless that
    site had a single operator. Raises ParameterError showing what moved.
    """
    if policy == now.policy_digest:
        return {}
    was = _site_of(folder, policy)
    differs = f"the site's policy moved since {folder.parent.name} attempt {int(folder.name)}: "
    if was is None:
        raise ParameterError(f"{differs}expected a site file of {policy} on its tape, got none")
    differs += policy_moved(was, now)
    line = f"accept-policy {now.policy_digest}"
    try:
        with live_scope("policy", was.secret_names(), clock=was.clock) as scope:
            heard = read_words(scope, was, issue=issue, release=release)
    except SourceError as error:
        raise ParameterError(f"{differs}; whether `{line}` was said: {error}") from error
    said = in_force(was, heard, now.policy_digest, "accept-policy")
    others = [word for word in said if word.account.casefold() != by.casefold()]
    word: Word | None = next(iter(others or (said if was.single_operator else [])), None)
    if word is None:
        raise ParameterError(
            f"{differs}; put the site file back, or have somebody other than {by} comment"
            f" `{line}` in the release issue"
        )
    by = word.account + ("" if others else " (self-approved)")
    spoken = {"by": by, "at": word.at.isoformat(), "grounds": word.grounds}
    return {"from": policy, "policy": now.policy_digest, "moved": policy_moved(was, now), **spoken}


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


# --- what a recovery undoes, and the stages before one ---


def what_to_undo(
    store: Store, release: str, stage: str, source: str, number: int = 0
) -> tuple[dict[str, Any] | None, str]:
    """The apply that a recovery of ``stage`` undoes, and why that was not approved (or is none).

    ``number`` 0 is the newest that began a change, else the newest that has a plan. One that was
    undone before a newer one was opened is over: it is that one that must be stopped.
    """
    found = []
    for attempt in store.readable(release, stage)[0]:
        opened, entries = store.opened(attempt), _entries(attempt)
        if opened["mode"] != "apply" or opened["source"] != source:
            continue
        if number in (0, attempt.number) and (plan := plan_of(entries)) is not None:
            found.append((any(entry.kind == "step" for entry in entries), attempt, plan))
    if not found:
        which = f"apply attempt {number}" if number else "apply attempt"
        return None, f"expected an {which} of {release}/{stage} with a plan, got none"
    newest = max(found, key=lambda one: (one[0], one[1].number))
    if (by := undoing(store, release, stage, newest[1].number)) is not None:
        later = [one for one in found if one[1].number > newest[1].number]
        for one in later:
            if datetime.fromisoformat(store.opened(one[1])["now"]) > by.at:
                newest = one
    _, attempt, plan = newest
    undoes = {"attempt": attempt.number, "plan": plan.body["digest"], "name": attempt.name}
    if stage in APPROVERS and not plan.body["approved_by"]:
        return undoes, f"expected the plan of {attempt.name} approved, got nobody's approval"
    return undoes, ""


def _entries(attempt: Attempt) -> list[Entry]:
    try:
        return attempt.record.entries()
    except (RunbookError, OSError):
        return []


def stages_before(folder: Path, trust: Trust) -> list[Row]:
    """A row for each stage back to development, of an apply that lies in its own store.

    The same release and commit, made in the same world, each signed and still in force; and one for
    each incident that was removed from the store, or replaced.
    """
    rows = list[Row]()
    try:
        opened = Store.opened(Attempt("", "", 0, folder, Record(folder / "record.jsonl")))
        release, stage = str(opened["release"]), str(opened["stage"])
        home = (release, stage, f"{opened['attempt']:04d}")
        if opened["mode"] != "apply" or folder.resolve().parts[-3:] != home:
            return rows
        store, facts = Store(folder.resolve().parents[2]), (opened["commit"], opened["source"])
        while stage in BEFORE:
            found = find_earlier(store, release, facts[0], stage, facts[1], trust)
            stage = found.stage
            said = found.problem or f"attempt {found.attempt} passed, {found.seal}"
            rows.append(check_row(stage, "permits", "passed and proven", said, not found.problem))
        for block in blocking(store, release, single_operator=True):
            if block.lost:
                expected = "as its recovery opened it"
                rows.append(check_row(block.name, "incident", expected, block.problem, ok=False))
    except (RunbookError, LookupError, TypeError, ValueError) as error:
        rows.append(unknown_row("order", "stages before", "readable", f"{error}"))
    return rows
