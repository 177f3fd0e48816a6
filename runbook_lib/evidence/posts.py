"""Posts on the forge: found by the marker in their first line, written, and read back.

A post is a comment of an issue, or an issue that tells of an incident. Of one marker there is one
post of ours, whose text is put in place of the earlier one; what others wrote under our marker is
never trusted nor edited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..canonical import digest_bytes
from ..errors import SourceError, SourceRefused
from ..outcomes import Row, check_row
from ..sources.github import GitHub, Post

CLOCKS_APART = timedelta(days=1)
"""How far the forge's clock may lag behind the site's."""


@dataclass(frozen=True)
class Board:
    """Where posts of one kind stand; each function raises SourceError."""

    what: str
    me: Callable[[], str]
    listed: Callable[[], Sequence[Post]]
    create: Callable[[str], Post]
    update: Callable[[int, str], Post]
    read: Callable[[int], Post | None]


def comments_of(forge: GitHub, issue: int) -> Board:
    """The comments of an issue."""
    return Board(
        "comment",
        forge.me,
        lambda: forge.comments(issue),
        lambda body: forge.create_comment(issue, body),
        forge.update_comment,
        forge.comment,
    )


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

    def board(self, forge: GitHub) -> Board:
        """The issues among which it is filed."""
        return Board(
            "issue",
            forge.me,
            lambda: forge.issues(self.since - CLOCKS_APART),
            lambda body: forge.create_issue(self.title, body),
            forge.update_issue,
            forge.issue_if_there,
        )


@dataclass(frozen=True)
class Found:
    """The posts that bear a marker; ``ours`` is the oldest that ``me`` wrote."""

    board: Board
    marker: str
    me: str
    ours: Post | None
    others: tuple[Post, ...] = ()

    def holds(self, body: str) -> bool:
        return self.ours is not None and _lines(self.ours.body) == _lines(body)

    def rows(self) -> list[Row]:
        """What else bears the marker: said, and never edited nor trusted."""
        rows = []
        for one in self.others:
            mine = one.author.casefold() == self.me.casefold()
            by = f"by {one.author or 'nobody'}, not {self.me}: ignored"
            text = "ours as well; the older one is kept, delete this" if mine else by
            where = f"{self.board.what} {one.number}"
            rows.append(check_row(where, "bears the marker too", text, text, ok=True))
        return rows


def find(board: Board, marker: str) -> Found:
    """The posts that bear a marker in their first line. Raises SourceError."""
    me = board.me()
    posts = sorted(board.listed(), key=lambda one: (one.created_at, one.number))
    marked = [one for one in posts if _lines(one.body).partition("\n")[0].strip() == marker]
    ours = next((one for one in marked if one.author.casefold() == me.casefold()), None)
    return Found(board, marker, me, ours, tuple(one for one in marked if one is not ours))


def write(found: Found, body: str) -> Post:
    """Put ``body`` in place of our post, or make it. Raises SourceRefused, SourceError.

    After a lost answer what stands there says whether it was written: it is never assumed, and
    never written twice.
    """
    board = found.board
    if found.ours is not None and found.holds(body):
        return found.ours
    try:
        if found.ours is not None:
            return board.update(found.ours.number, body)
        return board.create(body)
    except SourceRefused:
        raise
    except SourceError:
        stands = find(board, found.marker)
        if stands.ours is None or not stands.holds(body):
            raise
        return stands.ours


def read_back(found: Found, number: int, body: str) -> list[Row]:
    """The post as it now stands against what was written. Raises SourceError."""
    now, where, wanted = found.board.read(number), f"{found.board.what} {number}", digest(body)
    if now is None:
        return [check_row(where, "read back", wanted, f"no such {found.board.what}", ok=False)]
    got, mine = digest(now.body), now.author.casefold() == found.me.casefold()
    return [
        check_row(where, "author", found.me, now.author or "nobody", mine),
        check_row(where, "text read back", wanted, got, wanted == got),
    ]


def digest(body: str) -> str:
    """The digest of a text as it compares."""
    return digest_bytes(_lines(body).encode("utf-8", "backslashreplace"))


def _lines(body: str) -> str:
    """A forge may change line ends and what surrounds the text."""
    return body.replace("\r\n", "\n").strip()
