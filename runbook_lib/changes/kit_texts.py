"""The kit's texts: the page beside the script, and what operators are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..evidence.comment import code
from ..sources.redact import MARK
from .instruction import fenced
from .kit_model import Kit, KitNode, key_of
from .state import differences

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
## Its journal

`journal.tsv` has a line before each command and one after it, in UTC, separated by tabs:

    2026-01-31T12:00:00Z  NODE  deliver-back  intent  -
    2026-01-31T12:00:04Z  NODE  deliver-back  done    0

`failed` holds the exit code. An intent without an end: the run was killed there, and the step is
repeated. What the commands said is in `output.log`. When there is a runbook again, bring the journal
into the record with `runbook recover {stage} --import THIS_FOLDER -f PARAMS`.

## What it cannot do

It does not read a node back: exit 0 says that the commands ended well, not that the chain is well. It
restores no data and no snapshot, announces nothing, opens no incident, and touches no node of an
operator. `targets/` holds the nodes' secrets: keep this folder to yourself.
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
        rows.append(f"| {code(node.key)} | {at} | {code(build.digest)} | {code(file)} |")
    first = [node.key for node in kit.ours[:2]]
    return _PAGE.format(
        name=code(kit.name),
        example=",".join(first) or "NODE",
        stall=_STALL if "stall" in kit.variants else "",
        nodes="\n".join(rows) or "| none of ours | | | |",
        operators=_operators(kit),
        stage=kit.stage,
    )


def _operators(kit: Kit) -> str:
    if not kit.operators:
        return ""
    lines = "\n".join(
        f"- {code(operator)}: send `operators/{key_of(operator)}.md`, for"
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
        f"## Back from {code(kit.release)} on {code(kit.stage)}, for {code(operator)}\n\n"
        "Please put your nodes back to what they were before this release as soon as you can, one at"
        " a time: the file and the build that they had, then a restart. Where a file reads"
        f" `{MARK}`, keep your own value.\n\n"
        "| node | when | key | after the release | back |\n|---|---|---|---|---|\n"
        f"{table}\n{''.join(files)}"
    )
