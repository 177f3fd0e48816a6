"""What is written to the forge: once, as a change, and a refusal told from a lost answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from runbook_lib.errors import SourceError, SourceRefused
from runbook_lib.sources.github import Asset, GitHub
from runbook_lib.sources.tape import read_entries

from .conftest import World
from .github_answers import COMMIT, RELEASE, SETTINGS, asset, comment, issue

pytestmark = pytest.mark.usefixtures("forge_token")


def test_a_comment_is_written_once_and_as_a_change(world: World) -> None:
    """A POST, then a PATCH, each one entry of the tape that counts as a change."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201 if request.method == "POST" else 200, json=comment(7))

    forge = GitHub(world.scope(answer), SETTINGS)
    assert (forge.create_comment(3, "hello").id, forge.update_comment(7, "more").id) == (7, 7)
    assert [(r.method, r.url.path, r.content, r.headers["content-type"]) for r in world.asked] == [
        ("POST", "/api/repos/o/r/issues/3/comments", b'{"body":"hello"}', "application/json"),
        ("PATCH", "/api/repos/o/r/issues/comments/7", b'{"body":"more"}', "application/json"),
    ]
    assert [entry.purpose for entry in read_entries(world.folder)] == ["change", "change"]


def test_an_issue_is_written_once_and_as_a_change(world: World) -> None:
    """By what is documented of it, nothing else."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201 if request.method == "POST" else 200, json=issue(7))

    forge = GitHub(world.scope(answer), SETTINGS)
    assert forge.create_issue("title", "text").number == 7
    assert forge.update_issue(7, "more").number == 7
    assert [(r.method, r.url.path, r.content) for r in world.asked] == [
        ("POST", "/api/repos/o/r/issues", b'{"body":"text","title":"title"}'),
        ("PATCH", "/api/repos/o/r/issues/7", b'{"body":"more"}'),
    ]
    assert [entry.purpose for entry in read_entries(world.folder)] == ["change", "change"]


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (403, {}, SourceRefused),
        (404, {}, SourceRefused),
        (410, {}, SourceRefused),
        (413, {}, SourceRefused),
        (422, {}, SourceRefused),
        (401, {}, SourceError),
        (403, {"retry-after": "60"}, SourceError),
        (403, {"x-ratelimit-remaining": "0"}, SourceError),
        (429, {}, SourceError),
        (500, {}, SourceError),
        (502, {}, SourceError),
        (204, {}, SourceError),
    ],
)
def test_a_write_that_was_refused_is_told_from_one_that_may_have_landed(
    world: World, status: int, headers: dict[str, str], kind: type[SourceError]
) -> None:
    """Asked once either way; a used-up limit is no refusal."""
    answer = httpx.Response(
        status, headers=headers, json={"message": "no"} if status > 204 else None
    )
    with pytest.raises(SourceError) as caught:
        GitHub(world.scope(lambda _: answer), SETTINGS).create_comment(3, "hello")
    assert type(caught.value) is kind
    assert str(caught.value).startswith(
        f"forge: a comment in issue 3: expected it written, got {status}: "
    )
    assert len(world.asked) == 1


def test_a_refusal_says_which_field_was_wrong(world: World) -> None:
    """GitHub's own message is "Validation Failed" whatever was wrong."""
    body = {
        "message": "Validation Failed",
        "errors": [{"code": "unprocessable", "message": "Body is too long"}, {"code": "x"}],
    }
    with pytest.raises(SourceRefused) as caught:
        GitHub(world.scope(lambda _: httpx.Response(422, json=body)), SETTINGS).update_comment(
            1, ""
        )
    assert (
        caught.value.problem == "expected it written, got 422: Validation Failed: Body is too long"
    )


def test_a_new_release_never_becomes_the_latest(world: World) -> None:
    """A pre-release at the commit."""
    made = httpx.Response(201, json=RELEASE.model_dump())
    forge = GitHub(world.scope(lambda _: made), SETTINGS)
    assert forge.create_release("evidence-v1", COMMIT, "Evidence", "text") == RELEASE
    assert json.loads(world.asked[0].content) == {
        "tag_name": "evidence-v1",
        "target_commitish": COMMIT,
        "name": "Evidence",
        "body": "text",
        "prerelease": True,
        "make_latest": "false",
    }


def test_a_file_is_uploaded_where_the_release_says(world: World) -> None:
    """With its name, label and media type."""
    forge = GitHub(world.scope(lambda _: httpx.Response(201, json=asset())), SETTINGS)
    assert forge.upload(RELEASE, "a.txt", "what", b"hello", "text/plain") == Asset(**asset())
    sent = world.asked[0]
    assert str(sent.url) == "https://forge/up/releases/5/assets?label=what&name=a.txt"
    assert (sent.content, sent.headers["content-type"]) == (b"hello", "text/plain")


@pytest.mark.parametrize("change", [{"name": "a.b.txt"}, {"size": 4}, {"state": "starter"}])
def test_a_file_that_did_not_arrive_whole_is_an_error(world: World, change: dict[str, Any]) -> None:
    """Renamed, cut, or left half-way."""
    forge = GitHub(world.scope(lambda _: httpx.Response(201, json=asset(**change))), SETTINGS)
    with pytest.raises(SourceError) as caught:
        forge.upload(RELEASE, "a.txt", "what", b"hello", "text/plain")
    assert str(caught.value).startswith("forge: asset a.txt: expected 5 bytes uploaded, got ")


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
    """Whatever address the forge's answer names."""
    settings = SETTINGS.model_copy(update={"url": api})
    release = RELEASE.model_copy(update={"upload_url": upload + "{?name,label}"})
    forge = GitHub(world.scope(lambda _: httpx.Response(201, json=asset())), settings)
    if allowed:
        forge.upload(release, "a.txt", "what", b"hello", "text/plain")
    else:
        with pytest.raises(SourceError):
            forge.upload(release, "a.txt", "what", b"hello", "text/plain")
    assert len(world.asked) == allowed
