"""The nodes' series: names, values, and what restarts, gates and faults do to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runbook_rehearsal.chain.world import Event, World
from runbook_rehearsal.telemetry.promql import evaluate
from runbook_rehearsal.telemetry.recorder import Recorder
from runbook_rehearsal.telemetry.tsdb import Series, Store

from ..conftest import begun

GENESIS = 4_000_000_000.0  # ahead of the wall: the clock only runs ahead
ORIGIN = GENESIS + 86_400
HOURS = 4
ROUNDS = "rpp_runtime_consensus_round_duration_milliseconds"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return begun(tmp_path, GENESIS, "development")


def happen(world: World, at: float, kind: str, node: str = "", **data: object) -> None:
    world.append(Event(ORIGIN + at, "development", node, kind, data))  # type: ignore[arg-type]


def laid(world: World, hours: float = HOURS) -> Store:
    store = Store()
    Recorder(world, ORIGIN).lay(store, np.arange(ORIGIN, ORIGIN + hours * 3600, 60.0))
    return store


def series(store: Store, name: str, node: str = "dev-1") -> Series:
    (found,) = store.select(name, {"instance": [lambda text: text == node]})
    return found


def last(store: Store, query: str) -> float:
    newest = max(int(each.times[-1]) for each in store)
    (row,) = [row for row in evaluate(store, query, np.array([newest])) if row.present[0]]
    return float(row.values[0])


def test_counters_only_fall_when_a_node_restarts(world: World) -> None:
    """Down for ten minutes: no samples meanwhile, then counted from nothing."""
    happen(world, 3600, "down", "dev-2")
    happen(world, 4200, "up", "dev-2")
    store = laid(world)

    for name in (f"{ROUNDS}_bucket", f"{ROUNDS}_sum", f"{ROUNDS}_count"):
        for each in store.select(name, {"instance": [lambda text: text == "dev-1"]}):
            assert (np.diff(each.values) >= 0).all()
    restarted = series(store, f"{ROUNDS}_count", "dev-2").samples()
    minutes = (restarted.times - restarted.times[0]) // 60_000
    assert minutes[np.flatnonzero(np.diff(restarted.values) < 0)].tolist() == [59]
    assert restarted.values[60] == 0
    assert (np.diff(minutes) > 1).nonzero()[0].tolist() == [59]
    up = series(store, "up", "dev-2").values[::6]  # scraped every ten seconds
    assert up.tolist() == [1.0] * 60 + [0.0] * 10 + [1.0] * (HOURS * 60 - 70)


def test_a_stretch_laid_alone_carries_on_with_the_same_counters(world: World) -> None:
    """Of minutes long past only those around a start are held, however long the chain stood still."""
    happen(world, 1800, "down", "dev-2")
    happen(world, 2000, "fault-on", name="consensus-stall")
    happen(world, 6000, "up", "dev-2")
    happen(world, 9000, "fault-off", name="consensus-stall")
    whole, alone, at = laid(world), Store(), np.arange(ORIGIN + 7200, ORIGIN + HOURS * 3600, 60.0)
    Recorder(world, ORIGIN).lay(alone, at)

    for one in alone:
        (other,) = whole.select(
            one.labels["__name__"],
            {name: [value.__eq__] for name, value in one.labels.items()},
        )
        same = other.between(int(one.times[0]), int(one.times[-1])).samples()
        if one.labels["__name__"] != "up":
            assert np.allclose(one.samples().values, same.values, rtol=1e-12), one.labels
