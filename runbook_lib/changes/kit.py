"""The recovery kit: the way back as plain files and a shell script, outside the store.

Written before the first change of an apply. It needs no store, telemetry, forge or Python, only
the site's own commands.

    <kits>/<release>-<stage>-<attempt>/
      README.md  recover.sh  targets/NODE.toml  targets-stall/NODE.toml
      operators/OPERATOR.md  journal.tsv (the script's own)

A target is the node's file as it was, secrets included: of it the record and the tape know only
the digest.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import yaml

from .. import notebook
from ..canonical import canonical, digest_bytes
from ..context import Context
from ..errors import SourceError, StoreError
from ..files import keep_file, place, replace_file, sync_names
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import way_back
from ..playbook import GATE_STEPS, NOTEBOOKS
from ..site import Site
from ..sources.commands import NodeConfig
from ..sources.config import GATES_AT, Flat
from .kit_script import FOLDERS, JOURNAL, Kit, KitNode, Variant, instruction, page, script
from .plan import Artifact, NodePlan, Plan
from .state import NodeState, known_map
from .targets import artifact_of, kept_as, missing, rendered

FOLDER = "recovery"


def prepare(context: Context) -> None:
    """Lay the way back ready, once an attempt; nothing in a replay."""
    folder = context.folder / FOLDER
    if folder.exists() or not context.scope.live:
        return
    values = way_back(context.record.entries()[0].body)
    name = NOTEBOOKS[f"{context.stage}_recovery"]
    book = notebook.filled_in(notebook.NOTEBOOKS / name, values)
    keep_file(context.folder, f"{FOLDER}/{name}", book)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    keep_file(context.folder, f"{FOLDER}/params.yaml", text)


def laid_ready(folder: Path) -> Path | None:
    """The parameter file of an attempt's way back; None where there is none."""
    path = folder / FOLDER / "params.yaml"
    return path if path.is_file() else None


STALL_OFF = GATE_STEPS["mainnet"]


@dataclass(frozen=True)
class _Before:
    """A node's TOML as it lies there, and what the stall variant makes of it."""

    plan: NodePlan
    config: NodeConfig
    stalled: NodeConfig


def write_kit(context: Context) -> list[Row]:
    """Write the kit of this attempt, once. Rows say what stands in its way; none when it is there."""
    if context.plan is None or any(entry.kind == "kit" for entry in context.journal):
        return []
    before, rows = _before(context, context.plan)
    builds = {one.plan.before.binary: one.plan.before for one in before}
    artifacts = {build: artifact_of(context, state) for build, state in sorted(builds.items())}
    nodes = tuple(_node(context, one, artifacts[one.plan.before.binary], rows) for one in before)
    if rows:
        return rows
    release, stage = context.params.release, context.stage
    kit = Kit(context.attempt_name, release, stage, context.plan, nodes)
    folder = folder_of(context.site, context.attempt_name)
    # What is written holds secrets: a replay has only what came of it.
    found = json.loads(context.scope.derive("kit", lambda: _write(context, kit, before, folder)))
    if "error" in found:
        return [unknown_row("recovery kit", "kept outside the store", "written", found["error"])]
    context.record.append("kit", {"folder": f"{{kits}}/{folder.name}", **found})
    return []


def folder_of(site: Site, attempt: str) -> Path:
    """Where the kit of an attempt (``release/stage/number``) lies."""
    return site.kits_path / attempt.replace("/", "-")


# --- what each node goes back to ------------------------------------------------------------------


def _before(context: Context, plan: Plan) -> tuple[list[_Before], list[Row]]:
    """Each node that the plan changes with its TOML, and rows of those that cannot be kept."""
    first: dict[str, NodePlan] = {}
    for _, node in plan.changes():
        first.setdefault(node.node, node)
    found, rows = [], list[Row]()
    answers = context.each(context.commands.read_config, list(first))
    theirs = {
        name
        for name, answer in answers.items()
        if first[name].control == "operator"
        and (isinstance(answer, SourceError) or answer.digest != first[name].before.config)
    }
    known = known_map(context.scope, context.store, context.cluster_name) if theirs else {}
    what = "its TOML, kept for the way back"
    for name, answer in answers.items():
        node = first[name]
        # Their operator has the file; what we once verified is sent along where we have it.
        config = kept_as(context, known.get(name), node.before.config) if name in theirs else answer
        if isinstance(config, SourceError):
            rows.append(context.unreadable(what, "its file", config))
        elif config.digest != node.before.config:
            rows.append(check_row(name, what, node.before.config, config.digest, Outcome.FAIL))
        else:
            found.append(_Before(node, config, _stalled(context, node, config)))
    return found, rows


def _stalled(context: Context, node: NodePlan, config: NodeConfig) -> NodeConfig:
    gates = [gate for gate in STALL_OFF if node.before.gates.get(gate)]
    if context.stage != "mainnet" or not gates or not config.text:
        return config
    changes: Flat = {f"{GATES_AT}.{gate}": False for gate in gates}
    text, raw, digest = rendered(context, node.node, config, changes)
    return NodeConfig(text, digest, raw)


def _node(context: Context, one: _Before, artifact: Artifact | None, rows: list[Row]) -> KitNode:
    before = one.plan.before
    states: dict[Variant, NodeState] = {"back": before}
    if context.stage == "mainnet":
        gates = {gate: on and gate not in STALL_OFF for gate, on in before.gates.items()}
        states["stall"] = before.model_copy(update={"gates": gates, "config": one.stalled.digest})
    if artifact is None and one.plan.control == "ours":
        got = f"no file with that digest; {missing(before)}"
        rows.append(unknown_row(one.plan.node, "its build, for the way back", before.binary, got))
    return KitNode(one.plan.node, one.plan.operator, states, artifact)


# --- the files ------------------------------------------------------------------------------------


def _files(context: Context, kit: Kit, before: list[_Before]) -> dict[str, bytes]:
    texts = {one.plan.node: one.config.text for one in before}
    files = {"recover.sh": script(kit, context.site), "README.md": page(kit).encode()}
    for operator, nodes in kit.operators.items():
        told = instruction(kit, operator, nodes, texts)
        files[f"operators/{operator}.md"] = told.encode()
    for one in before:
        if one.plan.control == "ours":
            for variant in kit.variants:
                config = one.config if variant == "back" else one.stalled
                raw = config.text if config.raw is None else config.raw
                files[f"{FOLDERS[variant]}/{one.plan.node}.toml"] = raw
    return files


def _write(context: Context, kit: Kit, before: list[_Before], folder: Path) -> str:
    """What came of it, as text: the digest of every file, or the error."""
    try:
        files = _files(context, kit, before)
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
