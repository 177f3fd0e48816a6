"""Faults at the further stages that must notice them, and what no other test switches on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import yaml

from runbook_lib import playbook
from runbook_lib.changes.phases import make_plan
from runbook_lib.checks import canary, mainnet, recovery, testnet
from runbook_lib.checks.announce import frozen_row
from runbook_lib.checks.rollouts import others_unchanged, rollout
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.rehearsal.faults.table import FAULTS, Fault
from runbook_lib.rehearsal.network import RehearsalNetwork

from .recovering import Recovering, applied, fault, network, prepare  # noqa: F401 - fixtures

CHECKS = {check.item: check for check in (testnet.gates, testnet.regression_suites)}
# The stages' own guards, but for those that ask telemetry, or for a cluster of some size.
ROLLOUTS = {
    change.item: change
    for change in (
        rollout(canary.rewards_gate.item, "made", after=others_unchanged),
        rollout(mainnet.witness_gate.item, "made", each_wave=lambda at: [frozen_row(at)]),
        rollout(testnet.deploy.item, "made"),
    )
}
BACK = {changes[0].item: changes[0] for changes in recovery.RUNS.values()}
OWN = ("bundle-rewards-early", "proposal-slips-in", "operator-slow")
# Traffic is judged over telemetry: test_clean_epochs.py and test_mainnet.py have networks with it.
TRAFFIC = ("rewards-stall", "witness-silent")
PAIRS = [
    (one, item)
    for one in FAULTS.values()
    for item in (one.items if one.name in OWN else one.also)
    if item != testnet.gate.item and one.name not in TRAFFIC
]


@pytest.fixture
def frozen(network: RehearsalNetwork) -> Iterator[None]:  # noqa: F811
    """New proposals are frozen, as the announcement leaves them."""
    argv = yaml.safe_load(network.site.read_text())["commands"]["freeze_proposals"]["argv"]
    subprocess.run([word.format(release="v1.4.0") for word in argv], check=True)
    yield
    (network.root / "frozen.json").unlink()


@pytest.fixture
def judge(
    prepare: Callable[[str], Recovering],  # noqa: F811
    frozen: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, str], CheckResult]:
    """What an item comes to with a fault switched on just before its notebook is opened."""

    def judged(item: str, name: str = "") -> CheckResult:
        stage = item.partition(".")[0]
        made = prepare(stage)
        runbook, given = stage, dict[str, Any]()
        if item in BACK:
            applied(made, stage)
            runbook, given = f"{stage}_recovery", {"mode": "apply"}
        elif item in ROLLOUTS:
            given = made.planned(stage)
        else:
            monkeypatch.setitem(playbook.DECLARED, stage, (item,))
        broken = fault(made.network, f"{name}@{stage}") if name else nullcontext()
        with broken, made.opened(runbook, **given) as opened:
            if item in CHECKS:
                opened.check(CHECKS[item])
            else:
                opened.plan(recovery.plan if item in BACK else make_plan)
                opened.change({**BACK, **ROLLOUTS}[item])
            found = next(one for one in opened.verdict().items if one.item == item)
        assert found.result is not None, found.reason
        return found.result

    return judged


@pytest.mark.parametrize(
    ("broken", "item"), [pytest.param(*pair, id=f"{pair[0].name}-{pair[1]}") for pair in PAIRS]
)
def test_a_fault_comes_to_its_declared_outcome(
    judge: Callable[[str, str], CheckResult], broken: Fault, item: str
) -> None:
    """At every further item that it names."""
    found = judge(item, broken.name)

    assert found.outcome.value == broken.outcome, found.reason


@pytest.mark.parametrize("item", [*CHECKS, canary.rewards_gate.item, mainnet.witness_gate.item])
def test_without_a_fault_it_passes(judge: Callable[[str], CheckResult], item: str) -> None:
    """What the faults showed was theirs; that the ways back pass is another module's."""
    found = judge(item)

    assert found.outcome is Outcome.PASS, found.reason
