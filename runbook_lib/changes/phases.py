"""The phases of a stage: which change takes which nodes from what to what.

What each change turns on is the playbook's (``targets.TURNS``). A node on which nothing differs stays
in its phase: it is read back, and that is the release's anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..clusters import Node
from ..context import Context
from ..errors import SourceError
from ..params import RolloutParams
from ..sources.commands import NodeConfig
from ..sources.config import CHANNEL_AT
from .plan import Artifact, NodePlan, Phase, Plan
from .power import Powers, cut, powers
from .state import Known, NodeState, known_map, require_known
from .targets import (
    INSTALLED_AHEAD,
    TURNS,
    artifact,
    changed,
    keep_target,
    kept_toml,
    members_of,
    read_bundle,
    rendered,
    target,
    turned,
)


def make_plan(context: Context, *, keep: bool = True) -> Plan:
    """The stage's plan, from the world as it is. Raises SourceError, ParameterError.

    Unless ``keep``, what it renders is not kept in the attempt: it is only looked at.
    """
    build = artifact(context)
    known = known_map(context.scope, context.store, context.cluster_name)
    before = {
        node.name: require_known(known, node.name, context.cluster_name)
        for node in context.cluster.nodes
    }
    phases = _phases(context, build, before, keep)
    params = context.params
    rollout = isinstance(params, RolloutParams)
    touched = {node.node for phase in phases for node in phase.nodes}
    return plan_of(
        context,
        build,
        phases,
        untouched={name: last.state for name, last in before.items() if name not in touched},
        window=tuple(instant.isoformat() for instant in params.window) if rollout else (),
        max_down=params.max_down if rollout else 1.0,
    )


def plan_of(context: Context, build: Artifact, phases: Sequence[Phase], **more: Any) -> Plan:
    """A plan of this stage, release, cluster and policy."""
    return Plan(
        stage=context.stage,
        release=context.params.release,
        commit=context.params.commit,
        cluster=context.cluster_name,
        chain_id=context.cluster.chain_id,
        artifact=build,
        phases=tuple(phases),
        policy=context.site.policy_digest,
        limits=context.limits(),
        **more,
    )


def _phases(context: Context, build: Artifact, known: dict[str, Known], keep: bool) -> list[Phase]:
    profile = read_bundle(context).profile(context.stage)
    # Our own nodes first: operators follow what has been seen to work.
    nodes = sorted(context.cluster.nodes, key=lambda node: node.control == "operator")
    found = context.each(context.commands.read_config)
    rollout = isinstance(context.params, RolloutParams)
    power = powers(context) if rollout else None
    at: dict[str, tuple[NodeConfig, NodeState]] = {}
    phases = []
    for turn in TURNS[context.stage]:
        members = members_of(context, turn)
        plans = []
        for node in (node for node in nodes if node.name in members):
            if node.name not in at:
                at[node.name] = _begin(context, node, found[node.name], known[node.name], build)
            config, before = at[node.name]
            made = target(context, node.name, config, before, turned(turn, profile, build))
            if keep:
                keep_target(context, f"{node.name}.{turn.name}", made.text, made.raw)
            plans.append(NodePlan.of(node, before, made.after))
            at[node.name] = made, made.after
        waves = _waves(context, plans, power)
        phases.append(Phase(item=turn.item, name=turn.name, nodes=tuple(plans), waves=waves))
    return phases


def _begin(
    context: Context, node: Node, found: NodeConfig | SourceError, last: Known, build: Artifact
) -> tuple[NodeConfig, NodeState]:
    known = last.state
    if isinstance(found, SourceError):
        if node.control == "ours":
            raise found
        found = kept_toml(context, last)  # that it still lies there is config-drift's to prove
    if context.stage in INSTALLED_AHEAD and node.canary:
        # Their operators installed the candidate already: canary.ready.candidate-installed proves it.
        update = {"binary": build.binary, "artifact": build.digest}
        known = known.model_copy(update=update)
    return found, known


def _waves(
    context: Context, plans: Sequence[NodePlan], found: Powers | None
) -> tuple[tuple[str, ...], ...]:
    ours = [plan.node for plan in plans if plan.control == "ours"]
    theirs = [plan.node for plan in plans if plan.control == "operator"]
    groups = [group for group in (ours, theirs) if group]  # no wave is mixed
    if found is None:
        return tuple(tuple(group) for group in groups)
    most = context.params.max_down
    return tuple(wave for group in groups for wave in cut(group, found, most))


def reproduce(context: Context, node: NodePlan, found: NodeConfig) -> NodeConfig:
    """A node's target out of its TOML as it lies there now, before the phase or after it.

    Raises SourceError when it is not what was planned: the file moved.
    """
    changes = changed(node.before.gates, node.after)
    if node.before.channel != node.after.channel:
        changes[CHANNEL_AT] = node.after.channel
    made = rendered(context, node.node, found, changes)
    if made.digest != node.after.config:
        raise SourceError(
            node.node,
            f"expected a file that becomes {node.after.config}, got one that becomes"
            f" {made.digest}: it moved since the plan",
        )
    return made
