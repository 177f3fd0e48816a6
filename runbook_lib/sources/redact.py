"""Secrets are taken out before anything is written, shown or judged.

Of the variables that a site names, the value in any coding it travels in, of a URL its path too. Of a
document (TOML, YAML, JSON), what stands under a key that says secret, whatever the quoting. Of any
text, the same where it is assigned, and what has the shape of a credential.
"""

from __future__ import annotations

import base64
import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from html import unescape
from itertools import chain
from typing import Any
from urllib.parse import unquote

import yaml

from ..errors import ParameterError
from ..reach import SECRET_KEY, names_secret
from ..strict import MAX_TABLES, TooDeep, load_toml, refuse_traps

MARK = "[redacted]"
TOO_DEEP = f"{MARK} tables more than {MAX_TABLES} deep".encode()
SHORTEST = 8  # a shorter secret would blank out ordinary text, or be guessed from what is left
TOKEN = 16  # a shorter word of a path may be an ordinary one
LEVELS = 3  # of escapes within escapes
LARGEST = 16 * 1024 * 1024  # a larger document is an answer of numbers
_URL = re.compile(r"https?://[^/]+/(\S+)", re.IGNORECASE)
_PLACE = re.compile(
    r"(?:path|file|dir|env|backend)\Z", re.IGNORECASE
)  # where it lies, not what it is

# --- text: what is assigned, and shapes. Looked for only where one of their letters stands: in an
# answer of numbers, which has a hundred megabytes, these are few.

_LOWER, _LETTERS = bytes(range(256)).lower(), b"@abcdefghijklmnopqrstuvwxyz"
_OTHER = bytes(set(range(256)) - set(_LETTERS + _LETTERS.upper()))
_KEY, _M = SECRET_KEY.encode(), MARK.encode()
_WORDS = tuple(re.sub(rb"\[[^]]*\]\?", b"", _KEY[3 : _KEY.index(b")")]).split(b"|"))
_ESCAPED = re.compile(rb"\\[uUx]0*[4-7][0-9a-fA-F]")  # a letter, as a key may spell it
_QUOTE, _WORD = rb"(?:\\*+[\"'])?+", rb"[^\s\"'\\,;&<>{}()\[\]|]{5,}"
_END = rb"(?=[ \t]*(?:\\+[nr]|[\r\n,;&}]|\Z)|[ \t]+#)"
_UNLESS = rb"(?!\[redacted\])"
_HEADER = re.compile(rb"(?:Bearer|Basic) \[redacted\]")


def _assigned(found: re.Match[bytes]) -> bytes:
    quote = found[2] or found[3] or b""
    return found[1] + quote + _M + quote


Instead = bytes | Callable[[re.Match[bytes]], bytes]
_SHAPES: list[tuple[tuple[bytes, ...], re.Pattern[bytes], Instead]] = [
    (hints, re.compile(shape), instead)
    for hints, shape, instead in (
        # RFC 9110 and 6265: the rest of a header's line; RFC 6750 and 7617: its credentials elsewhere.
        ((b"authorization", b"cookie"),
         rb"(?i)((?:authorization|cookie)" + _QUOTE + rb"[ \t]*[:=][ \t]*+" + _QUOTE +
         rb"(?:[a-z][\w-]* +)?+)" + _UNLESS + rb"[^\"'\r\n\\<]{6,}", rb"\1" + _M),
        ((b"bearer",), rb"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{8,}=*", _M),
        ((b"basic",), rb"(?<=[Bb]asic )(?=[a-zA-Z+/]*[0-9=]|[a-z]+[A-Z])[A-Za-z0-9+/]{8,}=*", _M),
        # An option and the word after it; key = value, in text or what a parser does not take.
        (_WORDS, rb"(?i)(--[\w-]*" + _KEY + rb"(?:[ \t]++|\\*[\"'],\s*)" + _QUOTE + rb")" + _UNLESS +
         rb"[^\s\"'\\,]{5,}", rb"\1" + _M),
        (_WORDS, rb"(?i)(" + _KEY + rb"(?:\\*[\"'`])?[ \t]*(?:=>|:=|[=:])[ \t]*+)(?:"
         rb"(\\*(?:\"\"\"|'''))" + _UNLESS + rb"(?s:(?:\\.|[^\\])*?)(?:\2|\Z)"
         rb"|(\\*[\"'])(?!\3)" + _UNLESS + rb"(?:\\.|[^\\\r\n])+?(?:\3|(?=[\r\n])|\Z)"
         rb"|(?!(?:true|false|null|none)\b)(?:(?<==)" + _WORD + rb"|" + _WORD + _END + rb"))",
         _assigned),
        # RFC 3986: user information, or a token alone before the host; a short name such as git@ is none.
        ((b"@",), rb"(?<=://)[^\s/\"'<>@:]*:[^\s/\"'<>?#]*@", _M + b"@"),
        ((b"@",), rb"(?<=://)[A-Za-z0-9_.~%-]{16,}(?=@)", _M),
        # RFC 7468, and OpenPGP's armour; RFC 7519
        ((b"privatekey",), rb"-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----(?s:.*?)"
         rb"(?:-----END [A-Z ]*-----|\Z)", _M),
        ((b"eyj",), rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*", _M),
        # GitHub docs, "GitHub's token formats"; GitLab docs, "Token prefixes"
        ((b"gh", b"githubpat"), rb"\b(?:gh[opsur]_|github_pat_)[A-Za-z0-9_]{20,}", _M),
        ((b"gl",), rb"\bgl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[A-Za-z0-9_-]{20,}", _M),
        # AWS IAM, "Unique identifiers"; Google Cloud, "API keys" and OAuth; Slack, "Token types"
        ((b"akia", b"asia", b"abia", b"acca"), rb"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b", _M),
        ((b"aiza", b"ya", b"gocspx"), rb"\b(?:AIza|ya29\.|GOCSPX-)[A-Za-z0-9_-]{20,}", _M),
        ((b"xox", b"xapp"), rb"\bx(?:ox[a-z]|app)-[A-Za-z0-9-]{10,}", _M),
        ((b"slackcom",), rb"(?<=hooks\.slack\.com/)[A-Za-z0-9/_-]{20,}", _M),
        # Grafana's service accounts, HashiCorp Vault, npm, PyPI, age
        ((b"glsa", b"hvs", b"hvb", b"npm", b"pypi", b"agesecretkey"),
         rb"\b(?:glsa_|hv[bs]\.|npm_|pypi-|AGE-SECRET-KEY-)[A-Za-z0-9_-]{20,}", _M),
    )
]  # fmt: skip


def _stands(hints: Iterable[bytes], data: bytes) -> bool:
    letters = data.translate(_LOWER, _OTHER)
    return any(hint in letters for hint in hints)


class Redactor:
    """Takes the named secrets out of bytes and text; remembers old values of a rotated one."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = sorted(names)
        self._known: dict[str, list[tuple[bytes, bool]]] = {}

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
        """``data`` without secrets; the same object when there is none in it.

        TOML stays TOML, with its comments. What is nested too deeply to be read is taken out whole.
        """
        made = self._text(data)
        if made is data and not _stands(_WORDS, data) and not _ESCAPED.search(data):
            return data
        with suppress(UnicodeDecodeError):
            made = self._document(data.decode(), made)
        return data if made == data else made

    def clean_text(self, text: str) -> str:
        return self.clean(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def found_in(self, data: bytes) -> bool:
        """Whether a secret stands in ``data``: what a finished notebook is scanned with."""
        return self.clean(data) != data

    def clean_value(self, value: Any, *, hidden: bool = False) -> Any:
        """A parsed document without its secrets; ``hidden``: it stands under a key that says secret."""
        match value:
            case dict():
                return {
                    self.clean_value(key): self.clean_value(
                        inner,
                        hidden=names_secret(str(key)) or (hidden and not _PLACE.search(str(key))),
                    )
                    for key, inner in value.items()
                }
            case ["redacted"]:  # the mark, where YAML reads it without quotes
                return MARK
            case list():
                return [self.clean_value(inner, hidden=hidden) for inner in value]
            case None | bool() | "":
                return value
        text = str(value).encode("utf-8", "surrogatepass")
        clean = self._text(text)
        if hidden and not _HEADER.fullmatch(clean):
            return MARK
        if clean == text:
            return value
        return clean.decode("utf-8", "surrogatepass") if isinstance(value, str) else MARK

    # --- documents ------------------------------------------------------------------------------

    def _document(self, text: str, made: bytes) -> bytes:
        """``text`` without its secrets; ``made`` is what is left of it as text alone."""
        if (edited := self._json(text)) != text:
            made = self._text(edited.encode())
        if len(text) > LARGEST or _is_json(edited):
            return made
        for loads, edits in ((load_toml, _toml), (_load_yaml, _yaml)):
            try:
                table = loads(text)
            except TooDeep:
                return TOO_DEEP
            except (ValueError, TypeError, RecursionError, yaml.YAMLError):
                continue
            wanted = self.clean_value(table)
            for each in chain([made.decode()], edits(text, table, wanted)):
                attempt = self._text(each.encode())
                with suppress(ValueError, yaml.YAMLError):
                    got = repr(loads(attempt.decode())).replace("['redacted']", repr(MARK))
                    if got == repr(wanted):
                        return attempt
            return _M
        return made

    def _json(self, text: str) -> str:
        """As text, so that nothing else moves: also where several documents follow one another."""
        pieces, at = list[str](), 0
        for found in _STRING.finditer(text):
            if not found[2] or found.start() < at or not names_secret(_plain(found[1])):
                continue
            try:
                value, end = json.JSONDecoder(strict=False).raw_decode(text, found.end())
                hidden = self.clean_value(value, hidden=True)
            except RecursionError:
                return "".join([*pieces, text[at : found.end()], MARK])
            except ValueError:
                continue
            if hidden != value:
                pieces += [text[at : found.end()], json.dumps(hidden)]
                at = end
        return "".join([*pieces, text[at:]])

    # --- text -----------------------------------------------------------------------------------

    def _text(self, data: bytes) -> bytes:
        for name in self._names:
            value = os.environ.get(name, "")
            if len(value) >= SHORTEST:
                self._learn(value)
        pieces, at = list[bytes](), 0
        for start, end in sorted(self._spans(data)):
            if start >= at:
                pieces += [data[at:start], _M]
            at = max(at, end)
        if pieces:
            data = b"".join([*pieces, data[at:]])
        letters = data.translate(_LOWER, _OTHER)
        for hints, shape, instead in _SHAPES:
            if any(hint in letters for hint in hints):
                data = shape.sub(instead, data)
        return data

    def _learn(self, value: str) -> None:
        if value not in self._known:
            parts = (value, *_secret_parts(value))
            self._known[value] = [each for part in parts for each in _codings(os.fsencode(part))]

    def _spans(self, data: bytes, level: int = LEVELS) -> Iterator[tuple[int, int]]:
        """Where our secrets stand in ``data``, and in what it reads once its escapes are undone."""
        for needle, run in (each for known in self._known.values() for each in known):
            at = data.find(needle)
            while at >= 0:
                end = at + len(needle)
                if (
                    run and level == LEVELS
                ):  # a coding's letters before and behind tell of its neighbours and of itself
                    at = len(data[:at].rstrip(_RUN))
                    end = len(data) - len(data[end:].lstrip(_RUN + b"="))
                yield at, end
                at = data.find(needle, end)
        if not (level and self._known and any(mark in data for mark in _MARKS)):
            return
        view = _ESCAPE.sub(_unescaped, data)
        if view != data and (inner := list(self._spans(view, level - 1))):
            origins, at = array("q"), 0
            for found in _ESCAPE.finditer(data):
                origins.extend(range(at, found.start()))
                origins.extend([found.start()] * len(_unescaped(found)))
                at = found.end()
            origins.extend(range(at, len(data)))
            for start, end in inner:
                last = origins[end - 1]
                ended = _ESCAPE.match(data, last)
                yield origins[start], ended.end() if ended else last + 1


# --- documents ------------------------------------------------------------------------------------

_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"(\s*:\s*)?|\Z)', re.DOTALL)


def _plain(key: str) -> str:
    with suppress(ValueError):
        return str(json.loads(f'"{key}"', strict=False))
    return key


def _is_json(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        json.loads(text)
        return True
    return False


def _toml(text: str, table: Any, wanted: Any) -> Iterator[str]:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    with suppress(TOMLKitError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        document = tomlkit.parse(text)
        _set(document, table, wanted)
        yield tomlkit.dumps(document)
    yield tomlkit.dumps(wanted)  # without comments, where it cannot be edited


def _set(at: Any, old: Any, new: Any) -> None:
    for key in old if isinstance(old, dict) else range(len(old)):
        if isinstance(old[key], dict | list):
            _set(at[key], old[key], new[key])
        elif old[key] != new[key]:
            at[key] = new[key]


_YAML = re.compile(rf"(?i){SECRET_KEY}[\"']?\s*:|\\[uUx][^\"\n]*\"\s*:")


def _load_yaml(text: str) -> list[Any]:
    if not _YAML.search(text):
        raise ValueError("a sentence, which may be YAML as well")
    refuse_traps(text.encode())
    return list(yaml.load_all(text, yaml.CSafeLoader))


def _yaml(text: str, table: Any, wanted: Any) -> Iterator[str]:
    yield yaml.dump_all(wanted, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)


# --- our secrets, and how they are spelt ----------------------------------------------------------

_RUN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
# Escapes of the shell, URLs, HTML and JSON, and breaks of a line, which base64 is wrapped with.
_MARKS = (b"%", b"&", b"\\", b"'", b"\n", b"\r")
_ESCAPE = re.compile(
    rb"'\\''|'\"'\"'|%HH|&(?:#x?H{1,7}|quot|amp|lt|gt|apos);"
    rb"|\\\\*(?:uHHHH|u\{H{1,6}\}|U000HHHHH|xHH|[0-3][0-7]{2}|[nr]|[^a-zA-Z0-9])"
    rb"|\r[\r\n \t]*|\n[\r\n \t]*".replace(b"H", b"[0-9a-fA-F]")
)


def _unescaped(found: re.Match[bytes]) -> bytes:
    text, rest = found[0], found[0].lstrip(b"\\")
    match text[:1]:
        case b"'":
            return b"'"
        case b"%":
            return bytes.fromhex(text[1:].decode())
        case b"&":
            return unescape(text.decode()).encode("utf-8", "surrogatepass")
        case b"\\" if rest[:1] in (b"u", b"U", b"x"):
            number = int(rest[1:].strip(b"{}"), 16)
        case b"\\" if rest.isdigit():
            number = int(rest, 8)
        case _:
            return b"" if rest[:1] in (b"\n", b"\r", b"n", b"r") else rest or b"\\"
    return chr(min(number, 0x10FFFF)).encode("utf-8", "surrogatepass")


def _codings(raw: bytes) -> Iterator[tuple[bytes, bool]]:
    """What to look for, and whether it is part of a longer run of a coding's letters.

    Base64 spells bytes in three ways, by how many stand before them; the letters at its ends are
    its neighbours' as well.
    """
    for text in {raw, raw.replace(b" ", b"+")}:
        for _ in range(LEVELS):  # what looks like an escape is undone with those around it
            if len(text) >= SHORTEST:
                yield text, False
            text = _ESCAPE.sub(_unescaped, text)  # noqa: PLW2901
    for coded in {raw.hex().encode(), raw.hex().upper().encode()}:
        yield coded, True
    for before, first in ((0, 0), (1, 2), (2, 3)):
        coded = base64.b64encode(bytes(before) + raw)[first : (before + len(raw)) * 8 // 6]
        for each in {coded, coded.translate(bytes.maketrans(b"+/", b"-_"))}:
            yield each, True


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
