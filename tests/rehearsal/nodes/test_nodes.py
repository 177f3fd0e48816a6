"""The rehearsal's nodes: their data, what is staged for them, and their RPC."""

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


# --- what is staged for a rollback is kept young, but for what a fault broke ----------------------


def staged(visitor: Visitor, cluster: str) -> bytes:
    [folder] = visitor.site["clusters"][cluster]["rollback"]["snapshots"]
    [found] = Path(folder).iterdir()
    return (found / "bundle.json").read_bytes()


def test_a_backup_does_not_repair_what_a_fault_broke(visitor: Visitor) -> None:
    """Only clearing it does; the other clusters go on."""
    visitor.network.fault("snapshot-too-old@development")
    broken = staged(visitor, "development")
    other = staged(visitor, "testnet")
    visitor.network.fast_forward(3600)

    assert staged(visitor, "development") == broken
    assert staged(visitor, "testnet") != other
    visitor.network.clear("snapshot-too-old")
    healed = json.loads(staged(visitor, "development"))
    assert abs(healed["created_at"] - visitor.network.world.clock.now()) < 60


# --- the HTTP RPC: routes, shapes, token, rate limit ----------------------------------------------


@pytest.mark.parametrize("auth", ["", "Bearer wrong", "Basic eDp5", "wrong"])
@pytest.mark.parametrize("path", ["/health", "/status/node", "/no/such/route"])
def test_every_route_wants_the_token(visitor: Visitor, auth: str, path: str) -> None:
    """Health routes and unknown ones are no exception."""
    answer = visitor.rpc("dev-3", path, auth=auth)

    assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})


def test_bare_token_is_accepted(visitor: Visitor) -> None:
    """The scheme may be left out, as the chain allows."""
    answer = visitor.rpc("dev-1", "/health", auth=visitor.network.env["RPP_RPC_TOKEN"])

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/status", "/status/storage", "/consensus/validators", "/"])
def test_routes_the_chain_lacks_are_absent(visitor: Visitor, path: str) -> None:
    """Routes that the chain's documents mention and its router does not have."""
    assert visitor.rpc("dev-1", path).status_code == 404


def test_rate_limit_refuses_after_the_burst_and_refills(visitor: Visitor) -> None:
    """The 121st request at once is 429 and says when to come back; a minute brings 60 more."""
    answers = [visitor.rpc("dev-4", "/health") for _ in range(125)]
    refused = [answer for answer in answers if answer.status_code == 429]

    assert 1 <= len(refused) <= 5
    assert refused[0].json() == {"error": "rate limit exceeded"}
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].headers["x-ratelimit-limit"] == "120"
    assert refused[0].headers["x-ratelimit-remaining"] == "0"
    visitor.network.world.clock.advance(60)
    assert visitor.rpc("dev-4", "/health").headers["x-ratelimit-remaining"] == "59"
