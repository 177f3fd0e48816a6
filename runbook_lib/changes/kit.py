"""The recovery kit: the way back as plain files and a shell script, outside the store.

Written before the first change of an apply. It needs no store, telemetry, forge or Python, only
the site's own commands, quoted, in a frame that keeps a journal. It does what the recovery does.

    <kits>/<release>-<stage>-<attempt>/
      README.md  recover.sh  targets/NODE.toml  journal.tsv (the script's own)

A target is the file that a node of ours goes back to, secrets included: of it the log and the tape
know only the digest.
"""

import math
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..canonical import digest_bytes
from ..context import Context
from ..display import Form
from ..errors import RunbookError, SourceError
from ..evidence.comment import MARKDOWN
from ..evidence.events import KitWritten
from ..evidence.store import WAY_BACK
from ..files import keep_file, place, replace_file, sync_names
from ..findings import Findings
from ..outcomes import Outcome, Row, unknown_row
from ..params import way_back
from ..plan import Artifact, Plan
from ..playbook import NOTEBOOKS
from ..site import Site
from ..sources.commands import NodeConfig, command_of, fill
from ..sources.process import program
from ..strict import PROJECT, project_path
from .apply import STEPS, derived
from .targets import artifact_of, goal_of, missing, target

JOURNAL = "journal.tsv"
_KIT = "\0"  # no argument of a command can hold it


@dataclass(frozen=True)
class KitNode:
    """A node of ours: the file that it goes back to, and the build that it had."""

    node: str
    file: NodeConfig
    build: Artifact


@dataclass(frozen=True)
class Kit:
    """What an attempt is about to do, and how each node of ours is put back."""

    name: str
    plan: Plan
    nodes: tuple[KitNode, ...]


def prepare(context: Context) -> None:
    """Lay the recovery's notebook and parameters ready."""
    import yaml

    from .. import notebook

    values = way_back(context.opened)
    name = NOTEBOOKS[f"{context.stage}_recovery"]
    book = notebook.filled_in(notebook.NOTEBOOKS / name, values)
    keep_file(context.folder, f"{WAY_BACK}/{name}", book)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    keep_file(context.folder, f"{WAY_BACK}/params.yaml", text)


def write_kit(context: Context, plan: Plan) -> list[Row]:
    """Write the kit of this attempt. Rows say what stands in its way; none when it is there."""
    nodes, found = list[KitNode](), Findings()
    first = {name: node.before for name, node in plan.first.items() if node.control == "ours"}
    files = context.each(context.commands.read_config, list(first))
    states = {state.binary: state for state in first.values()}
    builds = {binary: artifact_of(context, state) for binary, state in sorted(states.items())}
    for name, file in found.answers("its TOML, kept for the way back", "its file", files):
        before, build = first[name], builds[first[name].binary]
        goal = goal_of(context.stage, before)
        found.judge(name, "its TOML, kept for the way back", before.config, file.digest)
        if build is None:
            got = f"no file with that digest; {missing(before)}"
            found.unknown(name, "its build, for the way back", before.binary, got)
        elif found.holds:
            made = target(context, name, file, before, goal)[0] if goal != before else file
            nodes.append(KitNode(name, made, build))
    if not found.holds:
        return [row for row in found.findings if row.outcome is not Outcome.PASS]
    folder = folder_of(context.site, context.attempt_name)
    kit = Kit(context.attempt_name, plan, tuple(nodes))
    # What is written holds secrets: a replay has only what came of it.
    made = derived(context, "kit", lambda: _write(context, folder, kit))
    if "error" in made:
        return [unknown_row("recovery kit", "kept outside the store", "written", made["error"])]
    context.log.append(KitWritten(folder=f"{{kits}}/{folder.name}", files=made["files"]))
    return []


def folder_of(site: Site, attempt: str) -> Path:
    """Where the kit of an attempt (``release/stage/number``) lies."""
    return site.kits_path / attempt.replace("/", "-")


def target_name(node: str) -> str:
    """What a kit calls a node's TOML."""
    return f"targets/{node}.toml"


# --- the script and its page ----------------------------------------------------------------------


def quoted(word: str) -> str:
    """A word as the shell reads it back, whatever it holds; the kit's folder stays a variable."""
    text = "'" + word.replace("'", "'\\''") + "'"
    return text.replace(_KIT, "'\"$kit\"'")


SHELL = Form(quoted, quoted=quoted)


def script(kit: Kit, site: Site) -> bytes:
    """``recover.sh``. Raises SourceError for a site that lacks a command it needs."""
    commands = [getattr(site.commands, purpose) for _, purpose in STEPS]
    listed = {name for command in commands if command is not None for name in command.env}
    text = SHELL.render(
        "recover.sh.j2",
        name=kit.name,
        nodes=[node.node for node in kit.nodes],
        acts=[act for node in kit.nodes for act in _acts(site, node)],
        project=str(PROJECT),
        tokens=sorted(site.secret_names() - listed),
    )
    return text.encode("utf-8", "surrogateescape")


Run = list[int | str]


def _acts(site: Site, node: KitNode) -> list[tuple[str, list[tuple[str, str]], Run]]:
    """Each step of a node: the files that are checked first, and its command after the seconds it
    may take.
    """
    config, build = f"{_KIT}/{target_name(node.node)}", str(project_path(node.build.path))
    given = {"artifact": build, "digest": node.build.digest, "config": config}
    files = [(config, node.file.digest), (build, node.build.digest)]
    acts = []
    for step, purpose in STEPS:
        command = command_of(site.commands, purpose, purpose)
        argv = fill(f"commands.{purpose}", command.argv, node=node.node, **given)
        # A shell elsewhere may find another program of that name, or none.
        run: Run = [math.ceil(command.timeout_s), program(argv[0]), *argv[1:]]
        # A node that has its files is restarted whatever became of them since.
        acts.append((f"{node.node}/{step}", files if step == "deliver" else [], run))
    return acts


def page(kit: Kit) -> str:
    """README.md: what the kit does, in which order, how to read its journal, what it cannot do."""
    theirs = []
    for node in kit.plan.first.values():
        if node.control == "operator":
            goal = goal_of(kit.plan.stage, node.before)
            on = ", ".join(sorted(gate for gate, on in goal.gates.items() if on)) or "none"
            theirs.append((node.operator, node.node, goal.binary, node.before.config, on))
    rows = [(n.node, n.build.path, n.build.digest, n.file.digest) for n in kit.nodes]
    facts = {"name": kit.name, "stage": kit.plan.stage}
    return MARKDOWN.render("kit.md.j2", rows=rows, theirs=theirs, **facts)


# --- the files ------------------------------------------------------------------------------------


def files_of(kit: Kit, site: Site) -> dict[str, bytes]:
    """Every file of a kit, by its path in it. Raises SourceError, ParameterError."""
    files = {"recover.sh": script(kit, site), "README.md": page(kit).encode()}
    for node in kit.nodes:
        raw = node.file.raw
        files[target_name(node.node)] = node.file.text if raw is None else raw
    return files


def _write(context: Context, folder: Path, kit: Kit) -> dict[str, Any]:
    """Write the kit. What came of it: the digest of every file, or the error."""
    try:
        files = files_of(kit, context.site)
        put_files(folder, files, context.store.root.stat().st_gid)
    except (OSError, RunbookError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        return {"error": f"{said}; see `kits` in the site file"}
    return {"files": {name: digest_bytes(data) for name, data in files.items()}}


def put_files(folder: Path, files: Mapping[str, bytes], group: int) -> None:
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
        # The log says next that it is there; it may lie on another disk.
        sync_names(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
