"""Secrets are taken out before anything is written, shown or judged.

A secret is the value of an environment variable that a site names, in any of the spellings it
travels in, of a URL its path too, and whatever has the shape of a credential: user info in a URL, a bearer token, a
private key, and the values that a node's TOML or a JSON document names as one.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable
from html import escape
from urllib.parse import quote, unquote

from ..errors import ParameterError

MARK = "[redacted]"
SHORTEST = 8  # a shorter secret would blank out ordinary text, or be guessed from what is left
TOKEN = 16  # a shorter word of a path may be an ordinary one
_HEX = re.compile(r"%[0-9A-F]{2}")
_URL = re.compile(r"https?://[^/]+/(\S+)", re.IGNORECASE)
# What must all be there before a shape is looked for. A rare single byte comes first: it is found
# missing ten times faster than a word, and a range answer has a hundred megabytes.
_SHAPES = (
    (
        (b"@", b"://"),
        re.compile(rb"(?<=://)[^\s/\"'<>@:]*:[^\s/\"'<>?#]*@"),
        MARK.encode() + b"@",
    ),
    (  # a token alone before the host; a short name such as git@ is none
        (b"@", b"://"),
        re.compile(rb"(?<=://)[A-Za-z0-9_.~%-]{16,}(?=@)"),
        MARK.encode(),
    ),
    (
        (b" ", b"earer "),
        re.compile(rb"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{8,}=*"),
        MARK.encode(),
    ),
    (
        (b" ", b"PRIVATE KEY-----"),
        re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*KEY-----|\Z)", re.S),
        MARK.encode(),
    ),
    *(
        (
            (rare, hint),
            re.compile(rb"(\b" + hint + rb"\"?\s*[=:]\s*)\"[^\"\n]+\""),
            rb'\1"' + MARK.encode() + b'"',
        )
        for rare, hint in (
            (b"k", b"auth_token"),
            (b"k", b"secret_key"),
            (b"k", b"access_key"),
            (b"w", b"password"),
        )
    ),
)


class Redactor:
    """Takes the named secrets out of bytes and text; remembers old values of a rotated one."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = sorted(names)
        self._known: dict[str, tuple[bytes, ...]] = {}

    def secret(self, name: str) -> str:
        """The value now in the environment. Raises ParameterError unless it can be used and hidden."""
        value = os.environ.get(name, "")
        if not value:
            raise ParameterError(f"environment: {name}: expected a secret, got nothing; export it")
        if len(value) < SHORTEST:
            raise ParameterError(
                f"environment: {name}: expected a secret of at least {SHORTEST} characters,"
                f" got {len(value)}; it could not be kept out of the evidence"
            )
        self._learn(value)
        if not (value.isascii() and value.isprintable()):
            raise ParameterError(
                f"environment: {name}: expected printable ASCII, as headers need it, got something"
                " else; look for a line break at its end"
            )
        return value

    def clean(self, data: bytes) -> bytes:
        """``data`` without secrets; the same object when there is none in it."""
        for name in self._names:
            value = os.environ.get(name, "")
            if len(value) >= SHORTEST:
                self._learn(value)
        for spellings in self._known.values():
            for spelling in spellings:
                if spelling in data:
                    data = data.replace(spelling, MARK.encode())
        for hints, shape, instead in _SHAPES:
            if all(hint in data for hint in hints):
                data = shape.sub(instead, data)
        return data

    def clean_text(self, text: str) -> str:
        return self.clean(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def found_in(self, data: bytes) -> bool:
        """Whether a secret stands in ``data``: what a finished notebook is scanned with."""
        return self.clean(data) != data

    def _learn(self, value: str) -> None:
        if value not in self._known:
            self._known[value] = _spellings(value)


def _spellings(value: str) -> tuple[bytes, ...]:
    spelt = set()
    for part in (value, *_secret_parts(value)):
        raw = os.fsencode(part)
        encoded = base64.b64encode(raw).rstrip(b"=")
        quoted = quote(raw, safe="")
        lower = _HEX.sub(lambda found: found[0].lower(), quoted)
        spelt |= {raw, quoted.encode(), lower.encode(), json.dumps(part)[1:-1].encode(), encoded}
        spelt |= {os.fsencode(escape(part, quote=quotes)) for quotes in (True, False)}
    # The longest first, or a short spelling would leave the rest of a longer one standing.
    return tuple(sorted(spelt, key=lambda item: (-len(item), item)))


def _secret_parts(value: str) -> list[str]:
    """Of a webhook's URL: what follows the host, which errors and logs show without it."""
    found = _URL.fullmatch(value)
    if found is None:
        return []
    whole = found[1].rstrip("/")
    path, _, query = whole.partition("?")
    values = [pair.partition("=")[2] for pair in query.split("&")]
    told = (*path.split("/"), *values, *map(unquote, values))
    words = [word for word in told if len(word) >= TOKEN]
    return [part for part in (whole, path, query, *words) if len(part) >= SHORTEST]
