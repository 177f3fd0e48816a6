"""Every try is kept, and nothing passes that was not proven."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.errors import RunbookError, SourceError, StageRefused
from runbook_lib.outcomes import Outcome
from runbook_lib.runs import blocker, end, stale, start, waiver_ended
from runbook_lib.sources.tape import read_entries
from runbook_lib.verdicts import ExitCode

from .cards import BAD, judged, waived
from .conftest import (
    BASELINE,
    CI,
    DEPLOY,
    DRIFT,
    FAIL,
    INCONCLUSIVE,
    PASS,
    PROVISION,
    REACHABLE,
    SMALL,
    SUITES,
    short,
    states,
    text,
)


def test_an_item_of_another_stage_is_refused(practice: Any) -> None:
    stage = practice.open()
    with pytest.raises(RunbookError) as caught:
        stage.check(practice.check("testnet.ready.soak"))

    assert str(caught.value) == (
        "development: testnet.ready.soak: expected an item this stage declares, got another"
    )


def test_our_own_mistake_is_inconclusive_and_its_traceback_kept(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, without secrets; never a bare traceback in the notebook."""
    secret = "practice-token-of-no-worth"
    stage = practice.open()
    card = stage.check(practice.check(DRIFT, ZeroDivisionError(f"divided {secret}")))
    result = practice.events("result")[-1].result

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "internal error: ZeroDivisionError" in text(card)
    assert "Traceback" in result.data["traceback"]
    assert secret not in result.data["traceback"]


@pytest.mark.parametrize("where", ["check", "change"])
def test_an_interrupt_leaves_a_record_that_says_where(practice: Any, where: str) -> None:
    """The try did not end: it is broken, and continuing does it again without repeating steps."""
    stage = practice.open()
    item = DRIFT if where == "check" else PROVISION
    with pytest.raises(KeyboardInterrupt):
        practice.walk(stage, **{short(item): KeyboardInterrupt()})

    assert practice.events()[-1].kind == "stopped"
    assert practice.events()[-1].content == {"kind": "stopped", "item": item, "number": 1}
    assert stage.verdict().items[SMALL.index(item)].reason == "try 1 began and did not end"
    with pytest.raises(StageRefused) as caught:
        stage.enforce()
    assert caught.value.exit_code == 3

    again = practice.open(attempt=1)
    practice.walk(again)
    again.enforce()

    assert practice.made == [PROVISION, DEPLOY]
    assert practice.events("session")[-1].number == 2


def test_a_fail_is_tried_again_for_a_reason_and_shown_for_ever(practice: Any) -> None:
    """The card says FAIL on try 1, and why it was tried again."""
    practice.item(practice.open(), DRIFT, FAIL)
    stage = practice.open(attempt=1, retry_reason="dev-1 was repaired")
    card = practice.item(stage, DRIFT)
    later = practice.item(practice.open(attempt=1), DRIFT)

    assert text(card).splitlines()[0] == f"✓ PASS {DRIFT} · try 2, FAIL on try 1"
    assert "FAIL on try 1" in text(later).splitlines()[0]
    assert practice.events("result")[-1].retry_reason == "dev-1 was repaired"


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

    assert "a FAIL stands; to try again, continue with a retry_reason" in text(card)
    assert third.verdict().exit_code is not ExitCode.PASSED


def test_continuing_shows_what_passed_without_a_new_try(practice: Any) -> None:
    """Nothing is asked again, and the card says of which try it is."""
    practice.walk(practice.open(), smoke_suites=INCONCLUSIVE)
    asked = len(read_entries(practice.folder() / "tape"))
    stage = practice.open(attempt=1)
    cards = practice.walk(stage)
    stage.enforce()

    assert "(judged by an earlier try, 1)" in text(cards[0])
    assert [e.item for e in practice.events("started")] == [*SMALL, SUITES, BASELINE]
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
    assert len(practice.events("result")) == 1

    practice.wind(2 * 3600)
    practice.item(practice.open(attempt=1), DRIFT)

    assert len(practice.events("result")) == 2


# --- One rule guards every change: what stands open before it, or has aged, blocks it ---


@pytest.mark.parametrize("outcome", [FAIL, INCONCLUSIVE])
@pytest.mark.parametrize("item", [DRIFT, CI, REACHABLE, PROVISION, DEPLOY])
def test_what_follows_an_open_item_is_not_reached(
    practice: Any, item: str, outcome: Outcome
) -> None:
    """Not one mutating call comes after it, and nothing that depends on a change is judged."""
    stage = practice.open()
    if playbook.ITEMS[item].kind == "change":
        code = 1 if outcome is FAIL else SourceError("dev-1", "it is silent")
        practice.walk(stage, **{short(item): code})
    else:
        practice.walk(stage, **{short(item): outcome})
    declared = list(SMALL)
    before, after = declared[: declared.index(item)], declared[declared.index(item) + 1 :]
    changes = [one for one in declared if playbook.ITEMS[one].kind == "change"]
    first_change = min(declared.index(one) for one in changes)
    last = next(e.seq for e in practice.events("result") if e.item == item)

    assert {one: states(stage)[one] for one in after if declared.index(one) >= first_change} == {
        one: "not-reached" for one in after if declared.index(one) >= first_change
    }
    assert practice.made == [one for one in [*before, item] if one in changes]
    assert [e.seq for e in practice.events("step") if e.seq > last] == []
    with pytest.raises(StageRefused) as caught:
        stage.enforce()
    assert caught.value.exit_code == (1 if outcome is FAIL else 2)


def test_an_item_that_was_skipped_blocks_all_after_it(practice: Any) -> None:
    stage = practice.open()
    practice.item(stage, DRIFT)
    practice.item(stage, REACHABLE)
    practice.item(stage, PROVISION)

    assert states(stage)[REACHABLE] == states(stage)[PROVISION] == "not-reached"
    assert practice.made == []


def test_no_change_without_its_plan(practice: Any) -> None:
    stage = practice.until(DEPLOY)
    missing = blocker(stage._session, DEPLOY)
    card = stage.change(practice.change(DEPLOY))

    assert missing is not None
    assert (missing.item, missing.number, missing.reason) == ("the plan", 0, "none was made")
    assert "not reached: blocked by the plan" in text(card)
    assert practice.made == [PROVISION]


def test_not_yet_due_goes_through_to_the_verdict(practice: Any) -> None:
    """Behind an item that waits everything waits: exit 4, with the instant to return at."""
    due = practice.now() + timedelta(hours=2)
    stage = practice.open()
    stage.check(practice.check(DRIFT, INCONCLUSIVE, return_at=due))
    for item in SMALL[1:]:
        practice.item(stage, item)
    with pytest.raises(StageRefused) as caught:
        stage.enforce()

    assert caught.value.exit_code == 4
    assert stage.verdict().return_at == due
    assert practice.made == []


def test_aged_guards_are_judged_again_before_a_change(practice: Any) -> None:
    """Only those that age by the clock, recorded under the change, no try of their own."""
    stage = practice.until(DEPLOY)
    assert practice.events("guard") == []
    practice.wind(2 * 3600)
    practice.item(stage, DEPLOY)
    for item in (SUITES, BASELINE):
        practice.item(stage, item)
    stage.enforce()
    guards = [(e.change, e.item, e.number) for e in practice.events("guard")]

    assert guards == [(DEPLOY, DRIFT, 1), (DEPLOY, REACHABLE, 1)]
    assert stage.verdict().items[0].number == 1
    assert practice.made == [PROVISION, DEPLOY]


@pytest.mark.parametrize("outcome", [FAIL, INCONCLUSIVE])
def test_a_guard_that_no_longer_holds_stops_the_change(practice: Any, outcome: Outcome) -> None:
    """It becomes a try of its own item, and the change is not reached."""
    stage = practice.open()
    finds = {"now": PASS}
    first = practice.check(DRIFT)

    def drift(context: Any) -> Any:
        return practice.check(DRIFT, finds["now"])(context)

    drift.item = first.item  # type: ignore[attr-defined]
    stage.check(drift)
    for item in (CI, REACHABLE, PROVISION):
        practice.item(stage, item)
    practice.wind(2 * 3600)
    finds["now"] = outcome
    card = practice.item(stage, DEPLOY)
    standing = stage.verdict().items[0]

    assert f"not reached: blocked by {DRIFT}" in text(card)
    assert (standing.outcome, standing.number) == (outcome, 2)
    assert practice.made == [PROVISION]


def test_an_aged_guard_whose_cell_did_not_run_stops_the_change(practice: Any) -> None:
    """What cannot be judged again is too old to rely on."""
    practice.until(DEPLOY)
    practice.wind(2 * 3600)
    stage = practice.open(attempt=1)
    card = practice.item(stage, DEPLOY)

    assert f"not reached: {DRIFT} is too old; run its cell again" in text(card)
    assert practice.made == [PROVISION]


def test_what_a_fast_clock_judged_is_judged_again(practice: Any) -> None:
    """Dated hours ahead it would stay young for hours too long; a few minutes are no matter."""
    stage = practice.open()
    practice.wind(10 * 3600)
    for item in (DRIFT, CI):
        practice.item(stage, item)
    practice.wind(120)
    practice.item(stage, REACHABLE)
    practice.wind(0)
    practice.item(stage, PROVISION)

    assert [e.item for e in practice.events("guard")] == [DRIFT]
    assert practice.made == [PROVISION]


def test_valid_for_may_be_tightened(practice: Any) -> None:
    stage = practice.until(PROVISION, valid_for_minutes=1.0)
    practice.wind(120)
    practice.item(stage, PROVISION)

    assert [e.item for e in practice.events("guard")] == [DRIFT, REACHABLE]


def test_a_pass_is_stale_only_beyond_its_validity_and_the_clocks_lag(practice: Any) -> None:
    """At either limit it is not yet; nor has a waiver ended that none of its rows needs."""
    stage = practice.open()
    practice.item(stage, DRIFT)
    standing = stage.verdict().items[0]
    judged, valid_for, tick = standing.result.started, timedelta(hours=1), timedelta(seconds=1)

    ages = (valid_for, valid_for + tick, -playbook.NOW_SOURCE_LAG, -playbook.NOW_SOURCE_LAG - tick)
    assert [stale(standing, judged + age, valid_for) for age in ages] == [False, True, False, True]
    assert waiver_ended(standing, judged) == ""


def test_a_waiver_ends_at_its_expiry(practice: Any) -> None:
    """Not a moment after it."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    standing = judged(BAD, item=DRIFT, waived=(waived(BAD.subject, expires=at),))

    assert waiver_ended(standing, at - timedelta(seconds=1)) == ""
    assert waiver_ended(standing, at) == (
        f"the waiver of {DRIFT} ended at 2026-11-01 00:00:00 UTC; continue with one in force"
    )


# --- A change is made by one run at a time, and what its command did is not repeated ---


def test_a_second_run_is_told_who_holds_the_cluster(practice: Any) -> None:
    stage = practice.until(PROVISION)
    with stage._session.store.cluster_lock("development", "carol (v1/development/0007)"):
        card = practice.item(stage, PROVISION)

    assert "got held by carol (v1/development/0007)" in text(card)
    assert stage.verdict().items[3].outcome is INCONCLUSIVE
    assert practice.made == []


def test_of_two_runs_at_once_each_try_has_a_number_of_its_own(practice: Any) -> None:
    """What either asks is told apart on the tape; what ended last counts."""
    first, second = practice.open(), practice.open(attempt=1)
    numbers = [start(stage._session, DRIFT) for stage in (first, second)]
    for number, stage, outcome in ((2, second, INCONCLUSIVE), (1, first, PASS)):
        context = stage.context(DRIFT, number)
        end(stage._session, DRIFT, number, practice.check(DRIFT, outcome)(context))
    standing = first.verdict().items[0]

    assert numbers == [1, 2]
    assert (standing.number, standing.outcome) == (1, PASS)
    assert [(one.number, one.outcome) for one in standing.earlier] == [(2, INCONCLUSIVE)]
