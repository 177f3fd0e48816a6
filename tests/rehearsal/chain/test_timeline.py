"""The chain as a function of seed, events and time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runbook_rehearsal.chain.timeline import noise, quorum_of, state_at, voting_power
from runbook_rehearsal.chain.world import Event, World

from ..conftest import begun

GENESIS = 1_790_000_000.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return begun(tmp_path, GENESIS, "mainnet", nodes=7)


def happen(world: World, at: float, kind: str, node: str = "", **data: object) -> None:
    world.append(Event(GENESIS + at, "mainnet", node, kind, data))  # type: ignore[arg-type]


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
