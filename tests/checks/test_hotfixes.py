"""Hotfix branches: what is left open is of low risk, and its fix is queued."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.checks.hotfixes import hotfix_branches
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.rehearsal.faults.table import FAULTS

from .conftest import Bench

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
MINE = [fault for fault in FAULTS.values() if fault.item == hotfix_branches.item]
BRANCH = "hotfix/gossip-backoff"


def judge(bench: Bench) -> CheckResult:
    return bench.judge(hotfix_branches, "mainnet")


@pytest.fixture
def issues(bench: Bench) -> Any:
    """The forge's issues, as they were again afterwards."""
    issues = bench.network.forge.issues
    before = {number: dict(issue) for number, issue in issues.items()}
    yield issues
    issues.clear()
    issues.update(before)


def test_labelled_issues_with_green_branches_pass(bench: Bench) -> None:
    """Each with its risk, its branch's content and its CI; a pull request is no issue."""
    result = judge(bench)
    commit = bench.network.release.commit[:12]

    assert result.outcome is PASS
    assert result.reason == "2 open issues of v1.4.0, all of low risk, each with its fix queued"
    assert [(one.subject, one.what, one.observed) for one in result.rows[:4]] == [
        ("milestone v1.4.0", "read to the last page", "2 open issues"),
        ("#43", "risk", "low-risk"),
        ("#43", f"{BRANCH} contains {commit} and more", "yes"),
        ("#43", f"CI of {BRANCH}", "green"),
    ]
    assert result.data == {"milestone": 2, "issues": [43, 44]}


OBSERVED = {
    "hotfix-branch-missing": ("#43", f"no {BRANCH}"),
    "hotfix-not-low-risk": ("#43", "high-risk"),
    "hotfix-diverged": ("#43", "diverged, without 1 of its commits"),
    "hotfix-ci-red": ("#43", "property tests: check by github-actions: expected success, got failure"),
    "hotfix-ci-pending": ("#43", "property tests: check by github-actions: expected success, got not finished: in_progress"),
    "hotfix-unlabelled": ("#43", "no label"),
    "hotfix-unlinked": ("#43", "no line `branch: NAME` in its body"),
    "milestone-missing": ("milestone v1.4.0", "none"),
}  # fmt: skip


@pytest.mark.parametrize("fault", MINE, ids=lambda fault: fault.name)
def test_what_keeps_a_branch_from_counting_is_one_row(bench: Bench, fault: Any) -> None:
    """One row says so; the other issue stands."""
    bench.network.fault(f"{fault.name}@mainnet")
    result = judge(bench)
    bad = [one for one in result.rows if one.outcome is not PASS]

    assert (result.outcome.value, len(bad)) == (fault.outcome, 1)
    assert (bad[0].subject, bad[0].observed) == OBSERVED[fault.name]


@pytest.mark.parametrize("fault", ["forge-down", "forge-401", "forge-500", "forge-truncated"])
def test_a_forge_that_cannot_be_read_is_inconclusive(bench: Bench, fault: str) -> None:
    """An empty list that nobody could read is no empty list."""
    bench.network.fault(f"{fault}@mainnet")

    assert judge(bench).outcome is INCONCLUSIVE


def test_without_open_issues_it_passes_on_the_milestone_itself(bench: Bench, issues: Any) -> None:
    """It exists, is of this release, and counts no open issue."""
    for number in (43, 44, 45):
        issues[number]["state"] = "closed"
    result = judge(bench)

    assert (result.outcome, result.rows[0].observed) == (PASS, "0 open issues")


def test_the_release_issue_itself_is_no_fix(bench: Bench, issues: Any) -> None:
    """It is open as long as the release is under way; another unlabelled one blocks."""
    issues[42]["milestone"] = {"number": 2}
    assert judge(bench).outcome is PASS
    bench.params["issue"] = 41
    bad = [one for one in judge(bench).rows if one.outcome is not PASS]
    assert [(one.subject, one.what) for one in bad] == [("#42", "risk"), ("#42", "fix")]


@pytest.mark.parametrize(
    ("labels", "outcome"),
    [
        (["low-risk", "bug"], PASS),
        (["low-risk", "medium-risk"], FAIL),
        (["bug"], INCONCLUSIVE),
        (["Low-Risk"], INCONCLUSIVE),
    ],
)
def test_only_the_sites_labels_say_a_risk(
    bench: Bench, issues: Any, labels: list[str], outcome: Outcome
) -> None:
    """A label above low risk outranks one that says low."""
    issues[43]["labels"] = [{"name": label} for label in labels]

    assert judge(bench).outcome is outcome


@pytest.mark.parametrize(
    ("body", "observed"),
    [
        ("branch: main", "nothing more: no fix on it yet"),
        ("branch: ../../user", "expected a branch's name, got something else"),
        (f"branch: {BRANCH}\nbranch: main", f"{BRANCH}, main"),
        ("branch: <script>", "expected a branch's name, got something else"),
    ],
)
def test_a_link_that_proves_nothing_is_inconclusive(
    bench: Bench, issues: Any, body: str, observed: str
) -> None:
    """A branch without a fix, no branch's name, two of them."""
    issues[43]["body"] = body
    bad = [one for one in judge(bench).rows if one.outcome is not PASS]

    assert [(one.subject, one.outcome, one.observed) for one in bad] == [
        ("#43", INCONCLUSIVE, observed)
    ]


def test_a_site_without_risk_labels_is_inconclusive(bench: Bench) -> None:
    """It says which key to set."""
    bench.change_site(forge=bench.site.forge.model_copy(update={"risk": None}))

    assert judge(bench).reason == (
        "site: risk labels: expected forge.risk in the site file, got none; set it"
    )
