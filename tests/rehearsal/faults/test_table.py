"""Faults: named, declared, switched on and undone."""

from __future__ import annotations

import re

import pytest

from runbook_lib import playbook
from runbook_rehearsal.chain.world import STAGE_CLUSTERS
from runbook_rehearsal.faults.table import FAULTS

from ..conftest import Visitor


def test_every_fault_belongs_to_an_item_of_the_playbook() -> None:
    """So that a test can ask for its declared outcome."""
    assert {item for fault in FAULTS.values() for item in fault.items} == set(playbook.ITEMS)


@pytest.mark.parametrize(
    ("fault", "stage", "so"),
    [
        ("vrf-low", "development", True),
        ("vrf-low", "testnet", False),
        ("gossip-slow", "testnet", True),
        ("page-during-soak", "testnet", False),
        ("slashing", "canary", True),
        ("rewards-stall", "mainnet", True),
        ("canary-slow", "mainnet", False),
    ],
)
def test_what_a_change_is_to_bring_comes_with_it(fault: str, stage: str, so: bool) -> None:
    """At a stage with an item that looks back at its change; elsewhere from the start on."""
    assert FAULTS[fault].comes_with_change(stage) is so


@pytest.mark.parametrize("item", playbook.ITEMS)
def test_every_item_can_fail_and_be_inconclusive(item: str) -> None:
    """An item that no fault turns red is a gate that cannot fail."""
    outcomes = {fault.outcome for fault in FAULTS.values() if item in fault.items}

    assert {"FAIL", "INCONCLUSIVE"} <= outcomes


@pytest.mark.parametrize("name", FAULTS)
def test_a_cleared_fault_leaves_no_trace(visitor: Visitor, name: str) -> None:
    """Files, running nodes and checkout are as before."""
    network = visitor.network

    def picture() -> object:
        files = sorted(network.root.glob("clusters/*/*/config.toml"))
        running = {name: (node.config, node.build) for name, node in network.fleet.running.items()}
        return [path.read_text() for path in files], running, network.state()["faults"]

    before = picture()
    network.fault(f"{name}@development")
    assert network.state()["faults"] == [f"{name}@development"]
    assert [path.name.split(".")[0] for path in (network.root / "faults").iterdir()] == [name]
    network.clear(name)

    assert picture() == before


@pytest.mark.parametrize(
    ("fault", "gates", "channel"),
    [("gate-flipped", True, "development"), ("channel-wrong", False, "testnet")],
)
def test_drift_faults_reach_the_running_node(
    visitor: Visitor, fault: str, gates: bool, channel: str
) -> None:
    """The node was restarted on the edited file."""
    visitor.network.fault(f"{fault}@development")
    rollout = visitor.rpc("dev-2", "/status/rollout").json()

    assert rollout["feature_gates"]["timetoke_rewards"] is gates
    assert rollout["release_channel"] == channel


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("config-edited", ""),
        (
            "extra-config-key",
            "configuration error: unknown configuration key(s): network.p2p.gossip_fanout\n",
        ),
    ],
)
def test_edited_files_do_not_reach_the_running_node(
    visitor: Visitor, fault: str, said: str
) -> None:
    """Only the file differs, and the dry run refuses it when a key is unknown."""
    path = visitor.network.world.node_dir("development", "dev-2") / "config.toml"
    before, text = visitor.rpc("dev-2", "/status/rollout").json(), path.read_text()
    visitor.network.fault(f"{fault}@development")

    assert path.read_text() != text
    assert visitor.rpc("dev-2", "/status/rollout").json() == before
    assert visitor.command("dry_run", config=path).stderr == said


def test_faults_of_the_chain_are_events(visitor: Visitor) -> None:
    """Telemetry and chain read them with their times."""
    visitor.network.fault("consensus-stall@canary")
    visitor.network.clear("consensus-stall")
    on, off = visitor.network.world.events[-2:]

    assert (on.kind, on.cluster, on.node, on.data) == (
        "fault-on",
        "mainnet",
        "",
        {"name": "consensus-stall"},
    )
    assert (off.kind, off.at >= on.at) == ("fault-off", True)


def test_a_stall_stops_the_chain(visitor: Visitor) -> None:
    """No block in an hour, no quorum."""
    visitor.network.fault("consensus-stall@testnet")
    before = visitor.rpc("test-1", "/status/consensus").json()
    visitor.network.world.clock.advance(3600)

    after = visitor.rpc("test-1", "/status/consensus").json()
    assert after["height"] - before["height"] in (0, 1)
    assert (after["quorum_reached"], after["commit_power"]) == (False, "0")


def test_a_fault_is_switched_on_once(visitor: Visitor) -> None:
    """On another node it would leave the first one broken."""
    visitor.network.fault("gate-flipped@development/dev-1")

    with pytest.raises(ValueError, match=r"expected one that is off; clear it first$"):
        visitor.network.fault("gate-flipped@development/dev-2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope@development", "got 'nope'"),
        (
            "rpc-500@staging",
            f"fault 'rpc-500@staging': expected NAME@{'|'.join(STAGE_CLUSTERS)}, got 'staging'",
        ),
        (
            "rpc-500@development/dev-9",
            "'rpc-500@development/dev-9': expected one of dev-1, dev-2, dev-3, dev-4, got 'dev-9'",
        ),
    ],
)
def test_unknown_faults_are_refused(visitor: Visitor, text: str, message: str) -> None:
    """The message lists what there is, and nothing is switched on."""
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        visitor.network.fault(text)

    assert visitor.network.state()["faults"] == []
