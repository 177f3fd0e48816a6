"""Telling people: by a command, a webhook, a comment; and what is said when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.reach import Command, Webhook
from runbook_lib.sources import notices
from runbook_lib.sources.github import GitHub
from runbook_lib.sources.http import Http
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.scope import Outside, Scope
from runbook_lib.sources.tape import LiveTape, read_entries

from .github_answers import SETTINGS, comment


@pytest.fixture
def asked() -> list[httpx.Request]:
    return []


def scope(root: Path, asked: list[httpx.Request], status: int = 200, text: str = "busy") -> Scope:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, text=text if status >= 400 else "")

    redactor = Redactor(frozenset({"PAGER_TOKEN", "PAGER_URL"}))
    outside = Outside(redactor, Http(redactor, httpx.MockTransport(answer)))
    return Scope(LiveTape(root / "tape", redactor), outside, "item", 1)


def test_a_command_is_given_role_subject_and_text(
    tmp_path: Path, asked: list[httpx.Request]
) -> None:
    told = tmp_path / "told"
    argv = ["sh", "-c", 'printf "%s|%s|" "$1" "$2" >"$0"; cat "$3" >>"$0"', str(told)]
    command = Command(argv=[*argv, "{role}", "{subject}", "{text}"])
    text = tmp_path / "text"
    text.write_text("what was seen")

    notices.by_command(scope(tmp_path, asked), command, "release-commander", "A $(x)", text)

    assert told.read_text() == "release-commander|A $(x)|what was seen"
    assert [entry.purpose for entry in read_entries(tmp_path / "tape")] == ["notify"]


def test_a_command_that_fails_has_told_nobody(tmp_path: Path, asked: list[httpx.Request]) -> None:
    command = Command(argv=["sh", "-c", "echo no route >&2; exit 7"])

    with pytest.raises(
        SourceError, match=r"^commands.notify: expected exit code 0, got 7: no route$"
    ):
        notices.by_command(scope(tmp_path, asked), command, "r", "s", tmp_path)


def test_a_placeholder_that_is_unknown_is_named(tmp_path: Path, asked: list[httpx.Request]) -> None:
    command = Command(argv=["page", "{who}"])

    with pytest.raises(
        ParameterError, match=r"expected placeholders among \{role\}, \{subject\}, \{text\}"
    ):
        notices.by_command(scope(tmp_path, asked), command, "r", "s", tmp_path)


def test_a_webhook_gets_json_and_its_token(
    tmp_path: Path, asked: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_TOKEN", "pager-token-of-no-worth")
    endpoint = Webhook(url="https://pager.example/hooks", token_env="PAGER_TOKEN")

    notices.by_webhook(scope(tmp_path, asked, 202), endpoint, {"id": "A1", "roles": ["x"]})

    [request] = asked
    assert json.loads(request.content) == {"id": "A1", "roles": ["x"]}
    assert request.headers["authorization"] == "Bearer pager-token-of-no-worth"
    assert b"of-no-worth" not in (tmp_path / "tape" / "index.jsonl").read_bytes()
    assert [entry.purpose for entry in read_entries(tmp_path / "tape")] == ["notify"]


HOOK = "https://hooks.example/services/T0001/B0001/wxyz0123"


def test_a_webhook_whose_url_is_a_secret_is_called_by_its_variable(
    tmp_path: Path, asked: list[httpx.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_URL", HOOK)
    scoped = scope(tmp_path, asked, 404, text="no such hook: /services/T0001/B0001/wxyz0123")

    with pytest.raises(SourceError) as caught:
        notices.by_webhook(scoped, Webhook(url_env="PAGER_URL"), {})

    assert [str(request.url) for request in asked] == [HOOK]
    [entry] = read_entries(tmp_path / "tape")
    assert entry.key.startswith("POST {PAGER_URL} sha256:")
    assert "got 404: no such hook: /[redacted]; check the URL" in str(caught.value)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "tape").rglob("*") if path.is_file())
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
    value: str,
    problem: str,
    tmp_path: Path,
    asked: list[httpx.Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message names the variable, and nobody was asked."""
    monkeypatch.setenv("PAGER_URL", value)

    with pytest.raises(ParameterError) as caught:
        notices.by_webhook(scope(tmp_path, asked), Webhook(url_env="PAGER_URL"), {})

    assert (str(caught.value), asked) == (f"environment: PAGER_URL: {problem}", [])


def test_a_webhook_that_is_busy_is_asked_once(tmp_path: Path, asked: list[httpx.Request]) -> None:
    endpoint = Webhook(url="https://pager.example/hooks")

    with pytest.raises(SourceError, match=r"^telemetry.notify: expected status 200 or .*, got 503"):
        notices.by_webhook(scope(tmp_path, asked, 503), endpoint, {})

    assert len(asked) == 1


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
    tmp_path: Path, author: str, body: str, there: bool
) -> None:
    """By its first line; a forge tells no accounts apart by case."""
    said = comment(1, user={"login": author}, body=body)
    redactor = Redactor()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=[said]))
    scoped = Scope(
        LiveTape(tmp_path / "tape", redactor), Outside(redactor, Http(redactor, transport)), "i", 1
    )
    forge = GitHub(scoped, SETTINGS.model_copy(update={"token_env": "", "account": "bot"}))

    assert notices.stands(forge, 7, "<!-- m -->") is there
