"""A halt that is announced, a council that decides, and how an incident ends."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from runbook_lib import cli
from runbook_lib.checks import recovery as telling
from runbook_lib.evidence.incidents import blocking
from runbook_lib.evidence.publish import publish
from runbook_lib.evidence.record import Record
from runbook_lib.outcomes import Outcome
from runbook_lib.site import read_site
from runbook_lib.verdicts import ExitCode
from runbook_rehearsal.network import RehearsalNetwork

from .telling import HALT, Recovery, made, network

__all__ = ["made", "network"]


# --- the halt -------------------------------------------------------------------------------------


def test_a_halt_that_cannot_be_announced_is_published_later(network: RehearsalNetwork) -> None:
    """By the same command, once."""
    recovery = Recovery(network, HALT)
    network.fault("halt-announce-fails@testnet")
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert "exit 22: channel: 503 Service Unavailable; kept in the outbox" in result.reason

    network.clear("halt-announce-fails")
    assert {one.outcome for one in publish(recovery.folder)} == {Outcome.PASS}
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.PASSED, result.reason
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
    verdict, result = recovery.run()
    unread, channel_ = result.outcome, channel
    channel_.write_bytes(was)

    assert unread is Outcome.INCONCLUSIVE
    steps = [e.body for e in Record(recovery.folder / "record.jsonl").entries() if e.kind == "step"]
    assert [body["step"] for body in steps if body["phase"] == "intent"] == ["announce-halt-1"]
    # Read again, it is not there: it is sent anew.
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert len(json.loads(channel.read_text())) == 1


# --- the council ----------------------------------------------------------------------------------


def test_the_council_is_told_once_and_its_decision_recorded(network: RehearsalNetwork) -> None:
    """Two of its three members approve what the issue says; it ratifies a break-glass as well."""
    recovery = Recovery(network, telling.council)
    verdict, result = recovery.run(break_glass="the chain stood still, no time to ask")
    assert verdict.exit_code is ExitCode.PASSED, result.reason
    told = json.loads((network.root / "notifications.json").read_text())
    decided = recovery.incident.last("decision")

    assert [one["role"] for one in told] == ["governance-council"]
    assert "2 of 3 members: rehearsal-council-a, rehearsal-council-b, at" in str(
        [one.observed for one in result.rows if one.what == "decided"]
    )
    assert decided is not None
    assert (decided["ratifies"], decided["late"]) == (True, False)
    assert decided["digest"] in recovery.issue["body"]
    assert "Break-glass by rehearsal: the chain stood still" in recovery.issue["body"]


def test_a_silent_council_is_waited_for_a_day(network: RehearsalNetwork) -> None:
    """Until then it is not yet due; after it nothing helps."""
    recovery = Recovery(network, telling.council)
    network.fault("council-silent@mainnet")
    verdict, result = recovery.run()
    assert verdict.exit_code is ExitCode.WAITING
    assert result.return_at is not None
    assert result.return_at - recovery.incident.when("opened") == timedelta(hours=24)  # type: ignore[operator]

    network.fast_forward(25 * 3600)
    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.REFUSED
    assert result.reason.endswith("got 0 of 3 members; later than 24 h after the recovery")
    assert len(json.loads((network.root / "notifications.json").read_text())) == 1


def test_one_member_is_no_majority(network: RehearsalNetwork) -> None:
    """A member who says it twice is one."""
    recovery = Recovery(network, telling.council)
    network.fault("council-silent@mainnet")
    recovery.run()
    (told,) = json.loads((network.root / "notifications.json").read_text())
    word = f"approve {told['text'].partition('approve ')[2].partition('`')[0]}"
    for account in ("rehearsal-council-a", "rehearsal-council-a", "rehearsal-second"):
        network.say(account, word)

    verdict, result = recovery.run()

    assert verdict.exit_code is ExitCode.WAITING
    assert "got 1 of 3 members: rehearsal-council-a" in result.reason


def test_other_measures_than_those_published_are_told_as_well(network: RehearsalNetwork) -> None:
    """They are another thing to decide."""
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

    for words in (["--acknowledge"], ["--mitigated"], ["--close", "--reason", "cause was mended"]):
        assert take(*words) == 0
    closed = recovery.incident.last("closed")
    assert closed is not None
    word = f"approve {closed['digest']}"
    network.say("mallory", word, issue=number)
    network.say("rehearsal-second", word, issue=number)
    network.say("rehearsal-second", f"withdraw {word}", issue=number)
    edited = network.say("rehearsal-commander", word, issue=number)
    network.forge.edit(edited, word + " ")
    site = read_site(str(network.site)).model_copy(update={"single_operator": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runbook_lib.site.read_site", lambda path: site)
        assert take("--sign-off") == 4

    network.say("rehearsal-council-a", word, issue=number)
    capsys.readouterr()

    assert take("--sign-off") == 0
    signed = recovery.incident.last("signed-off")
    assert signed is not None
    assert (signed["account"], f"issues/{number}#" in signed["grounds"]) == (
        "rehearsal-council-a",
        True,
    )
    assert blocking(recovery.store, recovery.release, single_operator=False) == []
