"""Nodes must run what was verified: the deploy asks the verification's own record."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.roll import VERIFICATION as ITEM
from runbook_lib.changes.roll import digest_rows, verified_digest
from runbook_lib.checks import development
from runbook_lib.context import Context, judges
from runbook_lib.errors import SourceError
from runbook_lib.outcomes import CheckResult, Outcome, check_row

DEPLOY = "development.activate.deploy"


def verifying(outcome: Outcome, data: dict[str, Any]) -> Any:
    @judges(ITEM)
    def check(context: Context) -> CheckResult:
        row = check_row("node", "signature", "ours", "seen", outcome)
        return context.conclude([row], passed="verified", empty="none", data=data)

    return check


@pytest.fixture
def stage(practice: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(playbook.DECLARED, "development", (ITEM, DEPLOY))
    return practice.open()


def test_the_verified_digest_is_the_one_on_record(stage: Any) -> None:
    stage.check(verifying(Outcome.PASS, {"digests": {"node": "sha256:1"}}))
    journal = stage._tries.context(DEPLOY, 1).journal

    assert verified_digest(journal) == "sha256:1"
    with pytest.raises(SourceError) as caught:
        verified_digest(journal, "wallet")
    assert str(caught.value) == f"wallet: expected {ITEM} to name its digest, got none"


@pytest.mark.parametrize(
    ("outcome", "got"),
    [
        (Outcome.FAIL, "node: signature: expected ours, got seen"),
        (Outcome.INCONCLUSIVE, "node: signature: expected ours, got seen"),
        (None, "has not run"),
    ],
)
def test_nothing_is_verified_unless_it_passed(
    stage: Any, outcome: Outcome | None, got: str
) -> None:
    if outcome is not None:
        stage.check(verifying(outcome, {"digests": {"node": "sha256:1"}}))
    with pytest.raises(SourceError) as caught:
        verified_digest(stage._tries.context(DEPLOY, 1).journal)

    assert str(caught.value) == f"node: expected it verified by {ITEM}, got: {got}"


@pytest.mark.parametrize(
    ("data", "outcome", "reason"),
    [
        (
            {"digests": {"node": "sha256:1"}},
            Outcome.FAIL,
            "release artifact: digest of the plan: expected sha256:1, got sha256:2",
        ),
        (
            {},
            Outcome.INCONCLUSIVE,
            f"release artifact: digest of the plan: expected {ITEM} to name its digest, got none",
        ),
    ],
)
def test_another_artifact_than_the_verified_one_is_not_deployed(
    stage: Any, practice: Any, data: dict[str, Any], outcome: Outcome, reason: str
) -> None:
    stage.check(verifying(Outcome.PASS, data))
    stage.plan(practice.plan)
    stage.change(development.deploy)

    result = stage._tries.standing(DEPLOY).result

    assert (result.outcome, result.reason) == (outcome, reason)
    assert practice.mutations() == []


def test_nothing_is_asked_of_a_stage_that_does_not_verify(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(playbook.DECLARED, "development", (DEPLOY,))
    context = practice.open()._tries.context(DEPLOY, 1)

    assert digest_rows(context, practice.plan(context)) == []
