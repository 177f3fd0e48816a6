"""The files of a recovery kit: its shell script, the page beside it, targets, and what operators are sent.

The script is the site's own commands, quoted, in a frame that keeps a journal. Only an apply that
writes its kit, and what reads one, loads this.
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
from ..files import place, replace_file, sync_names
from ..plan import Plan, differences
from ..site import Site
from ..sources.commands import command_of, fill
from ..sources.process import program
from ..sources.redact import MARK
from ..strict import PROJECT, project_path
from .targets import KitNode, Variant

FOLDERS: dict[Variant, str] = {"back": "targets", "stall": "targets-stall"}
JOURNAL = "journal.tsv"
_KIT = "\0"  # no argument of a command can hold it


@dataclass(frozen=True)
class Kit:
    """What an attempt is about to do, and how each node is put back."""

    name: str
    plan: Plan
    nodes: tuple[KitNode, ...]

    @property
    def ours(self) -> list[KitNode]:
        """The nodes that the script puts back, in its order."""
        return [node for node in self.nodes if not node.plan.operator]

    @property
    def variants(self) -> tuple[Variant, ...]:
        return ("back", "stall") if self.plan.stage == "mainnet" else ("back",)

    @property
    def operators(self) -> dict[str, list[KitNode]]:
        """Operator -> their nodes."""
        found = dict[str, list[KitNode]]()
        for node in self.nodes:
            if node.plan.operator:
                found.setdefault(node.plan.operator, []).append(node)
        return found


def target_file(folder: Path, node: str, variant: Variant = "back") -> Path:
    """Where a kit keeps a node's TOML."""
    return folder / FOLDERS[variant] / f"{node}.toml"


# --- the script -----------------------------------------------------------------------------------


def quoted(word: str) -> str:
    """A word as the shell reads it back, whatever it holds; the kit's folder stays a variable."""
    text = "'" + word.replace("'", "'\\''") + "'"
    return text.replace(_KIT, "'\"$kit\"'")


SHELL = Form(quoted, quoted=quoted)


def script(kit: Kit, site: Site) -> bytes:
    """``recover.sh``. Raises SourceError for a site that lacks a command it needs."""
    used = (site.commands.deploy, site.commands.restart)
    listed = {name for command in used if command is not None for name in command.env}
    text = SHELL.render(
        "recover.sh.j2",
        name=kit.name,
        acts=[_act(kit, site, node) for node in kit.ours],
        operators=[f"{name}.md" for name in kit.operators],
        variants=kit.variants,
        project=str(PROJECT),
        tokens=sorted(site.secret_names() - listed),
    )
    return text.encode("utf-8", "surrogateescape")


def _act(kit: Kit, site: Site, node: KitNode) -> dict[str, Any]:
    """What the script does with a node: each command after the seconds it may take."""
    assert node.artifact is not None
    build = {"artifact": str(project_path(node.artifact.path)), "digest": node.artifact.digest}
    deliveries = []
    for variant in kit.variants:
        config = str(target_file(Path(_KIT), node.node, variant))
        run = _run(site, "deploy", node.node, config=config, **build)
        deliveries.append((variant, config, node.back[variant][1].config, run))
    restart = _run(site, "restart", node.node)
    return {"node": node.node, **build, "deliveries": deliveries, "restart": restart}


def _run(site: Site, name: str, node: str, **values: str) -> list[int | str]:
    command = command_of(site.commands, name, name)
    argv = fill(f"commands.{name}", command.argv, node=node, **values)
    # A shell elsewhere may find another program of that name, or none.
    return [math.ceil(command.timeout_s), program(argv[0]), *argv[1:]]


# --- the page and the instructions ---------------------------------------------------------------


def page(kit: Kit) -> str:
    """README.md: what the kit does, in which order, how to read its journal, what it cannot do."""
    builds = [n.artifact and n.artifact.model_dump() for n in kit.ours]
    rows = [(n.node, b, n.plan.before.config) for n, b in zip(kit.ours, builds, strict=True)]
    operators = [(name, [one.node for one in theirs]) for name, theirs in kit.operators.items()]
    facts = {"name": kit.name, "stage": kit.plan.stage, "stall": "stall" in kit.variants}
    return MARKDOWN.render("kit.md.j2", rows=rows, operators=operators, **facts)


def instruction(kit: Kit, operator: str) -> str:
    """What an operator is sent: which nodes of theirs go back to what, their files without secrets."""
    after = {node.node: node.after.flat() for _, node in kit.plan.changes()}
    nodes = kit.operators[operator]
    rows = [
        (node.node, "" if variant == "back" else "in a stall", key, str(now), str(then))
        for node in nodes
        for variant, (_, state) in node.back.items()
        for key, now, then in differences(after[node.node], state.flat())
    ]
    kept = [(node.node, node.back["back"][0].text.decode("utf-8", "replace")) for node in nodes]
    facts = {"release": kit.plan.release, "stage": kit.plan.stage, "operator": operator}
    return MARKDOWN.render("kit_operator.md.j2", rows=rows, files=kept, mark=MARK, **facts)


# --- the files ------------------------------------------------------------------------------------


def files_of(kit: Kit, site: Site) -> dict[str, bytes]:
    """Every file of a kit, by its path in it. Raises SourceError, ParameterError."""
    files = {"recover.sh": script(kit, site), "README.md": page(kit).encode()}
    for node in kit.ours:
        for variant, (file, _) in node.back.items():
            raw = file.text if file.raw is None else file.raw
            files[str(target_file(Path(), node.node, variant))] = raw
    for name in kit.operators:
        files[f"operators/{name}.md"] = instruction(kit, name).encode()
    return files


def write_files(context: Context, folder: Path, kit: Kit) -> dict[str, Any]:
    """Write the kit. What came of it: the digest of every file, or the error."""
    try:
        files = files_of(kit, context.site)
        _put(folder, files, context.store.root.stat().st_gid)
    except (OSError, RunbookError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        return {"error": f"{said}; see `kits` in the site file"}
    return {"files": {name: digest_bytes(data) for name, data in files.items()}}


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
        # The log says next that it is there; it may lie on another disk.
        sync_names(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
