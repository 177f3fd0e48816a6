"""The recovery kit: the way back as plain files and a shell script, outside the store.

Written before the first change of an apply. It needs no store, telemetry, forge or Python, only
the site's own commands.

    <kits>/<release>-<stage>-<attempt>/
      README.md  recover.sh  targets/NODE.toml  targets-stall/NODE.toml
      operators/OPERATOR.md  journal.tsv (the script's own)

A target is the node's file as it was, secrets included: of it the log and the tape know only
the digest.
"""

from pathlib import Path
from typing import Any

from ..context import Context
from ..evidence.events import KitWritten
from ..evidence.store import WAY_BACK
from ..files import keep_file
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import way_back
from ..plan import NodePlan, NodeState, Plan
from ..playbook import NOTEBOOKS
from ..site import Site
from ..sources.commands import NodeConfig
from .apply import derived
from .targets import KitNode, Variant, artifact_of, kept_as, missing, stalled, target


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
    found, rows = _nodes(context, plan)
    for node in found:
        if node.artifact is None and not node.plan.operator:
            build, got = node.plan.before.binary, missing(node.plan.before)
            got = f"no file with that digest; {got}"
            rows.append(unknown_row(node.node, "its build, for the way back", build, got))
    if rows:
        return rows
    folder = folder_of(context.site, context.attempt_name)

    def write() -> dict[str, Any]:
        from .kit_script import Kit, write_files

        return write_files(context, folder, Kit(context.attempt_name, plan, tuple(found)))

    # What is written holds secrets: a replay has only what came of it.
    made = derived(context, "kit", write)
    if "error" in made:
        return [unknown_row("recovery kit", "kept outside the store", "written", made["error"])]
    context.log.append(KitWritten(folder=f"{{kits}}/{folder.name}", files=made["files"]))
    return []


def folder_of(site: Site, attempt: str) -> Path:
    """Where the kit of an attempt (``release/stage/number``) lies."""
    return site.kits_path / attempt.replace("/", "-")


def _nodes(context: Context, plan: Plan) -> tuple[list[KitNode], list[Row]]:
    """The way back of each node that the plan changes, and rows of those whose file is not there."""
    first = plan.first
    answers = context.each(context.commands.read_config, list(first))
    theirs = {
        name
        for name in answers
        if first[name].control == "operator"
        and (name in answers.failed or answers[name].digest != first[name].before.config)
    }
    known = context.ledger.known(context.cluster_name) if theirs else {}
    files, rows = dict[str, NodeConfig](), list[Row]()
    what = "its TOML, kept for the way back"
    for name in answers:
        wanted = first[name].before.config
        # Their operator has the file; what we once verified is sent along where we have it.
        if name in theirs:
            config = kept_as(context, known.get(name), wanted)
        elif failed := answers.failed.get(name):
            rows.append(check_row(failed.source, what, "its file", failed))
            continue
        else:
            config = answers[name]
        if config.digest != wanted:
            rows.append(check_row(name, what, wanted, config.digest, Outcome.FAIL))
        else:
            files[name] = config
    back = {name: _back(context, first[name], file) for name, file in files.items()}
    builds = {first[name].before.binary: first[name].before for name in files}
    artifacts = {build: artifact_of(context, state) for build, state in sorted(builds.items())}
    nodes = [KitNode(first[n], back[n], artifacts[first[n].before.binary]) for n in files]
    return nodes, rows


def _back(
    context: Context, node: NodePlan, file: NodeConfig
) -> dict[Variant, tuple[NodeConfig, NodeState]]:
    """What a node goes back to; on mainnet also after a stall, some gates off everywhere."""
    before, stall = node.before, stalled(node.before)
    back: dict[Variant, tuple[NodeConfig, NodeState]] = {"back": (file, before)}
    if context.stage == "mainnet":
        back["stall"] = file, stall
        if stall != before and file.text:
            back["stall"] = target(context, node.node, file, before, stall)
    return back
