"""Every named fault against the stage it breaks: the declared item notices, with the declared outcome."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import development, preflight
from runbook_lib.outcomes import Outcome
from runbook_lib.rehearsal.faults.table import FAULTS, Fault
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.sources.tape import mutations, read_entries
from runbook_lib.verdicts import Verdict

from .faulting import EXIT, cases, ended, opened, run_cell
from .servers import SERVERS

DECLARED = playbook.DECLARED["development"]
MINE = [
    f
    for f in FAULTS.values()
    if f.item in DECLARED and f.item not in preflight.RUNS and f.outcome != "PASS"
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    with (
        pytest.MonkeyPatch.context() as patch,
        RehearsalNetwork(tmp_path_factory.mktemp("faults") / "network", servers=SERVERS) as net,
    ):
        for name, value in net.env.items():
            patch.setenv(name, value)
        yield net


CELLS = {
    **preflight.RUNS,
    "development.ready.ci-green": development.ci_green,
    "development.ready.telemetry-reachable": development.telemetry_reachable,
    "development.ready.provision": development.provision,
    "development.activate.deploy": development.deploy,
    "development.activate.smoke-suites": development.smoke_suites,
    "development.activate.baseline": development.baseline,
}


def run(network: RehearsalNetwork, fault: str = "") -> tuple[Verdict, Path]:
    """The development stage, cell by cell as its notebook has them; its verdict and folder.

    ``fault`` is switched on just before the cell of its item: the preflight would notice many.
    """
    stage = opened(network, "development")
    for item in DECLARED:
        if item == playbook.PLAN_BEFORE["development"]:
            stage.plan(development.plan)
        if fault and item == FAULTS[fault].item:
            network.fault(f"{fault}@development")
        run_cell(stage, CELLS[item])
    return ended(stage)


@pytest.mark.parametrize("fault", cases(MINE))
def test_a_fault_comes_to_its_declared_outcome(network: RehearsalNetwork, fault: Fault) -> None:
    """The declared item is the first that blocks, nothing after it is reached or changed."""
    network.reinstall("development")
    adopt(str(network.site), "development")
    try:
        verdict, folder = run(network, fault.name)
    finally:
        network.clear(fault.name)
        if fault.layer in ("chain", "telemetry"):
            network.fast_forward(7200)  # until nobody looks back at it any more

    items = {item.item: item for item in verdict.items}
    assert (items[fault.item].outcome.value, items[fault.item].state) == (fault.outcome, "judged")
    assert verdict.blocking[0].item == fault.item
    assert verdict.exit_code == EXIT[fault.outcome]
    later = DECLARED[DECLARED.index(fault.item) + 1 :]
    changes = [item for item in later if playbook.ITEMS[item].kind == "change"]
    if changes:
        after = [items[item].state for item in later[later.index(changes[0]) :]]
        assert set(after) == {"not-reached"}
    changed = {entry.item for entry in mutations(read_entries(folder / "tape"))}
    assert changed.isdisjoint(later)


def test_a_healthy_run_pins_a_baseline_with_its_load(network: RehearsalNetwork) -> None:
    """Without the load a later baseline could be compared with nothing."""
    adopt(str(network.site), "development")
    verdict, folder = run(network)

    [baseline] = [item for item in verdict.items if item.item == "development.activate.baseline"]
    assert baseline.result is not None
    assert verdict.exit_code == 0
    about = json.loads(pq.read_schema(folder / "metrics/baseline.parquet").metadata[b"baseline"])
    assert about == {name: baseline.result.data[name] for name in about}
    assert about["load"] == pytest.approx(0.8 * 18, rel=0.2)  # blocks/s of all nodes, 18 each


def test_every_declared_item_has_a_fault_for_each_way_it_can_block() -> None:
    """FAIL and INCONCLUSIVE both are rehearsed for every item of the stage."""
    assert {(fault.item, fault.outcome) for fault in MINE} >= {
        (item, outcome)
        for item in DECLARED
        if item not in preflight.RUNS
        for outcome in ("FAIL", "INCONCLUSIVE")
    }


def test_without_a_fault_the_stage_passes(network: RehearsalNetwork) -> None:
    """The network on which every fault is noticed is a healthy one without them."""
    adopt(str(network.site), "development")

    verdict, _ = run(network)

    assert verdict.outcome is Outcome.PASS
