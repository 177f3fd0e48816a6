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
from ..errors import SourceError
from ..evidence.events import KitWritten
from ..evidence.store import WAY_BACK
from ..files import keep_file
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import way_back
from ..plan import NodePlan, Plan
from ..playbook import NOTEBOOKS
from ..site import Site
from ..sources.commands import NodeConfig
from .apply import derived
from .state import known_map
from .targets import artifact_of, changed, kept_as, missing, rendered, stalled


def prepare(context: Context) -> None:
    """Lay the way back ready."""
    import yaml

    from .. import notebook

    values = way_back(context.opened)
    name = NOTEBOOKS[f"{context.stage}_recovery"]
    book = notebook.filled_in(notebook.NOTEBOOKS / name, values)
    keep_file(context.folder, f"{WAY_BACK}/{name}", book)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    keep_file(context.folder, f"{WAY_BACK}/params.yaml", text)


Before = tuple[NodePlan, NodeConfig, NodeConfig]
"""A node, its TOML as it lies there, and what the stall variant makes of it."""


def write_kit(context: Context, plan: Plan) -> list[Row]:
    """Write the kit of this attempt. Rows say what stands in its way; none when it is there."""
    before, rows = _before(context, plan)
    builds = {node.before.binary: node.before for node, _, _ in before}
    artifacts = {build: artifact_of(context, state) for build, state in sorted(builds.items())}
    for node in (node for node, _, _ in before if node.control == "ours"):
        if artifacts[build := node.before.binary] is None:
            got = f"no file with that digest; {missing(node.before)}"
            rows.append(unknown_row(node.node, "its build, for the way back", build, got))
    if rows:
        return rows
    folder = folder_of(context.site, context.attempt_name)

    def write() -> dict[str, Any]:
        from .kit_script import write_files

        return write_files(context, folder, before, artifacts)

    # What is written holds secrets: a replay has only what came of it.
    found = derived(context, "kit", write)
    if "error" in found:
        return [unknown_row("recovery kit", "kept outside the store", "written", found["error"])]
    context.log.append(KitWritten(folder=f"{{kits}}/{folder.name}", files=found["files"]))
    return []


def folder_of(site: Site, attempt: str) -> Path:
    """Where the kit of an attempt (``release/stage/number``) lies."""
    return site.kits_path / attempt.replace("/", "-")


# --- what each node goes back to ------------------------------------------------------------------


def _before(context: Context, plan: Plan) -> tuple[list[Before], list[Row]]:
    """Each node that the plan changes with its TOML, and rows of those that cannot be kept."""
    first: dict[str, NodePlan] = {}
    for _, node in plan.changes():
        first.setdefault(node.node, node)
    found, rows = list[Before](), list[Row]()
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
            found.append((node, config, _stalled(context, node, config)))
    return found, rows


def _stalled(context: Context, node: NodePlan, config: NodeConfig) -> NodeConfig:
    changes = changed(node.before.gates, stalled(node.before))
    if context.stage != "mainnet" or not changes or not config.text:
        return config
    return rendered(context, node.node, config, changes)
