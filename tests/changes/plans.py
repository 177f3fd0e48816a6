"""Plans in small: what a plan must name beside its phases is the same in each."""

from collections.abc import Iterable
from typing import Any

from runbook_lib.plan import Artifact, NodePlan, NodeState, Phase, Plan


def node(name: str, before: NodeState, after: NodeState, **more: Any) -> NodePlan:
    return NodePlan(**{"node": name, "control": "ours", "before": before, "after": after, **more})


def phase(
    item: str, name: str, nodes: Iterable[NodePlan], waves: tuple[tuple[str, ...], ...] = ()
) -> Phase:
    """One whose nodes are a wave each, unless they are said."""
    nodes = tuple(nodes)
    return Phase(item=item, name=name, nodes=nodes, waves=waves or tuple((n.node,) for n in nodes))


def plan(*phases: Phase, **facts: Any) -> Plan:
    artifact = Artifact(path="rpp-node", digest="sha256:2", binary="sha256:2")
    given = {"stage": "testnet", "release": "v1", "commit": "c" * 40, "cluster": "testnet",
             "chain_id": "rpp-testnet", "artifact": artifact, "policy": "sha256:p"}  # fmt: skip
    return Plan(**{**given, "phases": phases, **facts})
