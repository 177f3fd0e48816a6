"""Plans: what their digest covers, what moved between two, and what is left when a node is dropped."""

from __future__ import annotations

from typing import Any

from runbook_lib.plan import NodeState, Plan, moved

from . import plans
from .plans import node, phase

WAS = NodeState(gates={"a": False}, channel="testnet", binary="sha256:1", config="sha256:1")
BUILT = WAS.model_copy(update={"binary": "sha256:2"})
GATED = BUILT.model_copy(update={"gates": {"a": True}, "config": "sha256:3"})


def plan(**changes: Any) -> Plan:
    build = phase("i", "build", (node(name, WAS, BUILT) for name in ("n1", "n2")))
    both = (node(name, BUILT, GATED) for name in ("n1", "n2"))
    gates = phase("j", "gates", both, waves=(("n1", "n2"),))
    window = ("2026-01-01T00:00:00+00:00", "2026-01-01T08:00:00+00:00")
    facts = {"phases": (build, gates), "untouched": {"n3": WAS}, "window": window, **changes}
    return plans.plan(**facts)


def test_the_same_intent_has_one_digest() -> None:
    again = Plan.model_validate_json(plan().model_dump_json())
    assert plan().digest == plan().digest == again.digest
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
    first = phase("i", "build", (node("n1", WAS, BUILT), node("n2", other, other)))

    found = moved(plan(), plan(phases=(first, plan().phases[1])))

    assert ("n2", "its state before", "rollout.feature_gates.a=false, binary=sha256:1",
            "rollout.feature_gates.a=true, binary=sha256:2") in found  # fmt: skip
    assert moved(plan(), plan()) == []
    assert moved(plan(), plan(policy="sha256:q")) == [
        ("the plan", "policy", "sha256:p", "sha256:q")
    ]


def test_a_dropped_node_leaves_every_phase_and_the_digest_is_kept() -> None:
    left = plan().without("n1")

    assert left.nodes == ("n2",)
    assert [phase.waves for phase in left.phases] == [(("n2",),), (("n2",),)]
    assert left.untouched == {"n3": WAS, "n1": WAS}
    assert left.digest == left.without("n2").digest == plan().digest
