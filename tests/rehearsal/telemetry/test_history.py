"""A history that is carried on over a wait is the one that laying it at once would have made."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from runbook_rehearsal.chain.world import HISTORY_S, Event, World
from runbook_rehearsal.telemetry import history as module
from runbook_rehearsal.telemetry.history import TOLD_INSTANTS, History
from runbook_rehearsal.telemetry.recorder import Recorder
from runbook_rehearsal.telemetry.rules import OWN_RULES, SHIPPED_RULES, read
from runbook_rehearsal.telemetry.tsdb import Series, Store

from ..conftest import begun

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
