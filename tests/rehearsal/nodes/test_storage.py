"""The rehearsal's storage: nodes' data, and the commands of a storage recovery on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
