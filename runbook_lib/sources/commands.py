"""The site's commands: what they are asked, and their answers typed.

A command is an argv from the site file whose ``{placeholders}`` are filled in, run without a
shell. The first group only reads. The second changes the world: each needs the cluster's lock and
returns how the command ended, for the journal, whatever its exit code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field

from .. import site
from ..canonical import digest_bytes
from ..errors import ParameterError, SourceError
from . import storage, wire
from .process import Ended
from .scope import Scope
from .wire import Wire

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_RUNNING = re.compile(r"^running (\d+) tests?$", re.M)
_RESULT = re.compile(
    r"^test result: (?:ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored; (\d+) measured;",
    re.M,
)
_ONE_TEST = re.compile(r"test .+ \.\.\. (ok|FAILED|ignored(, .*)?)")
_UNKNOWN_KEYS = re.compile(r"unknown configuration key\(s\):([^\n]*)")
LONGEST_REASON = 300
STRICT = "--strict-config-validation"
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Build(Wire):
    """What really runs on a node: digest of the binary or image, its commit and version."""

    digest: Digest
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    version: str


class Probe(Wire):
    """Whether a telemetry backend answers inside the VPC; ``status`` is null when nothing came."""

    backend: str
    reachable: bool
    status: int | None
    latency_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


class Assets(Wire):
    """What a node can fetch, by digest, each only when whole; free bytes where it would go."""

    node: str
    fetchable: Annotated[list[Digest], Field(max_length=10_000)]
    free_bytes: Annotated[int, Field(ge=0)]


class SoakJob(Wire):
    """The newest soak job that ended: its commit, whether it passed, and when it ran."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    passed: bool
    started: AwareDatetime
    ended: AwareDatetime


class Provisioned(Wire):
    """A fresh node: its name, and the URL of its RPC."""

    node: str
    url: site.Url


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


@dataclass(frozen=True)
class SuiteRun:
    """libtest's own count over all test binaries of a suite.

    ``announced`` sums "running N tests"; ``skipped_lines`` are lines in which a test says that it
    skipped its work (libtest counts such a test as passed). A suite that ran nothing is all zeros.
    """

    code: int
    announced: int
    passed: int
    failed: int
    ignored: int
    complete: bool
    skipped_lines: tuple[str, ...]


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


def execute(
    scope: Scope,
    source: str,
    command: site.Command,
    *,
    codes: tuple[int, ...] | None = (0,),
    private: bool = False,
) -> Ended:
    """Run a command that only reads. Raises SourceError unless it ended with one of ``codes``."""
    ended = scope.run(command.argv, timeout_s=command.timeout_s, private=private)
    if ended.code is None:
        raise SourceError(source, f"expected the command to end, got: {ended.problem}")
    if codes is not None and ended.code not in codes:
        raise SourceError(source, f"expected exit code 0, got {ended.code}: {reason(ended)}")
    return ended


def reason(ended: Ended) -> str:
    """The last thing a command said on stderr, else on stdout; one line."""
    text = ended.stderr.strip() or ended.stdout.strip()
    lines = text.decode("utf-8", "replace").splitlines() or ["it said nothing"]
    return lines[-1].strip()[:LONGEST_REASON]


class SiteCommands:
    """A site's commands by purpose. One the site does not name is a SourceError."""

    def __init__(self, scope: Scope, commands: site.Commands) -> None:
        self._scope, self._commands = scope, commands

    # --- these only read ------------------------------------------------------------------------

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
        ended = execute(self._scope, source, command, codes=None)
        text = b"\n".join((ended.stderr, ended.stdout)).decode("utf-8", "replace").strip()
        if ended.code == 0:
            return DryRun(True, (), text)
        if ended.code == 2 and "configuration error:" in text:
            return DryRun(False, _unknown_keys(text), text)
        raise SourceError(
            source,
            f"expected exit code 0, or 2 with 'configuration error:', got {ended.code}:"
            f" {reason(ended)}",
        )

    def test_rules(self, file: Path) -> RuleTest:
        """promtool's verdict on the unit tests of a rule file.

        It says "FAILED:" of a file that it cannot read as well: only what it saw (``got:``) against
        what was asked of it is a disproof.
        """
        source = "test_rules"
        command = self._command("test_rules", source, file=str(file))
        ended = execute(self._scope, source, command, codes=None)
        text = b"\n".join((ended.stderr, ended.stdout)).decode("utf-8", "replace").strip()
        if ended.code == 0 and "SUCCESS" in text:
            return RuleTest(True, text)
        if ended.code == 1 and "FAILED:" in text and "got:" in text:
            return RuleTest(False, text)
        raise SourceError(
            source,
            f"expected promtool's SUCCESS or FAILED, got {ended.code}: {reason(ended)}; install"
            " promtool where commands.test_rules runs",
        )

    def probe(self, backend: str) -> Probe:
        """What the probe inside the VPC saw of a backend; a mix-up of backends is an error."""
        found = wire.decode(
            f"probe {backend}", self._read("probe", backend, backend=backend).stdout, Probe
        )
        if found.backend != backend:
            raise SourceError(f"probe {backend}", f"expected {backend!r}, got {found.backend!r}")
        return found

    def assets(self, node: str) -> Assets:
        """What a node can fetch for a rollback; a mix-up of nodes is an error."""
        source = f"assets {node}"
        found = wire.decode(source, self._read("assets", node, node=node).stdout, Assets)
        if found.node != node:
            raise SourceError(source, f"expected {node!r}, got {found.node!r}")
        return found

    def stopped(self, node: str) -> bool:
        """Whether a node's process is gone."""
        printed = self._read("stopped", node, node=node).stdout
        return storage.answer("stopped", node, printed, storage.Stopped).stopped

    def inspect_wal(self, node: str, *, outputs: Path | None = None) -> Ended:
        """Look at a stopped node's write-ahead log; what it prints is kept as well."""
        return self._look("inspect_wal", node, outputs, node=node)

    def verify_snapshot(self, node: str, bundle: Path, *, outputs: Path | None = None) -> Ended:
        """snapshot-verify on a bundle as the node fetches it: 0, 1 fatal, 2 signature, 3 chunks."""
        return self._look("verify_snapshot", node, outputs, node=node, bundle=str(bundle))

    def soak(self) -> SoakJob:
        """The site's newest soak job of the development cluster."""
        return wire.decode("soak", self._read("soak").stdout, SoakJob)

    def revision(self) -> str:
        """The commit that is checked out: 40 hex digits."""
        text = self._read("revision").stdout.decode("utf-8", "replace").strip()
        if not re.fullmatch(r"[0-9a-f]{40}", text):
            raise SourceError("revision", f"expected 40 hex digits, got {text[:80]!r}")
        return text

    def tree_status(self) -> str:
        """What ``git status --porcelain`` says of the tree; nothing when it is clean."""
        return self._read("tree_status").stdout.decode("utf-8", "replace").rstrip("\n")

    def suite(self, name: str) -> SuiteRun:
        """Run a test suite by the playbook's name; red or green, its own count."""
        source = f"suite {name}"
        command = self._commands.suites.get(name)
        if command is None:
            raise SourceError(source, f"expected commands.suites.{name} in the site file, got none")
        argv = fill(f"commands.suites.{name}", command.argv)
        filled = command.model_copy(update={"argv": argv})
        return _suite_run(execute(self._scope, source, filled, codes=None))

    # --- these change the world -----------------------------------------------------------------

    def deploy(
        self, node: str, artifact: Path, digest: str, config: Path, *, lock: int, outputs: Path
    ) -> Ended:
        """Put artifact and configuration in place on a node, without a restart."""
        values = {"artifact": str(artifact), "digest": digest, "config": str(config)}
        return self._change("deploy", node, lock, outputs, node=node, **values)

    def restart(self, node: str, *, lock: int, outputs: Path) -> Ended:
        """Restart a node on what is in place."""
        return self._change("restart", node, lock, outputs, node=node)

    def stop(self, node: str, *, lock: int, outputs: Path) -> Ended:
        """End a node's process; a good end as well when it has ended already."""
        return self._change("stop", node, lock, outputs, node=node)

    def keep_data(self, node: str, label: str, *, lock: int, outputs: Path) -> Ended:
        """Put a stopped node's data aside under a name with ``label`` in it, never over another."""
        return self._change("keep_data", node, lock, outputs, node=node, label=label)

    def restore_snapshot(
        self, node: str, bundle: Path, label: str, *, lock: int, outputs: Path
    ) -> Ended:
        """Put a snapshot in place; a good end as well when it was, under this label."""
        values = {"bundle": str(bundle), "label": label}
        return self._change("restore_snapshot", node, lock, outputs, node=node, **values)

    def replay_proofs(self, node: str, height: int, *, lock: int, outputs: Path) -> Ended:
        """Verify the restored proofs and replay the kept log up to ``height``."""
        return self._change("replay_proofs", node, lock, outputs, node=node, height=str(height))

    def start(self, node: str, *, lock: int, outputs: Path) -> Ended:
        """Start a node on what is in place; a good end as well when it runs."""
        return self._change("start", node, lock, outputs, node=node)

    def announce(
        self,
        release: str,
        stage: str,
        start: datetime,
        end: datetime,
        text: Path,
        *,
        lock: int,
        outputs: Path,
    ) -> Ended:
        """Tell the validators of a window, in the words of a file."""
        span = {"start": start.isoformat(), "end": end.isoformat(), "text": str(text)}
        return self._change("announce", "", lock, outputs, release=release, stage=stage, **span)

    def announce_halt(
        self, release: str, stage: str, reference: str, text: Path, *, lock: int, outputs: Path
    ) -> Ended:
        """Tell the validators, in the words of a file, that a rollout is halted."""
        values = {"reference": reference, "text": str(text)}
        return self._change(
            "announce_halt", "", lock, outputs, release=release, stage=stage, **values
        )

    def instruct(self, operator: str, file: Path, *, lock: int, outputs: Path) -> Ended:
        """Hand an operator the instruction in a file."""
        values = {"operator": operator, "file": str(file)}
        return self._change("instruct", operator, lock, outputs, **values)

    def freeze_proposals(self, release: str, *, lock: int, outputs: Path) -> Ended:
        """Take no new governance proposals from now on."""
        return self._change("freeze_proposals", "", lock, outputs, release=release)

    def provision(
        self, cluster: str, name: str, config: Path, *, lock: int, outputs: Path
    ) -> Ended:
        """Make a fresh node; ``provisioned`` reads what it printed."""
        return self._change(
            "provision", name, lock, outputs, cluster=cluster, name=name, config=str(config)
        )

    def deprovision(self, cluster: str, name: str, *, lock: int, outputs: Path) -> Ended:
        """Remove a node that ``provision`` made."""
        return self._change("deprovision", name, lock, outputs, cluster=cluster, name=name)

    # --- the machinery --------------------------------------------------------------------------

    def _command(self, purpose: str, source: str, **values: str) -> site.Command:
        command: site.Command | None = getattr(self._commands, purpose)
        if command is None:
            raise SourceError(source, f"expected commands.{purpose} in the site file, got none")
        argv = fill(f"commands.{purpose}", command.argv, **values)
        return command.model_copy(update={"argv": argv})

    def _read(
        self, purpose: str, subject: str = "", *, private: bool = False, **values: str
    ) -> Ended:
        source = f"{purpose} {subject}".strip()
        command = self._command(purpose, source, **values)
        return execute(self._scope, source, command, private=private)

    def _look(self, purpose: str, subject: str, outputs: Path | None, /, **values: str) -> Ended:
        command = self._command(purpose, f"{purpose} {subject}", **values)
        return self._scope.run(command.argv, timeout_s=command.timeout_s, outputs=outputs)

    def _change(
        self, purpose: str, subject: str, lock: int, outputs: Path, /, **values: str
    ) -> Ended:
        command = self._command(purpose, f"{purpose} {subject}", **values)
        return self._scope.run(
            command.argv,
            timeout_s=command.timeout_s,
            purpose="change",
            lock=lock,
            outputs=outputs,
        )


def provisioned(name: str, ended: Ended) -> Provisioned:
    """What ``provision`` printed. Raises SourceError when it failed or printed something else."""
    source = f"provision {name}"
    if ended.code != 0:
        got = ended.problem or f"{ended.code}: {reason(ended)}"
        raise SourceError(source, f"expected exit code 0, got {got}")
    return wire.decode(source, ended.stdout, Provisioned)


def _unknown_keys(text: str) -> tuple[str, ...]:
    found = _UNKNOWN_KEYS.search(text)
    words = found[1].split(",") if found else []
    return tuple(word.strip(" `'\".") for word in words if word.strip())


def _suite_run(ended: Ended) -> SuiteRun:
    text = b"\n".join((ended.stdout, ended.stderr)).decode("utf-8", "replace").replace("\r\n", "\n")
    announced = [int(count) for count in _RUNNING.findall(text)]
    results = [tuple(map(int, counts)) for counts in _RESULT.findall(text)]
    passed, failed, ignored, measured = (sum(part[n] for part in results) for n in range(4))
    assert ended.code is not None
    return SuiteRun(
        code=ended.code,
        announced=sum(announced),
        passed=passed,
        failed=failed,
        ignored=ignored,
        complete=len(announced) == len(results)
        and sum(announced) == passed + failed + ignored + measured,
        skipped_lines=tuple(line.strip() for line in text.splitlines() if _says_skipped(line)),
    )


def _says_skipped(line: str) -> bool:
    # A test's name may hold the word as well; libtest's own line about it is no confession.
    return "skipping" in line.lower() and not _ONE_TEST.fullmatch(line.strip())
