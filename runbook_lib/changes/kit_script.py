"""The files of a recovery kit: its shell script, the page beside it, targets, and what operators are sent.

The script is the site's own commands, quoted, in a frame that keeps a journal. Only an apply that
writes its kit, and what reads one, loads this.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

from ..canonical import canonical, digest_bytes
from ..context import Context
from ..errors import SourceError, StoreError
from ..evidence.comment import code
from ..files import place, replace_file, sync_names
from ..reach import Command
from ..site import Site
from ..sources.commands import NodeConfig
from ..sources.process import program
from ..sources.redact import MARK
from ..sources.running import command_of, fill
from ..strict import PROJECT, project_path
from .operators import fenced
from .plan import Artifact, NodePlan, Plan
from .state import NodeState, differences
from .targets import stalled

Variant = Literal["back", "stall"]
FOLDERS: dict[Variant, str] = {"back": "targets", "stall": "targets-stall"}
JOURNAL = "journal.tsv"
FRAME = Path(__file__).with_name("recover.sh")
_KIT = "\0"  # no argument of a command can hold it


@dataclass(frozen=True)
class KitNode:
    """A node's way back; ``operator`` is empty for ours. ``states`` are what it must be then."""

    node: str
    operator: str
    states: dict[Variant, NodeState]
    artifact: Artifact | None


@dataclass(frozen=True)
class Kit:
    """What an attempt is about to do, and how each node is put back."""

    name: str
    plan: Plan
    nodes: tuple[KitNode, ...]

    @property
    def ours(self) -> tuple[KitNode, ...]:
        """The nodes that the script puts back, in its order."""
        return tuple(node for node in self.nodes if not node.operator)

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(name for name in FOLDERS if all(name in n.states for n in self.nodes))

    @property
    def operators(self) -> dict[str, list[KitNode]]:
        """Operator -> their nodes."""
        found: dict[str, list[KitNode]] = {}
        for node in self.nodes:
            if node.operator:
                found.setdefault(node.operator, []).append(node)
        return found


def target_file(folder: Path, node: str, variant: Variant = "back") -> Path:
    """Where a kit keeps a node's TOML."""
    return folder / FOLDERS[variant] / f"{node}.toml"


# --- the script -----------------------------------------------------------------------------------


def quoted(word: str) -> str:
    """A word as the shell reads it back, whatever it holds; the kit's folder stays a variable."""
    text = "'" + word.replace("'", "'\\''") + "'"
    return text.replace(_KIT, "'\"$kit\"'")


def script(kit: Kit, site: Site) -> bytes:
    """``recover.sh``. Raises SourceError for a site that lacks a command it needs."""
    used = (site.commands.deploy, site.commands.restart)
    listed = {name for command in used if command is not None for name in command.env}
    filled = {
        "#@ACTS@": "\n".join(_acts(kit, site)) if kit.ours else "    # no node of ours",
        "@TITLE@": f"The way back from {kit.name}, as a script of its own.",
        "@OURS@": quoted(" ".join(node.node for node in kit.ours)),
        "@OPERATORS@": quoted(" ".join(f"{name}.md" for name in kit.operators)),
        "@VARIANTS@": quoted(" ".join(kit.variants)),
        "@PROJECT@": quoted(str(PROJECT)),
        "@TOKENS@": " ".join(sorted(site.secret_names() - listed)),
    }
    text = FRAME.read_text("utf-8")
    for mark, value in filled.items():
        before, _, after = text.partition(mark)
        text = before + value + after
    return text.encode("utf-8", "surrogateescape")


def _acts(kit: Kit, site: Site) -> Iterator[str]:
    deploy = command_of(site.commands, "deploy", "deploy")
    restart = command_of(site.commands, "restart", "restart")
    for node in kit.ours:
        assert node.artifact is not None
        path = str(project_path(node.artifact.path))
        for variant in kit.variants:
            config = str(target_file(Path(_KIT), node.node, variant))
            values = {"artifact": path, "digest": node.artifact.digest, "config": config}
            argv = fill("commands.deploy", deploy.argv, node=node.node, **values)
            yield f"    {quoted(f'{variant}/{node.node}/deliver')})"
            yield f"      checked {quoted(config)} {_hex(node.states[variant].config)} &&"
            yield f"        checked {quoted(path)} {_hex(node.artifact.digest)} &&"
            yield f"        within {_run(deploy, argv)}"
            yield "      ;;"
        argv = fill("commands.restart", restart.argv, node=node.node)
        yield f"    */{quoted(f'{node.node}/restart')})"
        # A node that it starts may outlive us, and must not go on holding our lock.
        yield f"      within {_run(restart, argv)} 9>&-"
        yield "      ;;"


def _run(command: Command, argv: list[str]) -> str:
    # A shell elsewhere may find another program of that name, or none.
    words = [program(argv[0]), *argv[1:]]
    return " ".join([str(math.ceil(command.timeout_s)), *map(quoted, words)])


def _hex(digest: str) -> str:
    return quoted(digest.removeprefix("sha256:"))


# --- the page and the instructions ---------------------------------------------------------------

_PAGE = """# The way back from {name}

Written before the first change of this attempt. `recover.sh` puts each node of ours back to the file
and the build that it had. It needs a POSIX shell, `sha256sum` or `shasum`, and what the site's own
commands need; no Python of ours, no store, no telemetry, no forge.

```sh
sh recover.sh                    # every node of ours
sh recover.sh --nodes {example}  # some, by name
{stall}```

**First stop whoever is still changing the cluster**: the script cannot see the cluster's lock.

## What it does

Node by node, in this order, one at a time: it checks the sha256 of the node's file and of the build,
delivers both with the site's `deploy`, then restarts the node with `restart`. A node that fails is
passed over and tried once more at the end. Run it as often as you like: what its journal says was
done is not done again.

| node | build | its digest | digest of the file |
|---|---|---|---|
{nodes}

It ends with 0 when every node it was to put back is back, with 2 when one is not (it says which),
with 3 for wrong usage, or while another run is at work.
{operators}
`journal.tsv` has a line before each command and one after it: instant, node, step, `intent`, `done` or
`failed`, exit code. An intent without an end: the run was killed there, and the step is repeated. What
the commands said is in `output.log`. When there is a runbook again, read every node back and keep the
journal with `runbook recover {stage} --kit THIS_FOLDER -f PARAMS`.

## What it cannot do

It does not read a node back: exit 0 says that the commands ended well, not that the chain is well. It
restores no data and no snapshot, announces nothing, opens no incident, and touches no node of an
operator. `targets/` holds the nodes' secrets: keep this folder to the operators.
"""
_STALL = """sh recover.sh --stall            # after a consensus stall: reward and witness gates off everywhere
"""


def page(kit: Kit) -> str:
    """README.md: what the kit does, in which order, how to read its journal, what it cannot do."""
    rows = []
    for node in kit.ours:
        assert node.artifact is not None
        build, file = node.artifact, node.states["back"].config
        at = code(build.path)
        rows.append(f"| {code(node.node)} | {at} | {code(build.digest)} | {code(file)} |")
    first = [node.node for node in kit.ours[:2]]
    return _PAGE.format(
        name=code(kit.name),
        example=",".join(first) or "NODE",
        stall=_STALL if "stall" in kit.variants else "",
        nodes="\n".join(rows) or "| none of ours | | | |",
        operators=_operators(kit),
        stage=kit.plan.stage,
    )


def _operators(kit: Kit) -> str:
    if not kit.operators:
        return ""
    lines = "\n".join(
        f"- {code(operator)}: send `operators/{operator}.md`, for"
        f" {', '.join(code(node.node) for node in nodes)}"
        for operator, nodes in kit.operators.items()
    )
    return f"\nNodes of operators are theirs to put back; they count for nothing in its exit code:\n\n{lines}\n"


def instruction(
    kit: Kit, operator: str, nodes: Sequence[KitNode], texts: Mapping[str, bytes]
) -> str:
    """What an operator is sent: which nodes of theirs go back to what. ``texts`` hold no secret."""
    rows, files = [], []
    after = {node.node: node.after.flat() for _, node in kit.plan.changes()}
    for node in nodes:
        for variant, state in node.states.items():
            for key, now, then in differences(after[node.node], state.flat()):
                when = "" if variant == "back" else "in a stall"
                rows.append(
                    f"| {code(node.node)} | {when} | {code(key)} | {code(str(now))} |"
                    f" {code(str(then))} |"
                )
        if texts[node.node]:
            text = texts[node.node].decode("utf-8", "replace")
            files.append(fenced(node.node, "its file before", text))
    table = "\n".join(rows) or "| nothing | | | | |"
    return (
        f"## Back from {code(kit.plan.release)} on {code(kit.plan.stage)}, for {code(operator)}\n\n"
        "Please put your nodes back to what they were before this release as soon as you can, one at"
        " a time: the file and the build that they had, then a restart. Where a file reads"
        f" `{MARK}`, keep your own value.\n\n"
        "| node | when | key | after the release | back |\n|---|---|---|---|---|\n"
        f"{table}\n{''.join(files)}"
    )


# --- the files ------------------------------------------------------------------------------------


def write_files(
    context: Context,
    folder: Path,
    before: Sequence[tuple[NodePlan, NodeConfig, NodeConfig]],
    artifacts: Mapping[str, Artifact | None],
) -> str:
    """Write the kit of ``before``: each node, its TOML, and that of the stall variant.

    What came of it, as text: the digest of every file, or the error.
    """
    assert context.plan is not None
    nodes, files = [], dict[str, bytes]()
    for node, config, stall in before:
        texts: dict[Variant, NodeConfig] = {"back": config}
        states: dict[Variant, NodeState] = {"back": node.before}
        if context.stage == "mainnet":
            update = {"config": stall.digest}
            texts["stall"], states["stall"] = stall, stalled(node.before).model_copy(update=update)
        build = artifacts[node.before.binary]
        nodes.append(KitNode(node.node, node.operator, states, build))
        for variant, text in texts.items() if node.control == "ours" else ():
            raw = text.text if text.raw is None else text.raw
            files[f"{FOLDERS[variant]}/{node.node}.toml"] = raw
    kit = Kit(context.attempt_name, context.plan, tuple(nodes))
    plain = {node.node: config.text for node, config, _ in before}
    try:
        files |= {"recover.sh": script(kit, context.site), "README.md": page(kit).encode()}
        for operator, theirs in kit.operators.items():
            told = instruction(kit, operator, theirs, plain)
            files[f"operators/{operator}.md"] = told.encode()
        _put(folder, files, context.store.root.stat().st_gid)
    except (OSError, SourceError, StoreError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        return canonical({"error": f"{said}; see `kits` in the site file"}).decode()
    return canonical({"files": {name: digest_bytes(data) for name, data in files.items()}}).decode()


def _put(folder: Path, files: Mapping[str, bytes], group: int) -> None:
    """The whole kit or none of it, on disk, for the store's ``group`` to read.

    Raises OSError, StoreError, and SourceError for one that was used.
    """
    if (folder / JOURNAL).exists():
        raise SourceError(folder.name, f"expected no kit that was used already, got its {JOURNAL}")
    kits = folder.parent
    kits.parent.mkdir(parents=True, exist_ok=True)
    scratch = place(kits.parent, f"{kits.name}/.new-{uuid4().hex}")
    try:
        scratch.mkdir(0o700)
        with suppress(PermissionError):  # whoever is of no such group keeps it to themselves
            os.chown(scratch, -1, group)
            scratch.chmod(0o2750)
        for name, data in files.items():
            path = place(scratch, name, 0o2750)
            replace_file(path, data, 0o750 if name.endswith(".sh") else 0o640)
        if folder.exists():  # of a run that ended before it could note it: nothing was changed yet
            shutil.rmtree(folder)
        for at in {scratch, *((scratch / name).parent for name in files)}:
            sync_names(at)
        scratch.rename(folder)
        # The record says next that it is there; it may lie on another disk.
        sync_names(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
