"""A canary stage in one session, and mainnet's first question: are its canaries no worse?"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import canary, mainnet
from runbook_lib.evidence.ledger import Earlier, Ledger
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.site import read_site
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.network import RehearsalNetwork

from .conftest import alone, ended, given, opened, plan_digest, practising

ITEM, REWARDS = "mainnet.ready.no-regression", "canary.activate.rewards-gate"
DECLARED = (
    "canary.ready.candidate-installed", REWARDS, "canary.activate.observe",
    "canary.activate.witness-clients",
)  # fmt: skip


def walk(network: RehearsalNetwork, **params: Any) -> tuple[Verdict, Path]:
    with opened("canary", given(network, "canary", baseline_hours=11.0, **params)) as stage:
        stage.check(canary.candidate_installed)
        stage.plan(canary.plan)
        stage.change(canary.rewards_gate)
        stage.check(canary.observe)
        stage.change(canary.witness_clients)
        return ended(stage)


def judged(**params: Any) -> tuple[Verdict, CheckResult, Path]:
    return alone("mainnet", mainnet.no_regression, params)


def come_back(network: RehearsalNetwork, verdict: Verdict) -> None:
    """A minute later than it says."""
    assert verdict.return_at is not None
    network.fast_forward((verdict.return_at - network.now).total_seconds() + 60)


def test_quiet_metrics_need_more_epochs_and_then_pass(tmp_path: Path) -> None:
    """The first look says when to return; the second has enough. Each row tells what was judged."""
    sizes = {"development": 1, "testnet": 1}  # history of those does not matter
    with practising(tmp_path / "network", sizes=sizes) as (network, patch):
        patch.setitem(playbook.DECLARED, "canary", DECLARED)
        patch.setitem(playbook.PLAN_BEFORE, "canary", REWARDS)
        patch.setitem(playbook.DECLARED, "mainnet", (ITEM,))
        network.install_candidate()
        adopt(str(network.site), "mainnet", artifacts=[network.release.previous_artifact])
        begin, hour = network.now, timedelta(hours=1)
        window = {"window_start": begin - hour, "window_end": begin + 40 * hour}
        params = {name: at.isoformat() for name, at in window.items()}
        planned, folder = walk(network, mode="plan", **params)
        assert planned.exit_code is ExitCode.PASSED, planned.blocking
        apply = {**params, "mode": "apply", "approved_plan": plan_digest(folder)}
        carried, _ = walk(network, **apply)
        while carried.return_at is not None:
            come_back(network, carried)
            carried, _ = walk(network, attempt=carried.attempt, **apply)
        assert carried.exit_code is ExitCode.PASSED, carried.blocking
        name = f"v1.4.0/canary/{carried.attempt:04d}"
        policy = read_site(str(network.site)).policy_digest
        earlier = Earlier(stage="canary", attempt=carried.attempt, name=name, policy=policy)
        patch.setattr(Ledger, "earlier", lambda *given, **more: earlier)

        due, early, _ = judged(**given(network, "mainnet", **params))
        come_back(network, due)
        verdict, first, folder = judged(**given(network, "mainnet", **params))
        come_back(network, verdict)
        mine = given(network, "mainnet", **params, attempt=verdict.attempt)
        with pytest.MonkeyPatch.context() as without:
            without.setattr("runbook_lib.checks.regression._critical", lambda context: [])
            _, nothing, _ = judged(**mine)
        _, found, _ = judged(**mine)
        patch.setenv("RUNBOOK_REPLAY", str(folder))
        patch.setenv("RUNBOOK_REPLAY_OK", "1")
        _, again, _ = judged(**STAGE_PARAMS["mainnet"]().model_dump())

    assert (due.exit_code, early.outcome) == (ExitCode.WAITING, Outcome.INCONCLUSIVE)
    said = "mainnet: canaries with rewards on: expected at least 7 of 720 blocks, got 3 whole epochs since "
    assert early.reason.startswith(said)
    assert verdict.exit_code is ExitCode.WAITING, first.reason
    assert found.outcome is Outcome.PASS, found.reason
    assert (nothing.outcome, nothing.reason) == (
        Outcome.INCONCLUSIVE,
        "catalogue: critical metrics of the canaries: expected one or more, got none",
    )
    assert (first.data["look"], found.data["look"]) == (1, 3)
    assert found.data["start"] == first.data["start"]
    told = {(row.subject, row.what): row for row in found.rows}
    row = told["vote_latency main-1", "against the rest"]
    assert row.expected == "proven within +10 %"
    assert "proven less than 10.0% higher" in str(row.observed)
    for node in ("main-1", "main-2"):
        for what in ("against its own past", "against the rest"):
            assert (f"round_duration_by_node {node}", what) in told
    assert not any("main-3" in subject for subject, _ in told)
    assert again == found
