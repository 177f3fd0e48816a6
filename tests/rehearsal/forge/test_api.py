"""The forge stand-in, held to GitHub's documented answers."""

from typing import Any

import pytest

from ..conftest import Visitor


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


def test_a_comment_is_limited_in_size(visitor: Visitor) -> None:
    """65,536 characters and not one more; the refusal says so as GitHub does."""
    fits = visitor.forge("POST", "/issues/42/comments", json={"body": "é" * 65536})
    too_long = visitor.forge("POST", "/issues/42/comments", json={"body": "é" * 65537})

    assert (fits.status_code, too_long.status_code) == (201, 422)
    assert too_long.json()["errors"] == [
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
