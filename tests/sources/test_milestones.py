"""Milestones: every page or an error, and what proves that a branch is not there."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.checks.mainnet import Backlog, Milestone, MilestoneIssue
from runbook_lib.errors import SourceError

from . import github_answers as answers
from .conftest import World, nobody
from .github_answers import COMMIT, SETTINGS, Pages

pytestmark = pytest.mark.usefixtures("forge_token")
HEAD = "d" * 40


def milestone(number: int, title: str = "v1.4.0", **keys: Any) -> dict[str, Any]:
    counts = {"open_issues": 1, "closed_issues": 0}
    return {"number": number, "title": title, "state": "open", **counts, **keys}


def issue(number: int, **keys: Any) -> dict[str, Any]:
    labels = [{"name": "low-risk"}, "old"]
    given = {"body": "branch: hotfix/slow", "labels": labels, "milestone": {"number": 2}, **keys}
    return answers.issue(number, **given)


OURS = Milestone.model_validate(milestone(2))


def backlog(world: World, answer: Any) -> Backlog:
    return Backlog(world.scope(answer), SETTINGS)


def test_a_milestone_is_found_by_its_exact_title(world: World) -> None:
    pages = Pages([milestone(1, "v1.4")], [milestone(2, state="closed")])
    found = backlog(world, pages).milestone("v1.4.0")

    assert found is not None
    assert (found.number, found.state) == (2, "closed")
    assert world.asked[0].url.query == b"state=all&per_page=100"
    assert backlog(world, pages).milestone("V1.4.0") is None
    twice = r"^forge: milestones: expected one called v1\.4\.0, got 2$"
    with pytest.raises(SourceError, match=twice):
        backlog(world, Pages([milestone(1), milestone(2)])).milestone("v1.4.0")


def test_open_issues_are_as_many_as_the_milestone_counts(world: World) -> None:
    """Pull requests are counted, and are no issues."""
    ours = OURS.model_copy(update={"open_issues": 3})
    pages = Pages([issue(7), issue(8, pull_request={"url": "x"})], [issue(9, body=None, labels=[])])
    found = backlog(world, pages).open_issues(ours)

    assert [(one.number, one.labels, one.branches) for one in found] == [
        (7, ["low-risk", "old"], ["hotfix/slow"]),
        (9, [], []),
    ]
    assert world.asked[0].url.query == b"milestone=2&state=open&per_page=100"


@pytest.mark.parametrize(
    ("issues", "problem"),
    [
        ([], "expected 1 entries on all pages, got 0"),
        ([issue(7), issue(8)], "expected 1 entries on all pages, got 2"),
        ([issue(7), issue(7)], "expected every entry once, got one twice; it changed meanwhile"),
        ([issue(7, milestone={"number": 3})], "expected open ones of 2, got #7 of 3, open"),
        ([issue(7, milestone=None)], "expected open ones of 2, got #7 of None, open"),
        ([issue(7, state="closed")], "expected open ones of 2, got #7 of 2, closed"),
        ([issue(7, labels=[{"colour": "red"}])], "0.labels.0: expected an object with name, or null"),
    ],
)  # fmt: skip
def test_another_list_than_was_asked_for_is_an_error(
    world: World, issues: list[Any], problem: str
) -> None:
    with pytest.raises(SourceError) as caught:
        backlog(world, Pages(issues)).open_issues(OURS)

    assert caught.value.problem.startswith(problem)


def test_a_branch_and_its_head(world: World) -> None:
    answer = httpx.Response(200, json={"name": "hotfix/a+b", "commit": {"sha": HEAD}})
    found = backlog(world, lambda _: answer).branch("hotfix/a+b")

    assert found is not None
    assert (found.name, found.sha) == ("hotfix/a+b", HEAD)
    assert world.asked[0].url.raw_path == b"/api/repos/o/r/branches/hotfix/a%2Bb"


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (404, {"message": "Not Found"}, "expected a branch or none, got 404: Not Found"),
        (404, {}, "expected a branch or none, got 404: {}"),
        (403, {"message": "No"}, "expected status 200, got 403: No; the token lacks a permission"),
        (200, {"name": "hotfix/b", "commit": {"sha": HEAD}}, "expected hotfix/a, got hotfix/b; it was renamed"),
        (200, {"name": "hotfix/a"}, "commit: expected a value, got none"),
    ],
)  # fmt: skip
def test_only_the_forges_own_word_proves_a_branch_absent(
    world: World, status: int, body: Any, problem: str
) -> None:
    """404 is also said of what a token may not see."""
    answer = httpx.Response(status, json=body)
    with pytest.raises(SourceError) as caught:
        backlog(world, lambda _: answer).branch("hotfix/a")
    assert caught.value.problem == problem

    gone = httpx.Response(404, json={"message": "Branch not found"})
    assert backlog(world, lambda _: gone).branch("hotfix/a") is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a" * 201,
        *["../../user", "a/../b", "a//b", "/a", "a/", "a.", "-f", "a?x", "a%2e", "é"],
    ],
)
def test_a_strange_branch_name_is_asked_of_nobody(world: World, name: str) -> None:
    """It comes from an issue's body, which anybody may write."""
    with pytest.raises(SourceError, match="expected a branch's name, got something else"):
        backlog(world, nobody).branch(name)


def test_a_comparison_is_of_the_base_asked_for(world: World) -> None:
    body = {"status": "ahead", "ahead_by": 2, "behind_by": 0,
            "base_commit": {"sha": COMMIT}, "merge_base_commit": {"sha": COMMIT}}  # fmt: skip
    ask = backlog(world, lambda _: httpx.Response(200, json=body))
    found = ask.compare(COMMIT, HEAD)

    assert (found.status, found.merge_base) == ("ahead", COMMIT)
    assert (found.ahead_by, found.behind_by) == (2, 0)
    assert world.asked[0].url.path == f"/api/repos/o/r/compare/{COMMIT}...{HEAD}"
    with pytest.raises(SourceError, match="expected the base dddddddddddd, got cccccccccccc"):
        ask.compare(HEAD, COMMIT)


@pytest.mark.parametrize(
    ("body", "branches"),
    [
        ("Branch:  hotfix/a \r\nmore", ["hotfix/a"]),
        ("branch: a\nbranch: b\nbranch: a", ["a", "b"]), ("see branch: a", []),
        ("branch: a and b", []), ("> branch: a", []), ("branch:\nhotfix/a", []),
    ],
)  # fmt: skip
def test_a_body_links_a_branch_by_a_line(body: str, branches: list[str]) -> None:
    assert MilestoneIssue.model_validate(issue(7, body=body)).branches == branches


@given(st.text())
def test_no_body_breaks_the_reader(body: str) -> None:
    found = MilestoneIssue.model_validate(issue(7, body=body)).branches
    assert all(name and not name.isspace() for name in found)
