"""The forge stand-in, held to GitHub's documented answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ..conftest import Visitor


def checks(visitor: Visitor, page: int = 1) -> httpx.Response:
    commit = visitor.network.release.commit
    return visitor.forge("GET", f"/commits/{commit}/check-runs?per_page=100&page={page}")


def required(visitor: Visitor) -> dict[str, dict[str, object]]:
    runs = [run for page in (1, 2) for run in checks(visitor, page).json()["check_runs"]]
    return {run["name"]: run for run in runs if run["name"].endswith(" tests")}


def test_check_runs_span_pages(visitor: Visitor) -> None:
    """The required ones stand on the last page, which only the Link header leads to."""
    first, last = checks(visitor), checks(visitor, 2)

    assert (first.json()["total_count"], len(first.json()["check_runs"])) == (121, 100)
    assert 'page=2>; rel="next"' in first.headers["link"]
    assert 'rel="next"' not in last.headers["link"]
    assert 'page=1>; rel="first"' in last.headers["link"]
    assert [run["name"] for run in last.json()["check_runs"]][-2:] == [
        "integration tests",
        "property tests",
    ]


def test_a_page_holds_at_most_a_hundred(visitor: Visitor) -> None:
    """A larger per_page is cut, as GitHub cuts it; the default is 30."""
    commit = visitor.network.release.commit
    many = visitor.forge("GET", f"/commits/{commit}/check-runs?per_page=500").json()
    default = visitor.forge("GET", f"/commits/{commit}/check-runs").json()

    assert (len(many["check_runs"]), len(default["check_runs"])) == (100, 30)


@pytest.mark.parametrize(
    ("fault", "field", "value"),
    [
        ("ci-red", "conclusion", "failure"),
        ("ci-skipped", "conclusion", "skipped"),
        ("ci-neutral", "conclusion", "neutral"),
        ("ci-cancelled", "conclusion", "cancelled"),
        ("ci-pending", "status", "in_progress"),
        ("ci-pending", "conclusion", None),
        ("ci-wrong-app", "app", {"id": 99, "slug": "somebody-else", "name": "Other"}),
    ],
)
def test_ci_faults_change_one_required_check(
    visitor: Visitor, fault: str, field: str, value: object
) -> None:
    """The other one stays green."""
    visitor.network.fault(f"{fault}@development")
    runs = required(visitor)

    assert runs["property tests"][field] == value
    assert runs["integration tests"]["conclusion"] == "success"


def test_missing_checks(visitor: Visitor) -> None:
    """One absent, then all of them."""
    visitor.network.fault("ci-missing@development")
    assert list(required(visitor)) == ["integration tests"]
    visitor.network.fault("ci-none@development")
    assert checks(visitor).json() == {"total_count": 0, "check_runs": []}


def test_commit_statuses(visitor: Visitor) -> None:
    """The combined state follows the worst context."""
    commit = visitor.network.release.commit
    assert visitor.forge("GET", f"/commits/{commit}/status").json()["state"] == "success"
    visitor.network.fault("ci-status-red@development")

    combined = visitor.forge("GET", f"/commits/{commit}/status").json()
    assert (combined["state"], combined["sha"]) == ("failure", commit)
    assert [status["state"] for status in combined["statuses"]] == ["failure"]


def test_comments_are_created_updated_and_listed(visitor: Visitor) -> None:
    """In order, by page, each under its issue."""
    issue = visitor.forge("POST", "/issues", json={"title": "Rehearsal", "labels": ["release"]})
    number = issue.json()["number"]
    made = [
        visitor.forge("POST", f"/issues/{number}/comments", json={"body": text}).json()
        for text in ("one", "two", "three")
    ]
    visitor.network.world.clock.advance(60)
    changed = visitor.forge("PATCH", f"/issues/comments/{made[0]['id']}", json={"body": "1"})

    listed = visitor.forge("GET", f"/issues/{number}/comments?per_page=2")
    assert (issue.status_code, changed.status_code) == (201, 200)
    assert [comment["body"] for comment in listed.json()] == ["1", "two"]
    assert 'page=2>; rel="next"' in listed.headers["link"]
    assert changed.json()["updated_at"] > changed.json()["created_at"]
    assert visitor.forge("GET", f"/issues/comments/{made[1]['id']}").json() == made[1]


def test_issue_can_be_closed_and_found_by_label(visitor: Visitor) -> None:
    """Open issues are listed by default; closed ones on demand."""
    number = visitor.forge("POST", "/issues", json={"title": "x", "labels": ["low-risk"]}).json()[
        "number"
    ]
    visitor.forge("PATCH", f"/issues/{number}", json={"state": "closed"})

    listed = visitor.forge("GET", "/issues?labels=low-risk").json()
    assert [issue["number"] for issue in listed] == [43, 44]
    closed = visitor.forge("GET", "/issues?labels=low-risk&state=closed").json()
    assert [issue["number"] for issue in closed] == [number]


def test_branches(visitor: Visitor) -> None:
    """A name may hold a slash; an unknown one is 404."""
    found = visitor.forge("GET", "/branches/hotfix/gossip-backoff").json()
    absent = visitor.forge("GET", "/branches/nope")

    head = visitor.network.forge.backlog.heads["hotfix/gossip-backoff"]
    assert found["commit"]["sha"] == head != visitor.network.release.commit
    assert (absent.status_code, absent.json()["message"]) == (404, "Branch not found")


def test_milestones_and_their_issues(visitor: Visitor) -> None:
    """Counted with pull requests, as GitHub counts; closed ones on demand."""
    listed = visitor.forge("GET", "/milestones").json()
    every = visitor.forge("GET", "/milestones?state=all").json()

    def numbers(query: str) -> list[int]:
        return [one["number"] for one in visitor.forge("GET", f"/issues?{query}").json()]

    assert [(one["title"], one["number"], one["open_issues"]) for one in listed] == [
        ("v1.4.0", 2, 3)
    ]
    assert [one["title"] for one in every] == ["v1.4.0", "v1.3.0"]
    assert (numbers("milestone=2"), numbers("milestone=1")) == ([43, 44, 45], [])
    assert set(numbers("milestone=*")) & set(numbers("milestone=none")) == set()
    visitor.network.fault("milestone-missing@mainnet")
    assert visitor.forge("GET", "/milestones").json() == []


def test_a_hotfix_branch_is_ahead_of_the_release(visitor: Visitor) -> None:
    """It has checks of its own, and lacks the release's commit under a fault."""
    commit = visitor.network.release.commit
    head = visitor.network.forge.backlog.heads["hotfix/gossip-backoff"]

    def compared(base: str, head: str) -> tuple[str, int, int]:
        found = visitor.forge("GET", f"/compare/{base}...{head}").json()
        return found["status"], found["ahead_by"], found["behind_by"]

    runs = visitor.forge("GET", f"/commits/{head}/check-runs").json()["check_runs"]
    assert {run["head_sha"] for run in runs} == {head}
    assert (compared(commit, head), compared(commit, commit)) == (
        ("ahead", 1, 0),
        ("identical", 0, 0),
    )
    visitor.network.fault("hotfix-diverged@mainnet")
    assert compared(commit, head) == ("diverged", 1, 1)
    assert visitor.forge("GET", f"/compare/{commit}...{'0' * 40}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/nope", None, 404, "Not Found"),
        ("GET", "/issues/9999", None, 404, "Not Found"),
        ("GET", "/issues/9999/comments", None, 404, "Not Found"),
        ("DELETE", "/issues/42", None, 405, "Method Not Allowed"),
        ("GET", f"/commits/{'0' * 40}/check-runs", None, 422, f"No commit found for SHA: {'0' * 40}"),
        ("GET", "/issues?colour=red", None, 422, "unknown query parameter(s): colour"),
        ("GET", "/issues?page=x", None, 422, "per_page and page: expected integers"),
        ("POST", "/issues/42/comments", {"body": ""}, 422, "Validation Failed"),
        ("POST", "/issues/42/comments", {"text": "x"}, 422, "Invalid request: unknown or mistyped field"),
        ("POST", "/issues/42/comments", {"body": 1}, 422, "Invalid request: unknown or mistyped field"),
        ("POST", "/issues/42/comments", [], 400, "Body should be a JSON object"),
        ("POST", "/issues", {"body": "x"}, 422, "Validation Failed"),
        ("PATCH", "/issues/42", {"state": "gone"}, 422, "Validation Failed"),
        ("PATCH", "/issues/comments/1", {"body": "x"}, 404, "Not Found"),
        ("DELETE", "/releases", None, 405, "Method Not Allowed"),
        ("GET", "/releases/tags/nope", None, 404, "Not Found"),
        ("GET", "/releases/9999/assets", None, 404, "Not Found"),
        ("POST", "/releases", {"name": "x"}, 422, "Validation Failed"),
        ("POST", "/releases", {"tag_name": "a b"}, 422, "Validation Failed"),
        ("POST", "/releases", {"tag_name": "x", "prerelease": "yes"}, 422, "Invalid request: unknown or mistyped field"),
        ("POST", "/releases", {"tag_name": "x", "prerelease": True, "make_latest": "true"}, 422, "Validation Failed"),
    ],
)  # fmt: skip
def test_whatever_is_not_documented_is_refused(
    visitor: Visitor, method: str, path: str, body: object, status: int, message: str
) -> None:
    """Routes, methods, parameters and fields nobody promised."""
    options = {} if body is None else {"json": body}
    answer = visitor.forge(method, path, **options)

    assert answer.status_code == status
    assert answer.json()["message"] == message


def test_broken_json_is_a_bad_request(visitor: Visitor) -> None:
    """400, not 500."""
    answer = visitor.forge("POST", "/issues/42/comments", content=b"{")

    assert (answer.status_code, answer.json()["message"]) == (400, "Problems parsing JSON")


@pytest.mark.parametrize("auth", [None, "Bearer wrong", "Basic eDp5"])
def test_forge_wants_its_token(visitor: Visitor, auth: str | None) -> None:
    """401 with GitHub's body."""
    url = visitor.site["forge"]["url"] + "/repos/HUBId/chain/issues"
    answer = visitor.http.get(url, headers={"authorization": auth} if auth else {})

    assert answer.status_code == 401
    assert answer.json() == {
        "message": "Bad credentials",
        "documentation_url": "https://docs.github.com/rest",
        "status": "401",
    }


@pytest.mark.parametrize(
    ("fault", "status", "headers"),
    [
        ("forge-401", 401, {}),
        ("forge-403", 403, {"x-ratelimit-remaining": "0"}),
        ("forge-429", 429, {"retry-after": "60", "x-ratelimit-remaining": "0"}),
        ("forge-500", 500, {}),
    ],
)
def test_forge_faults_answer_every_request(
    visitor: Visitor, fault: str, status: int, headers: dict[str, str]
) -> None:
    """Status and headers of each."""
    visitor.network.fault(f"{fault}@development")
    answer = checks(visitor)

    assert answer.status_code == status
    assert {key: answer.headers[key] for key in headers} == headers


@pytest.mark.parametrize(
    ("fault", "error"),
    [("forge-truncated", httpx.RemoteProtocolError), ("forge-down", httpx.ConnectError)],
)
def test_forge_faults_of_the_connection(
    visitor: Visitor, fault: str, error: type[httpx.TransportError]
) -> None:
    """Half an answer, or nobody there; back at the same address afterwards."""
    visitor.network.fault(f"{fault}@development")
    with pytest.raises(error):
        checks(visitor)

    visitor.network.clear(fault)
    assert checks(visitor).status_code == 200


def errors(answer: httpx.Response) -> list[dict[str, str]]:
    found: list[dict[str, str]] = answer.json()["errors"]
    return found


def test_a_comment_is_limited_in_size(visitor: Visitor) -> None:
    """65,536 characters and not one more; the refusal says so as GitHub does."""
    fits = visitor.forge("POST", "/issues/42/comments", json={"body": "é" * 65536})
    too_long = visitor.forge("POST", "/issues/42/comments", json={"body": "é" * 65537})

    assert (fits.status_code, too_long.status_code) == (201, 422)
    assert errors(too_long) == [
        {
            "resource": "IssueComment",
            "code": "unprocessable",
            "field": "data",
            "message": "Body is too long (maximum is 65536 characters)",
        }
    ]


def test_writes_have_a_rate_limit_of_their_own(visitor: Visitor) -> None:
    """80 a minute; reads go on, and a minute later so do writes."""
    one = {"json": {"body": "x"}}
    for _ in range(80):
        assert visitor.forge("POST", "/issues/42/comments", **one).status_code == 201
    refused = visitor.forge("POST", "/issues/42/comments", **one)
    read = visitor.forge("GET", "/issues/42")
    visitor.network.world.clock.advance(61)

    assert (refused.status_code, refused.headers["retry-after"]) == (403, "60")
    assert refused.json()["message"].startswith("You have exceeded a secondary rate limit")
    assert read.status_code == 200
    assert visitor.forge("POST", "/issues/42/comments", **one).status_code == 201


def test_whose_token_it_is(visitor: Visitor) -> None:
    """The account that every comment of the token bears."""
    headers = {"authorization": f"Bearer {visitor.network.env['GITHUB_TOKEN']}"}
    user = visitor.http.get(visitor.site["forge"]["url"] + "/user", headers=headers).json()
    made = visitor.forge("POST", "/issues/42/comments", json={"body": "x"}).json()

    assert user["login"] == made["user"]["login"] == "rehearsal"


def release(visitor: Visitor, tag: str) -> dict[str, Any]:
    body = {"tag_name": tag, "name": "Evidence", "prerelease": True, "make_latest": "false"}
    answer = visitor.forge("POST", "/releases", json=body)
    assert answer.status_code == 201
    made: dict[str, Any] = answer.json()
    return made


def upload(visitor: Visitor, made: dict[str, Any], query: str, data: bytes, **more: Any) -> Any:
    headers = {
        "authorization": f"Bearer {visitor.network.env['GITHUB_TOKEN']}",
        "content-type": "text/plain",
    }
    url = made["upload_url"].removesuffix("{?name,label}") + query
    return visitor.http.post(url, content=data, headers={**headers, **more})


def test_a_release_is_found_by_its_tag(visitor: Visitor) -> None:
    """Once: a second of the same tag is refused."""
    made = release(visitor, "evidence-a")
    twice = visitor.forge("POST", "/releases", json={"tag_name": "evidence-a"})

    assert visitor.forge("GET", "/releases/tags/evidence-a").json() == made
    assert (made["prerelease"], made["draft"]) == (True, False)
    assert (twice.status_code, errors(twice)) == (
        422,
        [{"resource": "Release", "code": "already_exists", "field": "tag_name"}],
    )


def test_assets_are_uploaded_and_listed(visitor: Visitor) -> None:
    """With size, digest and label; special characters of a name become dots."""
    made = release(visitor, "evidence-b")
    answer = upload(visitor, made, "?name=a%20b%2Bc.txt.&label=what%20it%20is", b"hello")
    listed = visitor.forge("GET", f"/releases/{made['id']}/assets?per_page=100").json()

    assert answer.status_code == 201
    assert listed == [answer.json()]
    assert {key: listed[0][key] for key in ("name", "label", "state", "size", "digest")} == {
        "name": "a.b.c.txt",
        "label": "what it is",
        "state": "uploaded",
        "size": 5,
        "digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }


@pytest.mark.parametrize(
    ("query", "data", "more", "status", "message"),
    [
        ("?name=there", b"x", {}, 422, "Validation Failed"),
        ("?label=x", b"x", {}, 422, "Validation Failed"),
        ("?name=x&size=1", b"x", {}, 422, "unknown query parameter(s): size"),
        ("?name=x", b"x", {"content-type": ""}, 422, "Validation Failed"),
        ("?name=x", b"", {}, 400, "Bad Content-Length: 0"),
        ("?name=x", b"x", {"authorization": "Bearer wrong"}, 401, "Bad credentials"),
    ],
)
def test_an_upload_that_breaks_the_rules_is_refused(
    visitor: Visitor, query: str, data: bytes, more: dict[str, str], status: int, message: str
) -> None:
    """A name that is taken or missing, no type, no content, no right."""
    made = release(visitor, f"evidence-{len(visitor.network.forge.releases.releases)}")
    upload(visitor, made, "?name=there", b"first")
    answer = upload(visitor, made, query, data, **more)

    assert (answer.status_code, answer.json()["message"]) == (status, message)
    assert len(visitor.forge("GET", f"/releases/{made['id']}/assets").json()) == 1


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("issue-missing", 404, "Not Found"),
        ("issue-locked", 403, "Unable to create comment because issue is locked."),
        ("comment-refused", 403, "Resource not accessible by personal access token"),
        ("comments-limited", 403, "You have exceeded a secondary rate limit and have been"),
    ],
)
def test_a_comment_can_be_refused(visitor: Visitor, fault: str, status: int, message: str) -> None:
    """Nothing is written, and reading goes on where the issue is there."""
    before = dict(visitor.network.forge.comments)
    visitor.network.fault(f"{fault}@development")
    answer = visitor.forge("POST", "/issues/42/comments", json={"body": "x"})

    assert answer.status_code == status
    assert answer.json()["message"].startswith(message)
    assert visitor.network.forge.comments == before


def test_a_comment_can_be_edited_meanwhile(visitor: Visitor) -> None:
    """The answer is what was written; what is read back is not."""
    visitor.network.fault("comment-edited@development")
    made = visitor.forge("POST", "/issues/42/comments", json={"body": "x"}).json()
    again = visitor.forge("GET", f"/issues/comments/{made['id']}").json()

    assert (made["body"], again["body"]) == ("x", "x\n\nAll good, go ahead.")


@pytest.mark.parametrize(
    ("fault", "dead"), [("comment-answer-lost", False), ("forge-dies-after-write", True)]
)
def test_a_write_can_land_unseen(visitor: Visitor, fault: str, dead: bool) -> None:
    """The answer is lost, or the forge is gone right after it; the comment is there."""
    before = len(visitor.network.forge.comments)
    visitor.network.fault(f"{fault}@development")
    if dead:
        visitor.forge("POST", "/issues/42/comments", json={"body": "x"})
        with pytest.raises(httpx.TransportError):
            visitor.forge("GET", "/issues/42")
    else:
        with pytest.raises(httpx.TransportError):
            visitor.forge("POST", "/issues/42/comments", json={"body": "x"})
        assert visitor.forge("GET", "/issues/42").status_code == 200
    visitor.network.clear(fault)

    assert len(visitor.network.forge.comments) == before + 1
    assert visitor.forge("GET", "/issues/42").status_code == 200
