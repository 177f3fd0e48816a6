"""Every fault of the common preflight: the declared item notices, with the declared outcome."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import preflight
from runbook_lib.outcomes import Outcome
from runbook_lib.rehearsal.chain.world import STAGE_CLUSTERS
from runbook_lib.rehearsal.faults.table import FAULTS, Fault
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.sources.tape import mutations, read_entries
from runbook_lib.verdicts import Verdict

from .faulting import EXIT, cases, ended, opened, run_cell
from .servers import SERVERS

CHECKS = [item for item in preflight.RUNS if playbook.ITEMS[item].kind == "check"]
MINE = [f for f in FAULTS.values() if f.item in CHECKS and f.outcome != "PASS"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    root = tmp_path_factory.mktemp("preflight-faults") / "network"
    with pytest.MonkeyPatch.context() as patch, RehearsalNetwork(root, servers=SERVERS) as net:
        patch.setitem(playbook.DECLARED, "preflight", tuple(preflight.RUNS))
        for name, value in net.env.items():
            patch.setenv(name, value)
        yield net


def run(network: RehearsalNetwork, **changes: str) -> tuple[Verdict, Path]:
    """The preflight, cell by cell as its notebook has them; its verdict and folder."""
    stage = opened(network, "preflight", **changes)
    for item in playbook.DECLARED["preflight"]:
        run_cell(stage, preflight.RUNS[item])
    return ended(stage)


@pytest.mark.parametrize("fault", cases(MINE))
def test_a_fault_comes_to_its_declared_outcome(network: RehearsalNetwork, fault: Fault) -> None:
    """The declared item is the first that blocks; nothing was changed."""
    if SERVERS == "real" and fault.embedded:
        pytest.skip("a real server cannot be brought to it")
    adopt(str(network.site), STAGE_CLUSTERS[fault.stage])
    network.fault(f"{fault.name}@{fault.stage}")
    try:
        verdict, folder = run(network, stage=fault.stage)
    finally:
        network.clear(fault.name)

    items = {item.item: item for item in verdict.items}
    assert (items[fault.item].outcome.value, items[fault.item].state) == (fault.outcome, "judged")
    assert verdict.blocking[0].item == fault.item
    assert verdict.exit_code == EXIT[fault.outcome]
    assert mutations(read_entries(folder / "tape")) == []


def test_every_common_check_has_a_fault_for_each_way_it_can_block() -> None:
    """FAIL and INCONCLUSIVE both are rehearsed for every common check."""
    assert {(fault.item, fault.outcome) for fault in MINE} >= {
        (item, outcome) for item in CHECKS for outcome in ("FAIL", "INCONCLUSIVE")
    }


@pytest.mark.parametrize("stage", playbook.STAGES)
def test_without_a_fault_the_preflight_passes(network: RehearsalNetwork, stage: str) -> None:
    """The network on which every fault is noticed is a healthy one without them, for each stage."""
    adopt(str(network.site), STAGE_CLUSTERS[stage])

    verdict, _ = run(network, stage=stage)

    assert (verdict.outcome, verdict.mode) == (Outcome.PASS, "plan")
