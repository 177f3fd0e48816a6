"""Two of the canary's readiness items on a network: candidate installed, alerts active."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib import playbook
from runbook_lib.checks.alerts import alerts_active
from runbook_lib.checks.candidate import candidate_installed
from runbook_lib.context import Judge
from runbook_lib.outcomes import Outcome
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.stage import open_stage
from runbook_lib.verdicts import Verdict

from .faulting import ended, opened
from .servers import SERVERS

CHECKS = {check.item: check for check in (candidate_installed, alerts_active)}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    """Its canaries have been given the candidate by their operators."""
    root = tmp_path_factory.mktemp("canary-ready") / "network"
    sizes = {"development": 1, "testnet": 1}  # history and rules of those do not matter
    with (
        pytest.MonkeyPatch.context() as patch,
        RehearsalNetwork(root, servers=SERVERS, sizes=sizes, history_s=3600.0) as net,
    ):
        for name, value in net.env.items():
            patch.setenv(name, value)
        net.install_candidate()
        yield net


def run(network: RehearsalNetwork, *checks: Judge) -> tuple[Verdict, Path]:
    """The preflight's runbook for the canary stage, declaring these checks alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(playbook.DECLARED, "preflight", tuple(check.item for check in checks))
        stage = opened(network, "preflight", stage="canary")
        for check in checks:
            stage.check(check)
        return ended(stage)


def test_without_a_fault_both_pass_and_a_replay_says_the_same(
    network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alerts named are those we ship; offline, promtool is not asked again."""
    verdict, folder = run(network, *CHECKS.values())

    assert verdict.outcome is Outcome.PASS
    candidate, alerts = (item.result for item in verdict.items)
    assert candidate is not None
    assert [(row.subject, row.what) for row in candidate.rows] == [
        (name, what)
        for name in ("main-1", "main-2")
        for what in ("binary", "dry run of its configuration")
    ]
    assert alerts is not None
    proofs = {(r.subject, r.what): r.observed for r in alerts.rows if r.what.startswith("alert ")}
    assert proofs == {
        (
            "reward distribution",
            "alert when it stops",
        ): "RewardDistributionStalled (critical) fires",
        (
            "reward distribution",
            "alert when it vanishes (absent guard)",
        ): "RewardDistributionAbsent (critical) fires",
        ("witness gossip", "alert when it stops"): "WitnessGossipSilent (critical) fires",
        (
            "witness gossip",
            "alert when it vanishes (absent guard)",
        ): "WitnessGossipAbsent (critical) fires",
    }

    monkeypatch.setenv("RUNBOOK_REPLAY", str(folder))
    monkeypatch.setenv("RUNBOOK_REPLAY_OK", "1")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(playbook.DECLARED, "preflight", tuple(CHECKS))
    replay = open_stage("preflight", **STAGE_PARAMS["preflight"]().model_dump())
    for check in CHECKS.values():
        replay.check(check)
    again = replay.verdict()
    replay.close()
    assert [item.result for item in again.items] == [candidate, alerts]


def test_a_canarys_secrets_stay_out_of_the_attempt(network: RehearsalNetwork) -> None:
    """Its configuration is judged with them, and kept without."""
    config = (network.world.node_dir("mainnet", "main-1") / "config.toml").read_bytes()
    _, folder = run(network, candidate_installed)
    kept = (folder / "candidates" / "candidate-main-1.toml").read_bytes()

    assert b"rehearsal-throwaway" in config
    assert kept.count(b"\n") == config.count(b"\n")
    assert b"rehearsal-throwaway" not in kept
