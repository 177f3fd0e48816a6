"""What people outside are told, each as one post: looked for, sent, read back.

A post is a comment or an issue of the forge, or a text that a command of the site is given. Of one
marker (its first line) there is one of ours on the forge, written in place of the earlier one; what
others wrote under it is neither trusted nor edited. What is in flight lies in the attempt's outbox
until it is read back, for ``runbook publish``: no part of a seal, as it goes away. The log names each
with its digest, and nothing else is sent.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime

from ..canonical import canonical, digest_bytes
from ..errors import SourceError, SourceRefused, tried
from ..files import keep_file
from ..outcomes import Model, Row, check_row
from ..site import Site
from ..sources import github
from ..sources.commands import require_well
from ..sources.github import GitHub
from ..sources.local import recorded
from ..sources.scope import Scope
from .events import Event, Queued, of

if TYPE_CHECKING:
    from ..sources.notices import Governance

FOLDER, NOTE = "outbox", "outbox/release-issue.json"
"""``NOTE`` says that what was sealed is still to be published."""
CLOCKS_APART = timedelta(days=1)
"""How far the forge's clock may lag behind the site's."""
VALUES = {
    "": set[str](),
    "notify": {"role", "subject"},
    "instruct": {"operator"},
    "announce_halt": {"release", "stage", "reference"},
}
"""What a command is given beside the text."""
_FILE = re.compile(rf"{FOLDER}/[\w.-]+-[0-9a-f]{{12}}\.json")


class Post(Model):
    """A comment of ``issue``, an issue of that ``title``, or what a ``command`` is given.

    Steps that are named by ``step`` and their run send it. ``since``: no such issue was made before.
    ``incident``: the one that names where it stands. Nobody may follow it after ``until``.
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
    until: AwareDatetime | None = None

    @property
    def data(self) -> bytes:
        return canonical(self.model_dump(mode="json", exclude_defaults=True)) + b"\n"

    @property
    def name(self) -> str:
        """What files are called that hold it: a later one of the step takes its place."""
        return f"{self.step}-{short(f'{self.subject} {self.step}')}"


@dataclass
class OnForge:
    """A post on its way to the forge; ``ours`` is the oldest of its marker that ``me`` wrote."""

    post: Post
    forge: GitHub
    me: str = ""
    ours: github.Post | None = None
    listed: Sequence[github.Post] = ()

    def stands(self) -> bool:
        """Whether it stands there as it should. Raises SourceError."""
        post, self.me = self.post, self.forge.me()
        if post.issue:
            self.listed = self.forge.comments(post.issue)
        else:
            assert post.since is not None
            self.listed = self.forge.issues((post.since - CLOCKS_APART).astimezone(UTC))
        marked = (one for one in self.listed if _marker(one.body) == _marker(post.text))
        mine = (one for one in marked if one.author.casefold() == self.me.casefold())
        self.ours = min(mine, key=lambda one: (one.created_at, one.number), default=None)
        return self.ours is not None and digest(self.ours.body) == digest(post.text)

    def send(self, lock: int | None = None, outputs: Path | None = None) -> None:
        """Write it in place of ours, or make it. Raises SourceRefused, SourceError.

        After a lost answer what stands there says whether it was written: it is never written twice.
        """
        post, number = self.post, self.ours.number if self.ours is not None else 0
        write = self.forge.write
        made = tried(write, post.text, issue=post.issue, title=post.title, number=number)
        if not isinstance(made, SourceError):
            self.ours = made
        elif isinstance(made, SourceRefused) or tried(self.stands) is not True:
            raise made

    def read_back(self) -> list[Row]:
        """How it reads now. Raises SourceError."""
        assert self.ours is not None
        what, number = "comment" if self.post.issue else "issue", self.ours.number
        where, wanted = f"{what} {number}", digest(self.post.text)
        now = self.forge.post(number, issue=self.post.issue)
        if now is None:
            return [check_row(where, "read back", wanted, f"no such {what}")]
        by = now.author or "nobody"
        mine = check_row(where, "author", self.me, by, by.casefold() == self.me.casefold())
        return [mine, check_row(where, "text read back", wanted, digest(now.body))]


@dataclass
class ByCommand:
    """A post for a command of the site, which finds its text in a file of ``folder``."""

    post: Post
    commands: "Governance"
    folder: Path

    def stands(self) -> bool | None:
        """Whether a halt is announced, None for what cannot be looked up. Raises SourceError."""
        halt = self.post.command == "announce_halt"
        return self.commands.halted(**self.post.values) if halt else None

    def send(self, lock: int | None = None, outputs: Path | None = None) -> None:
        """Run the command. Raises SourceError."""
        path = str(keep_file(self.folder, f"posts/{self.post.name}.md", self.post.text))
        values = {**self.post.values, "text": path, "file": path}
        run = self.commands.change(self.post.command, self.post.subject, **values)
        require_well(f"commands.{self.post.command}", run(lock, outputs))

    def read_back(self) -> list[Row]:
        """That it was told, or that the halt stands in the channel. Raises SourceError."""
        if (there := self.stands()) is None:
            return [check_row(self.post.subject, "told", "once", "once")]
        wanted = self.post.values["reference"]
        got = wanted if there else "not among those that stand"
        return [check_row("halt", "stands in the channel", wanted, got)]


def sending(post: Post, scope: Scope, site: Site, folder: Path) -> OnForge | ByCommand:
    """How a post is sent; ``folder`` is for the text of a command."""
    if post.command:
        from ..sources.notices import Governance

        return ByCommand(post, Governance(scope, site.commands), folder)
    return OnForge(post, GitHub(scope, site.forge))


def send(one: OnForge | ByCommand) -> list[Row]:
    """Send a post that does not stand there, and read it back. Raises SourceError."""
    if not one.stands():
        one.send()
    return one.read_back()


def digest(body: str) -> str:
    """The digest of a text as it compares: a forge may change line ends and what surrounds it."""
    return digest_bytes(body.replace("\r\n", "\n").strip().encode("utf-8", "backslashreplace"))


def short(text: str) -> str:
    """Enough of a text's digest for a name."""
    return digest(text).removeprefix("sha256:")[:12]


def _marker(body: str) -> str:
    return body.strip().partition("\n")[0].strip()


# --- the outbox -----------------------------------------------------------------------------------


def pending(folder: Path) -> list[Path]:
    """What is to be sent."""
    found = sorted((folder / FOLDER).glob("*.json"))
    return [path for path in found if _FILE.fullmatch(f"{FOLDER}/{path.name}")]


def is_ours(name: str) -> bool:
    """Whether a path of an attempt is of the outbox."""
    return name == NOTE or _FILE.fullmatch(name) is not None


def keep(folder: Path, post: Post) -> Queued:
    """A post into the outbox, in place of an earlier one of its step; what the log is to say of it."""
    keep_file(folder, f"{FOLDER}/{post.name}.json", post.data)
    return Queued(name=post.name, digest=digest_bytes(post.data))


def drop(folder: Path, name: str) -> None:
    """It is read back, or nobody needs it any more."""
    (folder / FOLDER / f"{name}.json").unlink(missing_ok=True)
    with suppress(OSError):  # something else lies there, or nothing
        (folder / FOLDER).rmdir()


def read(path: Path, events: Sequence[Event]) -> Post:
    """A post as the log names it. Raises ValueError for any other, OSError."""
    data = recorded(path)
    named = [event.digest for event in of(events, Queued) if event.name == path.stem]
    if digest_bytes(data) not in named[-1:]:
        raise ValueError(f"expected what the log names, {named[-1:] or 'nothing'}, got another")
    post = Post.model_validate_json(data)
    ways = bool(post.issue), bool(post.title and post.since), bool(post.command)
    if sum(ways) != 1 or set(post.values) != VALUES[post.command]:
        raise ValueError("expected one way to send it, with all that it needs, got another")
    return post
