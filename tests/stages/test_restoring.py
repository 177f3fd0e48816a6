"""Storage recovery on a rehearsal network: what it restores, refuses, resumes, and never touches."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.checks import recovery
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import not_passed
from .conftest import clear, enter, entries, given, held, opened

SIZES = {"development": 4, "testnet": 2, "mainnet": 5}
STEPS = [
    "verify-snapshot", "stop", "prove-stopped", "inspect-wal",
    "keep-aside", "restore", "replay-proofs", "start",
]  # fmt: skip
CHANGES = {
    "development": recovery.restore_state,
    "testnet": recovery.storage,
    "canary": recovery.halt_fallback,
    "mainnet": recovery.restore,
}
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@dataclass
class Site:
    """A network whose storage is recovered; each test has a release of its own."""

    network: RehearsalNetwork
    release: str

    def ours(self, stage: str) -> list[str]:
        cluster = {"canary": "mainnet"}.get(stage, stage)
        return [node.name for node in self.network.world.clusters[cluster].nodes]

    def recover(self, stage: str, **changes: Any) -> tuple[CheckResult, Path]:
        told = {"mode": "apply", "break_glass": "the storage is rehearsed"}
        told |= {"release": self.release, "nodes": self.ours(stage), **changes}
        runbook = f"{stage}_recovery"
        with opened(runbook, given(self.network, runbook, **told)) as made:
            made.change(CHANGES[stage])
            [item] = [i for i in made.verdict().items if i.item == CHANGES[stage].item]
            assert item.result is not None, item.reason
            return item.result, made.folder

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


network = held(RehearsalNetwork, telemetry=False, sizes=SIZES)
NUMBER = iter(range(1, 1000))


@pytest.fixture
def site(network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    enter(network, monkeypatch)
    for cluster in SIZES:
        network.assets.back_up(cluster)
    (network.root / "storage.jsonl").unlink(missing_ok=True)
    network.world.clock.advance(40)  # some blocks that the snapshot has not
    made = Site(network, f"v1.4.0-{next(NUMBER)}")
    yield made
    clear(network)
    for cluster in SIZES:
        network.reinstall(cluster)
    # Whatever broke: the data of a node that runs were never touched.
    assert not [one for one in made.touched if one["running"]]


def wrong(result: CheckResult) -> list[tuple[str, str]]:
    return not_passed(result.rows, "subject", "what")


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
    steps = [e for e in entries(folder) if e["kind"] == "step"]
    done = [step for step in steps if step["phase"] == "done"]
    assert [one["step"] for one in done if one["node"] == "dev-1"] == STEPS
    last_replay = max(i for i, one in enumerate(done) if one["step"] == "replay-proofs")
    assert all(i > last_replay for i, one in enumerate(done) if one["step"] == "start")


# --- not needed, undecided, together ----------------------------------------------------------------


def test_what_was_not_restored_is_judged_again_when_it_goes_on(site: Site) -> None:
    """A node nobody could look at at first is no sound one: it is named, and restored once seen."""
    site.network.fault("wal-corrupt@testnet/test-1")
    site.network.fleet.stop("test-2")
    site.network.fault("stopped-unreadable@testnet/test-2")
    silent = [("test-2", "follows its chain"), ("test-2", "write-ahead log")]
    first, _ = site.recover("testnet", nodes=[])
    assert set(silent) <= set(wrong(first))

    again = {"nodes": [], "attempt": 1, "retry_reason": "once more"}
    second, _ = site.recover("testnet", **again)
    assert (second.outcome is PASS, site.restores()) == (False, ["test-1"])
    assert set(silent) <= set(wrong(second))

    for name in ("stopped-unreadable", "wal-corrupt"):
        site.network.clear(name)
    site.network.fault("wal-corrupt@testnet/test-2")
    third, folder = site.recover("testnet", **again)
    assert (third.outcome, wrong(third)) == (PASS, [])
    assert third.reason == "2 nodes restored, state roots equal, following the chain"
    assert site.restores() == ["test-1", "test-2"]
    chosen = [e for e in entries(folder) if e["kind"] == "snapshot"]
    assert len(chosen) == 1

    fourth, _ = site.recover("testnet", **again)
    assert (fourth.outcome, site.restores()) == (PASS, ["test-1", "test-2"])


@pytest.mark.parametrize(
    ("fault", "subject", "what"),
    [
        ("node-down@canary/main-4", "main-4", "follows its chain"),
        ("snapshot-chunk-missing@canary", "", "chunk chunk-00001.bin"),
        ("snapshots-missing@canary", "snapshots", "readable"),
    ],
)
def test_what_is_not_disproved_is_no_reason_to_touch_data(
    site: Site, fault: str, subject: str, what: str
) -> None:
    """One silent node, or a bad snapshot, must not cost the others their data."""
    site.network.fault(fault)
    result, _ = site.recover("canary")

    assert result.outcome is (FAIL if "chunk" in fault else INCONCLUSIVE)
    [(found, row)] = wrong(result)
    assert (subject in found, row) == (True, what)
    assert site.touched == []


def test_nodes_that_are_down_are_no_halt(site: Site) -> None:
    """Half of the power is away: no block, but no restore would bring them back."""
    for name in ("main-2", "main-4", "main-5"):
        site.network.fleet.stop(name)
    result, _ = site.recover("canary")

    assert result.outcome is INCONCLUSIVE  # that it stands still proves nothing yet
    assert ("the chain", "power that is up") in wrong(result)
    assert site.touched == []


def test_a_node_that_somebody_started_is_not_touched(site: Site, tmp_path: Path) -> None:
    """Proven stopped once is not proven now: it is looked at before each command on its data."""
    site.network.fault("stopped-unreadable@development/dev-2")
    first, _ = site.recover("development", nodes=["dev-2"])
    assert first.outcome is INCONCLUSIVE
    site.network.clear("stopped-unreadable")
    site.network.start_node("dev-2")

    result, _ = site.recover("development", nodes=["dev-2"], attempt=1)

    assert wrong(result) == [("dev-2", "prove-stopped")]
    assert (result.outcome, site.touched) == (FAIL, [])


def test_a_silent_operator_is_waited_for(site: Site) -> None:
    """The chain goes on without its node, which stays behind: not yet due, until it is restored."""
    site.network.fault("chain-halt@mainnet")
    site.network.fault("operator-silent@mainnet/main-3")
    result, _ = site.recover("mainnet", takeover_minutes=4.0)

    assert result.outcome is INCONCLUSIVE
    assert wrong(result) == [("main-3", "follows its chain")]
    assert result.return_at is not None
    assert not [one for one in site.touched if one["node"] == "main-3"]

    site.network.clear("operator-silent")
    site.network.operators.settle()
    later, _ = site.recover("mainnet", attempt=1)
    assert (later.outcome, wrong(later)) == (PASS, [])
    assert sorted(site.restores()) == site.ours("mainnet")
