"""Where a release stands, and the earliest instant the next stage can open."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook_lib import cli
from runbook_lib.evidence.events import Event, Undoes
from runbook_lib.evidence.release import _earliest, attempts_of, next_opening
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome
from runbook_lib.site import read_site

from ..conftest import stages_of
from ..events import event

AT = datetime(2026, 1, 1, tzinfo=UTC)
UNDOES = Undoes(attempt=1, plan="sha256:1", name="v1.4.0/development/0001")


@pytest.fixture
def site(practice: Any) -> Any:
    site = stages_of("development", "testnet", "mainnet")
    practice.write_site(**site | {"stages": {**site["stages"], "canary": "mainnet"}})
    return read_site(str(practice.site))


def took_effect(item: str, *minutes: int) -> list[Event]:
    return [
        event("state", item=item, node=f"n-{n}", at=AT + timedelta(minutes=minute))
        for n, minute in enumerate(minutes)
    ]


@pytest.mark.parametrize(
    ("stage", "change", "item", "after"),
    [
        ("testnet", "development.activate.deploy", "testnet.ready.soak", timedelta(hours=48)),
        ("canary", "testnet.activate.gate", "canary.ready.epochs-clean", timedelta(hours=11)),
        ("mainnet", "canary.activate.rewards-gate", "mainnet.ready.no-regression",
         timedelta(hours=8)),
    ],
)  # fmt: skip
def test_a_stage_can_open_once_the_playbooks_window_is_over(
    site: Any, stage: str, change: str, item: str, after: timedelta
) -> None:
    """Counted from the last node; epochs of an hour, the one under way at the start not counted."""
    found = _earliest(took_effect(change, 0, 7), site, stage)

    assert found[:2] == (item, AT + timedelta(minutes=7) + after)


def test_without_a_change_in_the_journal_nothing_is_promised(site: Any) -> None:
    assert _earliest([], site, "canary") == (
        "canary.ready.epochs-clean",
        None,
        "expected a node that testnet.activate.gate verified, got none",
    )


def test_what_blocks_is_said_with_when_it_was_judged(practice: Any) -> None:
    stage = practice.open()
    practice.walk(stage, ci_green=Outcome.FAIL)

    (found,) = attempts_of(Store(practice.root / "store"), "v1.4.0")

    assert found.verdict.why.startswith("enforce: expected it to run last")
    assert (found.passed, found.since is not None) == (False, True)


def test_after_the_last_pass_the_next_stage_is_named(practice: Any) -> None:
    """With what it must wait for; before anything passed there is none."""
    store, site = Store(practice.root / "store"), read_site(str(practice.site))
    assert next_opening(store, site, "v1.4.0") is None

    practice.sealed()
    opening = next_opening(store, site, "v1.4.0")

    assert opening is not None
    assert (opening.stage, opening.item) == ("testnet", "testnet.ready.soak")


def test_the_command_says_from_when_the_next_stage_can_open(
    practice: Any, site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two days after the last node of the deploy; in words, and as a document."""
    stage = practice.open()
    cards = practice.walk(stage)
    for minutes in (0, 7):
        stage._session.log.append(event("state", at=AT + timedelta(minutes=minutes)))
    practice.write_notebook(cards, stage.enforce())
    seal_by_hand(stage.folder)
    words = ["status", "v1.4.0", "--site", str(practice.site)]

    assert cli.main(words) == 2
    assert capsys.readouterr().out.splitlines()[-1] == (
        "next: testnet, at the earliest 2026-01-03T00:07:00+00:00: testnet.ready.soak:"
        " development must have soaked for 48 h"
    )
    assert cli.main([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["next"] == {
        "stage": "testnet",
        "earliest": "2026-01-03T00:07:00+00:00",
        "item": "testnet.ready.soak",
        "why": "development must have soaked for 48 h",
        "missing": [],
    }


def test_a_stage_that_was_not_proven_promises_no_next_one(practice: Any, site: Any) -> None:
    """Passed, and never sealed: the reason stands in place of the instant."""
    stage = practice.open()
    practice.walk(stage)
    stage.enforce()

    opening = next_opening(Store(practice.root / "store"), site, "v1.4.0")

    assert opening is not None
    assert (opening.stage, opening.at, opening.item) == ("testnet", None, "the stage before")
    assert opening.why.startswith("expected attempt 1 to verify, got: ")


def test_an_apply_that_was_taken_back_says_by_which_recovery_and_when(
    practice: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """On its own line; it passed once, and the release stands no longer."""
    practice.sealed()
    words = ["status", "v1.4.0", "--site", str(practice.site)]
    assert cli.main(words) == 0

    store = Store(practice.root / "store")
    opened = store.attempt("v1.4.0", "development", 1).opened
    for operator, mode, undoes, nodes in (
        ("alice", "plan", UNDOES, []),  # what was only planned takes nothing back
        ("alice", "apply", None, []),  # nor does the recovery of another apply
        ("bob", "apply", UNDOES, ["dev-1"]),
    ):
        more = {"operator": operator, "mode": mode, "undoes": undoes, "now": AT}
        params = {**opened.params, "nodes": nodes}
        stage = {"stage": "development_recovery", "declared": (), "params": params}
        store.create(opened.model_copy(update=stage | more), whatever=True)
    capsys.readouterr()

    assert cli.main(words) == 2
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("development ")]
    assert line.split("true")[1].strip() == (
        "undone on dev-1: v1.4.0/development_recovery/0003 by bob, 2026-01-01 00:00:00 UTC"
    )
    assert cli.main([*words, "--json"]) == 2
    first, *others = json.loads(capsys.readouterr().out)["attempts"]
    assert first["undone"] == {
        "by": "v1.4.0/development_recovery/0003",
        "operator": "bob",
        "at": "2026-01-01T00:00:00+00:00",
        "nodes": ["dev-1"],
    }
    assert (first["outcome"], first["blocks"]) == ("PASS", "")
    assert [other["undone"] for other in others] == [None, None, None]
