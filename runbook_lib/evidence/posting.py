"""The release's comment on the forge: found, written, and read again when an answer was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..canonical import digest_bytes
from ..errors import SourceError, SourceRefused
from ..outcomes import Row, check_row
from ..playbook import RECOVERY
from ..sources.forge import Comment, Forge
from ..sources.scope import Scope
from .comment import Section, code, compose, is_marked, lines, plain, sections
from .order import BEFORE, earlier
from .record import Entry
from .store import Store


@dataclass(frozen=True)
class Found:
    """The comments that bear a release's marker; ``ours`` is the oldest that ``me`` wrote."""

    me: str
    ours: Comment | None
    twice: tuple[Comment, ...] = ()
    foreign: tuple[Comment, ...] = ()

    @property
    def sections(self) -> list[Section]:
        return sections(self.ours.body) if self.ours else []

    def rows(self) -> list[Row]:
        """What else bears the marker: said, and never edited nor trusted."""
        said = [("ours as well; the older one is kept, delete this", one) for one in self.twice]
        said += [
            (f"by {one.author or 'nobody'}, not {self.me}: ignored", one) for one in self.foreign
        ]
        return [
            check_row(f"comment {one.id}", "bears the marker too", text, text, ok=True)
            for text, one in said
        ]


def find(forge: Forge, issue: int, release: str) -> Found:
    """The marked comments of an issue. Raises SourceError."""
    me = forge.me()
    marked = [one for one in forge.comments(issue) if is_marked(one.body, release)]
    mine = [one for one in marked if one.author.casefold() == me.casefold()]
    mine.sort(key=lambda one: (one.created_at, one.id))
    foreign = tuple(one for one in marked if one not in mine)
    return Found(me, mine[0] if mine else None, tuple(mine[1:]), foreign)


def with_section(found: Found, release: str, render: Callable[[int], Section]) -> str:
    """The comment's text with one section put in place."""
    return compose(release, render, found.sections)


def write(forge: Forge, issue: int, release: str, found: Found, body: str) -> Comment:
    """Put ``body`` in place of our comment, or make it. Raises SourceRefused, SourceError.

    After a lost answer what stands in the issue says whether it was written: it is never assumed,
    and never written twice.
    """
    if found.ours is not None and same(found.ours.body, body):
        return found.ours
    try:
        if found.ours is not None:
            return forge.update_comment(found.ours.id, body)
        return forge.create_comment(issue, body)
    except SourceRefused:
        raise
    except SourceError:
        stands = find(forge, issue, release).ours
        if stands is None or not same(stands.body, body):
            raise
        return stands


def read_back(forge: Forge, me: str, comment: Comment, body: str) -> list[Row]:
    """The comment as it now stands against what was written. Raises SourceError."""
    now, where = forge.comment(comment.id), f"comment {comment.id}"
    wanted, got = digest(body), digest(now.body)
    mine = now.author.casefold() == me.casefold()
    return [
        check_row(where, "author", me, now.author or "nobody", mine),
        check_row(where, "text read back", wanted, got, wanted == got),
    ]


def same(one: str, other: str) -> bool:
    return lines(one) == lines(other)


def digest(body: str) -> str:
    return digest_bytes(lines(body).encode("utf-8", "backslashreplace"))


def plan_digest(entries: Sequence[Entry]) -> str:
    """The digest of the plan an attempt follows; empty when it has none."""
    plans = [entry.body["digest"] for entry in entries if entry.kind == "plan"]
    return str(plans[-1]) if plans else ""


def previous_stage(
    scope: Scope, store: Store, release: str, commit: str, stage: str, source: str
) -> str:
    """Verdict and manifest of the applied attempt of the stage before, as Markdown."""
    if stage in RECOVERY:
        return f"{RECOVERY[stage]}, which it takes back"
    if stage not in BEFORE:
        return f"none: {stage} is the first"
    found = earlier(scope, store, release, commit, stage, source)
    said = (
        f"{found.stage}, attempt {found.attempt}: {found.outcome}" if found.attempt else found.stage
    )
    manifest = f", manifest {code(found.manifest)}" if found.manifest else ""
    problem = f"; {plain(found.problem, 300)}" if found.problem else ""
    return f"{said}{manifest}{problem}"
