"""The witness gate on every node of mainnet: the profile and its traffic are what proves it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from runbook_lib import opening, playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import mainnet
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.rehearsal.faults.table import FAULTS, Fault
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.stage import Stage, open_stage

from .promoting import RELEASE, SIZES, lines, result, tries
from .servers import SERVERS

ITEM = mainnet.witness_gate.item
SILENT = {"rewards-stall": "reward_distribution", "witness-silent": "witness_gossip"}
GATE = {"rewards-stall": "timetoke_rewards", "witness-silent": "witness_network"}
MINE = [fault for fault in FAULTS.values() if ITEM in fault.also and fault.name in SILENT]
NODES = [f"main-{number}" for number in range(1, 8)]


@dataclass
class Activation:
    """One apply on mainnet, tried as often as a test wants."""

    network: RehearsalNetwork
    given: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def opened(self, **given: Any) -> Iterator[Stage]:
        params = {
            **STAGE_PARAMS["mainnet"]().model_dump(),
            "site": str(self.network.site),
            "release": RELEASE,
            "commit": self.network.release.commit,
            "baseline_hours": 11.0,
            **self.given,
            **given,
        }
        stage = open_stage("mainnet", **params)
        try:
            yield stage
        finally:
            stage.close()

    def plan(self) -> None:
        now = datetime.fromtimestamp(self.network.world.clock.now(), UTC)
        window = {
            "window_start": (now - timedelta(hours=1)).isoformat(),
            "window_end": (now + timedelta(hours=40)).isoformat(),
        }
        with self.opened(mode="plan", **window) as stage:
            stage.plan(mainnet.plan)
            found = [e["body"]["digest"] for e in lines(stage.folder) if e["kind"] == "plan"]
        self.given = {**window, "mode": "apply", "approved_plan": found[0], "wait": True}

    def tried(self, fault: str = "") -> CheckResult:
        """What one more try comes to while the network has ``fault``."""
        with self.opened(retry_reason=f"rehearsing {fault or 'nothing'}") as stage:
            self.given["attempt"] = stage.verdict().attempt
            stage.plan(mainnet.plan)
            before = tries(stage.folder, ITEM)
            if fault:
                self.network.fault(fault)
            try:
                while tries(stage.folder, ITEM) == before:
                    stage.change(mainnet.witness_gate)
            finally:
                if fault:
                    self.network.clear(fault)
            return result(stage.verdict(), ITEM)


@pytest.fixture(scope="module")
def activation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Activation]:
    """Made and proven once; proposals are frozen, as the announcement leaves them."""
    root = tmp_path_factory.mktemp("mainnet") / "network"
    with (
        pytest.MonkeyPatch.context() as patch,
        RehearsalNetwork(root, servers=SERVERS, sizes=SIZES) as network,
    ):
        for name, value in network.env.items():
            patch.setenv(name, value)
        patch.setitem(playbook.DECLARED, "mainnet", (ITEM,))
        patch.setitem(playbook.PLAN_BEFORE, "mainnet", ITEM)
        patch.setattr(opening, "require_order", lambda *given: None)
        network.install_candidate()
        adopt(str(network.site), "mainnet")
        argv = yaml.safe_load(network.site.read_text())["commands"]["freeze_proposals"]["argv"]
        subprocess.run([word.format(release=RELEASE) for word in argv], check=True)
        made = Activation(network)
        made.plan()
        yield made


def test_every_node_has_the_profile_and_its_traffic(activation: Activation) -> None:
    """Both gates on every node, each seen at work; nothing is left to compare with."""
    found = activation.tried()
    assert found.outcome is Outcome.PASS, found.reason
    last = [(row.subject, row.what.partition(",")[0]) for row in found.rows][-23:]
    assert last == [
        *((name, "profile and channel") for name in NODES),
        *((name, "reward_distribution") for name in NODES),
        ("timetoke_rewards", "negative control"),
        *((name, "witness_gossip") for name in NODES),
        ("witness_network", "negative control"),
    ]


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in MINE])
def test_a_fault_comes_to_its_declared_outcome(activation: Activation, fault: Fault) -> None:
    """Another try, on the same minutes."""
    found = activation.tried(f"{fault.name}@mainnet")

    assert found.outcome.value == fault.outcome, found.reason
    assert found.reason == (
        f"main-1: {SILENT[fault.name]}, after the change: expected above 0,"
        f" got 0: {GATE[fault.name]} is on without effect (and 6 more)"
    )
