"""What a recovery tells: filed and read back, kept in the outbox when it cannot be."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook_lib import cli, playbook
from runbook_lib.checks import recovery as telling
from runbook_lib.evidence.events import StepTaken, last, of
from runbook_lib.evidence.incidents import Agreed, Incidents
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.publish import at_sealing, publish
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.next_steps import next_steps
from runbook_lib.notebook import NOTEBOOKS
from runbook_lib.outcomes import Outcome
from runbook_lib.site import read_site
from runbook_lib.verdicts import ExitCode
from runbook_rehearsal.network import RehearsalNetwork

from ..checks.conftest import row
from .conftest import mutations
from .telling import HALT, TEXTS, Recovery, forward, made, network

__all__ = ["made", "network"]


# --- filed ----------------------------------------------------------------------------------------


def test_it_is_filed_once_and_read_back(network: RehearsalNetwork) -> None:
    """With an incident in the store that blocks the release; a further run adds nothing."""
    recovery = Recovery(network, telling.incident)
    recovery.comes_to(ExitCode.PASSED)
    issue, found = recovery.issue, recovery.incident
    assert issue["title"].endswith(f"{found.id}: {TEXTS['summary']}")
    for text in ("v1.4.0-", "Rewards stopped on both canaries", "/development/0001"):
        assert text in issue["body"]
    assert [event.kind for event in found.events][:2] == ["incident-opened", "incident-filed"]
    assert [
        one.name
        for one in Incidents(recovery.store).blocking(recovery.release, single_operator=True)
    ] == [found.id]
    recovery.comes_to(ExitCode.PASSED)
    assert recovery.issue["number"] == issue["number"]
    assert len(Incidents(recovery.store).of(recovery.release)) == 1


def test_an_incident_shows_figures_and_gates(network: RehearsalNetwork) -> None:
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
    result = recovery.comes_to(ExitCode.REFUSED, **{name: empty})
    assert result.reason.startswith(f"{name}: text: expected not empty, got nothing said")
    assert mutations(recovery.folder) == []

    recovery.comes_to(ExitCode.PASSED)


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


# --- what is not there ----------------------------------------------------------------------------


def test_figures_that_were_not_collected_are_fetched_later(network: RehearsalNetwork) -> None:
    recovery = Recovery(network, telling.incident)
    network.fault("prometheus-down@development")
    result = recovery.comes_to(ExitCode.INCONCLUSIVE)
    assert str(row(result, "figures").observed).startswith("0 collected; figure ")
    assert str(row(result, "figures").observed).endswith("; the next run collects them")
    assert "- figure" in recovery.issue["body"]

    network.clear("prometheus-down")
    recovery.comes_to(ExitCode.PASSED)

    assert "- figure" not in recovery.issue["body"]


def test_a_node_that_does_not_answer_is_listed(network: RehearsalNetwork) -> None:
    recovery = Recovery(network, telling.governance_incident)
    network.fault("node-down@testnet/test-2")
    result = recovery.comes_to(ExitCode.INCONCLUSIVE)

    assert row(result, "gates").observed == "not of test-2; the next run collects them"
    assert "never read back" in recovery.issue["body"]


def test_what_cannot_be_sent_is_published_later(
    network: RehearsalNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    """The incident is open all the same; one publish and one more run finish it, nothing twice."""
    recovery = Recovery(network, telling.public_report)
    network.fault("forge-down@canary")
    verdict, result = recovery.run()
    name = f"{recovery.release}/canary_recovery/0001"

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert str(row(result, "forge").observed).endswith(
        f"; kept in the outbox: runbook publish {name}"
    )
    assert recovery.incident.status == "open"
    assert {one.outcome for one in publish(recovery.folder)} == {Outcome.INCONCLUSIVE}
    network.clear("forge-down")
    # What was tampered with is not sent.
    (path,) = (recovery.folder / "outbox").iterdir()
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b"Rewards stopped", b"All is well, no"))
    (found,) = publish(recovery.folder)
    assert found.outcome is Outcome.FAIL
    assert "expected what the log names" in str(found.observed)
    path.write_bytes(kept)
    assert cli.main(["publish", str(recovery.folder)]) == 0
    number = recovery.issue["number"]
    assert not path.parent.exists()
    assert cli.main(["publish", str(recovery.folder)]) == 0
    capsys.readouterr()
    recovery.comes_to(ExitCode.PASSED)

    assert recovery.issue["number"] == number
    assert [e.kind for e in recovery.incident.events] == ["incident-opened", "incident-filed"]


def test_a_sealed_recovery_is_published(network: RehearsalNetwork, monkeypatch: Any) -> None:
    """As a section of its own, its files attached; what its outbox kept goes out first."""
    monkeypatch.setitem(playbook.DECLARED, "canary_recovery", (telling.public_report.item,))
    recovery = Recovery(network, telling.public_report)
    network.fault("forge-down@canary")
    recovery.run()
    network.clear("forge-down")
    book = nbformat.read(NOTEBOOKS / "35_canary_recovery.ipynb", as_version=4)
    nbformat.write(book, recovery.folder / "35_canary_recovery.ipynb")
    seal_by_hand(recovery.folder)

    assert at_sealing(recovery.folder) == []
    assert recovery.issue["state"] == "open"
    told = "\n".join(comment["body"] for comment in network.forge.comments.values())
    assert "### ? INCONCLUSIVE · canary_recovery · attempt 1" in told
    assert not (recovery.folder / "outbox").exists()


# --- one incident ---------------------------------------------------------------------------------


def test_a_later_recovery_joins_the_incident(network: RehearsalNetwork) -> None:
    """Of the same stopped apply."""
    recovery = Recovery(network, telling.public_report)
    recovery.run()
    recovery.folder = Path()
    recovery.run()
    assert len(Incidents(recovery.store).of(recovery.release)) == 1


# --- the halt -------------------------------------------------------------------------------------


def test_a_halt_that_cannot_be_announced_is_published_later(network: RehearsalNetwork) -> None:
    recovery = Recovery(network, HALT)
    network.fault("halt-announce-fails@testnet")
    result = recovery.comes_to(ExitCode.INCONCLUSIVE)
    assert "got 22: channel: 503 Service Unavailable; kept in the outbox" in result.reason

    network.clear("halt-announce-fails")
    assert {one.outcome for one in publish(recovery.folder)} == {Outcome.PASS}
    recovery.comes_to(ExitCode.PASSED)

    assert len(json.loads((network.root / "announced.json").read_text())) == 1
    assert not (recovery.folder / "outbox").exists()


def test_a_halt_that_was_announced_is_not_announced_again_unseen(
    network: RehearsalNetwork,
) -> None:
    """It was sent, and the channel cannot be read: nobody knows, so nobody is told twice."""
    recovery = Recovery(network, HALT)
    network.fault("halt-announce-lost@testnet")
    recovery.run()
    network.clear("halt-announce-lost")
    channel = network.root / "announced.json"
    was = channel.read_bytes() if channel.exists() else b"[]"
    channel.write_text("garbage")
    _, unread = recovery.run()
    channel.write_bytes(was)

    assert unread.outcome is Outcome.INCONCLUSIVE
    steps = of(Log(recovery.folder / "log.jsonl").events(), StepTaken)
    assert [step.step for step in steps if step.phase == "intent"] == ["announce-halt.1"]
    # Read again, it is not there: it is sent anew.
    recovery.comes_to(ExitCode.PASSED)
    assert len(json.loads(channel.read_text())) == 1


# --- the council ----------------------------------------------------------------------------------


def test_the_council_is_told_once_and_its_decision_recorded(network: RehearsalNetwork) -> None:
    """Two of its three members approve what the issue says."""
    recovery = Recovery(network, telling.council)
    result = recovery.comes_to(ExitCode.PASSED, break_glass="the chain stood still, no time to ask")
    told = json.loads((network.root / "notifications.json").read_text())
    decided = last(recovery.incident.events, Agreed)

    assert [one["role"] for one in told] == ["governance-council"]
    assert "2 of 3 members: rehearsal-council-a, rehearsal-council-b, at" in str(
        [one.observed for one in result.rows if one.what == "decided"]
    )
    assert decided is not None
    assert decided.digest in recovery.issue["body"]
    assert "Break-glass by rehearsal: the chain stood still" in recovery.issue["body"]


def test_one_member_is_no_majority(network: RehearsalNetwork) -> None:
    recovery = Recovery(network, telling.council)
    network.fault("council-silent@mainnet")
    recovery.run()
    (told,) = json.loads((network.root / "notifications.json").read_text())
    word = f"approve {told['text'].partition('approve ')[2].partition('`')[0]}"
    for account in ("rehearsal-council-a", "rehearsal-council-a", "rehearsal-second"):
        network.say(account, word)

    assert "got 1 of 3 members: rehearsal-council-a" in recovery.comes_to(ExitCode.WAITING).reason


def test_other_measures_than_those_published_are_told_as_well(network: RehearsalNetwork) -> None:
    recovery = Recovery(network, telling.council)
    network.fault("notify-down@mainnet")
    recovery.run()
    network.clear("notify-down")
    publish(recovery.folder)
    recovery.run(mitigations=["the gates stay off for a week"])

    told = json.loads((network.root / "notifications.json").read_text())
    assert len({one["text"] for one in told}) == len(told) == 2


# --- its end --------------------------------------------------------------------------------------


def test_an_incident_ends_with_somebody_elses_word_in_its_issue(
    network: RehearsalNetwork, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stranger's, a withdrawn and an edited one do not count; then the release goes on."""
    recovery = Recovery(network, telling.incident)
    recovery.run()
    name, number = recovery.incident.id, recovery.issue["number"]

    def take(*words: str) -> int:
        return cli.main(["incident", name, "--site", str(network.site), *words])

    assert take("--close", "--reason", "cause was mended") == 0
    closed = recovery.incident.closed
    assert closed is not None
    word = f"approve {closed.digest}"
    network.say("mallory", word, issue=number)
    network.say("rehearsal-second", word, issue=number)
    network.say("rehearsal-second", f"withdraw {word}", issue=number)
    edited = network.say("rehearsal-commander", word, issue=number)
    network.forge.edit(edited, word + " ")
    site = read_site(str(network.site)).model_copy(update={"single_operator": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runbook_lib.incident.read_site", lambda path: site)
        assert take("--sign-off") == 4

    network.say("rehearsal-council-a", word, issue=number)
    capsys.readouterr()

    assert take("--sign-off") == 0
    signed = recovery.incident.signed_off
    assert signed is not None
    assert signed.by == "rehearsal-council-a"
    assert f"issues/{number}#" in signed.grounds[0]
    assert Incidents(recovery.store).blocking(recovery.release, single_operator=False) == []
