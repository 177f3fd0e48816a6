"""What an operator is told: which nodes of theirs become what, until when, and how to report.

Markdown for people, with one JSON block in it for their automation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..canonical import canonical
from ..context import Context
from ..evidence.comment import LIMIT, code
from ..sources.redact import MARK
from .plan import NodePlan, Phase
from .state import kept_config
from .targets import artifact_of, no_file

FOLDER = "instructions"


@dataclass(frozen=True)
class Instruction:
    """One operator's nodes in one wave of a phase; ``key`` names it among the attempt's."""

    operator: str
    key: str
    file: Path
    marker: str
    text: str
    comment: str


def instruction(context: Context, phase: Phase, nodes: Sequence[NodePlan]) -> Instruction:
    """What the operator of ``nodes`` must do in ``phase``. Their targets lie in the attempt."""
    operator = nodes[0].operator
    theirs = [node.node for node in phase.nodes if node.operator == operator]
    # Named by its first node where power parts an operator's nodes into several waves.
    parted = "" if len(nodes) == len(theirs) else f".{nodes[0].node}"
    name = f"{operator}.{phase.name}{parted}"
    key = f"{phase.name}{parted}"
    marker = f"<!-- rpp-runbook instruct={name} attempt={context.attempt_name} -->"
    head = f"{marker}\n{_head(context, phase, nodes)}"
    full = head + "".join(_target(context, phase, node) for node in nodes)
    brief = head + "\nThe target files are too long for a comment: ask us for them.\n"
    fits = len(full.encode("utf-16-le")) // 2 <= LIMIT
    file = context.folder / FOLDER / f"{name}.md"
    return Instruction(operator, key, file, marker, full, full if fits else brief)


def _head(context: Context, phase: Phase, nodes: Sequence[NodePlan]) -> str:
    plan, params = context.plan, context.params
    assert plan is not None
    deadline = plan.window[1] if plan.window else ""
    until = f"until {code(deadline)}" if deadline else "as soon as you can"
    document = {
        "operator": nodes[0].operator,
        "release": params.release,
        "stage": context.stage,
        "plan": plan.digest,
        "phase": phase.name,
        "deadline": deadline,
        "artifact": plan.artifact.model_dump(mode="json"),
        "nodes": {
            node.node: {
                "changes": {key: after for key, _, after in node.changes()},
                "config": node.after.config,
                "binary": node.after.binary,
                **_own_build(context, node),
            }
            for node in nodes
        },
    }
    rows = "\n".join(
        f"| {code(node.node)} | {code(key)} | {code(str(old))} | {code(str(new))} |"
        for node in nodes
        for key, old, new in node.changes() or [("nothing", "", "")]
    )
    report = (
        f"runbook node-report --node NODE --url RPC --config FILE --binary FILE --target FILE"
        f" --key KEYFILE --release {params.release} --stage {context.stage}"
        f" --plan {plan.digest} --phase {phase.name} --dry-run rpp-node --config {{config}}"
        f" --dry-run --strict-config-validation"
    )
    return (
        f"## {code(params.release)} on {context.stage}: {phase.name}, for"
        f" {code(nodes[0].operator)}\n\n"
        f"Please change your nodes {until}, one at a time, and restart each on the target file and"
        f" the binary named for it. Where a target file reads `{MARK}`, keep your own value.\n\n"
        f"| node | key | before | after |\n|---|---|---|---|\n{rows}\n\n"
        "Then report each node, beside it, signed with its sign-off key; post what this prints"
        f" here, or hand us the file:\n\n```sh\n{report}\n```\n\n"
        f"```json\n{canonical(document).decode()}\n```\n"
    )


def _own_build(context: Context, node: NodePlan) -> dict[str, Any]:
    """A node's build where it is not the plan's: on the way back nodes may go to several."""
    assert context.plan is not None
    if node.after.binary == context.plan.artifact.binary:
        return {}
    return {"artifact": (artifact_of(context, node.after) or no_file(node.after)).model_dump()}


def _target(context: Context, phase: Phase, node: NodePlan) -> str:
    text = kept_config(context.folder, node.node, phase.name).read_text("utf-8")
    return fenced(node.node, "its target file", text)


def fenced(node: str, what: str, text: str) -> str:
    """A node's TOML in Markdown, whatever it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(4, longest + 1)
    return (
        f"\n<details><summary>{code(node)}: {what}</summary>\n\n"
        f"#### {node}.toml\n\n{fence}toml\n{text.rstrip()}\n{fence}\n\n</details>\n"
    )
