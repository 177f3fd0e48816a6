"""One rule guards every change: what stands open before it, or has aged, blocks it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.errors import SourceError, StageRefused
from runbook_lib.outcomes import Outcome
from runbook_lib.tries import blocker, stale, waiver_ended

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
    last = next(e.seq for e in practice.entries("result") if e.body["item"] == item)

    assert {one: states(stage)[one] for one in after if declared.index(one) >= first_change} == {
        one: "not-reached" for one in after if declared.index(one) >= first_change
    }
    assert practice.made == [one for one in [*before, item] if one in changes]
    assert [e.seq for e in practice.entries("step") if e.seq > last] == []
    with pytest.raises(StageRefused) as caught:
        stage.enforce()
    assert caught.value.exit_code == (1 if outcome is FAIL else 2)


def test_readiness_checks_are_all_judged_whatever_one_finds(practice: Any) -> None:
    """Before the first change nothing hangs on another: a person sees all that is wrong at once."""
    stage = practice.open()
    practice.walk(stage, config_drift=FAIL)

    assert [states(stage)[item] for item in (DRIFT, CI, REACHABLE)] == ["judged"] * 3


def test_what_blocks_is_named(practice: Any) -> None:
    """The card under a change that was not reached says why."""
    stage = practice.open()
    cards = practice.walk(stage, ci_green=INCONCLUSIVE)

    assert text(cards[3]).splitlines()[:2] == [
        f"– NOT REACHED {PROVISION} (change)",
        f"not reached: blocked by {CI}",
    ]


def test_an_item_that_was_skipped_blocks_all_after_it(practice: Any) -> None:
    """Cells run out of order change nothing."""
    stage = practice.open()
    practice.item(stage, DRIFT)
    practice.item(stage, REACHABLE)
    practice.item(stage, PROVISION)

    assert states(stage)[REACHABLE] == states(stage)[PROVISION] == "not-reached"
    assert practice.made == []


def test_no_change_without_its_plan(practice: Any) -> None:
    """The deploy needs the plan that says what it will do."""
    stage = practice.open()
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(stage, item)
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
    stage = practice.open()
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(stage, item)
    assert practice.entries("guard") == []
    practice.wind(2 * 3600)
    practice.item(stage, DEPLOY)
    for item in (SUITES, BASELINE):
        practice.item(stage, item)
    stage.enforce()
    guards = [
        (e.body["change"], e.body["item"], e.body["number"]) for e in practice.entries("guard")
    ]

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
    first = practice.open()
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(first, item)
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

    assert [e.body["item"] for e in practice.entries("guard")] == [DRIFT]
    assert practice.made == [PROVISION]


def test_valid_for_may_be_tightened(practice: Any) -> None:
    """A shorter validity ages guards sooner."""
    stage = practice.open(valid_for_minutes=1.0)
    for item in (DRIFT, CI, REACHABLE):
        practice.item(stage, item)
    practice.wind(120)
    practice.item(stage, PROVISION)

    assert [e.body["item"] for e in practice.entries("guard")] == [DRIFT, REACHABLE]


def test_a_pass_is_stale_only_beyond_its_validity_and_the_clocks_lag(practice: Any) -> None:
    """At either limit it is not yet; nor has a waiver ended that none of its rows needs."""
    stage = practice.open()
    practice.item(stage, DRIFT)
    standing = stage.verdict().items[0]
    judged, valid_for, tick = standing.result.started, timedelta(hours=1), timedelta(seconds=1)

    ages = (valid_for, valid_for + tick, -playbook.NOW_SOURCE_LAG, -playbook.NOW_SOURCE_LAG - tick)
    assert [stale(standing, judged + age, valid_for) for age in ages] == [False, True, False, True]
    assert waiver_ended(standing, judged) == ""
