"""What an operator is told of a storage recovery: which nodes, which snapshot, which state root."""

from __future__ import annotations

from collections.abc import Sequence

from ..canonical import canonical
from ..clusters import Node
from ..context import Context
from ..evidence.comment import code
from .instruction import FOLDER, Instruction, safe
from .snapshot import Chosen

KEY = "restore"


def restore_instructions(
    context: Context, chosen: Chosen, nodes: Sequence[Node], height: int, root: str
) -> list[Instruction]:
    """One for each operator of ``nodes``; ``root`` is the state root they must come to."""
    by: dict[str, list[str]] = {}
    for node in nodes:
        by.setdefault(node.operator, []).append(node.name)
    return [_one(context, chosen, who, names, height, root) for who, names in by.items()]


def _one(
    context: Context, chosen: Chosen, operator: str, nodes: list[str], height: int, root: str
) -> Instruction:
    name = f"{safe(operator)}.{KEY}"
    marker = f"<!-- rpp-runbook instruct={name} attempt={context.attempt_name} -->"
    document = {
        "bundle": chosen.path,
        "height": height,
        "label": chosen.label,
        "nodes": {node: {"restore": chosen.name} for node in nodes},
        "operator": operator,
        "phase": KEY,
        "plan": chosen.label,
        "release": context.params.release,
        "stage": context.stage,
        "state_root": root,
    }
    text = (
        f"{marker}\n## {code(context.params.release)} on {context.stage}: storage recovery, for"
        f" {code(operator)}\n\n"
        f"Please restore {', '.join(code(node) for node in nodes)} to the snapshot"
        f" {code(chosen.name)} of height {chosen.height}, by `docs/storage_recovery.md`:\n\n"
        "1. Stop the node, and make sure that its process is gone.\n"
        "2. Inspect the write-ahead log; put the old data aside, under a name of their own.\n"
        "3. Verify the snapshot (`snapshot-verify`), then restore it.\n"
        f"4. Replay proofs up to height {height}. The state root must be {code(root)}: with any"
        " other do not start the node, and tell us.\n"
        "5. Start the node. We see it follow the chain; nothing needs to be reported.\n\n"
        f"```json\n{canonical(document).decode()}\n```\n"
    )
    file = context.folder / FOLDER / f"{name}.md"
    return Instruction(operator, KEY, file, marker, text, text)
