"""Secrets stay out, in whatever spelling they travel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import ParameterError
from runbook_lib.sources.redact import Redactor

from ..messages import saying

TOO_SHORT = "expected a secret of at least 8 characters, got 5; it could not be kept out of the"
NO_HEADER = "expected printable ASCII, as headers need it, got something else; look for a line"
HOOK, ONE_KEY = "https://hooks.example/services/T0001/B0001/wxyz", "https://h/in?key=0123456789"
TWO_KEYS = "https://h/in?key=k&token=0123456789%3Dabcdef"


@pytest.mark.parametrize(
    ("url", "text", "cleaned"),
    [
        (HOOK, f"POST {HOOK}: 404", "POST [redacted]: 404"),
        (HOOK, "404: /services/T0001/B0001/wxyz", "404: /[redacted]"),
        (HOOK, "at services%2FT0001%2FB0001%2Fwxyz", "at [redacted]"),
        (HOOK, "hooks.example/services", "hooks.example/services"),
        (HOOK, "the bot's services", "the bot's services"),
        ("https://h/in/0123456789abcdef", "0123456789abcdef refused", "[redacted] refused"),
        (ONE_KEY, "bad query: key=0123456789", "bad query: [redacted]"),
        (ONE_KEY, "in h", "in h"),
        (TWO_KEYS, "bad token: 0123456789%3Dabcdef", "bad token: [redacted]"),
        (TWO_KEYS, "bad token: 0123456789=abcdef", "bad token: [redacted]"),
        ("https://h/services/T0001/", "GET /services/T0001", "GET /[redacted]"),
        ("https://h/in/T0001", "GET in/T0001", "GET [redacted]"),
        ("HTTP://h:1/services/T0001", "GET /services/T0001", "GET /[redacted]"),
    ],
)
def test_of_a_webhook_path_token_and_query_are_secrets_too(
    url: str, text: str, cleaned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", url)

    assert Redactor(["HOOK"]).clean_text(text) == cleaned


def test_a_rotated_secret_stays_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    redactor = Redactor(["TOKEN"])
    for value in ("8-secret", "first-secret", "second-secret"):
        monkeypatch.setenv("TOKEN", value)
        assert redactor.secret("TOKEN") == value
    cleaned = redactor.clean_text("8-secret first-secret second-secret")
    assert cleaned == " ".join(["[redacted]"] * 3)


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
        ("a -----BEGIN EC PRIVATE KEY-----\ncut", "a [redacted]"),
    ],
)
def test_what_has_the_shape_of_a_credential_is_taken_out(text: str, cleaned: str) -> None:
    assert Redactor().clean_text(text) == cleaned


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "expected a secret, got nothing; export it"),
        ("short", f"{TOO_SHORT} evidence"),
        ("with-a-break\n", f"{NO_HEADER} break at its end"),
        ("gehéimnis", f"{NO_HEADER} break at its end"),
    ],
)
def test_a_secret_that_cannot_be_used_or_hidden_is_refused(
    value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", value)
    with saying(ParameterError, f"environment: TOKEN: {problem}"):
        Redactor(["TOKEN"]).secret("TOKEN")


@given(st.binary())
def test_data_without_secrets_is_the_same_object(data: bytes) -> None:
    redactor = Redactor()
    cleaned = redactor.clean(data)
    assert redactor.clean(cleaned) is cleaned
