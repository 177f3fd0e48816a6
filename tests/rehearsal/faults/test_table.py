"""Faults: named, declared, switched on and undone."""

import re

import pytest

from runbook_lib import playbook
from runbook_rehearsal.chain.world import STAGE_CLUSTERS
from runbook_rehearsal.faults.effects import EFFECTS
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


@pytest.mark.parametrize("name", EFFECTS)
def test_a_cleared_fault_leaves_no_trace(visitor: Visitor, name: str) -> None:
    """Files, running nodes and checkout are as before."""
    network = visitor.network

    def picture() -> object:
        files = sorted(network.root.glob("clusters/*/*/config.toml"))
        running = {name: (node.config, node.build) for name, node in network.fleet.running.items()}
        return [path.read_text() for path in files], running, list(network.faults)

    before = picture()
    network.fault(f"{name}@development")
    assert [active.name for active in network.faults] == [name]
    network.clear(name)

    assert picture() == before


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

    assert list(visitor.network.faults) == []
