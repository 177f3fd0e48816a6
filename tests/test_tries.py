"""Every try is kept, and nothing passes that was not proven."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.errors import RunbookError, SourceError, StageRefused
from runbook_lib.sources.tape import read_entries
from runbook_lib.verdicts import ExitCode

from .conftest import (
    BASELINE,
    CI,
    DEPLOY,
    DRIFT,
    FAIL,
    INCONCLUSIVE,
    PROVISION,
    REACHABLE,
    SMALL,
    SUITES,
    short,
    states,
    text,
)


def test_an_item_of_another_stage_is_refused(practice: Any) -> None:
    """A stage judges what it declares."""
    stage = practice.open()
    with pytest.raises(RunbookError) as caught:
        stage.check(practice.check("testnet.ready.soak"))

    assert str(caught.value) == (
        "development: testnet.ready.soak: expected an item this stage declares, got another"
    )


def test_a_source_that_cannot_be_read_is_inconclusive(practice: Any) -> None:
    """The card says which source and what was expected of it."""
    stage = practice.open()
    problem = SourceError("prometheus", "expected an answer, got 503")
    card = stage.check(practice.check(DRIFT, problem))

    assert "? INCONCLUSIVE" in text(card)
    assert "prometheus: readable: expected an answer, got 503" in text(card)


def test_our_own_mistake_is_inconclusive_and_its_traceback_kept(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the record, without secrets; never a bare traceback in the notebook."""
    secret = "practice-token-of-no-worth"
    stage = practice.open()
    card = stage.check(practice.check(DRIFT, ZeroDivisionError(f"divided {secret}")))
    result = practice.entries("result")[-1].body["result"]

    assert result["outcome"] == "INCONCLUSIVE"
    assert "internal error: ZeroDivisionError" in text(card)
    assert "Traceback" in result["data"]["traceback"]
    assert secret not in result["data"]["traceback"]


@pytest.mark.parametrize("where", ["check", "change"])
def test_an_interrupt_leaves_a_record_that_says_where(practice: Any, where: str) -> None:
    """The try did not end: it is broken, and continuing does it again without repeating steps."""
    stage = practice.open()
    item = DRIFT if where == "check" else PROVISION
    with pytest.raises(KeyboardInterrupt):
        practice.walk(stage, **{short(item): KeyboardInterrupt()})

    assert practice.entries()[-1].kind == "stopped"
    assert practice.entries()[-1].body == {"item": item, "number": 1}
    assert stage.verdict().items[SMALL.index(item)].reason == "try 1 began and did not end"
    with pytest.raises(StageRefused) as caught:
        stage.enforce()
    assert caught.value.exit_code == 3

    again = practice.open(attempt=1)
    practice.walk(again)
    again.enforce()

    assert practice.made == [PROVISION, DEPLOY]
    assert practice.entries("session")[-1].body["number"] == 2


def test_an_inconclusive_is_replaced_freely(practice: Any) -> None:
    """Run the cell again; the card says which try it is."""
    stage = practice.open()
    practice.item(stage, DRIFT, INCONCLUSIVE)
    card = practice.item(stage, DRIFT)

    assert text(card).splitlines()[0] == f"✓ PASS {DRIFT} · try 2"
    assert "try 1: ? INCONCLUSIVE" in text(card)


def test_a_fail_stands_without_a_reason(practice: Any) -> None:
    """Running the cell again shows it again."""
    stage = practice.open()
    practice.item(stage, DRIFT, FAIL)
    card = practice.item(stage, DRIFT)

    assert "a FAIL stands; to try again, continue with a retry_reason" in text(card)
    assert len(practice.entries("result")) == 1


def test_a_fail_is_tried_again_for_a_reason_and_shown_for_ever(practice: Any) -> None:
    """The card says FAIL on try 1, and why it was tried again."""
    practice.item(practice.open(), DRIFT, FAIL)
    stage = practice.open(attempt=1, retry_reason="dev-1 was repaired")
    card = practice.item(stage, DRIFT)
    later = practice.item(practice.open(attempt=1), DRIFT)

    assert text(card).splitlines()[0] == f"✓ PASS {DRIFT} · try 2, FAIL on try 1"
    assert "FAIL on try 1" in text(later).splitlines()[0]
    assert practice.entries("result")[-1].body["retry_reason"] == "dev-1 was repaired"


@pytest.mark.parametrize("hidden_by", ["not reached", "interrupted"])
def test_a_fail_is_not_washed_away_by_what_came_after(practice: Any, hidden_by: str) -> None:
    """A try that found nothing out does not make the one after it free."""
    stage = practice.open()
    practice.walk(stage, provision=1)
    again = practice.open(attempt=1, retry_reason="the automation was repaired")
    if hidden_by == "not reached":
        for item in (DRIFT, CI, REACHABLE):
            practice.item(again, item)
        practice.item(again, REACHABLE, INCONCLUSIVE)
        practice.item(again, PROVISION)
        assert states(again)[PROVISION] == "not-reached"
    else:
        with pytest.raises(KeyboardInterrupt):
            practice.walk(again, provision=KeyboardInterrupt())
    third = practice.open(attempt=1)
    practice.item(third, REACHABLE)
    card = practice.item(third, PROVISION)

    assert "a FAIL stands" in text(card)
    assert third.verdict().exit_code is not ExitCode.PASSED


def test_continuing_shows_what_passed_without_a_new_try(practice: Any) -> None:
    """Nothing is asked again, and the card says of which try it is."""
    practice.walk(practice.open(), smoke_suites=INCONCLUSIVE)
    asked = len(read_entries(practice.folder() / "tape"))
    stage = practice.open(attempt=1)
    cards = practice.walk(stage)
    stage.enforce()

    assert "(judged by an earlier try, 1)" in text(cards[0])
    assert [e.body["item"] for e in practice.entries("started")] == [*SMALL, SUITES, BASELINE]
    assert practice.made == [PROVISION, DEPLOY]
    assert len(read_entries(practice.folder() / "tape")) > asked
    assert {e.item for e in read_entries(practice.folder() / "tape") if e.number == 2} >= {SUITES}


def test_a_cell_run_again_by_hand_is_a_new_try(practice: Any) -> None:
    """Also of an item that passed: who runs a cell twice wants to know."""
    stage = practice.open()
    practice.item(stage, DRIFT)
    practice.item(stage, DRIFT, INCONCLUSIVE)

    assert stage.verdict().items[0].outcome is INCONCLUSIVE
    assert stage.verdict().items[0].number == 2


def test_continuing_judges_again_what_has_aged(practice: Any) -> None:
    """A PASS of a guard that ages is no longer shown after its time."""
    practice.item(practice.open(), DRIFT)
    practice.item(practice.open(attempt=1), DRIFT)
    assert len(practice.entries("result")) == 1

    practice.wind(2 * 3600)
    practice.item(practice.open(attempt=1), DRIFT)

    assert len(practice.entries("result")) == 2
