"""The world of the rehearsal: clock, clusters, events, and the chain that follows from them."""

from pathlib import Path

import numpy as np
import pytest

from runbook_rehearsal.chain.node_config import CHANNELS
from runbook_rehearsal.chain.timeline import noise, quorum_of, state_at, voting_power
from runbook_rehearsal.chain.world import Clock, Event, World, make_cluster, profile

from ..conftest import begun, happening

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


# --- the chain as a function of seed, events and time ---------------------------------------------


GENESIS = 1_790_000_000.0
happen = happening("mainnet", GENESIS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return begun(tmp_path, GENESIS, "mainnet", nodes=7)


def test_power_follows_the_chains_formula(world: World) -> None:
    """The powers add up to the total, and a quorum is two thirds of it, rounded up, plus one."""
    state = state_at(world, "mainnet", GENESIS + 3600)
    first = world.clusters["mainnet"].nodes[0]
    multiplier = round(first.reputation * 1000) + 1000

    assert voting_power(first) == first.stake * multiplier * (first.timetoke_hours + 1)
    assert sum(map(voting_power, world.clusters["mainnet"].nodes)) == state.total_power
    assert state.commit_power == state.total_power
    assert [quorum_of(power) for power in (899, 900, 901)] == [601, 601, 602]


def test_without_quorum_the_chain_stands(world: World) -> None:
    """Three of seven nodes down stop it; it goes on from where it stood."""
    for node in ("main-5", "main-6", "main-7"):
        happen(world, 1000, "down", node)
    happen(world, 2000, "up", "main-5")
    stalled = state_at(world, "mainnet", GENESIS + 1999)

    assert (stalled.height, stalled.quorum_reached, stalled.quorum_latency_ms) == (200, False, None)
    assert stalled.commit_power < stalled.quorum_threshold
    assert state_at(world, "mainnet", GENESIS + 2100).height == 220


def test_noise_depends_on_the_instant_alone() -> None:
    """Overlapping windows agree; the series keeps its variance and its memory."""
    whole = noise(1, "key", GENESIS + np.arange(0, 40_000 * 60.0, 60))
    part = noise(1, "key", GENESIS + np.arange(600.0, 6000.0, 60))

    assert np.array_equal(whole[10:100], part)
    assert whole.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(whole[1:], whole[:-1])[0, 1] == pytest.approx(0.6, abs=0.02)
    assert not np.array_equal(part, noise(2, "key", GENESIS + np.arange(600.0, 6000.0, 60)))
