"""Commands of the site: what they are asked, and their answers typed.

A command is an argv whose ``{placeholders}`` are filled in, run without a shell.

Those that change the world need the cluster's lock and return how they ended, for the journal,
whatever their exit code.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AwareDatetime, Field

from .. import site
from ..canonical import digest_bytes
from ..errors import ParameterError, SourceError
from ..reach import Command, Url
from . import wire
from .process import Ended
from .scope import Scope
from .wire import Digest, Height, Wire

_UNKNOWN_KEYS = re.compile(r"unknown configuration key\(s\):([^\n]*)")
STRICT = "--strict-config-validation"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
LONGEST_REASON = 300
Root = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def fill(where: str, argv: list[str], **values: str) -> list[str]:
    """``argv`` with its placeholders filled. Raises ParameterError for one it cannot know."""

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            known = ", ".join(f"{{{key}}}" for key in sorted(values)) or "none"
            raise ParameterError(
                f"site: {where}: expected placeholders among {known}, got {{{name}}}"
            )
        return values[name]

    return [_PLACEHOLDER.sub(replace, word) for word in argv]


def filled(where: str, command: Command, **values: str) -> Command:
    """``command`` with its placeholders filled. Raises ParameterError."""
    return command.model_copy(update={"argv": fill(where, command.argv, **values)})


def execute(
    scope: Scope,
    source: str,
    command: Command,
    *,
    any_code: bool = False,
    private: bool = False,
) -> Ended:
    """Run a command that only reads. Raises SourceError unless it ended, with exit code 0 or any."""
    ended = scope.run(command, private=private)
    if ended.code is None:
        raise SourceError(source, f"expected the command to end, got: {ended.problem}")
    if not any_code:
        require_well(source, ended)
    return ended


def reason(ended: Ended) -> str:
    """The last thing a command said on stderr, else on stdout; one line."""
    text = ended.stderr.strip() or ended.stdout.strip()
    lines = text.decode("utf-8", "replace").splitlines() or ["it said nothing"]
    return lines[-1].strip()[:LONGEST_REASON]


def require_well(source: str, ended: Ended) -> bytes:
    """What a command printed. Raises SourceError unless it ended with exit code 0."""
    if ended.code != 0:
        got = ended.problem or f"{ended.code}: {reason(ended)}"
        raise SourceError(source, f"expected exit code 0, got {got}")
    return ended.stdout


def command_of(commands: site.Commands, purpose: str, source: str) -> Command:
    """The site's command for a purpose. Raises SourceError when it names none."""
    command: Command | None = getattr(commands, purpose)
    if command is None:
        raise SourceError(source, f"expected commands.{purpose} in the site file, got none")
    return command


def tell(scope: Scope, commands: site.Commands, purpose: str, **values: str) -> None:
    """Notify people by a command of the site. Raises SourceError unless it ends well."""
    where = f"commands.{purpose}"
    command = filled(where, command_of(commands, purpose, where), **values)
    require_well(where, scope.run(command, purpose="notify"))


# --- what is asked, and the answers -----------------------------------------------------------


class Build(Wire):
    """What really runs on a node: digest of the binary or image, its commit and version."""

    digest: Digest
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    version: str


class OfNode(Wire):
    """An answer that names the node it is about."""

    node: str


T = TypeVar("T", bound=Wire)


def answer(purpose: str, subject: str, printed: bytes, model: type[T]) -> T:
    """What ``purpose`` printed about ``subject``. Raises SourceError, also for another subject's."""
    source = f"{purpose} {subject}".strip()
    found = wire.decode(source, printed, model)
    for name in ("node", "backend"):
        if (about := getattr(found, name, subject)) != subject:
            raise SourceError(source, f"expected {subject!r}, got {about!r}")
    return found


class Assets(OfNode):
    """What a node can fetch, by digest, each only when whole; free bytes where it would go."""

    fetchable: Annotated[list[Digest], Field(max_length=10_000)]
    free_bytes: Annotated[int, Field(ge=0)]


class Provisioned(Wire):
    """A fresh node: its name, and the URL of its RPC."""

    node: str
    url: Url


class Probe(Wire):
    """Whether a telemetry backend answers inside the VPC; ``status`` is null when nothing came."""

    backend: str
    reachable: bool
    status: int | None
    latency_ms: Annotated[float, Field(ge=0)] | None


class SoakJob(Wire):
    """The newest soak job that ended: its commit, whether it passed, and when it ran."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    passed: bool
    started: AwareDatetime
    ended: AwareDatetime


class Stopped(OfNode):
    """Whether the node's process is gone; that its RPC is silent proves nothing."""

    stopped: bool


class Wal(OfNode):
    """The write-ahead log of a stopped node: its whole records, and the height of the last one."""

    records: Annotated[int, Field(ge=0)]
    corrupt: bool
    height: Height | None
    problem: str = ""


@dataclass(frozen=True)
class NodeConfig:
    """A node's TOML. ``text`` is without its secrets, ``digest`` that of the file as it is.

    ``raw`` is the file itself where that is another: in memory, for rendering, never written into
    the evidence; a replay has none.
    """

    text: bytes
    digest: str
    raw: bytes | None = field(default=None, repr=False)

    @property
    def secret(self) -> bool:
        """Whether the file holds what the evidence may not."""
        return digest_bytes(self.text) != self.digest


@dataclass(frozen=True)
class ToolVerdict:
    """What a tool says of a file; ``text`` is its own words."""

    ok: bool
    text: str
    unknown_keys: tuple[str, ...] = ()


class SiteCommands:
    """A site's commands by purpose. Every method that reads raises SourceError."""

    def __init__(self, scope: Scope, commands: site.Commands) -> None:
        self._scope, self._commands = scope, commands

    def change(
        self, purpose: str, subject: str = "", /, **values: str
    ) -> Callable[[int | None, Path | None], Ended]:
        """A command that changes the world, as a step runs it: with the cluster's lock and a path
        stem for its outputs. ``params/sites/example.yaml`` explains each purpose and its values.

        It raises SourceError only where the site names no such command.
        """

        def run(lock: int | None, outputs: Path | None) -> Ended:
            command = self._command(purpose, f"{purpose} {subject}", **values)
            return self._scope.run(command, purpose="change", lock=lock, outputs=outputs)

        return run

    def version(self, node: str) -> Build:
        """The build that runs on a node, by the site's own inspection."""
        return self._answer("version", node, Build, node=node)

    def read_config(self, node: str) -> NodeConfig:
        """The node's TOML as it lies on its disk."""
        source = f"read_config {node}"
        command = self._command("read_config", source, node=node)
        ended = execute(self._scope, source, command, private=True)
        found = NodeConfig(ended.stdout, ended.digest, ended.raw)
        return found if found.secret else replace(found, raw=None)

    def dry_run(self, config: Path) -> ToolVerdict:
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
            return ToolVerdict(True, text)
        if ended.code == 2 and "configuration error:" in text:
            found = _UNKNOWN_KEYS.search(text)
            words = found[1].split(",") if found else []
            keys = tuple(word.strip(" `'\".") for word in words if word.strip())
            return ToolVerdict(False, text, keys)
        wanted = "exit code 0, or 2 with 'configuration error:'"
        raise SourceError(source, f"expected {wanted}, got {ended.code}: {reason(ended)}")

    def test_rules(self, file: Path) -> ToolVerdict:
        """promtool's verdict on the unit tests of a rule file.

        It says "FAILED:" of a file that it cannot read as well: only what it saw (``got:``) against
        what was asked of it is a disproof.
        """
        source = "test_rules"
        ended, text = self._verdict(source, self._command(source, source, file=str(file)))
        if ended.code == 0 and "SUCCESS" in text:
            return ToolVerdict(True, text)
        if ended.code == 1 and "FAILED:" in text and "got:" in text:
            return ToolVerdict(False, text)
        raise SourceError(
            source,
            f"expected promtool's SUCCESS or FAILED, got {ended.code}: {reason(ended)}; install"
            " promtool where commands.test_rules runs",
        )

    def _verdict(self, source: str, command: Command) -> tuple[Ended, str]:
        """How a command ended, whatever its exit code, and all that it said."""
        ended = execute(self._scope, source, command, any_code=True)
        return ended, b"\n".join((ended.stderr, ended.stdout)).decode("utf-8", "replace").strip()

    def assets(self, node: str) -> Assets:
        """What a node can fetch for a rollback; a mix-up of nodes is an error."""
        return self._answer("assets", node, Assets, node=node)

    def revision(self) -> str:
        """The commit that is checked out: 40 hex digits."""
        text = self._printed("revision").strip()
        if not re.fullmatch(r"[0-9a-f]{40}", text):
            raise SourceError("revision", f"expected 40 hex digits, got {text[:80]!r}")
        return text

    def tree_status(self) -> str:
        """What ``git status --porcelain`` says of the tree; nothing when it is clean."""
        return self._printed("tree_status").rstrip("\n")

    def probe(self, backend: str) -> Probe:
        """What the probe inside the VPC saw of a backend; a mix-up of backends is an error."""
        return self._answer("probe", backend, Probe, backend=backend)

    def soak(self) -> SoakJob:
        """The site's newest soak job of the development cluster."""
        return self._answer("soak", "", SoakJob)

    def suite(self, name: str) -> Ended:
        """Run a test suite by the playbook's name; how it ended, red or green."""
        source = f"suite {name}"
        command = self._commands.suites.get(name)
        if command is None:
            raise SourceError(source, f"expected commands.suites.{name} in the site file, got none")
        suite = filled(f"commands.suites.{name}", command)
        return execute(self._scope, source, suite, any_code=True)

    def stopped(self, node: str) -> bool:
        """Whether a node's process is gone."""
        return self._answer("stopped", node, Stopped, node=node).stopped

    def inspect_wal(self, node: str, *, outputs: Path | None = None) -> Ended:
        """Look at a stopped node's write-ahead log; what it prints is kept as well."""
        command = self._command("inspect_wal", f"inspect_wal {node}", node=node)
        return self._scope.run(command, outputs=outputs)

    def verify_snapshot(self, node: str, bundle: Path, *, outputs: Path | None = None) -> Ended:
        """snapshot-verify on a bundle as the node fetches it: 0, 1 fatal, 2 signature, 3 chunks."""
        source, path = f"verify_snapshot {node}", str(bundle)
        command = self._command("verify_snapshot", source, node=node, bundle=path)
        return self._scope.run(command, outputs=outputs)

    def _answer(self, purpose: str, subject: str, model: type[T], **values: str) -> T:
        source = f"{purpose} {subject}".strip()
        ended = execute(self._scope, source, self._command(purpose, source, **values))
        return answer(purpose, subject, ended.stdout, model)

    def _printed(self, purpose: str) -> str:
        ended = execute(self._scope, purpose, self._command(purpose, purpose))
        return ended.stdout.decode("utf-8", "replace")

    def _command(self, purpose: str, source: str, **values: str) -> Command:
        command = command_of(self._commands, purpose, source)
        return filled(f"commands.{purpose}", command, **values)
