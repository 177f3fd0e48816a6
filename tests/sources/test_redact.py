"""Secrets stay out, in whatever spelling they travel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import ParameterError
from runbook_lib.sources.redact import Redactor

TOO_SHORT = (
    "expected a secret of at least 8 characters, got 5; it could not be kept out of the evidence"
)
NO_HEADER = (
    "expected printable ASCII, as headers need it, got something else; look for a line break at"
    " its end"
)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("POST https://hooks.example/services/T0001/B0001/wxyz: 404", "POST [redacted]: 404"),
        ("404: /services/T0001/B0001/wxyz", "404: /[redacted]"),
        ("at services%2FT0001%2FB0001%2Fwxyz", "at [redacted]"),
        ("hooks.example/services", "hooks.example/services"),
        ("the bot's services", "the bot's services"),
    ],
)
def test_of_a_webhook_the_path_is_a_secret_too(
    text: str, cleaned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors and logs show it without its host."""
    monkeypatch.setenv("HOOK", "https://hooks.example/services/T0001/B0001/wxyz")

    assert Redactor(["HOOK"]).clean_text(text) == cleaned


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/in/0123456789abcdef", "token 0123456789abcdef refused"),
        ("https://h/in?key=0123456789", "bad query: key=0123456789"),
        ("https://h/in?key=k&token=0123456789%3Dabcdef", "bad token: 0123456789%3Dabcdef"),
        ("https://h/in?key=k&token=0123456789%3Dabcdef", "bad token: 0123456789=abcdef"),
        ("https://h/services/T0001/", "GET /services/T0001"),
        ("https://h/in/T0001", "GET in/T0001"),
        ("HTTP://h:1/services/T0001", "GET /services/T0001"),
    ],
)
def test_so_are_its_token_and_its_query(
    url: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever part of a URL an error quotes; short words of a path are ordinary ones."""
    monkeypatch.setenv("HOOK", url)
    redactor = Redactor(["HOOK"])

    assert redactor.clean_text(shown).endswith(("[redacted]", "[redacted] refused"))
    assert redactor.clean_text("in h") == "in h"


def test_a_rotated_secret_stays_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was once sent may still come back in an answer."""
    redactor = Redactor(["TOKEN"])
    for value in ("8-secret", "first-secret", "second-secret"):
        monkeypatch.setenv("TOKEN", value)
        assert redactor.secret("TOKEN") == value
    assert redactor.clean_text("8-secret first-secret second-secret") == " ".join(
        ["[redacted]"] * 3
    )


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("https://user:pw@host/x", "https://[redacted]@host/x"),
        ("https://user:p@ss:w@host/x?a=b@c", "https://[redacted]@host/x?a=b@c"),
        ("https://host:443/x@y https://host:80?a@b", "https://host:443/x@y https://host:80?a@b"),
        ("https://0123456789abcdef@host/x", "https://[redacted]@host/x"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("https://host/x?a@b", "https://host/x?a@b"),
        ("Authorization: Bearer abcdefgh.ijkl==", "Authorization: Bearer [redacted]"),
        ("the bearer of bad news", "the bearer of bad news"),
        (
            "a -----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY----- b",
            "a [redacted] b",
        ),
        ('auth_token = "abc" # x', 'auth_token = "[redacted]" # x'),
        ('{"password": "abc"}', '{"password": "[redacted]"}'),
        ("a -----BEGIN EC PRIVATE KEY-----\ncut", "a [redacted]"),
    ],
)
def test_what_has_the_shape_of_a_credential_is_taken_out(text: str, cleaned: str) -> None:
    """Nobody has to name it for that."""
    assert Redactor().clean_text(text) == cleaned


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "expected a secret, got nothing; export it"),
        ("short", TOO_SHORT),
        ("with-a-break\n", NO_HEADER),
        ("gehéimnis", NO_HEADER),
    ],
)
def test_a_secret_that_cannot_be_used_or_hidden_is_refused(
    value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variable, never the value."""
    monkeypatch.setenv("TOKEN", value)
    with pytest.raises(ParameterError) as caught:
        Redactor(["TOKEN"]).secret("TOKEN")
    assert str(caught.value) == f"environment: TOKEN: {problem}"


@given(st.binary())
def test_data_without_secrets_is_the_same_object(data: bytes) -> None:
    """Cleaning costs no copy and is idempotent."""
    redactor = Redactor()
    cleaned = redactor.clean(data)
    assert redactor.clean(cleaned) is cleaned
