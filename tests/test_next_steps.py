"""A verdict says what to do next, in commands that can be typed as they stand."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from runbook_lib.errors import StageRefused
from runbook_lib.next_steps import next_steps, refusal
from runbook_lib.verdicts import Verdict

from .conftest import CI, DRIFT, FAIL, INCONCLUSIVE

AGAIN = "runbook run development -f PARAMS -p attempt 1"


def ended(practice: Any, outcome: Any = None, **more: Any) -> Verdict:
    """The verdict of a whole run in which the CI check found ``outcome``."""
    stage = practice.open(**more)
    practice.walk(stage, **({} if outcome is None else {"ci_green": outcome}))
    with suppress(StageRefused):
        stage.enforce()
    verdict: Verdict = stage.verdict()
    return verdict


def test_a_plan_is_approved_next_and_an_apply_that_passed_wants_nothing(practice: Any) -> None:
    planned, folder = ended(practice, mode="plan"), practice.folder()
    applied = ended(practice)

    assert next_steps(planned) == ["Have the plan approved, then run with mode: apply."]
    assert next_steps(planned, folder) == [
        f"Make what is planned: `runbook run development -f {folder / 'params.yaml'} -p mode apply`"
    ]
    assert next_steps(applied) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (FAIL, f"Mend it, then: `{AGAIN} -p retry_reason 'WHY'`"),
        (INCONCLUSIVE, f"Mend what could not be read, then: `{AGAIN}`"),
    ],
)
def test_what_is_open_is_mended_and_the_same_attempt_goes_on(
    practice: Any, outcome: Any, said: str
) -> None:
    """After a FAIL only for a reason; nothing was begun, so there is no way back to offer.

    Where the attempt lasts, the command names its own parameters.
    """
    verdict, folder = ended(practice, outcome), practice.folder()

    assert next_steps(verdict) == [said]
    assert next_steps(verdict, folder) == [said.replace("PARAMS", str(folder / "params.yaml"))]


def test_what_is_not_yet_due_is_come_back_to(practice: Any) -> None:
    stage = practice.open()
    due = practice.now() + timedelta(hours=2)
    stage.check(practice.check(DRIFT, INCONCLUSIVE, return_at=due))
    for item in stage.verdict().items[1:]:
        practice.item(stage, item.item)
    with pytest.raises(StageRefused):
        stage.enforce()

    assert next_steps(stage.verdict()) == [f"Come back then: `{AGAIN}`"]


def test_a_refusal_is_one_line_with_the_first_item_in_the_way(practice: Any) -> None:
    verdict = ended(practice, FAIL)

    assert refusal(verdict) == (
        f"development: FAIL (exit 1); first: {CI}: {verdict.blocking[0].reason}"
    )
