"""Reading a node back: gates, channel, binary and config against the plan."""

from __future__ import annotations

from ..context import Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row
from .apply import POLL_S, all_pass
from .plan import NodePlan


def runs_as_planned(context: Context, node: NodePlan) -> bool:
    """Whether a node already is what the plan makes of it; a node that cannot be read is not."""
    rollout = context.fleet.rollout([node.node])[node.node]
    if isinstance(rollout, SourceError):
        return False
    gates = (rollout.feature_gates, rollout.release_channel) == (
        node.after.gates,
        node.after.channel,
    )
    return gates and all_pass([_binary(context, node), _config(context, node)])


def read_back(context: Context, node: NodePlan, *, silent: Outcome = Outcome.FAIL) -> list[Row]:
    """Wait until the node answers, then compare gates, channel, binary and config with the plan.

    ``silent`` is what a node that does not come back amounts to.
    """
    deadline = context.scope.reread().timestamp() + context.patience_s
    while True:
        rollout = context.fleet.rollout([node.node])[node.node]
        if not isinstance(rollout, SourceError):
            break
        if context.scope.reread().timestamp() >= deadline:
            text = f"no answer within {context.patience_s:g} s: {rollout.problem}"
            return [check_row(node.node, "comes back", "answers /status/rollout", text, silent)]
        context.scope.sleep(POLL_S)
    after = node.after
    rows = [
        check_row(
            node.node,
            "rollout.release_channel",
            after.channel,
            rollout.release_channel,
            rollout.release_channel == after.channel,
        )
    ]
    gates = sorted({*after.gates, *rollout.feature_gates})
    wrong = [gate for gate in gates if rollout.feature_gates.get(gate) != after.gates.get(gate)]
    rows += [
        check_row(
            node.node,
            f"rollout.feature_gates.{gate}",
            after.gates.get(gate, "absent"),
            rollout.feature_gates.get(gate, "absent"),
            ok=False,
        )
        for gate in wrong
    ]
    if not wrong:
        on = ", ".join(gate for gate in gates if after.gates[gate])
        rows.append(check_row(node.node, "gates on", on, on, ok=True))
    return [*rows, _binary(context, node), _config(context, node)]


def _binary(context: Context, node: NodePlan) -> Row:
    try:
        build = context.commands.version(node.node)
    except SourceError as error:
        return unknown_row(node.node, "binary", node.after.binary, error.problem)
    return check_row(
        node.node, "binary", node.after.binary, build.digest, build.digest == node.after.binary
    )


def _config(context: Context, node: NodePlan) -> Row:
    try:
        found = context.commands.read_config(node.node).digest
    except SourceError as error:
        return unknown_row(node.node, "config", node.after.config, error.problem)
    return check_row(node.node, "config", node.after.config, found, found == node.after.config)
