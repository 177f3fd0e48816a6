"""The forge: every page or an error, and what a refusal means."""

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from runbook_lib.checks.mainnet import Backlog, Milestone, MilestoneIssue
from runbook_lib.errors import SourceError, SourceRefused
from runbook_lib.evidence.publish import Asset, Releases
from runbook_lib.sources.github import CommitStatus, GitHub
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import read_entries

from ..messages import saying
from .conftest import World, nobody
from .github_answers import COMMIT, RELEASE, SETTINGS, Pages, asset, comment, issue, run

pytestmark = pytest.mark.usefixtures("forge_token")


def test_all_pages_of_check_runs_are_read(world: World) -> None:
    pages = Pages(
        {"total_count": 3, "check_runs": [run(1), run(2)]},
        {"total_count": 3, "check_runs": [run(3, conclusion=None, status="queued", app=None)]},
    )
    runs = GitHub(world.scope(pages), SETTINGS).check_runs(COMMIT)
    assert [(each.name, each.app, each.status, each.conclusion) for each in runs] == [
        *((f"test {number}", "github-actions", "completed", "success") for number in (1, 2)),
        ("test 3", "", "queued", None),
    ]
    asked = f"https://forge/api/repos/o/r/commits/{COMMIT}/check-runs"
    token = "Bearer token-of-forge"
    assert [(str(each.url), each.headers["authorization"]) for each in world.asked] == [
        (f"{asked}?filter=latest&per_page=100", token), (f"{asked}?per_page=100&page=2", token)
    ]  # fmt: skip


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
    with saying(SourceError, f"forge: check runs of cccccccccccc: {problem}"):
        GitHub(world.scope(pages), SETTINGS).check_runs(COMMIT)
    assert {request.url.host for request in world.asked} == {"forge"}


def test_pages_without_end_are_given_up(world: World) -> None:
    endless = Pages(*[[comment(number)] for number in range(102)])
    with saying(SourceError, "forge: comments of issue 7: expected at most 100 pages, got more"):
        GitHub(world.scope(endless), SETTINGS).comments(7)


def test_statuses_are_those_of_the_commit(world: World) -> None:
    status = {"context": "ci/x", "state": "success", "description": None, "target_url": None}
    body = {"sha": COMMIT, "state": "success", "total_count": 1, "statuses": [status]}
    forge = GitHub(world.scope(lambda _: httpx.Response(200, json=body)), SETTINGS)
    assert forge.statuses(COMMIT) == [CommitStatus(context="ci/x", state="success")]
    said = f"forge: statuses of dddddddddddd: expected that commit's, got {COMMIT}'s"
    with saying(SourceError, said):
        forge.statuses("d" * 40)


def test_comments_name_author_and_edits(world: World) -> None:
    forge = GitHub(world.scope(Pages([comment(1)], [comment(2, user=None)])), SETTINGS)
    first, second = forge.comments(7)
    assert (first.author, second.author) == ("ada", "")
    days = [at.day for at in (first.created_at, first.updated_at)]
    assert (days, first.created_at) == ([1, 2], datetime(2026, 1, 1, tzinfo=UTC))


def test_an_issue_is_the_one_asked_for(world: World) -> None:
    """A transferred issue answers under another number."""
    body = comment(1) | {"number": 7, "title": "Release", "state": "open"}
    forge = GitHub(world.scope(lambda _: httpx.Response(200, json=body)), SETTINGS)
    assert (forge.issue(7).title, forge.issue(7).author) == ("Release", "ada")
    with saying(SourceError, "forge: issue 8: expected issue 8, got 7"):
        forge.issue(8)


@pytest.mark.parametrize(
    ("status", "headers", "problem"),
    [
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1764500000"}, "got 403: the rate limit is used up until 2025-11-30 10:53:20Z"),
        (403, {"x-ratelimit-remaining": "0"}, "got 403: the rate limit is used up; ask again later"),
        (403, {"retry-after": "60"}, "got 403: the rate limit is used up; ask again in 60 s"),
        (422, {}, "got 422: Not Found"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_it_means(
    world: World, status: int, headers: dict[str, str], problem: str
) -> None:
    """GitHub says 403 for a used-up limit too."""
    body = {"message": "Not Found", "documentation_url": "https://docs"}
    answer = httpx.Response(status, json=body, headers=headers)
    with saying(SourceError, f"forge: issue 7: expected status 200, {problem}"):
        GitHub(world.scope(lambda _: answer), SETTINGS).issue(7)


LOCKED = "Unable to create comment because issue is locked."


@pytest.mark.parametrize(
    ("said", "kind", "asked", "problem"),
    [
        (["You have exceeded a secondary rate limit."], None, 2, ""),
        (["A secondary rate limit."] * 2, SourceError, 2, "the rate limit is used up; ask again later"),
        ([LOCKED], SourceRefused, 1, f"{LOCKED}; unlock it there, or name another issue"),
    ],
)  # fmt: skip
def test_a_secondary_limit_is_waited_for_once_and_a_locked_issue_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, said: Any, kind: Any, asked: int, problem: str
) -> None:
    answers = iter([httpx.Response(403, json={"message": each}) for each in said])
    slept: list[float] = []
    monkeypatch.setattr(Scope, "sleep", lambda _, seconds: slept.append(seconds))
    written = httpx.Response(201, json=comment(7))
    forge = GitHub(world.scope(lambda _: next(answers, written)), SETTINGS)
    if kind is None:
        assert forge.write("hello", issue=3).number == 7
    else:
        with pytest.raises(kind) as caught:
            forge.write("hello", issue=3)
        assert type(caught.value) is kind
        assert caught.value.problem == f"expected it written, got 403: {problem}"
    assert (len(world.asked), slept) == (asked, [60.0] * (asked - 1))


def test_issues_since_an_instant_are_read_to_the_last_page(world: World) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        last = request.url.params.get("page") == "2"
        link = {} if last else {"link": f'<{request.url}&page=2>; rel="next"'}
        return httpx.Response(200, headers=link, json=[issue(2 if last else 1, body=None)])

    found = GitHub(world.scope(answer), SETTINGS).issues(datetime(2026, 1, 1, tzinfo=UTC))

    assert [one.number for one in found] == [1, 2]
    assert dict(world.asked[0].url.params) == {
        "direction": "asc", "per_page": "100", "since": "2026-01-01T00:00:00Z",
        "sort": "created", "state": "all",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "ask", "path"),
    [
        (GitHub, lambda forge: forge.post(7, issue=0), b"issues/7"),
        (GitHub, lambda forge: forge.post(7, issue=3), b"issues/comments/7"),
        (Releases, lambda forge: forge.release("evidence/1"), b"releases/tags/evidence%2F1"),
    ],
    ids=["issue", "comment", "release"],
)
def test_what_is_not_there_is_none(world: World, kind: Any, ask: Any, path: bytes) -> None:
    gone = httpx.Response(404, json={"message": "Not Found"})
    assert ask(kind(world.scope(lambda _: gone), SETTINGS)) is None
    assert world.asked[0].url.raw_path == b"/api/repos/o/r/" + path
    with pytest.raises(SourceError):
        ask(kind(world.scope(lambda _: httpx.Response(403)), SETTINGS))


def test_a_release_and_its_assets_are_read_to_the_last_page(world: World) -> None:
    found = httpx.Response(200, json=RELEASE.model_dump())
    assert Releases(world.scope(lambda _: found), SETTINGS).release("evidence-v1") == RELEASE
    forge = Releases(world.scope(Pages([asset(id=1)], [asset(id=2)])), SETTINGS)
    assert [each.id for each in forge.assets(RELEASE)] == [1, 2]


def test_whose_token_it_is_is_asked_or_known(world: World) -> None:
    """An app's token may not ask: then the site says it."""
    forge = GitHub(world.scope(lambda _: httpx.Response(200, json={"login": "ada"})), SETTINGS)
    assert forge.me() == "ada"
    assert str(world.asked[0].url) == "https://forge/api/user"

    known = SETTINGS.model_copy(update={"account": "bot"})
    assert GitHub(world.scope(), known).me() == "bot"

    refused = httpx.Response(403, json={"message": "Resource not accessible by integration"})
    said = "the token lacks a permission; or set forge.account in the site file$"
    with pytest.raises(SourceError, match=said):
        GitHub(world.scope(lambda _: refused), SETTINGS).me()


# --- what is written ---


@pytest.mark.parametrize(
    ("ask", "answer", "path", "content"),
    [
        (lambda f: f.write("hello", issue=3).number, comment(7), "POST /issues/3/comments",
         b'{"body":"hello"}'),
        (lambda f: f.write("more", issue=3, number=7).number, comment(7), "PATCH /issues/comments/7",
         b'{"body":"more"}'),
        (lambda f: f.write("text", title="title").number, issue(7), "POST /issues",
         b'{"body":"text","title":"title"}'),
        (lambda f: f.write("more", number=7).number, issue(7), "PATCH /issues/7",
         b'{"body":"more"}'),
    ],
)  # fmt: skip
def test_it_is_written_once_and_as_a_change(
    world: World, ask: Any, answer: dict[str, Any], path: str, content: bytes
) -> None:
    method, _, below = path.partition(" ")
    written = httpx.Response(201 if method == "POST" else 200, json=answer)
    assert ask(GitHub(world.scope(lambda _: written), SETTINGS)) == 7
    assert [(r.method, r.url.path, r.content, r.headers["content-type"]) for r in world.asked] == [
        (method, f"/api/repos/o/r{below}", content, "application/json")
    ]
    assert [entry.purpose for entry in read_entries(world.folder)] == ["change"]


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        *((status, {}, SourceRefused) for status in (403, 404, 410, 413, 422)),
        *((status, {}, SourceError) for status in (204, 401, 429, 500, 502)),
        (403, {"retry-after": "60"}, SourceError),
        (403, {"x-ratelimit-remaining": "0"}, SourceError),
    ],
)
def test_a_write_that_was_refused_is_told_from_one_that_may_have_landed(
    world: World, status: int, headers: dict[str, str], kind: type[SourceError]
) -> None:
    said = {"message": "no"} if status > 204 else None
    forge = GitHub(
        world.scope(lambda _: httpx.Response(status, headers=headers, json=said)), SETTINGS
    )
    wanted = f"forge: a comment in issue 3: expected it written, got {status}: "
    with saying(kind, wanted, whole=False) as caught:
        forge.write("hello", issue=3)
    assert type(caught.value) is kind
    assert len(world.asked) == 1


def test_a_refusal_says_which_field_was_wrong(world: World) -> None:
    """GitHub's own message is "Validation Failed" whatever was wrong."""
    errors = [{"code": "unprocessable", "message": "Body is too long"}, {"code": "x"}]
    body = {"message": "Validation Failed", "errors": errors}
    forge = GitHub(world.scope(lambda _: httpx.Response(422, json=body)), SETTINGS)
    with pytest.raises(SourceRefused, match=r"got 422: Validation Failed: Body is too long$"):
        forge.write("", issue=3, number=1)


def test_a_new_release_never_becomes_the_latest(world: World) -> None:
    made = httpx.Response(201, json=RELEASE.model_dump())
    forge = Releases(world.scope(lambda _: made), SETTINGS)
    assert forge.create_release("evidence-v1", COMMIT, "Evidence", "text") == RELEASE
    assert json.loads(world.asked[0].content) == {
        "tag_name": "evidence-v1", "target_commitish": COMMIT, "name": "Evidence", "body": "text",
        "prerelease": True, "make_latest": "false",
    }  # fmt: skip


def test_a_file_is_uploaded_where_the_release_says(world: World) -> None:
    forge = Releases(world.scope(lambda _: httpx.Response(201, json=asset())), SETTINGS)
    assert forge.upload(RELEASE, "a.txt", b"hello") == Asset(**asset())
    sent = world.asked[0]
    assert str(sent.url) == "https://forge/up/releases/5/assets?name=a.txt"
    assert (sent.content, sent.headers["content-type"]) == (b"hello", "application/json")


DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    "change", [{"size": 4}, {"state": "starter"}, {"digest": f"sha256:{'b' * 64}"}]
)
def test_a_file_that_did_not_arrive_whole_is_an_error(change: dict[str, Any]) -> None:
    Asset(**asset(digest=DIGEST)).require(DIGEST, 5)
    with saying(SourceError, f"forge: asset a.txt: expected 5 bytes, {DIGEST}, got ", whole=False):
        Asset(**asset(**change)).require(DIGEST, 5)


def test_a_file_that_was_renamed_is_an_error(world: World) -> None:
    forge = Releases(world.scope(lambda _: httpx.Response(201, json=asset(name="b"))), SETTINGS)
    with saying(SourceError, "forge: asset a.txt: expected it under that name, got b"):
        forge.upload(RELEASE, "a.txt", b"hello")


@pytest.mark.parametrize(
    ("api", "upload", "allowed"),
    [
        ("https://api.github.com", "https://uploads.github.com/x", True),
        ("https://ghe.example/api/v3", "https://ghe.example/api/uploads/x", True),
        ("https://api.github.com", "https://evil.example/x", False),
        ("https://api.github.com", "http://uploads.github.com/x", False),
        ("https://api.github.com", "https://uploads.github.com.evil.example/x", False),
        ("https://api.github.com", "https://uploads.github.com@evil.example/x", False),
    ],
)
def test_the_token_goes_to_no_other_host_with_a_file(
    world: World, api: str, upload: str, allowed: bool
) -> None:
    settings = SETTINGS.model_copy(update={"url": api})
    release = RELEASE.model_copy(update={"upload_url": upload + "{?name,label}"})
    forge = Releases(world.scope(lambda _: httpx.Response(201, json=asset())), settings)
    with nullcontext() if allowed else pytest.raises(SourceError):
        forge.upload(release, "a.txt", b"hello")
    assert len(world.asked) == allowed


# --- milestones: every page or an error, and what proves that a branch is not there ---------------


HEAD = "d" * 40


def milestone(number: int, title: str = "v1.4.0", **keys: Any) -> dict[str, Any]:
    counts = {"open_issues": 1, "closed_issues": 0}
    return {"number": number, "title": title, "state": "open", **counts, **keys}


def open_issue(number: int, **keys: Any) -> dict[str, Any]:
    labels = [{"name": "low-risk"}, "old"]
    given = {"body": "branch: hotfix/slow", "labels": labels, "milestone": {"number": 2}, **keys}
    return issue(number, **given)


OURS = Milestone.model_validate(milestone(2))


def backlog(world: World, answer: Any) -> Backlog:
    return Backlog(world.scope(answer), SETTINGS)


def test_a_milestone_is_found_by_its_exact_title(world: World) -> None:
    pages = Pages([milestone(1, "v1.4")], [milestone(2, state="closed")])
    found = backlog(world, pages).milestone("v1.4.0")

    assert found is not None and found.number == 2
    assert world.asked[0].url.query == b"per_page=100&state=all"
    assert backlog(world, pages).milestone("V1.4.0") is None
    with saying(SourceError, "forge: milestones: expected one called v1.4.0, got 2"):
        backlog(world, Pages([milestone(1), milestone(2)])).milestone("v1.4.0")


def test_open_issues_are_as_many_as_the_milestone_counts(world: World) -> None:
    """Pull requests are counted, and are no issues."""
    ours = OURS.model_copy(update={"open_issues": 3})
    pages = Pages(
        [open_issue(7), open_issue(8, pull_request={"url": "x"})],
        [open_issue(9, body=None, labels=[])],
    )
    found = backlog(world, pages).open_issues(ours)

    assert [(one.number, one.labels, one.branches) for one in found] == [
        (7, ["low-risk", "old"], ["hotfix/slow"]),
        (9, [], []),
    ]
    assert world.asked[0].url.query == b"milestone=2&per_page=100&state=open"


@pytest.mark.parametrize(
    ("issues", "problem"),
    [
        ([], "expected 1 entries on all pages, got 0"),
        ([open_issue(7), open_issue(8)], "expected 1 entries on all pages, got 2"),
        ([open_issue(7), open_issue(7)], "expected every entry once, got one twice; it changed meanwhile"),
        ([open_issue(7, milestone={"number": 3})], "expected open ones of 2, got #7 of 3, open"),
        ([open_issue(7, milestone=None)], "expected open ones of 2, got #7 of None, open"),
        ([open_issue(7, state="closed")], "expected open ones of 2, got #7 of 2, closed"),
        ([open_issue(7, labels=[{"colour": "red"}])], "0.labels.0: expected an object with name, or null"),
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

    assert found is not None and (found.name, found.sha) == ("hotfix/a+b", HEAD)
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
    ["", "a b", "a" * 201, "../../user", "a/../b", "a//b", "/a", "a/", "a.", "-f", "a?x", "a%2e", "é"],
)  # fmt: skip
def test_a_strange_branch_name_is_asked_of_nobody(world: World, name: str) -> None:
    """It comes from an issue's body, which anybody may write."""
    with pytest.raises(SourceError, match="expected a branch's name, got something else"):
        backlog(world, nobody).branch(name)


def test_a_comparison_is_of_the_base_asked_for(world: World) -> None:
    body = {"status": "ahead", "ahead_by": 2, "behind_by": 0,
            "base_commit": {"sha": COMMIT}, "merge_base_commit": {"sha": COMMIT}}  # fmt: skip
    ask = backlog(world, lambda _: httpx.Response(200, json=body))
    found = ask.compare(COMMIT, HEAD)

    told = (found.status, found.merge_base, found.ahead_by, found.behind_by)
    assert told == ("ahead", COMMIT, 2, 0)
    assert world.asked[0].url.path == f"/api/repos/o/r/compare/{COMMIT}...{HEAD}"
    with pytest.raises(SourceError, match="expected the base dddddddddddd, got cccccccccccc"):
        ask.compare(HEAD, COMMIT)


@pytest.mark.parametrize(
    ("body", "branches"),
    [
        ("Branch:  hotfix/a \r\nmore", ["hotfix/a"]),
        ("branch: a\nbranch: b\nbranch: a", ["a", "b"]), ("see branch: a", []), ("branch:  \t", []), ("branch: \x85\x1f", []),
        ("branch: a and b", []), ("> branch: a", []), ("branch:\nhotfix/a", []),
    ],
)  # fmt: skip
def test_a_body_links_a_branch_by_a_line(body: str, branches: list[str]) -> None:
    assert MilestoneIssue.model_validate(open_issue(7, body=body)).branches == branches
