"""The world of the rehearsal: clock, clusters, events."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook_rehearsal.chain.node_config import CHANNELS
from runbook_rehearsal.chain.timeline import voting_power
from runbook_rehearsal.chain.world import Clock, Event, World, make_cluster, profile

ADDRESSES = [(f"127.1.3.{index}", 7070) for index in range(1, 8)]


def test_clock_runs_ahead_of_the_wall_by_its_offset(tmp_path: Path) -> None:
    """Advancing moves every later reading, also of another reader of the same file."""
    clock, other = Clock(tmp_path / "clock.json"), Clock(tmp_path / "clock.json")

    clock.advance(3600)
    clock.advance(60)

    assert other.offset == 3660


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_clock_never_goes_back(tmp_path: Path, seconds: float) -> None:
    """A negative or undefined step is refused and changes nothing."""
    clock = Clock(tmp_path / "clock.json")

    with pytest.raises(ValueError, match=r"^clock: the offset only grows: expected >= 0 s, got "):
        clock.advance(seconds)
    assert clock.offset == 0


def test_gates_only_turn_on_from_stage_to_stage() -> None:
    """Each profile holds every gate of the one before, and one more."""
    on = [{gate for gate, value in profile(stage).items() if value} for stage in CHANNELS]

    assert [len(gates) for gates in on] == [4, 5, 6, 7]
    assert on[0] < on[1] < on[2] < on[3]


@pytest.mark.parametrize("seed", range(8))
def test_canaries_hold_less_than_a_third_of_the_power(seed: int) -> None:
    """Whatever the seed, the two canaries of seven cannot stop the chain."""
    nodes = make_cluster("mainnet", ADDRESSES, seed, 0.0).nodes
    canaries = sum(voting_power(node) for node in nodes if node.canary)

    assert [node.name for node in nodes if node.canary] == ["main-1", "main-2"]
    assert canaries * 3 < sum(voting_power(node) for node in nodes)


def test_events_come_in_order(tmp_path: Path) -> None:
    """A cluster's are sorted by time."""
    world = World(tmp_path, 1, {"mainnet": make_cluster("mainnet", ADDRESSES, 1, 0.0)})
    late = Event(20.0, "mainnet", "", "fault-on", {"name": "consensus-stall"})
    early = Event(10.0, "mainnet", "main-1", "down")
    for event in (late, early, Event(5.0, "testnet", "test-2", "down")):
        world.append(event)

    assert world.events_of("mainnet") == [early, late]
