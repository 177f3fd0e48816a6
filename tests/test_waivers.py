"""A waiver accepts named rows, on somebody else's word, until it ends."""

from datetime import timedelta
from typing import Any

import pytest

from runbook_lib.errors import ParameterError
from runbook_lib.verdicts import ExitCode
from runbook_lib.wording import utc

from .conftest import CI, DEPLOY, DRIFT, FAIL, PROVISION, REACHABLE, text


def test_an_approved_waiver_lets_its_row_pass(practice: Any) -> None:
    """By somebody else than the runner; the card says who and until when."""
    stage = practice.open(waivers=[practice.approved_waiver()])
    cards = practice.walk(stage, ci_green=FAIL)
    stage.enforce()

    assert text(cards[1]).startswith(f"✓ PASS by waiver {CI}")
    assert "waived by bob" in text(cards[1])
    assert practice.events("waiver")[0].self_approved is False
    assert practice.made == [PROVISION, DEPLOY]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"subjects": []}, "subjects: expected"),
        ({"reason": "because"}, "reason: expected"),
        ({"expires": "2026-01-31T12:00:00Z"}, "expires: expected an instant to come"),
        ({"item": "testnet.ready.soak"}, "item: expected an item of development"),
        ({"approval": "nowhere.json"},
         "approval: {project}/nowhere.json: expected a readable file"),
        ({}, "expected an approval of sha256:"),
    ],
)  # fmt: skip
def test_a_waiver_that_cannot_be_in_force_is_refused(
    practice: Any, changes: dict[str, Any], problem: str
) -> None:
    """What ``test_params`` lists, one that has ended, is another stage's, or nobody approved."""
    with pytest.raises(ParameterError) as caught:
        practice.open(waivers=[practice.waiver(**changes)])

    assert len(caught.value.problems) == 1
    assert "waivers.0" in str(caught.value)
    assert problem in str(caught.value)


def test_an_approval_of_another_waiver_does_not_count(practice: Any) -> None:
    other = practice.approved_waiver(reason="another reason than this")
    with pytest.raises(ParameterError, match="expected an approval of sha256:"):
        practice.open(waivers=[{**other, "reason": "a known flake, see the issue"}])
    with pytest.raises(ParameterError, match="expected an approval of sha256:"):
        practice.open(release="v1.5.0", waivers=[practice.approved_waiver()])


def test_nobody_approves_their_own_waiver(practice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the site has a single operator, and then every card says so."""
    monkeypatch.setenv("RUNBOOK_OPERATOR", "bob")
    with pytest.raises(ParameterError) as caught:
        practice.open(waivers=[practice.approved_waiver()])
    assert "by somebody other than bob, got only their own" in str(caught.value)

    practice.write_site(single_operator=True)
    stage = practice.open(waivers=[practice.waiver()])
    cards = practice.walk(stage, ci_green=FAIL)

    assert "self-approved" in text(cards[1])
    assert stage.verdict().exit_code is ExitCode.BROKEN  # enforce has not run yet
    assert "self-approved" in text(stage.enforce())


def test_no_change_begins_on_a_waiver_that_has_ended(practice: Any) -> None:
    """It was in force when the attempt opened; one that still is lets the change be made."""
    expires = (practice.now() + timedelta(minutes=30)).replace(microsecond=0)
    ending = practice.approved_waiver(expires=expires.isoformat())
    stage = practice.open(waivers=[ending])
    for item in (DRIFT, CI, REACHABLE):
        practice.item(stage, item, FAIL if item == CI else None)
    practice.wind(3600)
    card = practice.item(stage, PROVISION)

    why = f"the waiver of {CI} ended at {utc(expires)}; continue with one in force"
    assert f"not reached: {why}" in text(card)
    assert practice.made == []

    again = practice.open(attempt=1, waivers=[practice.approved_waiver()])
    practice.walk(again)
    assert practice.made == [PROVISION, DEPLOY]
    assert text(again.enforce())
