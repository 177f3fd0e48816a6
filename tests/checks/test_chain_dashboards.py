"""The chain's own dashboards against a real Prometheus with the chain's own series."""

import os
from pathlib import Path

import pytest
import yaml

from runbook_lib import open_stage, playbook
from runbook_lib.checks import preflight
from runbook_lib.outcomes import Outcome
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.strict import parse_yaml
from runbook_rehearsal.network import RehearsalNetwork
from runbook_rehearsal.telemetry import processes

CHAIN = os.environ.get("RPP_CHAIN_DIR", "")
ITEM = "preflight.observability"
TOPICS = {
    "consensus_health": ["consensus_grafana.json", "pipeline_consensus_finality.json"],
    "proof_latency": ["pipeline_proof_validation.json", "consensus_proof_validation.json"],
    "vrf_participation": ["vrf_overview.json", "vrf_thresholds.json"],
    "network_churn": ["uptime_finality_correlation.json", "snapshot_resilience.json"],
}
pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not CHAIN, reason="RPP_CHAIN_DIR names no chain"),
    pytest.mark.skipif(processes.binary("prometheus") is None, reason="no prometheus on PATH"),
]


def test_panels_on_series_that_nothing_emits_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(playbook.DECLARED, "preflight", (ITEM,))
    with RehearsalNetwork(tmp_path / "network", servers="real") as network:
        for name, value in network.env.items():
            monkeypatch.setenv(name, value)
        site = yaml.safe_load(network.site.read_text())
        folder = Path(CHAIN) / "docs" / "dashboards"
        site["dashboards"]["topics"] = {
            topic: [str(folder / name) for name in names] for topic, names in TOPICS.items()
        }
        network.site.write_text(yaml.safe_dump(site))
        network.settle()
        file = network.params["preflight"]
        given = STAGE_PARAMS["preflight"]().model_dump() | parse_yaml(file.read_bytes(), file.name)
        stage = open_stage("preflight", given)
        stage.check(preflight.observability)
        [item] = stage.verdict().items
        stage.close()

    assert item.result is not None
    assert item.outcome is Outcome.INCONCLUSIVE
    silent = {
        (row.subject, str(row.observed).removeprefix("no data: nothing emits ").partition("{")[0])
        for row in item.result.rows
        if row.outcome is not Outcome.PASS
    }
    assert silent >= {
        ("Pipeline Consensus Finality: Finality Lag (slots)", "finality_lag_slots"),
        ("Pipeline Consensus Finality: Finalized Height Gap", "finalized_height_gap"),
        ("Uptime & Finality Correlation: Block Progress During Recovery", "chain_block_height"),
        ("Snapshot Resilience: Chaos Runs (7d)", "snapshot_chaos_runs_total"),
        # histograms asked as if they were gauges, or without the suffix that a collector adds
        ("VRF Overview: Pool Health", "rpp_crypto_vrf_selection_pool_entries"),
        ("VRF Thresholds: Current Threshold Ratio", "rpp_crypto_vrf_selection_threshold_ratio"),
        ("Consensus Proof Validation: VRF verification latency (p95)", "consensus_vrf_verification_time_ms_bucket"),
    }  # fmt: skip
    passed = {row.subject for row in item.result.rows if row.outcome is Outcome.PASS}
    assert passed >= {
        "Consensus Proof Validation: Quorum verification failures (5m)",
        "Pipeline Proof Validation: Verification Success Ratio by Circuit",
        "VRF Overview: Accepted vs Rejected Submissions",
    }
    assert {row.outcome for row in item.result.rows} == {Outcome.PASS, Outcome.INCONCLUSIVE}
