"""Storage recovery on a rehearsal network: what it restores, refuses, resumes, and never touches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.checks import restoring
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.params import RecoveryParams
from runbook_lib.rehearsal.faults import FAULTS
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.stage import open_stage

SIZES = {"development": 4, "testnet": 2, "mainnet": 5}
CHANGES = {
    "development": restoring.restore_state,
    "testnet": restoring.storage,
    "canary": restoring.halt_fallback,
    "mainnet": restoring.restore,
}
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
pytestmark = pytest.mark.xdist_group("restoring")


@dataclass
class Site:
    """A network whose storage is recovered; each test has a release of its own."""

    network: RehearsalNetwork
    release: str

    def params(self, stage: str, **given: Any) -> dict[str, Any]:
        return {
            **RecoveryParams().model_dump(),
            "site": str(self.network.site),
            "release": self.release,
            "commit": self.network.release.commit,
            "mode": "apply",
            "break_glass": "the storage is rehearsed",
            "nodes": self.ours(stage),
            **given,
        }

    def ours(self, stage: str) -> list[str]:
        cluster = {"canary": "mainnet"}.get(stage, stage)
        return [node.name for node in self.network.world.clusters[cluster].nodes]

    def recover(self, stage: str, **given: Any) -> tuple[CheckResult, Path]:
        opened = open_stage(f"{stage}_recovery", **self.params(stage, **given))
        try:
            opened.change(CHANGES[stage])
            [item] = [i for i in opened.verdict().items if i.item == CHANGES[stage].item]
            assert item.result is not None, item.reason
            return item.result, opened.folder
        finally:
            opened.close()

    # --- what is there --------------------------------------------------------------------------

    @property
    def touched(self) -> list[dict[str, Any]]:
        """Every command on a node's data, in order."""
        path = self.network.root / "storage.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def restores(self) -> list[str]:
        return [one["node"] for one in self.touched if one["verb"] == "restore-snapshot"]

    def data(self, node: str) -> Path:
        cluster = self.network.fleet.spec(node).cluster
        return self.network.world.node_dir(cluster, node) / "data"

    def kept(self, node: str) -> list[str]:
        folder = self.data(node).with_name("kept")
        return sorted(path.name for path in folder.glob("*"))

    def up(self, stage: str) -> list[str]:
        return [name for name in self.ours(stage) if name in self.network.fleet.running]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    root = tmp_path_factory.mktemp("restoring") / "network"
    with RehearsalNetwork(root, telemetry=False, sizes=SIZES) as made:
        yield made


NUMBER = iter(range(1, 1000))


@pytest.fixture
def site(network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name, value in network.env.items():
        monkeypatch.setenv(name, value)
    for cluster in SIZES:
        network.assets.back_up(cluster)
    (network.root / "storage.jsonl").unlink(missing_ok=True)
    network.world.clock.advance(40)  # some blocks that the snapshot has not
    made = Site(network, f"v1.4.0-{next(NUMBER)}")
    yield made
    for active in list(network.faults):
        network.clear(active.name)
    for cluster in SIZES:
        network.reinstall(cluster)
    # Whatever broke: the data of a node that runs were never touched.
    assert not [one for one in made.touched if one["running"]]


def seen(result: CheckResult) -> list[tuple[str, str, Outcome]]:
    return [(row.subject, row.what, row.outcome) for row in result.rows]


def wrong(result: CheckResult) -> list[tuple[str, str, str]]:
    return [
        (row.subject, row.what, str(row.observed)) for row in result.rows if row.outcome is not PASS
    ]


def test_development_goes_back_and_replays_what_was_finalized(site: Site) -> None:
    """Every node: old data kept, log replayed to the height all had, roots equal, then started."""
    snapshot = json.loads((site.network.assets.bundle("development") / "bundle.json").read_text())
    result, folder = site.recover("development")

    assert (result.outcome, wrong(result)) == (PASS, [])
    assert result.reason == "4 nodes restored, state roots equal, following the chain"
    replayed = {row.observed for row in result.rows if row.what == "replayed to"}
    assert len(replayed) == 1 and min(replayed) > snapshot["height"]
    assert site.up("development") == site.ours("development")
    label = f"{site.release}-development-{snapshot['height']}"
    assert [site.kept(name) for name in site.ours("development")] == [[label]] * 4
    record = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    done = [e["body"] for e in record if e["kind"] == "step" and e["body"]["phase"] == "done"]
    assert [one["step"] for one in done if one["node"] == "dev-1"] == [
        "verify-snapshot", "stop", "prove-stopped", "inspect-wal",
        "keep-aside", "restore", "replay-proofs", "start",
    ]  # fmt: skip
    last_replay = max(i for i, one in enumerate(done) if one["step"] == "replay-proofs")
    assert all(i > last_replay for i, one in enumerate(done) if one["step"] == "start")


FAULTED = {
    # fault: (subject, what, in words), for what is not a PASS
    "wal-corrupt": None,
    "chain-halt": None,
    "node-will-not-stop": ("dev-2", "prove-stopped", "still answers; its data are untouched"),
    "node-half-stopped": ("dev-2", "prove-stopped", "its process is still there"),
    "node-will-not-start": ("dev-2", "start", "exit 3: startup error: p2p listener"),
    "stop-fails": ("dev-2", "stop", "exit 5: dev-2: systemctl: job timed out"),
    "stopped-unreadable": ("dev-2", "prove-stopped", "connection reset by peer"),
    "snapshot-corrupt-at-node": ("test-2", "snapshot as the node has it", "chunks do not match"),
    "snapshot-forged-at-node": ("test-2", "snapshot as the node has it", "signature invalid"),
    "snapshot-verify-breaks": ("test-2", "snapshot as the node has it", "exit 1"),
    "restore-command-fails": ("main-1", "restore", "exit 11: main-1: no space left"),
    "wal-unreadable": ("main-1", "inspect-wal", "firewood.wal: input/output"),
    "wrong-state-root": ("main-2", "restored state root", "0000000000000000"),
    "proof-replay-fails": ("main-2", "pruning proofs", "not verified"),
    "replay-unreadable": ("main-2", "replay", "expected"),
}
HALTS = ("canary.recover.halt-fallback", "mainnet.recover.restore")


EVERYDAY = {
    "wal-corrupt", "node-will-not-stop", "stopped-unreadable", "snapshot-corrupt-at-node",
    "snapshot-verify-breaks", "chain-halt", "wrong-state-root", "replay-unreadable",
}  # fmt: skip
"""One of each outcome of each item; the others are tortured."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in EVERYDAY else pytest.mark.torture) for n in FAULTED],
)
def test_a_fault_has_its_declared_outcome(site: Site, name: str) -> None:
    """It is the node's alone: the others are restored all the same, and it is not started."""
    fault, expected = FAULTS[name], FAULTED[name]
    stage = fault.item.split(".")[0]
    if fault.item in HALTS and name != "chain-halt":
        site.network.fault(f"chain-halt@{stage}")
    site.network.fault(f"{name}@{stage}" + ("/main-2" if stage == "mainnet" else ""))

    result, _ = site.recover(stage)

    assert result.outcome is Outcome(fault.outcome), wrong(result)
    if expected is None:
        assert wrong(result) == []
        return
    node, what, words = expected
    [(subject, found, observed)] = wrong(result)
    assert (subject, found) == (node, what)
    assert words in observed
    running = node in site.network.fleet.running
    assert running is (name in ("node-will-not-stop", "stop-fails") or stage == "testnet")
    others = [one for one in site.ours(stage) if one != node]
    assert [one for one in site.up(stage) if one != node] == others
    assert sorted(site.restores()) == (
        [] if stage == "testnet" else sorted(others + ([node] if name in RESTORED else []))
    )


RESTORED = (
    "node-will-not-start", "wrong-state-root", "proof-replay-fails", "replay-unreadable",
)  # fmt: skip
