"""A plan is made once, says what every change would do, and changes nothing."""

from __future__ import annotations

from typing import Any

from runbook_lib.errors import SourceError
from runbook_lib.sources.tape import read_entries

from .conftest import (
    DEPLOY,
    INCONCLUSIVE,
    PROVISION,
    SMALL,
    states,
    text,
)


def test_a_plan_that_cannot_be_made_says_why(practice: Any) -> None:
    stage = practice.open()

    def plan(context: Any) -> Any:
        raise SourceError("dev-1", "expected its TOML, got nothing")

    assert "dev-1: expected its TOML, got nothing" in text(stage.plan(plan))
    assert practice.events("plan") == []


def test_a_plan_changes_nothing(practice: Any) -> None:
    """Checks before the first change are judged; it and all after it are planned: ready, exit 0.

    Every change says what it would do, also one that follows another.
    """
    stage = practice.open(mode="plan")
    practice.walk(stage)
    stage.enforce()

    assert [states(stage)[item] for item in SMALL] == ["judged"] * 3 + ["planned"] * 4
    assert {entry.purpose for entry in read_entries(practice.folder() / "tape")} == {"read"}
    assert practice.events("step") == []
    assert practice.made == []
    assert len(practice.events("plan")) == 1
    planned = {item.item: len(item.planned) for item in stage.verdict().items if item.planned}
    assert planned == {PROVISION: 1, DEPLOY: 1}


def test_without_its_plan_a_change_is_not_planned_either(practice: Any) -> None:
    """A plan run in which no plan could be made is not ready to apply."""
    stage = practice.until(DEPLOY, mode="plan")
    stage.change(practice.change(DEPLOY))

    assert states(stage)[DEPLOY] == "not-reached"
    assert stage.verdict().items[4].reason == "not reached: blocked by the plan none was made"


def test_a_change_that_cannot_be_planned_is_inconclusive(practice: Any) -> None:
    """An unreadable bundle is a row on its card, not a traceback."""
    stage = practice.until(PROVISION, mode="plan")
    change = practice.change(PROVISION)

    def plan(context: Any) -> Any:
        raise SourceError("bundle", "expected TOML, got none")

    change.plan = plan
    card = stage.change(change)

    assert "bundle: readable: expected TOML, got none" in text(card)
    assert stage.verdict().items[3].outcome is INCONCLUSIVE


def test_a_plan_is_kept_for_the_attempt(practice: Any) -> None:
    """Continuing shows the plan that was made, and does not make another."""
    first = practice.open()
    shown = text(first.plan(practice.plan))
    again = practice.open(attempt=1)

    def never(context: Any) -> Any:
        raise AssertionError("a plan is made once")

    assert text(again.plan(never)) == shown
    assert len(practice.events("plan")) == 1
