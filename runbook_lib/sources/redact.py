"""Secrets are taken out before anything is written, shown or judged.

Of the variables that a site names, the value in any coding it travels in, of a URL its path too. Of a
document (TOML, YAML, JSON), what stands under a key that says secret, whatever the quoting. Of any
text, the same where it is assigned, and what has the shape of a credential.
"""

import base64
import hashlib
import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from html import unescape
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import yaml

from ..errors import ParameterError
from ..reach import SECRET_KEY, SECRET_WORDS, names_secret
from ..strict import MAX_TABLES, TooDeep, load_toml, refuse_traps

MARK = "[redacted]"
TOO_DEEP = f"{MARK} tables more than {MAX_TABLES} deep".encode()
SHORTEST = 8  # a shorter secret would blank out ordinary text, or be guessed from what is left
TOKEN = 16  # a shorter word of a path may be an ordinary one
LARGEST = 16 * 1024 * 1024  # a larger document is an answer of numbers
LEVELS = 3  # of escapes within escapes
_URL = re.compile(r"https?://[^/]+/(\S+)", re.IGNORECASE)
_PLACE = re.compile(r"(?i)(?:path|file|dir|env|backend)\Z")  # where it lies, not what it is
_YAML = re.compile(rf"(?i){SECRET_KEY}[\"']?\s*:|\\[ux][^\"\n]*\"\s*:")  # else it may be a sentence
_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"(\s*:\s*)?|\Z)', re.DOTALL)

# Shapes are looked for where one of their letters stands: these are few in an answer of numbers.
_LETTERS, _M, _KEY = b"@abcdefghijklmnopqrstuvwxyz", MARK.encode(), SECRET_KEY.encode()
_OTHER, _LOWER = bytes(set(range(256)) - {*_LETTERS, *_LETTERS.upper()}), bytes(range(256)).lower()
_WORDS = " ".join(word.replace(" ", "") for word in SECRET_WORDS)
_ESCAPED = re.compile(rb"\\[uUx]0*[4-7][0-9a-fA-F]")  # a letter, as a key may spell it
_QUOTE, _WORD, _UNLESS = rb"(?:\\*+[\"'])?+", rb"[^\s\"'\\,;&<>{}()\[\]|]{5,}", rb"(?!\[redacted\])"


def _assigned(found: re.Match[bytes]) -> bytes:
    quote = found[2] or found[3] or b""
    return found[1] + quote + _M + quote


_SHAPES: tuple[tuple[str, bytes, bytes | Callable[[re.Match[bytes]], bytes]], ...] = (
    # RFC 9110 and 6265: the rest of a header's line; RFC 6750 and 7617: its credentials elsewhere
    ("authorization cookie", rb"(?i)((?:authorization|cookie)" + _QUOTE + rb"[ \t]*[:=][ \t]*+" + _QUOTE +
     rb"(?:[a-z][\w-]* +)?+)" + _UNLESS + rb"[^\"'\r\n\\<]{6,}", rb"\1" + _M),
    ("bearer", rb"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{8,}=*", _M),
    ("basic", rb"(?<=[Bb]asic )(?=[a-zA-Z+/]*[0-9=]|[a-z]+[A-Z])[A-Za-z0-9+/]{8,}=*", _M),
    # an option and the word after it; key = value, in text or where a parser gives up
    (_WORDS, rb"(?i)(--[\w-]*" + _KEY + rb"(?:[ \t]++|\\*[\"'],\s*)" + _QUOTE + rb")" + _UNLESS +
     rb"[^\s\"'\\,]{5,}", rb"\1" + _M),
    (_WORDS, rb"(?i)(" + _KEY + rb"(?:\\*[\"'`])?[ \t]*(?:=>|:=|[=:])[ \t]*+)(?:"
     rb"(\\*(?:\"\"\"|'''))" + _UNLESS + rb"(?s:(?:\\.|[^\\])*?)(?:\2|\Z)"
     rb"|(\\*[\"'])(?!\3)" + _UNLESS + rb"(?:\\.|[^\\\r\n])+?(?:\3|(?=[\r\n])|\Z)"
     rb"|(?!(?:true|false|null|none)\b)(?:(?<==)" + _WORD + rb"|" + _WORD +
     rb"(?=[ \t]*(?:\\+[nr]|[\r\n,;&}]|\Z)|[ \t]+#)))", _assigned),
    # RFC 3986: user information, or a token alone before the host; a short name such as git@ is none
    ("@", rb"(?<=://)[^\s/\"'<>@:]*:[^\s/\"'<>?#]*@", _M + b"@"),
    ("@", rb"(?<=://)[A-Za-z0-9_.~%-]{16,}(?=@)", _M),
    # RFC 7468 and OpenPGP's armour; RFC 7519
    ("privatekey", rb"-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----(?s:.*?)(?:-----END [A-Z ]*-----|\Z)", _M),
    ("eyj", rb"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*", _M),
    # GitHub docs, "GitHub's token formats"; GitLab docs, "Token prefixes"
    ("gh githubpat", rb"\b(?:gh[opsur]_|github_pat_)[A-Za-z0-9_]{20,}", _M),
    ("gl", rb"\bgl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[A-Za-z0-9_-]{20,}", _M),
    # AWS IAM, "Unique identifiers"; Google Cloud, "API keys", OAuth; Slack, "Token types", "Webhooks"
    ("akia asia abia acca", rb"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b", _M),
    ("aiza ya gocspx", rb"\b(?:AIza|ya29\.|GOCSPX-)[A-Za-z0-9_-]{20,}", _M),
    ("xox xapp", rb"\bx(?:ox[a-z]|app)-[A-Za-z0-9-]{10,}", _M),
    ("slackcom", rb"(?<=hooks\.slack\.com/)[A-Za-z0-9/_-]{20,}", _M),
    # Grafana's service accounts, HashiCorp Vault, npm, PyPI, age
    ("glsa hvs hvb npm pypi agesecretkey",
     rb"\b(?:glsa_|hv[bs]\.|npm_|pypi-|AGE-SECRET-KEY-)[A-Za-z0-9_-]{20,}", _M),
)  # fmt: skip
_COMPILED = [(hints.encode().split(), re.compile(shape), made) for hints, shape, made in _SHAPES]


class Redactor:
    """Takes the named secrets out of bytes and text; remembers old values of a rotated one."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = sorted(names)
        self._known: dict[str, list[tuple[bytes, bool]]] = {}
        # What the names stood for; documents and texts that were harmless beside that.
        self._held, self._harmless = list[str | None](), (set[bytes](), set[bytes]())

    def secret(self, name: str) -> str:
        """The value now in the environment. Raises ParameterError unless it can be used and hidden."""
        expected, value = f"environment: {name}: expected", os.environ.get(name, "")
        if not value:
            raise ParameterError(f"{expected} a secret, got nothing; export it")
        if len(value) < SHORTEST:
            short = f"a secret of at least {SHORTEST} characters, got {len(value)}"
            raise ParameterError(f"{expected} {short}; it could not be kept out of the evidence")
        self._learn(value)
        if not (value.isascii() and value.isprintable()):
            other = "printable ASCII, as headers need it, got something else"
            raise ParameterError(f"{expected} {other}; look for a line break at its end")
        return value

    def clean(self, data: bytes) -> bytes:
        """``data`` without secrets; the same object when there is none in it.

        TOML stays TOML, with its comments. What is nested too deeply to be read is taken out whole.
        """
        harmless, digest = self._look()[0], hashlib.sha256(data).digest()
        if digest in harmless:
            return data
        made, letters = self._text(data), data.translate(_LOWER, _OTHER)
        named = any(word in letters for word in _WORDS.encode().split())
        if made is not data or named or _ESCAPED.search(data):
            with suppress(UnicodeDecodeError):
                made = self._document(data.decode(), made)
        if made != data:
            return made
        harmless.add(digest)
        return data

    def _look(self) -> tuple[set[bytes], set[bytes]]:
        """Learn what the named variables hold now; what is harmless beside all that was learnt."""
        values = [os.environ.get(name) for name in self._names]
        if values != self._held:
            for value in (text for text in values if text and len(text) >= SHORTEST):
                self._learn(value)
            self._held = values  # last: who finds it may rely on what was learnt
        return self._harmless

    def clean_text(self, text: str) -> str:
        return self.clean(text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")

    def found_in(self, data: bytes) -> bool:
        """Whether a secret stands in ``data``: what a finished notebook is scanned with."""
        return self.clean(data) != data

    def clean_value(self, value: Any, *, hidden: bool = False) -> Any:
        """A parsed document without its secrets, changed in place; ``hidden``: under such a key."""
        if value in (None, "") or isinstance(value, bool):
            return value
        if value == ["redacted"]:  # YAML's mark without quotes
            return MARK
        if isinstance(value, dict | list):
            for key in list(value) if isinstance(value, dict) else range(len(value)):
                inside = hidden and not _PLACE.search(str(key))
                named = isinstance(value, dict) and names_secret(str(key))
                old = value[key]
                if (new := self.clean_value(old, hidden=named or inside)) is not old:
                    value[key] = new
            return value
        text = str(value).encode("utf-8", "surrogatepass")
        plain = self._look()[1]
        if (clean := text if text in plain else self._text(text)) == text:
            plain.add(text)
        if hidden and clean not in (b"Bearer [redacted]", b"Basic [redacted]"):
            return MARK
        return value if clean == text else clean.decode("utf-8", "surrogatepass")

    # --- documents ------------------------------------------------------------------------------

    def _document(self, text: str, made: bytes) -> bytes:
        """``text`` without its secrets; ``made`` is what is left of it as text alone."""
        if (edited := self._json(text)) != text:
            made = self._text(edited.encode())
        for loads in (json.loads, load_toml, _load_yaml) if len(text) <= LARGEST else ():
            try:
                wanted = loads(text)
            except TooDeep:
                return TOO_DEEP
            except (ValueError, TypeError, RecursionError, yaml.YAMLError):
                continue
            if loads is json.loads:
                return made
            self.clean_value(wanted)
            for number in range(3):
                with suppress(Exception):  # what one way cannot write, the next one may
                    if number:
                        made = self._text(self._written(number, text, wanted).encode())
                    got = repr(loads(made.decode())).replace("['redacted']", repr(MARK))
                    if got == repr(wanted):
                        return made
            return _M
        return made

    def _written(self, number: int, text: str, wanted: Any) -> str:
        """A document anew: TOML edited in place, else without its comments."""
        import tomlkit

        if isinstance(wanted, list):
            return str(yaml.safe_dump_all(wanted, sort_keys=False, allow_unicode=True))
        found = self.clean_value(tomlkit.parse(text)) if number == 1 else wanted
        return tomlkit.dumps(found)

    def _json(self, text: str) -> str:
        """As text, so that nothing else moves: also where several documents follow one another."""
        pieces, at = list[str](), 0
        for found in _STRING.finditer(text):
            if not found[2] or found.start() < at:
                continue
            with suppress(ValueError):
                key = found[1]  # of thousands in a log few hold an escape
                if not names_secret(json.loads(f'"{key}"', strict=False) if "\\" in key else key):
                    continue
                try:
                    value, end = json.JSONDecoder(strict=False).raw_decode(text, found.end())
                    before, hidden = json.dumps(value), self.clean_value(value, hidden=True)
                except RecursionError:
                    return "".join([*pieces, text[at : found.end()], MARK])
                if json.dumps(hidden) != before:
                    pieces += [text[at : found.end()], json.dumps(hidden)]
                    at = end
        return "".join([*pieces, text[at:]])

    # --- text -----------------------------------------------------------------------------------

    def _text(self, data: bytes) -> bytes:
        pieces, at = list[bytes](), 0
        for start, end in sorted(self._spans(data)):
            if start >= at:
                pieces += [data[at:start], _M]
            at = max(at, end)
        data = b"".join([*pieces, data[at:]]) if pieces else data
        letters = data.translate(_LOWER, _OTHER)
        for hints, shape, instead in _COMPILED:
            if any(hint in letters for hint in hints):
                data = shape.sub(instead, data)
        return data

    def _learn(self, value: str) -> None:
        if value not in self._known:
            parts = (value, *_secret_parts(value))
            self._known[value] = [each for part in parts for each in _codings(os.fsencode(part))]
            self._harmless = set(), set()

    def _spans(self, data: bytes, level: int = LEVELS) -> Iterator[tuple[int, int]]:
        """Where our secrets stand in ``data``, and in what it reads once its escapes are undone."""
        for needle, run in (each for known in self._known.values() for each in known):
            at = data.find(needle)
            while at >= 0:
                end = at + len(needle)
                if run and level == LEVELS:  # its neighbours' letters tell of its ends
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
                origins.extend(
                    [*range(at, found.start()), *[found.start()] * len(_unescaped(found))]
                )
                at = found.end()
            origins.extend(range(at, len(data)))
            for start, end in inner:
                last = _ESCAPE.match(data, origins[end - 1])
                yield origins[start], last.end() if last else origins[end - 1] + 1


def _load_yaml(text: str) -> list[Any]:
    if not _YAML.search(text):
        raise ValueError("a sentence, which may be YAML as well")
    refuse_traps(text.encode())
    return list(yaml.load_all(text, yaml.CSafeLoader))


# --- our secrets, and how they are spelt ----------------------------------------------------------

_RUN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
# Escapes of the shell, URLs, HTML and JSON, and the breaks of lines that base64 is wrapped with.
_MARKS = (b"%", b"&", b"\\", b"'", b"\n", b"\r")
_ESCAPE = re.compile(
    rb"'\\''|'\"'\"'|%HH|&(?:#x?H{1,7}|quot|amp|lt|gt|apos);|\r[\r\n \t]*|\n[\r\n \t]*"
    rb"|\\\\*(?:uHHHH|u\{H{1,5}\}|U000HHHHH|xHH|[nr]|[^a-zA-Z0-9])".replace(b"H", b"[0-9a-fA-F]")
)


def _unescaped(found: re.Match[bytes]) -> bytes:
    """What an escape stands for; nothing for the break of a line."""
    text = found[0]
    rest = text.lstrip(b"\\")
    if text[:1] in (b"%", b"&"):
        return unescape(unquote_to_bytes(text).decode("latin-1")).encode("utf-8", "surrogatepass")
    if rest != text and rest[:1] in (b"u", b"U", b"x"):
        return chr(int(rest.strip(b"uUx{}"), 16)).encode("utf-8", "surrogatepass")
    return b"" if rest[:1] in (b"n", b"r", b"\n", b"\r") else text[-1:]


def _codings(raw: bytes) -> Iterator[tuple[bytes, bool]]:
    """What to look for, and whether it is a part of a longer run of a coding's letters.

    Base64 spells bytes in three ways, by how many stand before; its ends are its neighbours' too.
    """
    for text in {raw, raw.replace(b" ", b"+")}:
        for _ in range(LEVELS):  # what looks like an escape is undone with those around it
            if len(text) >= SHORTEST:
                yield text, False
            text = _ESCAPE.sub(_unescaped, text)  # noqa: PLW2901
    yield from ((coded.encode(), True) for coded in {raw.hex(), raw.hex().upper()})
    for before, first in ((0, 0), (1, 2), (2, 3)):
        coded = base64.b64encode(bytes(before) + raw)[first : (before + len(raw)) * 8 // 6]
        yield from ((each, True) for each in {coded, coded.translate(_SAFE)})


_SAFE = bytes.maketrans(b"+/", b"-_")


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
