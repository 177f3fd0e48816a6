"""Telling people: by a command, a webhook, a comment; and what is said when it fails."""

import json
import re
from pathlib import Path

import httpx
import pytest

from runbook_lib.checks.anomalies import by_webhook
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.evidence.posts import OnForge, Post
from runbook_lib.reach import Command, Webhook
from runbook_lib.site import Commands
from runbook_lib.sources.commands import tell
from runbook_lib.sources.github import GitHub
from runbook_lib.sources.tape import read_entries

from ..messages import saying
from .conftest import Handler, World
from .github_answers import SETTINGS, comment


@pytest.fixture
def world(world: World) -> World:
    world.secrets = frozenset({"PAGER_TOKEN", "PAGER_URL"})
    return world


def told_by(world: World, command: Command, **values: str) -> None:
    tell(world.scope(), Commands(notify=command), "notify", **values)


def test_a_command_is_given_role_subject_and_text(world: World, tmp_path: Path) -> None:
    told = tmp_path / "told"
    argv = ["sh", "-c", 'printf "%s|%s|" "$1" "$2" >"$0"; cat "$3" >>"$0"', str(told)]
    command = Command(argv=[*argv, "{role}", "{subject}", "{text}"])
    text = tmp_path / "text"
    text.write_text("what was seen")

    told_by(world, command, role="release-commander", subject="A $(x)", text=str(text))

    assert told.read_text() == "release-commander|A $(x)|what was seen"
    assert [entry.purpose for entry in read_entries(world.folder)] == ["notify"]


def test_a_command_that_fails_has_told_nobody(world: World, tmp_path: Path) -> None:
    for argv, problem in (
        (["sh", "-c", "echo no route >&2; exit 7"], "expected exit code 0, got 7: no route"),
        (["page", "{who}"], "expected placeholders among {role}, {subject}, {text}"),
    ):
        with pytest.raises((SourceError, ParameterError), match=re.escape(problem)):
            told_by(world, Command(argv=argv), role="r", subject="s", text=str(tmp_path))


def answering(status: int, text: str = "") -> Handler:
    return lambda request: httpx.Response(status, text=text)


def test_a_webhook_gets_json_and_its_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER_TOKEN", "pager-token-of-no-worth")
    endpoint = Webhook(url="https://pager.example/hooks", token_env="PAGER_TOKEN")

    by_webhook(world.scope(answering(202)), endpoint, {"id": "A1", "roles": ["x"]})

    [request] = world.asked
    assert json.loads(request.content) == {"id": "A1", "roles": ["x"]}
    assert request.headers["authorization"] == "Bearer pager-token-of-no-worth"
    assert b"of-no-worth" not in (world.folder / "index.jsonl").read_bytes()
    assert [entry.purpose for entry in read_entries(world.folder)] == ["notify"]
    # One that is busy is asked again with the next look, not at once: whoever it told was told.
    with pytest.raises(SourceError, match=r"^telemetry.notify: expected status 200 or .*, got 503"):
        by_webhook(world.scope(answering(503, "busy")), endpoint, {})
    assert len(world.asked) == 2


HOOK = "https://hooks.example/services/T0001/B0001/wxyz0123"


def test_a_webhook_whose_url_is_a_secret_is_called_by_its_variable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_URL", HOOK)
    scoped = world.scope(answering(404, "no such hook: /services/T0001/B0001/wxyz0123"))

    with pytest.raises(SourceError) as caught:
        by_webhook(scoped, Webhook(url_env="PAGER_URL"), {})

    assert [str(request.url) for request in world.asked] == [HOOK]
    [entry] = read_entries(world.folder)
    assert entry.key.startswith("POST env:PAGER_URL sha256:")
    assert "got 404: no such hook: /[redacted]; check the URL" in str(caught.value)
    kept = b"".join(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
    assert b"T0001" not in kept
    assert b"wxyz" not in kept


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "expected a secret, got nothing; export it"),
        ("hooks.example/services/T0001", "expected an http(s) URL, got something else"),
        ("https://hooks.example:services/T0001", "expected an http(s) URL, got something else"),
        ("https://user:pw@hooks.example/T0001", "expected an http(s) URL, got something else"),
    ],
)
def test_a_secret_that_is_no_url_is_not_shown(
    value: str, problem: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variable, and nobody was asked."""
    monkeypatch.setenv("PAGER_URL", value)

    with saying(ParameterError, f"environment: PAGER_URL: {problem}"):
        by_webhook(world.scope(), Webhook(url_env="PAGER_URL"), {})


@pytest.mark.parametrize(
    ("author", "body", "there"),
    [
        ("Bot", "<!-- m -->\nDo this", True),
        ("bot", " <!-- m --> \r\nedited", True),
        ("eve", "<!-- m -->\nDo that", False),
        ("bot", "Do this\n<!-- m -->", False),
        ("bot", "<!-- n -->", False),
    ],
)
def test_what_stands_in_an_issue_is_our_accounts_own_word(
    world: World, author: str, body: str, there: bool
) -> None:
    """By its first line; a forge tells no accounts apart by case."""
    said = comment(1, user={"login": author}, body=body)
    scoped = world.scope(lambda _: httpx.Response(200, json=[said]))
    forge = GitHub(scoped, SETTINGS.model_copy(update={"token_env": "", "account": "bot"}))

    one = OnForge(Post(step="comment", subject="x", text="<!-- m -->\nDo this", issue=7), forge)

    assert one.stands() is (there and body.endswith("Do this"))
    assert (one.ours is not None) is there
