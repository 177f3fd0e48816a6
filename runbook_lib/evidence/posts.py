"""What people outside are told, each as one post: looked for, sent, read back.

A post is a comment or an issue of the forge, or a text that a command of the site is given. Of one
marker (its first line) there is one post of ours on the forge, written in place of the earlier one.
What others wrote under our marker is never trusted nor edited.

What is in flight lies in the attempt's outbox until it is read back, for ``runbook publish``:

    <attempt>/outbox/public-report-0123456789ab.json     the post itself

No part of a seal, as it goes away; the log names each with its digest, and nothing else is sent.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime

from ..canonical import canonical, digest_bytes
from ..errors import SourceError, SourceRefused, tried
from ..files import keep_file
from ..outcomes import Model, Row, check_row
from ..site import Site
from ..sources import github
from ..sources.github import GitHub
from ..sources.http import Purpose
from ..sources.local import recorded
from ..sources.notices import Governance
from ..sources.process import Ended
from ..sources.running import command_of, filled, reason
from ..sources.scope import Scope
from .events import Event, Queued, of

FOLDER = "outbox"
CLOCKS_APART = timedelta(days=1)
"""How far the forge's clock may lag behind the site's."""
DONE = Ended(0, b"", b"")
_FILE = re.compile(rf"{FOLDER}/[\w.-]+-[0-9a-f]{{12}}\.json")


class Post(Model):
    """A comment of ``issue``, an issue of that ``title``, or what a ``command`` is given as ``file``.

    It is told by steps that are named by ``step`` and their try, about ``subject``. ``since``: no
    such issue was made before. ``incident``: the one that names where it stands. After ``until``
    nobody may follow it any more.
    """

    step: str
    subject: str
    text: str
    issue: int = 0
    title: str = ""
    since: AwareDatetime | None = None
    incident: str = ""
    command: Literal["", "notify", "instruct", "announce_halt"] = ""
    values: dict[str, str] = {}
    file: str = ""
    until: AwareDatetime | None = None

    @property
    def data(self) -> bytes:
        return canonical(self.model_dump(mode="json", exclude_defaults=True)) + b"\n"

    @property
    def name(self) -> str:
        """Its file's name in the outbox, where a later one of the same step takes its place."""
        return f"{self.step}-{short(f'{self.subject} {self.step}')}.json"

    def queued(self) -> Queued:
        """What the log says of it while it is in the outbox."""
        return Queued(name=self.name, digest=digest_bytes(self.data))


# --- on its way -----------------------------------------------------------------------------------


@dataclass
class OnForge:
    """A post of the forge; ``ours`` is the oldest with its marker that ``me`` wrote, once looked for."""

    post: Post
    forge: GitHub
    me: str = ""
    ours: github.Post | None = None
    marked: Sequence[github.Post] = ()
    listed: Sequence[github.Post] = ()

    def stands(self) -> bool:
        """Whether it stands there as it should. Raises SourceError."""
        post, self.me = self.post, self.forge.me()
        if post.issue:
            listed: Sequence[github.Post] = self.forge.comments(post.issue)
        else:
            assert post.since is not None
            listed = self.forge.issues((post.since - CLOCKS_APART).astimezone(UTC))
        self.listed = sorted(listed, key=lambda one: (one.created_at, one.number))
        self.marked = [one for one in self.listed if _marker(one.body) == _marker(post.text)]
        self.ours = next((one for one in self.marked if self._is_mine(one)), None)
        return self.ours is not None and _lines(self.ours.body) == _lines(post.text)

    def send(self, lock: int | None = None, outputs: Path | None = None) -> Ended:
        """Write it in place of ours, or make it: 1 where that was refused, no code where nobody knows.

        After a lost answer what stands there says whether it was written: it is never written twice.
        """
        made = tried(self._write)
        if isinstance(made, SourceRefused):
            return Ended(1, b"", b"", made.problem.partition(", got ")[2])
        if isinstance(made, SourceError):
            return DONE if tried(self.stands) is True else Ended(None, b"", b"", made.problem)
        self.ours = made
        return DONE

    def _write(self) -> github.Post:
        post, number = self.post, self.ours.number if self.ours is not None else 0
        return self.forge.write(post.text, issue=post.issue, title=post.title, number=number)

    def read_back(self) -> list[Row]:
        """What else bears the marker, and how ours reads now. Raises SourceError."""
        assert self.ours is not None
        what = "comment" if self.post.issue else "issue"
        rows = []
        for one in self.marked:
            if one.number != self.ours.number:
                by = f"by {one.author or 'nobody'}, not {self.me}: ignored"
                mine = "ours as well; the older one is kept, delete this"
                said = mine if self._is_mine(one) else by
                rows.append(check_row(f"{what} {one.number}", "bears the marker too", said, said))
        where, wanted = f"{what} {self.ours.number}", digest(self.post.text)
        now = self.forge.post(self.ours.number, issue=self.post.issue)
        if now is None:
            return [*rows, check_row(where, "read back", wanted, f"no such {what}", ok=False)]
        by = now.author or "nobody"
        rows.append(check_row(where, "author", self.me, by, self._is_mine(now)))
        return [*rows, check_row(where, "text read back", wanted, digest(now.body))]

    def _is_mine(self, one: github.Post) -> bool:
        return one.author.casefold() == self.me.casefold()


@dataclass
class ByCommand:
    """A text for a command of the site, which finds it in a file of ``folder``."""

    post: Post
    scope: Scope
    site: Site
    folder: Path
    purpose: Purpose

    def stands(self) -> bool | None:
        """Whether a halt is announced, None for what cannot be looked up. Raises SourceError."""
        if self.post.command != "announce_halt":
            return None
        return Governance(self.scope, self.site.commands).halted(**self.post.values)

    def send(self, lock: int | None = None, outputs: Path | None = None) -> Ended:
        """Run the command; nobody knows whom one told that did not end well."""
        path, name = keep_file(self.folder, self.post.file, self.post.text), self.post.command
        where, values = f"commands.{name}", {**self.post.values, "text": str(path)}
        command = tried(command_of, self.site.commands, name, where)
        if isinstance(command, SourceError):
            return Ended(None, b"", b"", command.problem)
        command = filled(where, command, **values, file=str(path))
        ended = self.scope.run(command, purpose=self.purpose, lock=lock, outputs=outputs)
        if ended.code == 0:
            return ended
        why = ended.problem or f"exit {ended.code}: {reason(ended)}"
        return Ended(None, ended.stdout, ended.stderr, why)

    def read_back(self) -> list[Row]:
        """That it was told, or that the halt stands in the channel. Raises SourceError."""
        if (there := self.stands()) is None:
            return [check_row(self.post.subject, "told", "once", "once")]
        wanted = self.post.values["reference"]
        got = wanted if there else "not among those that stand"
        return [check_row("halt", "stands in the channel", wanted, got)]


Sending = OnForge | ByCommand


def sending(
    post: Post, scope: Scope, site: Site, folder: Path, purpose: Purpose = "change"
) -> Sending:
    """How a post is sent; ``folder`` is for the text of a command."""
    if post.command:
        return ByCommand(post, scope, site, folder, purpose)
    return OnForge(post, GitHub(scope, site.forge, purpose))


def send(one: Sending) -> list[Row]:
    """Look for a post, send it where it does not stand, read it back. Raises SourceError."""
    if not one.stands():
        ended = one.send()
        if ended.code != 0:
            kind = SourceRefused if ended.code else SourceError
            raise kind(one.post.subject, f"expected it sent, got {ended.problem}")
    return one.read_back()


def digest(body: str) -> str:
    """The digest of a text as it compares."""
    return digest_bytes(_lines(body).encode("utf-8", "backslashreplace"))


def short(text: str) -> str:
    """Enough of a text's digest for a name."""
    return digest(text).removeprefix("sha256:")[:12]


def _lines(body: str) -> str:
    """A forge may change line ends and what surrounds the text."""
    return body.replace("\r\n", "\n").strip()


def _marker(body: str) -> str:
    return _lines(body).partition("\n")[0].strip()


# --- the outbox -----------------------------------------------------------------------------------


def pending(folder: Path) -> list[Path]:
    """What is to be sent."""
    return sorted(
        path for path in (folder / FOLDER).glob("*.json") if is_ours(f"{FOLDER}/{path.name}")
    )


def is_ours(name: str) -> bool:
    """Whether a path of an attempt is one of these."""
    return _FILE.fullmatch(name) is not None


def keep(folder: Path, post: Post) -> None:
    """A post into the outbox, in place of an earlier one of its step."""
    keep_file(folder, f"{FOLDER}/{post.name}", post.data)


def drop(folder: Path, name: str) -> None:
    """It is sent, or nobody needs it any more."""
    (folder / FOLDER / name).unlink(missing_ok=True)
    with suppress(OSError):  # something else lies there, or nothing
        (folder / FOLDER).rmdir()


def read(path: Path, events: Sequence[Event]) -> Post:
    """A post as the log names it. Raises ValueError for any other, OSError."""
    data = recorded(path)
    named = [event.digest for event in of(events, Queued) if event.name == path.name]
    if digest_bytes(data) not in named[-1:]:
        raise ValueError(f"expected what the log names, {named[-1:] or 'nothing'}, got another")
    return Post.model_validate_json(data)
