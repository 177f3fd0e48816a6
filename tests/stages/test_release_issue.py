"""The release issue in the development stage: posted, read back, and every way in which it is not."""

import re
from typing import Any

import pytest

from runbook_lib.checks import preflight
from runbook_lib.evidence.comment import marker
from runbook_lib.evidence.log import Log
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.tape import read_entries
from runbook_lib.stage import Stage
from runbook_lib.verdicts import ItemStatus
from runbook_rehearsal.faults.table import FAULTS, Fault
from runbook_rehearsal.layout import COMMANDER, ISSUE
from runbook_rehearsal.network import RehearsalNetwork

from ..sources.github_answers import spoken
from .conftest import mutations, ready_to_post

ITEM, DEPLOY = "preflight.release-issue", "development.activate.deploy"
MINE = [fault for fault in FAULTS.values() if fault.item == ITEM]
RELEASE = "v1.4.0"


def post(network: RehearsalNetwork, **changes: Any) -> tuple[ItemStatus, Stage]:
    """Where release-issue stands after its cell."""
    with ready_to_post(network, **changes) as stage:
        stage.change(preflight.release_issue)
        return stage.verdict().items[1], stage


def attempts(comment: dict[str, Any]) -> list[int]:
    """Of each stage that is told."""
    return [int(number) for number in re.findall(r"^### .* attempt (\d+)$", comment["body"], re.M)]


def test_the_checks_so_far_are_posted_and_read_back(network: RehearsalNetwork) -> None:
    """One comment with verdict, plan digest, head of the log and previous stage; one write."""
    standing, stage = post(network)
    (comment,) = network.forge.comments.values()
    entries = Log(stage.folder / "log.jsonl").events()
    begun = next(e for e in entries if e.kind == "started" and e.item == ITEM)
    plan = next(entry.digest for entry in entries if entry.kind == "plan")

    assert standing.outcome is Outcome.PASS
    assert standing.reason == f"posted to issue {ISSUE} and read back"
    assert comment["body"].startswith(marker(RELEASE))
    text = comment["body"]
    assert "### ▷ CHECKS HOLD, apply begins · development · attempt 1" in text
    assert "- **✓ PASS** `preflight.config-drift`: " in text
    assert f"| head | `{begun.prev}` |" in text
    assert f"| plan | `{plan}` |" in text
    changes = mutations(stage.folder)
    assert [(entry.item, entry.key.split(" ")[0]) for entry in changes] == [(ITEM, "POST")]
    steps = [e.phase for e in entries if e.kind == "step"]
    assert steps == ["intent", "done"]
    # A second attempt updates the comment.
    standing, second = post(network)
    (comment,) = network.forge.comments.values()
    assert standing.outcome is Outcome.PASS
    assert attempts(comment) == [second.verdict().attempt] == [stage.verdict().attempt + 1]
    assert [entry.key.split(" ")[0] for entry in mutations(second.folder)] == ["PATCH"]


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in MINE])
def test_whatever_went_wrong_a_further_run_leaves_one_complete_comment(
    network: RehearsalNetwork, fault: Fault
) -> None:
    network.fault(f"{fault.name}@development")
    standing, stage = post(network)
    left = len(network.forge.comments)
    network.clear(fault.name)
    number = stage.verdict().attempt
    again, _ = post(network, attempt=number, retry_reason="it is repaired")

    assert standing.state == "judged"
    assert left <= 1
    assert again.outcome is Outcome.PASS
    (comment,) = network.forge.comments.values()
    assert attempts(comment) == [number]
    assert "All good, go ahead" not in comment["body"]


@pytest.mark.parametrize("mode", ["plan", "apply"])
def test_without_an_issue_it_is_inconclusive(network: RehearsalNetwork, mode: str) -> None:
    standing, stage = post(network, issue=0, mode=mode)

    assert (standing.state, standing.outcome) == ("judged", Outcome.INCONCLUSIVE)
    assert standing.reason == (
        "parameters: readable: expected the number of the release issue, got 0: no release issue"
        " named; set `issue`"
    )
    tape = read_entries(stage.folder / "tape")
    assert {entry.key for entry in tape if entry.item == ITEM} == {"CLOCK"}


def test_a_plan_only_drafts(network: RehearsalNetwork) -> None:
    """The card shows the comment as it would stand; the tape holds no write."""
    with ready_to_post(network, mode="plan") as stage:
        card = stage.change(preflight.release_issue)
        verdict = stage.verdict()

    assert verdict.items[1].state == "planned"
    assert network.forge.comments == {}
    assert mutations(stage.folder) == []
    assert "would get" in card.text and "a new comment" in card.text
    assert "### ▷ CHECKS HOLD, apply begins · development · attempt" in card.text
    assert "<pre " in card.html and "\n" not in card.html


def test_a_comment_of_somebody_else_is_neither_edited_nor_trusted(
    network: RehearsalNetwork,
) -> None:
    """Though it bears the marker; of two of ours the older is kept."""
    body = f"{marker(RELEASE)}\nAll is well."
    for number, author in ((1, "mallory"), (2, "Rehearsal"), (3, "rehearsal")):
        told = spoken(number, body, author, f"2026-01-0{number}T00:00:00Z")
        network.forge.comments[number] = {**told, "issue_url": f"x/{ISSUE}"}
    standing, _ = post(network)

    assert standing.outcome is Outcome.PASS
    assert [n for n in (1, 2, 3) if network.forge.comments[n]["body"] != body] == [2]


def test_a_closed_issue_stops_the_stage(network: RehearsalNetwork) -> None:
    """Somebody has called the release off, or it is another's issue."""
    network.forge.issues[ISSUE]["state"] = "closed"
    try:
        standing, stage = post(network)
    finally:
        network.forge.issues[ISSUE]["state"] = "open"

    assert standing.outcome is Outcome.FAIL
    assert standing.reason == f"issue {ISSUE}: state: expected open, got closed"
    assert mutations(stage.folder) == []


def test_a_secret_is_never_posted(
    network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ready_to_post(network) as stage:
        context = stage.context(ITEM, 1)
        monkeypatch.setenv("RPP_RPC_TOKEN", context.params.commit)
        stage.change(preflight.release_issue)
        standing = stage.verdict().items[1]

    assert network.forge.comments == {}
    assert standing.outcome is Outcome.FAIL, standing.reason
    assert standing.reason.startswith("comment: secrets: expected none, got one")


def test_a_replay_posts_nothing_and_finds_the_same(
    network: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first try that failed, then one that passed: the very text again, from the log alone."""
    network.fault("issue-locked@development")
    _, stage = post(network)
    network.clear("issue-locked")
    number = stage.verdict().attempt
    live, _ = post(network, attempt=number, retry_reason="it is unlocked")
    network.forge.comments.clear()
    monkeypatch.setenv("RUNBOOK_REPLAY", str(stage.folder))
    for name in network.env:
        monkeypatch.delenv(name)
    with ready_to_post(network) as replayed:
        replayed.change(preflight.release_issue)
        again = replayed.verdict().items[1]

    assert (again.outcome, again.result) == (Outcome.PASS, live.result)
    assert network.forge.comments == {}


def test_a_head_that_the_store_lacks_stops_it(network: RehearsalNetwork) -> None:
    """Whoever opened while the forge was silent compared none: it is compared before anything changes."""
    with ready_to_post(network) as stage:
        head = f"head=sha256:{'a' * 64}"
        network.forge.say(COMMANDER, f"<!-- rpp-runbook seal={RELEASE}/development/0099 {head} -->")
        stage.change(preflight.release_issue)
        standing = stage.verdict().items[1]

    assert standing.outcome is Outcome.FAIL
    assert standing.reason == (
        f"store: heads that the issue tells of: expected held, got {RELEASE}/development/0099: expected"
        " the attempt that the release issue tells of, got none; it was removed: restore it"
    )
    assert mutations(stage.folder) == []
