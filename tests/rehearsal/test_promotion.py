"""A rehearsed release: which faults come when, and what they lead to."""

from types import SimpleNamespace
from typing import Any

import pytest

from runbook_lib.outcomes import Outcome
from runbook_lib.verdicts import ExitCode
from runbook_rehearsal import rehearse
from runbook_rehearsal.promote import Carried, Promotion, compare, turn


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
