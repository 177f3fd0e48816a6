"""The forge stand-in, held to GitHub's documented answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ..conftest import Visitor


def checks(visitor: Visitor, page: int = 1) -> httpx.Response:
    commit = visitor.network.release.commit
    return visitor.forge("GET", f"/commits/{commit}/check-runs?per_page=100&page={page}")


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


def test_comments_are_created_updated_and_listed(visitor: Visitor) -> None:
    """In order, by page, each under its issue."""
    issue = visitor.forge("POST", "/issues", json={"title": "Rehearsal"})
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
        ("PATCH", "/issues/42", {"state": "closed"}, 422, "Invalid request: unknown or mistyped field"),
        ("POST", "/issues", {"title": "x" * 257}, 422, "Validation Failed"),
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
