"""A canary taken back in the dark: no telemetry, no forge, half of the nodes away."""

import json
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import cli
from runbook_lib.changes.storage import FOLLOWS
from runbook_lib.checks import recovery
from runbook_lib.evidence.incidents import Incidents
from runbook_lib.evidence.seal import seals
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import not_passed
from .conftest import Operator, clear, ended, held
from .recovering import Recovering, back, fresh, recovering, steps
from .telling import TEXTS
from .test_kit import Applied

RUNBOOK = "canary_recovery"
PASS, INCONCLUSIVE = Outcome.PASS, Outcome.INCONCLUSIVE
DARK = (
    "prometheus-down@canary",
    "alertmanager-down@canary",
    "forge-down@canary",
    "node-cut-off@canary/main-1",
    "node-down@canary/main-3",
)
TOLD = {"issue": 42, **TEXTS}


network = held(recovering, telemetry=True, history_s=3600.0)


def recovered(made: Recovering, **given: Any) -> tuple[Verdict, Path]:
    """The whole recovery of a canary, as its notebook runs it."""
    with made.opened(RUNBOOK, mode="apply", **TOLD, **given) as stage:
        stage.expect(recovery.expectations)
        stage.plan(recovery.plan)
        for change in recovery.RUNS[RUNBOOK]:
            stage.change(change)
        return ended(stage)


def open_rows(verdict: Verdict) -> dict[tuple[str, str], Outcome]:
    rows = [row for item in verdict.items if item.result is not None for row in item.result.rows]
    found = not_passed(rows, "subject", "what", "outcome")
    return {(subject, what): outcome for subject, what, outcome in found}


def test_a_canary_is_taken_back_in_the_dark(
    network: RehearsalNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever can be reached is back, the rest is named; with the light on one run finishes it."""
    made = fresh(network, "mainnet", 1)
    applied, _ = made.apply("canary")
    assert applied.exit_code is ExitCode.PASSED, [item.reason for item in applied.blocking]
    for fault in DARK:
        network.fault(fault)
    try:
        verdict, folder = recovered(made)
        gates = made.gates("mainnet")
    finally:
        clear(network)

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert {item.outcome for item in verdict.items} == {INCONCLUSIVE}
    assert gates == {"main-2": False, "main-4": False}  # all that can be reached
    open_ = open_rows(verdict)
    assert set(open_.values()) == {INCONCLUSIVE}
    named = {("main-1", "deliver-back"), ("main-1", FOLLOWS), ("main-3", FOLLOWS)}
    assert open_.keys() > named | {("the chain", "power that is up"), ("forge", "public-report")}
    assert back(verdict).reason == (
        "main-1: deliver-back: expected exit 0, got exit 255: main-1: ssh: no route to host"
    )
    assert steps(folder, "failed").count(("main-1", "deliver-back")) == 2
    kit = network.root / "kits" / f"{made.release}-canary-0002"
    assert {"recover.sh", "README.md"} <= {path.name for path in kit.iterdir()}
    assert [path.name[:14] for path in (folder / "outbox").iterdir()] == ["public-report-"]
    (incident,) = Incidents(Store(network.root / "store")).of(made.release)
    assert incident.status == "open"

    again, same = recovered(made, attempt=verdict.attempt)
    code = cli.main(["publish", str(folder)])

    assert (again.exit_code, same) == (ExitCode.PASSED, folder), open_rows(again)
    assert (code, open_rows(again)) == (0, {}), capsys.readouterr().err
    assert set(made.gates("mainnet").values()) == {False}
    assert len(made.gates("mainnet")) == 4
    assert steps(folder).count(("main-2", "restart-back")) == 1
    assert not (folder / "outbox").exists()
    filed = [one for one in network.forge.issues.values() if incident.id in one["body"]]
    assert len(filed) == 1


def test_after_a_kit_was_used_one_command_reads_back(
    network: RehearsalNetwork, tmp_path: Path
) -> None:
    """In real kernels: its script ran, the recovery only reads back, and the status tells of it."""
    made = fresh(network, "mainnet", 2)
    applied, folder = made.apply("canary")
    assert applied.exit_code is ExitCode.PASSED, [item.reason for item in applied.blocking]
    kit = network.root / "kits" / f"{made.release}-canary-{folder.name}"
    assert Applied(made, folder, kit).script().returncode == 0
    given = {"release": made.release, "commit": network.release.commit, "site": str(network.site)}
    params = tmp_path / "params.yaml"
    params.write_text(json.dumps({**given, **TOLD}))
    person = Operator(tmp_path, env=dict(network.env), network=network)

    ended = person.run("runbook", "recover", "canary", "--kit", kit, "-f", params)
    told = person.run("runbook", "status", made.release, "--site", network.site)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    recovery_folder = folder.parents[1] / RUNBOOK / "0001"
    assert not [node for node, _ in steps(recovery_folder) if node.startswith("main-")]
    assert len(list((recovery_folder / "kit").iterdir())) == 1
    assert seals(recovery_folder)
    assert told.returncode == 2  # the incident is open
    (line,) = [line for line in told.stdout.splitlines() if line.startswith(RUNBOOK)]
    assert line.split() == [RUNBOOK, "1", "apply", "rehearsal", "PASS", "true"]
    assert f"incident  {made.release}-canary-0001: expected it closed and signed off" in told.stdout
