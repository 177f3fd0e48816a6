"""Plans: what their digest covers, what moved between two, and what is left when a node is dropped."""

from __future__ import annotations

from typing import Any

from runbook_lib.changes.plan import Artifact, NodePlan, Phase, Plan, moved
from runbook_lib.changes.state import NodeState

WAS = NodeState(gates={"a": False}, channel="testnet", binary="sha256:1", config="sha256:1")
BUILT = WAS.model_copy(update={"binary": "sha256:2"})
GATED = BUILT.model_copy(update={"gates": {"a": True}, "config": "sha256:3"})


def node(name: str, before: NodeState = WAS, after: NodeState = BUILT) -> NodePlan:
    return NodePlan(node=name, control="ours", before=before, after=after)


def plan(**changes: Any) -> Plan:
    build = Phase(item="i", name="build", nodes=(node("n1"), node("n2")), waves=(("n1",), ("n2",)))
    gates = Phase(
        item="j", name="gates", nodes=(node("n1", BUILT, GATED), node("n2", BUILT, GATED)),
        waves=(("n1", "n2"),),
    )  # fmt: skip
    facts: dict[str, Any] = {
        "stage": "testnet",
        "release": "v1",
        "commit": "c" * 40,
        "cluster": "testnet",
        "chain_id": "rpp-testnet",
        "artifact": Artifact(path="rpp-node", digest="sha256:2", binary="sha256:2"),
        "phases": (build, gates),
        "untouched": {"n3": WAS},
        "window": ("2026-01-01T00:00:00+00:00", "2026-01-01T08:00:00+00:00"),
        "policy": "sha256:p",
    }
    return Plan(**{**facts, **changes})


def test_the_same_intent_has_one_digest() -> None:
    assert (
        plan().digest == plan().digest == Plan.model_validate_json(plan().model_dump_json()).digest
    )
    for changes in ({"release": "v2"}, {"window": ()}, {"policy": "x"}, {"untouched": {}}):
        assert plan(**changes).digest != plan().digest


def test_a_plan_knows_its_changes_and_the_way_back() -> None:
    assert plan().nodes == ("n1", "n2")
    assert plan().recovery() == {"n1": WAS, "n2": WAS}
    assert [phase.name for phase in plan().of("j")] == ["gates"]
    assert plan().phases[1].node("n2").changes() == [
        ("rollout.feature_gates.a", False, True),
        ("config", "sha256:1", "sha256:3"),
    ]


def test_what_moved_is_said_by_node_and_key() -> None:
    other = BUILT.model_copy(update={"gates": {"a": True}})
    first = Phase(
        item="i",
        name="build",
        nodes=(node("n1"), node("n2", other, other)),
        waves=(("n1",), ("n2",)),
    )

    found = moved(plan(), plan(phases=(first, plan().phases[1])))

    assert ("n2", "its state before", "rollout.feature_gates.a=false, binary=sha256:1",
            "rollout.feature_gates.a=true, binary=sha256:2") in found  # fmt: skip
    assert moved(plan(), plan()) == []
    assert moved(plan(), plan(policy="sha256:q")) == [
        ("the plan", "policy", "sha256:p", "sha256:q")
    ]


def test_a_dropped_node_leaves_every_phase() -> None:
    left = plan().without("n1")

    assert left.nodes == ("n2",)
    assert [phase.waves for phase in left.phases] == [(("n2",),), (("n2",),)]
    assert left.untouched == {"n3": WAS, "n1": WAS}


def test_a_plan_keeps_its_digest_when_a_node_is_dropped() -> None:
    digest = plan().digest

    assert plan().without("n1").digest == digest
    assert plan().without("n1").without("n2").digest == digest
