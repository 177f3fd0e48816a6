"""A second release on clusters that have every gate: new builds, and not one gate to turn."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import canary, mainnet, testnet
from runbook_lib.checks.rollouts import rollout
from runbook_lib.evidence.log import Log
from runbook_lib.plan import Plan
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.network import RehearsalNetwork
from runbook_rehearsal.promote import Promotion
from runbook_rehearsal.rehearse import HISTORY_S, take_over

from .conftest import ended, finish, given, mutations, opened, practised

FIRST, SECOND = "v1.4.0", "v1.5.0"
DEPLOY, GATE = testnet.deploy.item, testnet.gate.item
PLANS: dict[str, Any] = {"testnet": testnet.plan, "canary": canary.plan, "mainnet": mainnet.plan}


# All nodes are ours: there are no operators to wait for.
@practised(telemetry=False, sizes={"development": 1, "testnet": 4, "mainnet": 4})
def network(net: RehearsalNetwork, patch: pytest.MonkeyPatch) -> None:
    """Where the first release has been everywhere, and the second has just been built."""
    for cluster in ("testnet", "mainnet"):
        finish(net, cluster)
        adopt(str(net.site), cluster, artifacts=[net.release.artifact])
    net.next_release(SECOND)
    net.install_candidate()


def plan_of(folder: Path) -> Plan:
    (found,) = [e for e in Log(folder / "log.jsonl").events() if e.kind == "plan"]
    return found.plan


def gates(plan: Plan) -> list[tuple[str, str]]:
    """The gates that a plan would turn: node and key."""
    return [
        (node.node, key)
        for _, node in plan.changes()
        for key, *_ in node.changes()
        if "feature_gates" in key
    ]


@pytest.mark.parametrize("stage", PLANS)
def test_a_second_release_turns_no_gate(network: RehearsalNetwork, stage: str) -> None:
    """Its build goes to every node that has it not; every phase leaves the gates as they are."""
    with opened(stage, given(network, stage, release=SECOND)) as made:
        made.plan(PLANS[stage])

    plan = plan_of(made.folder)

    assert gates(plan) == []
    assert all(node.before.gates == node.after.gates for p in plan.phases for node in p.nodes)
    moved = {(node.node, key) for _, node in plan.changes() for key, *_ in node.changes()}
    # Each node's build moves; on a canary, which has it, the channel of its file.
    nodes = network.world.clusters["testnet" if stage == "testnet" else "mainnet"].nodes
    keys = ("rollout.release_channel", "config") if stage == "canary" else ("binary",)
    mine = [node.name for node in nodes if node.canary or stage != "canary"]
    assert moved == {(name, key) for name in mine for key in keys}


def walk(network: RehearsalNetwork, **changes: Any) -> tuple[Verdict, Path]:
    with opened("testnet", given(network, "testnet", release=SECOND, **changes)) as stage:
        stage.plan(testnet.plan)
        # What is captured before and observed after needs telemetry, which this network has not.
        stage.change(rollout(DEPLOY, "{nodes} run the release"))
        stage.change(rollout(GATE, "{nodes} have the gate on"))
        return ended(stage)


def test_a_gate_that_is_on_already_is_verified_and_not_touched(
    network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its change makes no step: the journal holds what was read back of every node, twice."""
    monkeypatch.setitem(playbook.DECLARED, "testnet", (DEPLOY, GATE))
    monkeypatch.setitem(playbook.PLAN_BEFORE, "testnet", DEPLOY)
    params = given(network, "testnet")
    window = {key: params[key] for key in ("window_start", "window_end")}
    _, folder = walk(network, **window)
    digest = plan_of(folder).digest

    verdict, folder = walk(network, mode="apply", approved_plan=digest, **window)

    assert verdict.exit_code is ExitCode.PASSED, [item.reason for item in verdict.blocking]
    entries = Log(folder / "log.jsonl").events()
    states = {(e.item, e.node): e.state for e in entries if e.kind == "state"}
    steps = Counter(e.item for e in entries if e.kind == "step")
    everyone = [node.name for node in network.world.clusters["testnet"].nodes]
    assert set(states) == {(item, n) for item in (DEPLOY, GATE) for n in everyone}
    assert all(states[DEPLOY, n] == states[GATE, n] for n in everyone)
    assert all(states[GATE, n].gates["malachite_consensus"] for n in everyone)
    assert set(steps) == {DEPLOY}
    assert {entry.item for entry in mutations(folder)} == {DEPLOY}


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_two_releases_in_a_row_go_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both from development to mainnet, as a team carries them, on the same clusters."""
    with RehearsalNetwork(tmp_path / "network", history_s=HISTORY_S, team=True) as network:
        for name, value in network.env.items():
            monkeypatch.setenv(name, value)
        take_over(network)
        network.settle()
        told: list[str] = []
        for version in (FIRST, SECOND):
            if version != FIRST:
                network.next_release(version)
            runs = Promotion(network, told.append).carry()

            assert (runs[-1].stage, runs[-1].passed) == ("mainnet", True), told
            plans = {run.stage: plan_of(run.report.folder) for run in runs}
            turned = {stage for stage, plan in plans.items() if gates(plan)}
            assert turned == (set(PLANS) if version == FIRST else set())
