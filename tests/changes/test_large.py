"""Plans of a large fleet: every node in exactly one wave of a phase, and nothing lost on the way."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.evidence.store import Store
from runbook_lib.params import PROJECT
from runbook_lib.rehearsal.large import LargeFleet
from runbook_lib.stage import _plan_card

NODES = 60


@pytest.fixture(scope="module")
def bench() -> Any:
    """The benchmark that times the same for 500 nodes."""
    spec = importlib.util.spec_from_file_location("bench_plan", PROJECT / "bench" / "plan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_large_plan_counts_every_node_once(bench: Any, tmp_path: Path) -> None:
    """Ours first, no wave of ours and operators', no wave above the limit; the card counts exactly."""
    fleet = LargeFleet(tmp_path / "fleet", NODES)
    bench.adopt(fleet, Store(bench.site_of(fleet).store_path))

    canary, _ = bench.planned(fleet, "canary")
    mainnet, _ = bench.planned(fleet, "mainnet")

    assert (len(canary.nodes), len(canary.untouched)) == (2, NODES - 2)
    assert (len(mainnet.nodes), len(mainnet.untouched)) == (NODES, 0)
    theirs = {node.name for node in fleet.cluster.nodes if node.operator}
    for phase in mainnet.phases:
        order = [name for wave in phase.waves for name in wave]
        assert Counter(order) == dict.fromkeys((node.name for node in fleet.cluster.nodes), 1)
        assert set(order[-len(theirs) :]) == theirs
        assert all(set(wave) <= theirs or not set(wave) & theirs for wave in phase.waves)
    changed = sum(len(node.changes()) for _, node in mainnet.changes())
    said = f"{changed} keys on {NODES} nodes will change"
    assert said in _plan_card(mainnet, (), ()).text
