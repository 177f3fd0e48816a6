"""The forge: every page or an error, and what a refusal means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from runbook_lib import site
from runbook_lib.errors import SourceError
from runbook_lib.sources.forge import CommitStatus, GitHub

from .conftest import World

COMMIT = "c" * 40
SETTINGS = site.Forge(
    kind="github",
    url="https://forge/api",
    repository="o/r",
    token_env="FORGE_TOKEN",
    ci=site.Ci(app="github-actions", required=["test"]),
)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_TOKEN", "token-of-forge")


def run(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "id": number,
        "name": f"test {number}",
        "head_sha": COMMIT,
        "status": "completed",
        "conclusion": "success",
        "app": {"slug": "github-actions", "name": "GitHub Actions"},
        "html_url": "https://forge/run",
        "started_at": "2026-01-01T00:00:00Z",
        "completed_at": None,
        **keys,
    }


def comment(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "id": number,
        "user": {"login": "ada"},
        "body": "approved",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-02T00:00:00Z",
        "html_url": "https://forge/comment",
        **keys,
    }


class Pages:
    """Answers page by page, each linking to the next at ``host``."""

    def __init__(self, *pages: Any, host: str = "https://forge/api") -> None:
        self.pages, self.host = pages, host

    def __call__(self, request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("page", "1"))
        links = [f'<{self.host}{request.url.path.removeprefix("/api")}?page=9>; rel="last"']
        if number < len(self.pages):
            path = request.url.path.removeprefix("/api")
            links.append(f'<{self.host}{path}?per_page=100&page={number + 1}>; rel="next"')
        return httpx.Response(200, json=self.pages[number - 1], headers={"link": ", ".join(links)})


def test_all_pages_of_check_runs_are_read(world: World) -> None:
    """The latest run of each, as many as the forge says there are."""
    pages = Pages(
        {"total_count": 3, "check_runs": [run(1), run(2)]},
        {"total_count": 3, "check_runs": [run(3, conclusion=None, status="queued", app=None)]},
    )
    runs = GitHub(world.scope(pages), SETTINGS).check_runs(COMMIT)
    assert [(each.name, each.app, each.status, each.conclusion) for each in runs] == [
        ("test 1", "github-actions", "completed", "success"),
        ("test 2", "github-actions", "completed", "success"),
        ("test 3", "", "queued", None),
    ]
    assert [str(request.url) for request in world.asked] == [
        f"https://forge/api/repos/o/r/commits/{COMMIT}/check-runs?filter=latest&per_page=100",
        f"https://forge/api/repos/o/r/commits/{COMMIT}/check-runs?per_page=100&page=2",
    ]
    assert {request.headers["authorization"] for request in world.asked} == {
        "Bearer token-of-forge"
    }


@pytest.mark.parametrize(
    ("pages", "problem"),
    [
        (Pages({"total_count": 2, "check_runs": [run(1)]}), "expected 2 entries on all pages, got 1"),
        (Pages({"total_count": 1, "check_runs": []}), "expected 1 entries on all pages, got 0"),
        (Pages({"total_count": 2, "check_runs": [run(1)]}, {"total_count": 2, "check_runs": [run(1)]}), "expected every entry once, got one twice; it changed meanwhile"),
        (Pages({"total_count": 1, "check_runs": [run(1, head_sha="d" * 40)]}), "expected that commit's, got another's: test 1"),
        (Pages({"total_count": 1, "check_runs": [run(1)]}, {}, host="https://evil/api"), f"expected the next page at forge, got https://evil/api/repos/o/r/commits/{COMMIT}/check-runs?per_page=100&page=2"),
        (Pages({"total_count": 1, "check_runs": [run(1)]}, {}, host="http://forge/api"), f"expected the next page at forge, got http://forge/api/repos/o/r/commits/{COMMIT}/check-runs?per_page=100&page=2"),
        (Pages({"total_count": 1, "check_runs": [run(1, app={"name": "x"})]}), "check_runs.0.app: expected an object with slug, or null, got an object"),
    ],
)  # fmt: skip
def test_a_list_that_is_not_whole_is_an_error(world: World, pages: Pages, problem: str) -> None:
    """Cut, changed meanwhile, another commit's, or elsewhere: the token stays at home."""
    with pytest.raises(SourceError) as caught:
        GitHub(world.scope(pages), SETTINGS).check_runs(COMMIT)
    assert str(caught.value) == f"forge: check runs of cccccccccccc: {problem}"
    assert {request.url.host for request in world.asked} == {"forge"}


def test_pages_without_end_are_given_up(world: World) -> None:
    """A hundred of them are ten thousand entries."""
    endless = Pages(*[[comment(number)] for number in range(102)])
    with pytest.raises(SourceError) as caught:
        GitHub(world.scope(endless), SETTINGS).comments(7)
    assert str(caught.value) == "forge: comments of issue 7: expected at most 100 pages, got more"


def test_statuses_are_those_of_the_commit(world: World) -> None:
    """Per context; another commit's are refused."""
    status = {"context": "ci/x", "state": "success", "description": None, "target_url": None}
    body = {"sha": COMMIT, "state": "success", "total_count": 1, "statuses": [status]}
    forge = GitHub(world.scope(lambda _: httpx.Response(200, json=body)), SETTINGS)
    assert forge.statuses(COMMIT) == [CommitStatus(context="ci/x", state="success")]
    with pytest.raises(SourceError) as caught:
        forge.statuses("d" * 40)
    assert str(caught.value) == (
        f"forge: statuses of dddddddddddd: expected that commit's, got {COMMIT}'s"
    )


def test_comments_name_author_and_edits(world: World) -> None:
    """An edited comment shows; a deleted account is nobody."""
    forge = GitHub(world.scope(Pages([comment(1)], [comment(2, user=None)])), SETTINGS)
    first, second = forge.comments(7)
    assert (first.author, second.author) == ("ada", "")
    assert (first.created_at, first.updated_at) == (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=UTC),
    )


def test_an_issue_is_the_one_asked_for(world: World) -> None:
    """A transferred issue answers under another number."""
    body = comment(1) | {"number": 7, "title": "Release", "state": "open"}
    forge = GitHub(world.scope(lambda _: httpx.Response(200, json=body)), SETTINGS)
    assert (forge.issue(7).title, forge.issue(7).author) == ("Release", "ada")
    with pytest.raises(SourceError) as caught:
        forge.issue(8)
    assert str(caught.value) == "forge: issue 8: expected issue 8, got 7"


@pytest.mark.parametrize(
    ("status", "headers", "problem"),
    [
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1764500000"}, "got 403: the rate limit is used up until 2025-11-30 10:53:20Z"),
        (403, {"x-ratelimit-remaining": "0"}, "got 403: the rate limit is used up; ask again later"),
        (403, {"retry-after": "60"}, "got 403: the rate limit is used up; ask again in 60 s"),
        (403, {"x-ratelimit-remaining": "4999"}, "got 403: Not Found; the token lacks a permission"),
        (401, {}, "got 401: Not Found; the token is wrong or expired"),
        (404, {}, "got 404: Not Found; it does not exist, or the token may not see it"),
        (422, {}, "got 422: Not Found"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_it_means(
    world: World, status: int, headers: dict[str, str], problem: str
) -> None:
    """GitHub says 403 for a used-up limit too, and 404 for what a token may not see."""
    body = {"message": "Not Found", "documentation_url": "https://docs"}
    answer = httpx.Response(status, json=body, headers=headers)
    with pytest.raises(SourceError) as caught:
        GitHub(world.scope(lambda _: answer), SETTINGS).issue(7)
    assert str(caught.value) == f"forge: issue 7: expected status 200, {problem}"
