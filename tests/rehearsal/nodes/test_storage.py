"""The rehearsal's storage: nodes' data, and the commands of a storage recovery on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_rehearsal.network import RehearsalNetwork
from runbook_rehearsal.nodes import storage

from ..conftest import Visitor

LABEL = "v1.4.0-development-1"


class Node:
    """A node of the shared network, and the site's commands on it."""

    def __init__(self, visitor: Visitor, name: str = "dev-3") -> None:
        self.visitor, self.network, self.name = visitor, visitor.network, name
        self.home = self.network.world.node_dir("development", name)

    def do(self, purpose: str, **values: Any) -> Any:
        values = {"bundle": self.bundle, "label": LABEL, "height": "0", **values}
        return self.visitor.command(purpose, node=self.name, **values)

    def said(self, purpose: str, **values: Any) -> dict[str, Any]:
        done = self.do(purpose, **values)
        assert (done.returncode, done.stderr) == (0, "")
        return dict(json.loads(done.stdout))

    @property
    def bundle(self) -> Path:
        return self.network.assets.bundle("development")

    def picture(self, folder: str = "data") -> dict[str, bytes]:
        files = sorted(path for path in (self.home / folder).rglob("*") if path.is_file())
        return {
            path.relative_to(self.home / folder).as_posix(): path.read_bytes() for path in files
        }


@pytest.fixture
def node(visitor: Visitor) -> Iterator[Node]:
    visitor.network.assets.back_up("development")
    made = Node(visitor)
    yield made
    for active in list(visitor.network.faults):
        visitor.network.clear(active.name)
    visitor.network.reinstall("development")


def test_a_node_is_stopped_and_started(node: Node) -> None:
    """Both are done already when asked twice; what runs on it is as before."""
    assert node.said("stopped") == {"node": "dev-3", "stopped": False}
    for _ in range(2):
        assert node.said("stop") == {"node": "dev-3"}
    assert node.said("stopped") == {"node": "dev-3", "stopped": True}
    assert "dev-3" not in node.network.fleet.running
    for _ in range(2):
        assert node.said("start") == {"node": "dev-3"}
    assert "dev-3" in node.network.fleet.running


def test_a_storage_recovery_step_by_step(node: Node) -> None:
    """Kept aside, restored, replayed to the height before; twice is once, and nothing is lost."""
    node.said("stop")
    old = node.picture()
    assert {"state.json", "firewood.wal", "cf_meta/layout_version"} <= set(old)
    wal = node.said("inspect_wal")
    assert (wal["corrupt"], wal["problem"], wal["records"]) == (False, "", storage.RECORDS)
    assert node.said("verify_snapshot")["errors"] == []

    for _ in range(2):
        assert node.said("keep_data") == {"node": "dev-3", "kept": LABEL}
    assert node.picture(f"kept/{LABEL}") == old
    for _ in range(2):
        restored = node.said("restore_snapshot")
    assert node.said("keep_data")["kept"] == LABEL  # what was restored is no old data
    report = node.said("replay_proofs", height=str(wal["height"]))

    snapshot = json.loads((node.bundle / "bundle.json").read_text())
    assert (restored["height"], report["height"]) == (snapshot["height"], wal["height"])
    assert report["restored_root"] == report["expected_state_root"] == snapshot["state_root"]
    assert report["commitment_root"] == wal["state_root"]
    assert report["restored_matches_expected"] and report["pruning_proof_verified"]
    assert not report["wal_corruption_detected"]
    node.said("start")
    assert node.picture(f"kept/{LABEL}") == old


@pytest.mark.parametrize("purpose", ["keep_data", "restore_snapshot", "replay_proofs"])
def test_a_running_nodes_data_is_locked(node: Node, purpose: str) -> None:
    """Each command that would alter them refuses, and alters nothing."""
    before = node.picture()
    done = node.do(purpose)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "dev-3: the data are locked by a running node\n"
    assert node.picture() == before


def test_a_restore_needs_the_place_free(node: Node) -> None:
    """Data that were not kept aside are in the way; without a restore nothing is replayed."""
    node.said("stop")

    done = node.do("restore_snapshot")
    assert (done.returncode, done.stderr) == (
        1,
        "dev-3: data are in place: keep them aside first\n",
    )
    assert node.do("replay_proofs").stderr == "dev-3: nothing was restored here\n"
    node.said("keep_data")
    assert node.said("inspect_wal")["records"] == storage.RECORDS  # of what was kept
    assert node.do("keep_data", label="another").stderr == "dev-3: no data to keep\n"
    node.said("restore_snapshot")
    assert (
        "expected a record of height 7000000" in node.do("replay_proofs", height="7000000").stderr
    )


@pytest.mark.parametrize(
    ("fault", "code", "error"),
    [
        ("snapshot-verify-breaks", 1, "fatal: input/output error\n"),
        ("snapshot-forged-at-node", 2, "manifest signature is invalid\n"),
        ("snapshot-corrupt-at-node", 3, "checksum mismatch\n"),
        ("snapshot-chunk-corrupt", 3, "chunk chunk-00001.bin: checksum mismatch\n"),
        ("snapshot-chunk-missing", 3, "chunk chunk-00001.bin: checksum mismatch\n"),
        ("snapshot-forged", 2, "manifest signature is invalid\n"),
        ("snapshot-unsigned", 1, "fatal: [Errno 2] No such file or directory"),
    ],
)
def test_a_snapshot_is_verified_with_the_chains_exit_codes(
    node: Node, fault: str, code: int, error: str
) -> None:
    """1 fatal, 2 signature, 3 chunks, which outweigh the signature."""
    node.network.fault(f"{fault}@development/dev-3")
    done = node.do("verify_snapshot")

    assert done.returncode == code
    assert error in done.stderr


def test_a_node_without_data_does_not_start(node: Node) -> None:
    """Half a recovery must not pass for a whole one."""
    node.said("stop")
    node.said("keep_data")

    done = node.do("start")
    assert (done.returncode, done.stderr) == (
        3,
        "startup error: storage: no state to start from\n",
    )


def test_an_operators_node_is_the_operators(visitor: Visitor) -> None:
    """Nobody else stops it or touches its data."""
    done = visitor.command("stop", node="test-7")

    assert (done.returncode, "permission denied" in done.stderr) == (13, True)


def advances(network: RehearsalNetwork, visitor: Visitor, node: str) -> bool:
    before = visitor.rpc(node, "/status/node").json()["height"]
    network.world.clock.advance(60)
    return bool(visitor.rpc(node, "/status/node").json()["height"] > before + 1)


def test_a_halted_chain_goes_on_once_a_quorum_is_restored(visitor: Visitor) -> None:
    """Not one node less, and not by a mere restart."""
    network, fault = visitor.network, "chain-halt"
    network.assets.back_up("development")
    try:
        network.fault(f"{fault}@development")
        assert not advances(network, visitor, "dev-1")
        for number in range(1, 4):  # three of four are a quorum
            node = Node(visitor, f"dev-{number}")
            assert not advances(network, visitor, f"dev-{number}")
            node.said("stop")
            if number == 1:
                node.said("start")
                node.said("stop")
            node.said("keep_data")
            node.said("restore_snapshot")
            node.said("start")
            assert (fault in [one.name for one in network.faults]) is (number < 3)
        assert advances(network, visitor, "dev-1")
    finally:
        network.reinstall("development")
