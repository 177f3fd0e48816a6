"""The rows of the development checks, answer by answer."""

import json
from typing import Any

import pytest

from runbook_lib.checks.ci import required_row, status_row
from runbook_lib.checks.suites import SuiteRun, judge_suite
from runbook_lib.findings import Findings
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


def suite(number: int, conclusion: str = "success", app: str = APP) -> CheckRun:
    more = {"check_suite": {"id": number // 10}, "app": {"slug": app}}
    return run(conclusion, number=number, **more)


RED, OTHER = suite(25, "failure"), suite(25, "success", "jenkins")


@pytest.mark.parametrize(
    ("runs", "states", "outcome", "observed"),
    [
        ([run("success")], [], PASS, "success"),
        *(([run(word)], [], FAIL, word) for word in ("timed_out", "action_required", "startup_failure")),
        *(([run(word)], [], INCONCLUSIVE, str(word)) for word in ("stale", "a word of the future", None)),
        *(([run("success", status=word)], [], INCONCLUSIVE, f"not finished: {word}")
          for word in ("queued", "in_progress", "waiting", "requested", "pending")),
        # A re-run replaces what came before it, for better and worse.
        ([run("success", number=2), run("failure", number=1)], [], PASS, "success"),
        ([run("success", number=1), run("failure", number=2)], [], FAIL, "failure"),
        # CI that reports by statuses has no check run.
        *(([], [word], outcome, word) for word, outcome in (
            ("success", PASS), ("pending", INCONCLUSIVE), ("failure", FAIL), ("error", FAIL))),
        # Everybody who reports a required name must be green.
        ([suite(10)], ["failure"], FAIL, "failure"), ([suite(10)], ["pending"], INCONCLUSIVE, "pending"),
        ([suite(10), RED], [], FAIL, "failure"), ([suite(10), suite(25, "skipped")], [], INCONCLUSIVE, "skipped"),
        ([RED, suite(26), suite(10)], [], PASS, "success"), ([RED, suite(31)], [], FAIL, "failure"),
        ([suite(10), suite(25, "failure", "jenkins")], [], FAIL, "failure by jenkins"),
        ([suite(10), OTHER], ["success"], PASS, "success"), ([OTHER], ["success"], INCONCLUSIVE, "only by jenkins"),
        ([], [], INCONCLUSIVE, "no such check for this commit"),
    ],
)  # fmt: skip
def test_only_the_newest_success_of_everybody_who_reports_is_green(
    runs: list[CheckRun], states: list[str], outcome: Outcome, observed: str
) -> None:
    row = required_row("property tests", APP, runs, [status(state) for state in states])

    assert (row.outcome, row.observed) == (outcome, observed)
    if not runs:
        assert {status_row(status(state)).outcome for state in states} <= {outcome}


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, PASS), ({"code": 101}, FAIL), ({"failed": 1, "passed": 3}, FAIL),
        ({"ignored": 1, "passed": 3}, FAIL), ({"passed": 2, "complete": False}, INCONCLUSIVE),
        ({"passed": 0, "complete": False, "code": 1}, FAIL),
    ],
)  # fmt: skip
def test_a_suite_passes_only_whole(changes: dict[str, Any], outcome: Outcome) -> None:
    given: Any = {"code": 0, "announced": 4, "passed": 4, "failed": 0, "ignored": 0} | changes
    context, run = Findings(), SuiteRun(**{"complete": True, "skipped_lines": (), **given})
    judge_suite(context, "tests/pipeline", run)
    rows = context.findings

    assert worst(row.outcome for row in rows) is outcome
