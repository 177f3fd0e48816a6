"""A rehearsed release: which faults there are, when they come, and what they lead to."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.outcomes import Outcome
from runbook_lib.verdicts import ExitCode
from runbook_rehearsal import rehearse
from runbook_rehearsal.chain.world import STAGE_CLUSTERS
from runbook_rehearsal.faults.effects import EFFECTS
from runbook_rehearsal.faults.table import FAULTS
from runbook_rehearsal.promote import Carried, Promotion, compare, turn

from .conftest import Visitor


@pytest.mark.parametrize(
    ("fault", "when"),
    [
        ("gossip-slow@testnet", ("testnet", "first")),
        ("canary-slow@mainnet", ("mainnet", "first")),
        ("store-gone@canary", ("canary", "late")),
        ("consensus-stall@canary", ("canary", "late")),
        ("chain-halt@mainnet", ("mainnet", "late")),
        ("wrong-state-root@mainnet/main-2", ("mainnet", "late")),
        ("vrf-low@development", ("development", "first")),
        ("rewards-stall@canary", ("canary", "first")),
        ("page-during-soak@development", ("testnet", "passed")),
        ("page-during-soak@testnet", ("testnet", "first")),
        ("mass-restart@testnet", ("canary", "passed")),
    ],
)
def test_when_a_fault_comes(fault: str, when: tuple[str, str]) -> None:
    """Behind the change where it calls for recovery: a chain that stood still would never be changed.

    What the next stage judges comes on the cluster of the stage before, once its time has passed.
    """
    assert turn(fault) == when


class _Stages(Promotion):
    """A promotion whose stages all pass, told instead of run."""

    def _development(self) -> list[Carried]:
        return [_passed("development")]

    def _rollout(self, stage: str) -> list[Carried]:
        return [_passed(stage)]

    def recover(self, stage: str) -> list[Carried]:
        return [_passed(f"{stage}_recovery")]


class _Passed:
    exit_code = 0


def _passed(stage: str) -> Carried:
    return Carried(stage, "apply", _Passed())


class _Network:
    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault_in_time(self, text: str) -> bool:
        self.faults.append(text)
        return True


@pytest.mark.parametrize(
    ("faults", "stages"),
    [
        (("vrf-low@development", "rewards-stall@canary"), ["development", "testnet"]),
        (("wal-corrupt@development",), ["development", "development_recovery"]),
    ],
    ids=["nothing calls for it", "taken back"],
)
def test_a_stage_that_a_fault_takes_back_is_the_last(
    faults: tuple[str, ...], stages: list[str]
) -> None:
    """What follows it would open on a release that is no longer there."""
    network: Any = _Network()
    runs = _Stages(network, lambda text: None, faults=faults).carry(("development", "testnet"))

    assert ([run.stage for run in runs], network.faults) == (stages, [faults[0]])


def _run(stage: str, **outcomes: str) -> Carried:
    """A run whose items came to these outcomes: ``gate`` is testnet's, ``late`` waits for time."""
    items = [
        SimpleNamespace(
            item=ITEMS[name],
            state="not-reached" if text == "NOT REACHED" else "judged",
            outcome=Outcome.INCONCLUSIVE if text in ("NOT REACHED", "NOT YET") else Outcome(text),
            return_at="later" if text == "NOT YET" else None,
        )
        for name, text in outcomes.items()
    ]
    return Carried(
        stage, "apply", SimpleNamespace(exit_code=1, verdict=SimpleNamespace(items=items))
    )


ITEMS = {
    "drift": "preflight.config-drift",
    "gate": "testnet.activate.gate",
    "gates": "testnet.ready.gates",
    "soak": "testnet.ready.soak",
    "back": "canary.recover.halt-fallback",
    "stall": "mainnet.recover.stall",
    "watch": "mainnet.activate.watch",
}
GATE_FAULT, HALT = "gossip-slow@testnet", "consensus-stall@canary"
UNREAD = "config-unreadable@testnet/test-3"


@pytest.mark.parametrize(
    ("fault", "runs", "seen"),
    [
        (GATE_FAULT, [_run("testnet", gate="FAIL")], ""),
        (GATE_FAULT, [_run("testnet", gate="NOT YET"), _run("testnet", gate="FAIL")], ""),
        (GATE_FAULT, [_run("testnet", gate="PASS")], "PASS at testnet.activate.gate"),
        (GATE_FAULT, [_run("testnet", gate="FAIL"), _run("testnet", gate="PASS")], "PASS at testnet.activate.gate"),
        (GATE_FAULT, [_run("testnet", gate="INCONCLUSIVE")], "INCONCLUSIVE at testnet.activate.gate"),
        (GATE_FAULT, [_run("testnet", drift="FAIL", gate="NOT REACHED")], "FAIL at preflight.config-drift"),
        (GATE_FAULT, [_run("development", drift="FAIL")], "no run of testnet"),
        ("telemetry-gap-in-watch@mainnet", [_run("mainnet", watch="NOT YET")], "nothing but PASS"),
        (UNREAD, [_run("testnet", drift="INCONCLUSIVE", gates="NOT REACHED")], ""),
        (UNREAD, [_run("testnet", drift="INCONCLUSIVE", gates="PASS")],
         "INCONCLUSIVE at preflight.config-drift, PASS at testnet.ready.gates"),
        ("chain-halt@canary", [_run("canary", drift="PASS"), _run("canary_recovery", back="PASS")], ""),
        (HALT, [_run("canary", drift="PASS"), _run("canary_recovery", back="PASS")], ""),
        (HALT, [_run("canary", drift="PASS"), _run("canary_recovery", back="FAIL")], "FAIL at canary.recover.halt-fallback"),
        (HALT, [_run("canary", drift="FAIL")], "FAIL at preflight.config-drift"),
        ("page-during-soak@development", [_run("testnet", soak="FAIL")], ""),
        ("page-during-soak@development", [_run("testnet", soak="PASS")], "PASS at testnet.ready.soak"),
        ("slashing@development", [_run("development", drift="FAIL")], ""),
        ("slashing@development", [_run("development", drift="PASS")], "nothing but PASS"),
    ],
)  # fmt: skip
def test_a_fault_is_compared_with_what_the_table_declares(
    fault: str, runs: list[Carried], seen: str
) -> None:
    """By item and outcome; what was seen is said where it is something else."""
    found = compare(fault, runs)

    assert found.as_declared is not bool(seen)
    assert str(found).endswith(f", got {seen or found.seen}")


@pytest.mark.parametrize("so", [True, False])
def test_a_fault_that_did_not_come_out_as_declared_breaks_the_rehearsal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, so: bool
) -> None:
    """Otherwise the last run's own exit code stands; those before it are told by how they ended."""
    monkeypatch.setattr(rehearse, "tell", lambda report, as_json: int(report.exit_code))
    codes = {"plan": ExitCode.PASSED, "apply": ExitCode.WAITING}
    before = [
        Carried("testnet", mode, SimpleNamespace(exit_code=code, folder=f"store/{int(code)}"))
        for mode, code in codes.items()
    ]
    runs = [_run("testnet", gate="FAIL" if so else "PASS")]
    compared = [compare(GATE_FAULT, runs)]

    assert rehearse._tell([*before, *runs], compared, as_json=False) == (1 if so else 3)
    assert capsys.readouterr().out == (
        "testnet (plan): exit 0, passed store/0\ntestnet (apply): exit 4, waiting store/4\n"
        f"fault {GATE_FAULT} {'came' if so else 'did not come'} out as declared:"
        f" expected FAIL at {ITEMS['gate']}, got {'FAIL' if so else 'PASS'} at {ITEMS['gate']}\n"
    )


# --- Faults: named, declared, switched on and undone ----------------------------------------------


@pytest.mark.parametrize(
    ("fault", "stage", "so"),
    [
        ("vrf-low", "development", True),
        ("vrf-low", "testnet", False),
        ("gossip-slow", "testnet", True),
        ("page-during-soak", "testnet", False),
        ("slashing", "canary", True),
        ("rewards-stall", "mainnet", True),
        ("canary-slow", "mainnet", False),
    ],
)
def test_what_a_change_is_to_bring_comes_with_it(fault: str, stage: str, so: bool) -> None:
    """At a stage with an item that looks back at its change; elsewhere from the start on."""
    assert FAULTS[fault].comes_with_change(stage) is so


@pytest.mark.parametrize("item", playbook.ITEMS)
def test_every_item_can_fail_and_be_inconclusive(item: str) -> None:
    """An item that no fault turns red is a gate that cannot fail."""
    outcomes = {fault.outcome for fault in FAULTS.values() if item in fault.items}

    assert {"FAIL", "INCONCLUSIVE"} <= outcomes


@pytest.mark.parametrize("name", EFFECTS)
def test_a_cleared_fault_leaves_no_trace(visitor: Visitor, name: str) -> None:
    """Files, running nodes and checkout are as before."""
    network = visitor.network

    def picture() -> object:
        files = sorted(network.root.glob("clusters/*/*/config.toml"))
        running = {name: (node.config, node.build) for name, node in network.fleet.running.items()}
        return [path.read_text() for path in files], running, list(network.faults)

    before = picture()
    network.fault(f"{name}@development")
    assert [active.name for active in network.faults] == [name]
    network.clear(name)

    assert picture() == before


def test_a_fault_is_switched_on_once(visitor: Visitor) -> None:
    """On another node it would leave the first one broken."""
    visitor.network.fault("gate-flipped@development/dev-1")

    with pytest.raises(ValueError, match=r"expected one that is off; clear it first$"):
        visitor.network.fault("gate-flipped@development/dev-2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope@development", "got 'nope'"),
        (
            "rpc-500@staging",
            f"fault 'rpc-500@staging': expected NAME@{'|'.join(STAGE_CLUSTERS)}, got 'staging'",
        ),
        (
            "rpc-500@development/dev-9",
            "'rpc-500@development/dev-9': expected one of dev-1, dev-2, dev-3, dev-4, got 'dev-9'",
        ),
    ],
)
def test_unknown_faults_are_refused(visitor: Visitor, text: str, message: str) -> None:
    """The message lists what there is, and nothing is switched on."""
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        visitor.network.fault(text)

    assert list(visitor.network.faults) == []
