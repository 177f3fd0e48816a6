"""A node's series, and a history carried on over a wait: the one that laying it at once would make."""

import time
from pathlib import Path

import numpy as np
import pytest

from runbook_rehearsal.chain.world import HISTORY_S, Event, World
from runbook_rehearsal.telemetry import history as module
from runbook_rehearsal.telemetry.history import TOLD_INSTANTS, History
from runbook_rehearsal.telemetry.promql import evaluate
from runbook_rehearsal.telemetry.recorder import Recorder
from runbook_rehearsal.telemetry.rules import OWN_RULES, SHIPPED_RULES, read
from runbook_rehearsal.telemetry.tsdb import Series, Store

from ..conftest import begun, happening

HOUR = 3600


@pytest.fixture
def world(tmp_path: Path) -> World:
    return begun(tmp_path, time.time() - HISTORY_S, "mainnet")


def make(world: World, origin: float) -> History:
    return History(Recorder(world, origin), [*read(OWN_RULES), *read(SHIPPED_RULES)])


def happen(world: World, kind: str, node: str, **data: str) -> None:
    world.append(Event(world.clock.now(), "mainnet", node, kind, data))  # type: ignore[arg-type]


def series(store: Store) -> dict[tuple[tuple[str, str], ...], Series]:
    return {tuple(sorted(each.labels.items())): each for each in store}


def same(carried: Series, at_once: Series) -> None:
    """Equal at each instant that both have a sample of."""
    _, ours, theirs = np.intersect1d(carried.times, at_once.times, return_indices=True)
    mine, other = carried.values[ours], at_once.values[theirs]
    assert len(mine) > 0.9 * min(len(carried.times), len(at_once.times))
    np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1.1)


def test_a_wait_adds_what_lies_between(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node goes and comes back between waits; an alert fires before one and is still there."""
    clock = [time.time()]
    monkeypatch.setattr("runbook_rehearsal.chain.world.time.time", lambda: clock[0])
    origin = world.clock.now() - 6 * HOUR
    carried = make(world, origin)
    clock[0] += 1.0
    happen(world, "down", "main-2")
    carried.skip(HOUR)
    assert {alert.rule.name for alert in carried.engine.active.values()} > {"Watchdog"}
    firing = set(carried.engine.active)
    clock[0] += 1.0
    happen(world, "up", "main-2")
    clock[0] += 60.0
    carried.scrape()
    carried.skip(5 * HOUR)

    at_once = make(world, origin)

    assert carried.last == at_once.last == round(clock[0] * 1000)
    mine, other = series(carried.store), series(at_once.store)
    assert mine.keys() >= other.keys()
    for key, expected in other.items():
        if dict(key)["__name__"] not in ("ALERTS", "ALERTS_FOR_STATE"):
            same(mine[key], expected)
    fired = [
        each
        for each in carried.store.select("ALERTS", {})
        if each.labels["alertname"] != "Watchdog"
    ]
    before = carried.last - 5 * HOUR * 1000
    assert fired and all(each.times[0] < before for each in fired)
    assert firing - set(carried.engine.active)
    assert all(
        alert.since == at_once.engine.active[key].since
        for key, alert in carried.engine.active.items()
    )


def test_no_counter_falls_where_it_is_carried_on(world: World) -> None:
    """A rounding error between two tables of a counter would read as a restart of the node."""
    carried = make(world, world.clock.now() - 6 * HOUR)
    for _ in range(3):
        happen(world, "config", "main-1", gates={}, channel="mainnet")  # type: ignore[arg-type]
        carried.skip(900)

    counters = [
        each
        for each in carried.store
        if each.labels["__name__"].endswith(("_sum", "_count", "_total"))
    ]
    assert len(counters) > 100
    assert [each.labels for each in counters if (np.diff(each.values) < 0).any()] == []


def test_another_past_or_other_rules_are_laid_anew(world: World) -> None:
    history = make(world, world.clock.now() - HOUR)
    rules = history.engine.rules

    assert history.holds(list(rules))
    assert not history.holds(rules[1:])
    happen(world, "fault-on", "", name="consensus-stall")
    assert history.holds(rules)  # begins now
    happen(world, "fault-on", "", name="consensus-slow")
    assert not history.holds(rules)  # has been on for two hours


def test_told_instants_move_with_the_samples(world: World) -> None:
    """Values that are instants stay as far from their samples as they were."""
    history = make(world, world.clock.now() - HOUR)

    def ages() -> list[float]:
        return [
            float(each.times[0] / 1000.0 - each.values[0])
            for name in TOLD_INSTANTS
            for each in history.store.select(name, {})
        ]

    before = ages()
    history.skip(HOUR)

    assert before and ages() == pytest.approx(before, abs=1e-3)
    assert module.TOLD_INSTANTS[0] in {each.labels["__name__"] for each in history.store}


# --- the nodes' series: names, values, and what restarts, gates and faults do to them -------------


GENESIS = 4_000_000_000.0  # ahead of the wall: the clock only runs ahead
ORIGIN = GENESIS + 86_400
befall = happening("development", ORIGIN)
LENGTH_H = 4
ROUNDS = "rpp_runtime_consensus_round_duration_milliseconds"


@pytest.fixture
def grown(tmp_path: Path) -> World:
    return begun(tmp_path, GENESIS, "development")


def laid(grown: World, hours: float = LENGTH_H) -> Store:
    store = Store()
    Recorder(grown, ORIGIN).lay(store, np.arange(ORIGIN, ORIGIN + hours * 3600, 60.0))
    return store


def series_of(store: Store, name: str, node: str = "dev-1") -> Series:
    (found,) = store.select(name, {"instance": [lambda text: text == node]})
    return found


def last(store: Store, query: str) -> float:
    newest = max(int(each.times[-1]) for each in store)
    (row,) = [row for row in evaluate(store, query, np.array([newest])) if row.present[0]]
    return float(row.values[0])


def test_counters_only_fall_when_a_node_restarts(grown: World) -> None:
    """Down for ten minutes: no samples meanwhile, then counted from nothing."""
    befall(grown, 3600, "down", "dev-2")
    befall(grown, 4200, "up", "dev-2")
    store = laid(grown)

    for name in (f"{ROUNDS}_bucket", f"{ROUNDS}_sum", f"{ROUNDS}_count"):
        for each in store.select(name, {"instance": [lambda text: text == "dev-1"]}):
            assert (np.diff(each.values) >= 0).all()
    restarted = series_of(store, f"{ROUNDS}_count", "dev-2").samples()
    minutes = (restarted.times - restarted.times[0]) // 60_000
    assert minutes[np.flatnonzero(np.diff(restarted.values) < 0)].tolist() == [59]
    assert restarted.values[60] == 0
    assert (np.diff(minutes) > 1).nonzero()[0].tolist() == [59]
    up = series_of(store, "up", "dev-2").values[::6]  # scraped every ten seconds
    assert up.tolist() == [1.0] * 60 + [0.0] * 10 + [1.0] * (LENGTH_H * 60 - 70)


def test_a_stretch_laid_alone_carries_on_with_the_same_counters(grown: World) -> None:
    """Of minutes long past only those around a start are held, however long the chain stood still."""
    befall(grown, 1800, "down", "dev-2")
    befall(grown, 2000, "fault-on", name="consensus-stall")
    befall(grown, 6000, "up", "dev-2")
    befall(grown, 9000, "fault-off", name="consensus-stall")
    whole, alone, at = (
        laid(grown),
        Store(),
        np.arange(ORIGIN + 7200, ORIGIN + LENGTH_H * 3600, 60.0),
    )
    Recorder(grown, ORIGIN).lay(alone, at)

    for one in alone:
        (other,) = whole.select(
            one.labels["__name__"],
            {name: [value.__eq__] for name, value in one.labels.items()},
        )
        same = other.between(int(one.times[0]), int(one.times[-1])).samples()
        if one.labels["__name__"] != "up":
            assert np.allclose(one.samples().values, same.values, rtol=1e-12), one.labels
