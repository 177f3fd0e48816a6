"""The plan of the way back, made of whatever can be read, and whether it may be followed.

On mainnet rewards and witness networking go off everywhere: that deviation is named.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import playbook
from ..clusters import Node
from ..context import Context
from ..errors import ParameterError, SourceError
from ..outcomes import check_row
from ..sources.commands import NodeConfig
from ..sources.node import Rollout
from .approved import Ruling
from .phases import keep_phase
from .plan import NodePlan, Phase, Plan
from .power import cut, powers
from .previous import artifact_or_none, no_file
from .state import NodeState, good_map, require_known
from .undone import Undone, file_of, turned_back, undone

BACK = "back"
"""The name of the one phase of a way back."""
OFF_IN_A_STALL = playbook.GATE_STEPS["mainnet"]


def make_back_plan(context: Context) -> Plan:
    """The plan of the way back, whatever can be read. Raises SourceError, ParameterError."""
    made = undone(context)
    goals = _goals(context, made)
    names = list(goals)
    rollouts = context.fleet.get("/status/rollout", Rollout, names, retries=1)
    configs = context.each(context.commands.read_config, names)
    builds = context.each(context.commands.version, names)
    nodes = []
    for node in (node for node in context.cluster.nodes if node.name in goals):
        name, config = node.name, configs[node.name]
        after = _after(context, node, goals[name], config)
        before = (made.last(name) if made is not None else None) or goals[name]
        seen, build = rollouts[name], builds[name]
        if not isinstance(seen, SourceError):
            update = {"gates": seen.feature_gates, "channel": seen.release_channel}
            before = before.model_copy(update=update)
        if not isinstance(build, SourceError):
            artifact = before.artifact if build.digest == before.binary else ""
            before = before.model_copy(update={"binary": build.digest, "artifact": artifact})
        if not isinstance(config, SourceError):
            before = before.model_copy(update={"config": config.digest})
        nodes.append(
            NodePlan(
                node=name,
                control=node.control,
                operator=node.operator,
                before=before,
                after=after,
            )
        )
    first = artifact_or_none(context, nodes[0].after) or no_file(nodes[0].after)
    item = playbook.DECLARED[f"{context.stage}_recovery"][0]
    phase = Phase(item=item, name=BACK, nodes=tuple(nodes), waves=_waves(context, nodes))
    return Plan(
        stage=context.stage,
        release=context.params.release,
        commit=context.params.commit,
        cluster=context.cluster_name,
        chain_id=context.cluster.chain_id,
        artifact=first,
        phases=(phase,),
        policy=context.policy(),
    )


def _goals(context: Context, made: Undone | None) -> dict[str, NodeState]:
    """Node -> the state it goes back to."""
    back = made.plan.recovery() if made is not None else {}
    names = context.params.nodes or list(back)
    known = {node.name for node in context.cluster.nodes}
    if wrong := sorted(set(names) - known):
        raise ParameterError(f"nodes: expected nodes of {context.cluster_name}, got {wrong[0]!r}")
    if not names:
        raise ParameterError(
            "nodes: expected the nodes to take back, as no apply is undone, got none"
        )
    beyond = sorted(set(names) - set(back))
    good = good_map(context.scope, context.store, context.cluster_name) if beyond else {}
    for name in beyond:
        back[name] = require_known(good, name, context.cluster_name).state
    return {name: back[name] for name in names}


def _after(
    context: Context, node: Node, goal: NodeState, found: NodeConfig | SourceError
) -> NodeState:
    """What a node becomes, its file kept; after a stall with both gates off: a named deviation."""
    there = None if isinstance(found, SourceError) else found
    file = file_of(context, node.name, there, goal)
    if context.stage == "mainnet" and any(goal.gates.get(gate) for gate in OFF_IN_A_STALL):
        gates = {gate: on and gate not in OFF_IN_A_STALL for gate, on in goal.gates.items()}
        goal = goal.model_copy(update={"gates": gates})
        if file is not None:
            file = turned_back(context, node.name, file, goal)
            goal = goal.model_copy(update={"config": file.digest})
    if file is not None:
        keep_phase(context, node.name, BACK, file)
    return goal


def _waves(context: Context, nodes: Sequence[NodePlan]) -> tuple[tuple[str, ...], ...]:
    """Ours by voting power, so that a chain that runs goes on; operators' nodes all at once."""
    ours = [node.node for node in nodes if node.control == "ours"]
    theirs = tuple(node.node for node in nodes if node.control == "operator")
    try:
        waves = cut(ours, powers(context), playbook.MAX_DOWN)
    except SourceError:  # not known: a share of the nodes instead
        share = max(1, int(len(ours) * playbook.MAX_DOWN))
        waves = tuple(tuple(ours[at : at + share]) for at in range(0, len(ours), share))
    return (*waves, theirs) if theirs else waves


def ruling(context: Context, plan: Plan) -> Ruling:
    """Whether this way back was approved with the plan that it undoes, or is break-glass."""
    made, reason = undone(context), context.params.break_glass
    beyond = sorted(set(plan.nodes) - set(made.plan.recovery() if made is not None else ()))
    approved = made is not None and (made.approved_by or context.stage not in playbook.APPROVERS)
    author = made.author if made is not None else ""
    what, expected = "the way back", "approved together with the plan it undoes"
    if made is not None and approved and not beyond:
        got = f"{made.plan.digest}, by {', '.join(made.approved_by) or author}"
        return Ruling(
            plan, author, [check_row("approval", what, expected, got, ok=True)], made.approved_by
        )
    why = f"it goes beyond it on {', '.join(beyond)}" if beyond else "nobody's approval"
    if reason:
        got = f"{why}; break-glass: {reason}; to be ratified within 24 h"
        return Ruling(plan, author, [check_row("approval", what, expected, got, ok=True)])
    got = f"{why}; give a reason (--reason) for break-glass"
    return Ruling(plan, author, [check_row("approval", what, expected, got, ok=False)])
