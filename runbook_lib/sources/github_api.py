"""GitHub's way of asking: pages, headers, refusals and what they mean. Its API of 2022-11-28."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .. import site
from ..canonical import canonical
from ..errors import SourceError, SourceRefused
from . import wire
from .http import Answer, Failure, Purpose
from .scope import Scope

MAX_PAGES = 100
REFUSED = frozenset({403, 404, 410, 413, 422})
"""Answers to a write that say it was not done and will not be."""
PER_PAGE = 100
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?')
Page = TypeVar("Page")


class Api:
    """Reads and writes of one repository, below ``base``. Every method raises SourceError."""

    def __init__(self, scope: Scope, settings: site.Forge, writes: Purpose = "change") -> None:
        self._scope, self._settings, self._writes = scope, settings, writes
        self.base = f"{settings.url}/repos/{settings.repository}"

    def pages(
        self, source: str, path: str, read: Callable[[str, bytes], Page], **query: str
    ) -> list[Page]:
        """All pages of a list below ``base``, at most MAX_PAGES."""
        url, pages = f"{self.base}{path}", list[Page]()
        params = (*sorted(query.items()), ("per_page", str(PER_PAGE)))
        while url:
            if len(pages) == MAX_PAGES:
                raise SourceError(source, f"expected at most {MAX_PAGES} pages, got more")
            got = self.get(source, url, params)
            pages.append(read(source, got.body))
            url, params = self._next(source, got), ()
        return pages

    def _next(self, source: str, got: Answer) -> str:
        found = _NEXT.search(got.headers.get("link", ""))
        if found is None:
            return ""
        # The token goes along: a page elsewhere would be handed it.
        ours, theirs = urlsplit(self._settings.url), urlsplit(found[1])
        if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
            raise SourceError(source, f"expected the next page at {ours.netloc}, got {found[1]}")
        return found[1]

    def get(
        self,
        source: str,
        url: str,
        params: tuple[tuple[str, str], ...] = (),
        *,
        absent: bool = False,
    ) -> Answer:
        """The answer of status 200; with ``absent`` also of 404."""
        got = self._send("GET", url, params=params)
        if isinstance(got, Failure) or got.status == 200:
            wire.content(source, got)
            assert isinstance(got, Answer)
            return got
        if absent and got.status == 404:
            return got
        raise SourceError(source, f"expected status 200, got {got.status}: {_why(got)}")

    def write(
        self,
        source: str,
        method: str,
        url: str,
        body: Mapping[str, object] | bytes,
        *,
        params: tuple[tuple[str, str], ...] = (),
        kind: str = "application/json",
    ) -> bytes:
        """What was answered to a write. Raises SourceRefused where it was not done and will not be."""
        data = body if isinstance(body, bytes) else canonical(body)
        got = self._send(method, url, params=params, body=data, kind=kind)
        if isinstance(got, Failure) or got.status in (200, 201):
            return wire.content(source, got, expected=(200, 201))
        refused = got.status in REFUSED and not _limited(got)
        error = SourceRefused if refused else SourceError
        raise error(source, f"expected it written, got {got.status}: {_why(got)}")

    def _send(
        self,
        method: str,
        url: str,
        *,
        params: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        kind: str = "",
    ) -> Answer | Failure:
        headers = (
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
            ("user-agent", "rpp-runbooks"),
            *((("content-type", kind),) if kind else ()),
        )
        request = wire.request(
            self._settings,
            method,
            url,
            params=params,
            body=body,
            headers=headers,
            purpose="read" if method == "GET" else self._writes,
        )
        return self._scope.http([request])[0]


def _limited(got: Answer) -> bool:
    """GitHub says 403 for a used-up rate limit too."""
    left, retry = got.headers.get("x-ratelimit-remaining"), got.headers.get("retry-after")
    return got.status == 429 or (got.status == 403 and bool(left == "0" or retry))


def _why(got: Answer) -> str:
    """What was said, and what to do. GitHub says 404 for what a token may not see."""
    if _limited(got):
        retry = got.headers.get("retry-after")
        reset = got.headers.get("x-ratelimit-reset", "")
        if retry:
            return f"the rate limit is used up; ask again in {retry} s"
        if reset.isdigit() and len(reset) < 12:
            return f"the rate limit is used up until {datetime.fromtimestamp(int(reset), UTC):%Y-%m-%d %H:%M:%SZ}"
        return "the rate limit is used up; ask again later"
    message = explanation(got.body)
    match got.status:
        case 401:
            return f"{message}; the token is wrong or expired"
        case 403:
            return f"{message}; the token lacks a permission"
        case 404:
            return f"{message}; it does not exist, or the token may not see it"
        case 410:
            return f"{message}; it was deleted, or issues are switched off"
    return message


def explanation(body: bytes) -> str:
    """What GitHub said, and of which field; its text where it is no JSON."""
    try:
        found: Any = json.loads(body)
        errors = [each.get("message") or each["code"] for each in found.get("errors", ())]
        return ": ".join(map(str, [found["message"], *errors[:1]]))[:200]
    except (ValueError, KeyError, TypeError, AttributeError):
        return " ".join(body[:200].decode("utf-8", "replace").split()) or "no message"


def complete(source: str, expected: int, keys: list[Any]) -> None:
    """Raises SourceError unless a list has that many entries, each once."""
    if len(set(keys)) != len(keys):
        raise SourceError(source, "expected every entry once, got one twice; it changed meanwhile")
    if len(keys) != expected:
        raise SourceError(source, f"expected {expected} entries on all pages, got {len(keys)}")
