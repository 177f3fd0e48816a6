"""The rows of the development checks, answer by answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runbook_lib.checks.ci import required_row, status_row
from runbook_lib.checks.suites import SuiteRun, suite_rows
from runbook_lib.outcomes import Outcome, worst
from runbook_lib.sources.github import CheckRun, CommitStatus

from ..sources import github_answers as answers

APP = "github-actions"
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def run(conclusion: str | None, *, number: int = 1, **more: Any) -> CheckRun:
    given = {"name": "property tests", "conclusion": conclusion, **more}
    return CheckRun.model_validate_json(json.dumps(answers.run(number, **given)))


def status(state: str) -> CommitStatus:
    return CommitStatus.model_validate({"context": "property tests", "state": state})


@pytest.mark.parametrize(
    ("conclusion", "outcome"),
    [
        ("success", PASS),
        ("timed_out", FAIL),
        ("action_required", FAIL),
        ("startup_failure", FAIL),
        ("stale", INCONCLUSIVE),
        ("a word of the future", INCONCLUSIVE),
        (None, INCONCLUSIVE),
    ],
)
def test_only_success_is_green(conclusion: str | None, outcome: Outcome) -> None:
    assert required_row("property tests", APP, [run(conclusion)], []).outcome is outcome


@pytest.mark.parametrize("state", ["queued", "in_progress", "waiting", "requested", "pending"])
def test_a_check_that_is_not_finished_is_not_green(state: str) -> None:
    row = required_row("property tests", APP, [run("success", status=state)], [])

    assert (row.outcome, row.observed) == (INCONCLUSIVE, f"not finished: {state}")


def test_the_newest_run_of_a_check_counts() -> None:
    """A re-run replaces what came before it, for better and worse."""
    green, red = run("success", number=2), run("failure", number=1)

    assert required_row("property tests", APP, [green, red], []).outcome is PASS
    worse = [run("success", number=1), run("failure", number=2)]
    assert required_row("property tests", APP, worse, []).outcome is FAIL


@pytest.mark.parametrize(
    ("state", "outcome"),
    [("success", PASS), ("pending", INCONCLUSIVE), ("failure", FAIL), ("error", FAIL)],
)
def test_a_required_name_may_be_a_commit_status(state: str, outcome: Outcome) -> None:
    """CI that reports by statuses has no check run."""
    assert required_row("property tests", APP, [], [status(state)]).outcome is outcome
    assert status_row(status(state)).outcome is outcome


def suite(**changes: Any) -> SuiteRun:
    fine = {"code": 0, "announced": 4, "passed": 4, "failed": 0, "ignored": 0, "complete": True}
    return SuiteRun(**{**fine, "skipped_lines": (), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, PASS),
        ({"code": 101}, FAIL),
        ({"failed": 1, "passed": 3}, FAIL),
        ({"ignored": 1, "passed": 3}, FAIL),
        ({"passed": 2, "complete": False}, INCONCLUSIVE),
        ({"passed": 0, "complete": False, "code": 1}, FAIL),
    ],
)
def test_a_suite_passes_only_whole(changes: dict[str, Any], outcome: Outcome) -> None:
    rows = suite_rows("tests/pipeline", suite(**changes))

    assert worst(row.outcome for row in rows) is outcome
