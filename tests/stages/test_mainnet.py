"""The witness gate on every node of mainnet: the profile and its traffic are what proves it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest
import yaml

from runbook_lib import opening, playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import mainnet
from runbook_lib.errors import StageRefused
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.stage import Stage
from runbook_lib.verdicts import Verdict

from .promoting import RELEASE, SIZES, Promotion, result, tries
from .servers import SERVERS

ITEM = mainnet.witness_gate.item
SILENT = {"rewards-stall": "reward_distribution", "witness-silent": "witness_gossip"}
GATE = {"rewards-stall": "timetoke_rewards", "witness-silent": "witness_network"}
NODES = [f"main-{number}" for number in range(1, 8)]


class Activation(Promotion):
    """One apply on mainnet: its plan, and the change that installs and turns on."""

    def walk(self, stage: Stage) -> Verdict:
        stage.plan(mainnet.plan)
        stage.change(mainnet.witness_gate)
        with suppress(StageRefused):
            stage.enforce()
        return stage.verdict()

    def tried(self, fault: str = "", item: str = ITEM) -> CheckResult:
        """What one more try comes to while the network has ``fault``."""
        with self.opened(retry_reason=f"rehearsing {fault or 'nothing'}") as stage:
            self.given["attempt"] = stage.verdict().attempt
            stage.plan(mainnet.plan)
            before = tries(stage.folder, item)
            if fault:
                self.network.fault(fault)
            try:
                while tries(stage.folder, item) == before:
                    stage.change(mainnet.witness_gate)
            finally:
                if fault:
                    self.network.clear(fault)
            return result(stage.verdict(), item)


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
        made = Activation(network, stage="mainnet")
        made.plan()
        made.given["wait"] = True
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
