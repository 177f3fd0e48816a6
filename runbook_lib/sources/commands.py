"""What the site's commands are asked, and their answers typed; ``running`` holds the others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from ..canonical import digest_bytes
from ..errors import SourceError
from ..reach import Command
from . import wire
from .process import Ended
from .running import Changes, execute, reason
from .wire import Wire

_UNKNOWN_KEYS = re.compile(r"unknown configuration key\(s\):([^\n]*)")
STRICT = "--strict-config-validation"
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Build(Wire):
    """What really runs on a node: digest of the binary or image, its commit and version."""

    digest: Digest
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    version: str


class OfNode(Wire):
    """An answer names the node that it is about: a mix-up is an error."""

    node: str


T = TypeVar("T", bound=OfNode)


def answer(purpose: str, node: str, printed: bytes, model: type[T]) -> T:
    """What ``purpose`` printed about ``node``. Raises SourceError."""
    source = f"{purpose} {node}"
    found = wire.decode(source, printed, model)
    if found.node != node:
        raise SourceError(source, f"expected {node!r}, got {found.node!r}")
    return found


class Assets(OfNode):
    """What a node can fetch, by digest, each only when whole; free bytes where it would go."""

    fetchable: Annotated[list[Digest], Field(max_length=10_000)]
    free_bytes: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class NodeConfig:
    """A node's TOML. ``text`` is without its secrets, ``digest`` that of the file as it is.

    ``raw`` is the file itself: in memory, for rendering, never written into the evidence; a
    replay has none.
    """

    text: bytes
    digest: str
    raw: bytes | None = field(default=None, repr=False)

    @property
    def secret(self) -> bool:
        """Whether the file holds what the evidence may not."""
        return digest_bytes(self.text) != self.digest


@dataclass(frozen=True)
class DryRun:
    """What the chain says of a configuration file; ``text`` is its own words."""

    ok: bool
    unknown_keys: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class RuleTest:
    """Whether unit tests of alert rules hold; ``text`` is what promtool said."""

    ok: bool
    text: str


class SiteCommands(Changes):
    """A site's commands: what only reads is here. Every method raises SourceError."""

    @property
    def can_dry_run(self) -> bool:
        """Whether the site has a binary at hand to ask."""
        return self._commands.dry_run is not None

    def version(self, node: str) -> Build:
        """The build that runs on a node, by the site's own inspection."""
        return wire.decode(f"version {node}", self._read("version", node, node=node).stdout, Build)

    def read_config(self, node: str) -> NodeConfig:
        """The node's TOML as it lies on its disk."""
        ended = self._read("read_config", node, node=node, private=True)
        return NodeConfig(ended.stdout, ended.digest, ended.raw)

    def dry_run(self, config: Path) -> DryRun:
        """The chain's own verdict on a file: exit 0 valid, 2 with its wording invalid.

        Exit 2 alone proves nothing: a command line that the binary does not know ends so as well.
        The flag without which the chain passes over unknown keys is added where the site lacks it.
        """
        source = f"dry_run {config.name}"
        command = self._command("dry_run", source, config=str(config))
        if not any(STRICT in word for word in command.argv):
            command = command.model_copy(update={"argv": [*command.argv, STRICT]})
        ended, text = self._verdict(source, command)
        if ended.code == 0:
            return DryRun(True, (), text)
        if ended.code == 2 and "configuration error:" in text:
            found = _UNKNOWN_KEYS.search(text)
            words = found[1].split(",") if found else []
            keys = tuple(word.strip(" `'\".") for word in words if word.strip())
            return DryRun(False, keys, text)
        wanted = "exit code 0, or 2 with 'configuration error:'"
        raise SourceError(source, f"expected {wanted}, got {ended.code}: {reason(ended)}")

    def test_rules(self, file: Path) -> RuleTest:
        """promtool's verdict on the unit tests of a rule file.

        It says "FAILED:" of a file that it cannot read as well: only what it saw (``got:``) against
        what was asked of it is a disproof.
        """
        source = "test_rules"
        ended, text = self._verdict(source, self._command(source, source, file=str(file)))
        if ended.code == 0 and "SUCCESS" in text:
            return RuleTest(True, text)
        if ended.code == 1 and "FAILED:" in text and "got:" in text:
            return RuleTest(False, text)
        raise SourceError(
            source,
            f"expected promtool's SUCCESS or FAILED, got {ended.code}: {reason(ended)}; install"
            " promtool where commands.test_rules runs",
        )

    def _verdict(self, source: str, command: Command) -> tuple[Ended, str]:
        """How a command ended, whatever its exit code, and all that it said."""
        ended = execute(self._scope, source, command, codes=None)
        return ended, b"\n".join((ended.stderr, ended.stdout)).decode("utf-8", "replace").strip()

    def assets(self, node: str) -> Assets:
        """What a node can fetch for a rollback; a mix-up of nodes is an error."""
        return answer("assets", node, self._read("assets", node, node=node).stdout, Assets)

    def revision(self) -> str:
        """The commit that is checked out: 40 hex digits."""
        text = self._read("revision").stdout.decode("utf-8", "replace").strip()
        if not re.fullmatch(r"[0-9a-f]{40}", text):
            raise SourceError("revision", f"expected 40 hex digits, got {text[:80]!r}")
        return text

    def tree_status(self) -> str:
        """What ``git status --porcelain`` says of the tree; nothing when it is clean."""
        return self._read("tree_status").stdout.decode("utf-8", "replace").rstrip("\n")

    def _read(
        self, purpose: str, subject: str = "", *, private: bool = False, **values: str
    ) -> Ended:
        source = f"{purpose} {subject}".strip()
        command = self._command(purpose, source, **values)
        return execute(self._scope, source, command, private=private)
