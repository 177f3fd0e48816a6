"""What a recovery tells: filed and read back, kept in the outbox when it cannot be."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from runbook_lib import cli
from runbook_lib.checks import recovery as telling
from runbook_lib.evidence.incidents import blocking, incidents_of, path_of
from runbook_lib.evidence.publish import at_sealing, publish
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.next_steps import next_steps
from runbook_lib.notebook import NOTEBOOKS
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.tape import read_entries
from runbook_lib.stage import open_stage
from runbook_lib.verdicts import ExitCode
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import mutations
from .telling import TEXTS, Recovery, forward, made, network, row

__all__ = ["made", "network"]


# --- filed ----------------------------------------------------------------------------------------


def test_it_is_filed_once_and_read_back(network: RehearsalNetwork) -> None:
    """With an incident in the store that blocks the release; a further try adds nothing."""
    recovery = Recovery(network, telling.incident)
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    issue, found = recovery.issue, recovery.incident
    assert issue["title"].endswith(f"{found.id}: {TEXTS['summary']}")
    for text in ("v1.4.0-", "Rewards stopped on both canaries", "restart failed: no answer"):
        assert text in issue["body"]
    assert [entry.kind for entry in found.entries][:2] == ["opened", "filed"]
    assert [
        one.name for one in blocking(recovery.store, recovery.release, single_operator=True)
    ] == [found.id]
    again, more = recovery.run()
    assert again.exit_code is ExitCode.PASSED, more.reason
    assert recovery.issue["number"] == issue["number"]
    assert len(incidents_of(recovery.store, recovery.release)) == 1


def test_an_incident_shows_figures_gates_and_timeline(network: RehearsalNetwork) -> None:
    """As tables that need no style."""
    recovery = Recovery(network, telling.governance_incident)
    recovery.run()
    body = recovery.issue["body"]

    assert "| metric | when the apply began | now |" in body
    assert "| `test-1` | us | off | off | off |" in body
    assert "| `test-2` |" in body
    assert "nothing: all of it was read" in body
    assert "<style" not in body
    assert "runbook incident" in body


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_report_without_a_text_fails(network: RehearsalNetwork, name: str) -> None:
    """It names the one that says nothing; said later, the report goes out."""
    recovery = Recovery(network, telling.public_report)
    empty = "TBD." if isinstance(TEXTS[name], str) else [" - "]
    refused, result = recovery.run(**{name: empty})
    assert refused.exit_code is ExitCode.REFUSED
    assert result.reason.startswith(f"{name}: text: expected not empty, got nothing said")
    assert mutations(read_entries(recovery.folder / "tape")) == []

    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason


def test_what_a_report_cannot_be_without_is_asked_for(network: RehearsalNetwork) -> None:
    """As lines of the parameter file that lies ready, before the command that goes on."""
    recovery = Recovery(network, telling.public_report)
    refused, _ = recovery.run(summary="", mitigations=[])
    ready = (
        network.root / "store" / recovery.release / "canary" / "0001" / "recovery" / "params.yaml"
    )
    ready.parent.mkdir(parents=True)
    ready.write_text("")

    assert next_steps(refused, recovery.folder) == [
        f'Say in {ready} what people are told (`summary: "TEXT"`, `mitigations: ["TEXT"]`), then:'
        f" `runbook recover canary -f {ready}`"
    ]


def test_hostile_text_is_shown_as_text(network: RehearsalNetwork) -> None:
    """It can neither format, link, mention, refer, nor end a marker or a table."""
    evil = "--> @everyone <script>alert(1)</script> | [x](https://evil.example) #1 `rm` \u202e"
    recovery = Recovery(network, telling.public_report)
    forward(network, recovery.release, "canary", problem=evil, node=evil)
    verdict, result = recovery.run(
        summary=evil, impact=evil, mitigations=[evil], next_steps=[evil], undoes=2
    )
    body = recovery.issue["body"]

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert "<script" not in body
    assert "@everyone" not in body
    assert "](https://evil" not in body
    assert "\u202e" not in body
    assert body.count("-->") == 1


def test_a_plan_says_what_it_would_file(network: RehearsalNetwork) -> None:
    """And opens no incident."""
    recovery = Recovery(network, telling.public_report)
    stage = open_stage("canary_recovery", recovery.params(mode="plan"))
    try:
        stage.change(telling.public_report)
        standing = stage.verdict().items[0]
    finally:
        stage.close()

    assert standing.state == "planned"
    assert standing.planned[-1].observed == (
        f"an incident of {recovery.release} is opened, its public report filed"
    )
    assert incidents_of(recovery.store, recovery.release) == []


# --- what is not there ----------------------------------------------------------------------------


def test_figures_that_were_not_collected_are_fetched_later(network: RehearsalNetwork) -> None:
    """The report goes out without them, and is mended."""
    recovery = Recovery(network, telling.incident)
    network.fault("prometheus-down@development")
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert str(row(result, "figures").observed).startswith("0 collected; figure ")
    assert str(row(result, "figures").observed).endswith("; the next try collects them")
    assert "- figure" in recovery.issue["body"]

    network.clear("prometheus-down")
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert "- figure" not in recovery.issue["body"]


def test_a_node_that_does_not_answer_is_listed(network: RehearsalNetwork) -> None:
    """Its gates are not known."""
    recovery = Recovery(network, telling.governance_incident)
    network.fault("node-down@testnet/test-2")
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert row(result, "gates").observed == "not of test-2; the next try collects them"
    assert "never read back" in recovery.issue["body"]


def test_what_cannot_be_sent_is_published_later(
    network: RehearsalNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    """The incident is open all the same; one publish and one more run finish it, nothing twice."""
    recovery = Recovery(network, telling.public_report)
    network.fault("forge-down@canary")
    verdict, result = recovery.run()
    path = recovery.folder / "outbox" / "01-public-report.json"
    name = f"{recovery.release}/canary_recovery/0001"

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert str(row(result, "public-report").observed).endswith(
        f"; kept in the outbox: runbook publish {name}"
    )
    assert recovery.incident.standing == "open"
    assert {one.outcome for one in publish(recovery.folder)} == {Outcome.INCONCLUSIVE}
    assert path.exists()

    network.clear("forge-down")
    assert cli.main(["publish", str(recovery.folder)]) == 0
    number = recovery.issue["number"]
    assert not path.parent.exists()
    assert cli.main(["publish", str(recovery.folder)]) == 0
    capsys.readouterr()
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert recovery.issue["number"] == number
    assert [e.kind for e in recovery.incident.entries] == ["opened", "filed"]


def test_an_outbox_that_was_tampered_with_is_not_sent(network: RehearsalNetwork) -> None:
    """Only what the record names goes out."""
    recovery = Recovery(network, telling.public_report)
    network.fault("forge-down@canary")
    recovery.run()
    network.clear("forge-down")
    path = recovery.folder / "outbox" / "01-public-report.json"
    path.write_bytes(path.read_bytes().replace(b"Rewards stopped", b"All is well, no"))

    (found,) = publish(recovery.folder)

    assert found.outcome is Outcome.FAIL
    assert "expected what the record names" in str(found.observed)
    assert path.exists()


def test_a_sealed_recovery_is_published(network: RehearsalNetwork) -> None:
    """As a section of its own, its files attached; what its outbox kept goes out first."""
    recovery = Recovery(network, telling.public_report)
    network.fault("forge-down@canary")
    recovery.run()
    network.clear("forge-down")
    book = nbformat.read(NOTEBOOKS / "35_canary_recovery.ipynb", as_version=4)
    nbformat.write(book, recovery.folder / "35_canary_recovery.ipynb")
    seal_by_hand(recovery.folder)

    problems = at_sealing(recovery.folder)

    assert problems == []
    assert recovery.issue["state"] == "open"
    told = "\n".join(comment["body"] for comment in network.forge.comments.values())
    assert "### ? INCONCLUSIVE · canary_recovery · attempt 1" in told
    assert not (recovery.folder / "outbox").exists()


# --- one incident ---------------------------------------------------------------------------------


def test_a_later_recovery_joins_the_incident(network: RehearsalNetwork) -> None:
    """Of the same stopped apply; a deleted file is noticed, and not opened again in its place."""
    recovery = Recovery(network, telling.public_report)
    recovery.run()
    recovery.folder = Path()
    stage = open_stage("canary_recovery", recovery.params())
    try:
        stage.change(telling.public_report)
    finally:
        stage.close()
    assert len(incidents_of(recovery.store, recovery.release)) == 1

    path_of(recovery.store, recovery.incident.id).unlink()

    problems = [
        one.problem for one in blocking(recovery.store, recovery.release, single_operator=True)
    ]
    assert len(problems) == 2
    assert all("it was removed from the store" in problem for problem in problems)
