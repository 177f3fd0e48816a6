"""Gates by the plan: what a stage turns on is on afterwards, whatever the bundle says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook_lib.changes.plan import Plan
from runbook_lib.changes.state import NodeState
from runbook_lib.checks import testnet
from runbook_lib.checks.activation_proof import judge_proof
from runbook_lib.outcomes import Outcome

from ..changes import plans
from ..changes.plans import node, phase
from .conftest import Bare, Bench

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
MALACHITE, REWARDS, ITEM = "malachite_consensus", "timetoke_rewards", "testnet.activate.gate"


def state(**gates: bool) -> NodeState:
    return NodeState(gates=gates, channel="testnet", binary="sha256:b", config="sha256:c")


def plan(before: dict[str, bool], after: dict[str, bool]) -> Plan:
    return plans.plan(phase(ITEM, "gates", [node("n", state(**before), state(**after))]))


@pytest.mark.parametrize(
    ("before", "after", "outcome", "reason"),
    [
        ({MALACHITE: False}, {MALACHITE: True}, PASS, f"1 nodes: {MALACHITE} only; rewards and witness networking stay off"),
        ({MALACHITE: True}, {MALACHITE: True}, PASS, f"1 nodes: {MALACHITE} only; rewards and witness networking stay off"),
        ({MALACHITE: False}, {MALACHITE: False}, FAIL, f"n: rollout.feature_gates.{MALACHITE}: expected true, got false"),
        ({MALACHITE: True}, {MALACHITE: False}, FAIL, f"n: rollout.feature_gates.{MALACHITE}: expected true, got false"),
        ({}, {}, FAIL, f"n: rollout.feature_gates.{MALACHITE}: expected true, got false"),
        ({MALACHITE: True, REWARDS: True}, {MALACHITE: True, REWARDS: True}, FAIL, f"n: rollout.feature_gates.{REWARDS}: expected false, got true"),
    ],
)  # fmt: skip
def test_testnet_ends_with_its_gate_on_and_the_others_off(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, bool],
    after: dict[str, bool],
    outcome: Outcome,
    reason: str,
) -> None:
    monkeypatch.setattr(testnet, "plan", lambda context, keep: plan(before, after))

    found = bench.judge(testnet.gates, "testnet")

    assert (found.outcome, found.reason) == (outcome, reason)


def test_a_gate_that_the_change_turns_on_nowhere_has_no_effect_to_prove() -> None:
    at = datetime(2026, 12, 1, 12, tzinfo=UTC)
    context: Any = Bare(plan=plan({}, {}), now=at)

    judge_proof(context, ITEM, REWARDS, at - timedelta(hours=1))
    [found] = context.findings

    assert (found.subject, found.what, found.observed, found.outcome) == (
        REWARDS,
        "effect",
        "none by the plan",
        INCONCLUSIVE,
    )
