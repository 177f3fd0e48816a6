"""The forge: checks of a commit, an issue and its comments. GitHub first, others behind ``Forge``.

Every list is read to its last page; a list that cannot be is an error, never a shorter list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BeforeValidator, Field

from .. import site
from ..errors import SourceError
from . import wire
from .http import Answer, Failure
from .tape import Scope
from .wire import Wire

MAX_PAGES = 100
PER_PAGE = 100
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


def _inner(key: str) -> Callable[[object], object]:
    """The text under ``key``; of null, which GitHub gives for what was deleted, nobody's name."""

    def take(value: object) -> object:
        if value is None:
            return ""
        if isinstance(value, dict) and isinstance(value.get(key), str):
            return value[key]
        raise ValueError(f"expected an object with {key}, or null")

    return take


Author = Annotated[str, BeforeValidator(_inner("login")), Field(validation_alias="user")]


class CheckRun(Wire):
    """One check of a commit by an app. ``conclusion`` is null until ``status`` is completed."""

    id: int
    name: str
    app: Annotated[str, BeforeValidator(_inner("slug"))]
    head_sha: str
    status: str
    conclusion: str | None
    html_url: str | None = None
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None


class CommitStatus(Wire):
    """The last status a context reported; who reports by statuses has no check run."""

    context: str
    state: Literal["error", "failure", "pending", "success"]
    description: str | None = None
    target_url: str | None = None


class Comment(Wire):
    """A comment of an issue; ``updated_at`` differs from ``created_at`` once it was edited."""

    id: int
    author: Author
    body: str
    created_at: AwareDatetime
    updated_at: AwareDatetime
    html_url: str


class Issue(Wire):
    """An issue; ``author`` wrote its body."""

    number: int
    title: str
    state: Literal["open", "closed"]
    author: Author
    body: str | None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    html_url: str


class _CheckRunPage(Wire):
    total_count: Annotated[int, Field(ge=0)]
    check_runs: list[CheckRun]


class _StatusPage(Wire):
    sha: str
    total_count: Annotated[int, Field(ge=0)]
    statuses: list[CommitStatus]


class Forge(Protocol):
    """What a stage asks of a forge. Every method raises SourceError."""

    def check_runs(self, commit: str) -> list[CheckRun]: ...

    def statuses(self, commit: str) -> list[CommitStatus]: ...

    def issue(self, number: int) -> Issue: ...

    def comments(self, number: int) -> list[Comment]: ...


Page = TypeVar("Page")
_check_runs = partial(wire.decode, model=_CheckRunPage)
_statuses = partial(wire.decode, model=_StatusPage)
_comments = partial(wire.decode_list, model=Comment)


class GitHub:
    """GitHub's REST API, version 2022-11-28."""

    def __init__(self, scope: Scope, settings: site.Forge) -> None:
        self._scope, self._settings = scope, settings
        self._base = f"{settings.url}/repos/{settings.repository}"

    def check_runs(self, commit: str) -> list[CheckRun]:
        """The latest run of every check of a commit, as many as the forge says there are."""
        source = f"forge: check runs of {commit[:12]}"
        pages = self._pages(source, f"/commits/{commit}/check-runs", _check_runs, filter="latest")
        runs = [run for page in pages for run in page.check_runs]
        _complete(source, pages[-1].total_count, [run.id for run in runs])
        if strange := [run.name for run in runs if run.head_sha != commit]:
            raise SourceError(source, f"expected that commit's, got another's: {strange[0]}")
        return runs

    def statuses(self, commit: str) -> list[CommitStatus]:
        """The last status of every context of a commit."""
        source = f"forge: statuses of {commit[:12]}"
        pages = self._pages(source, f"/commits/{commit}/status", _statuses)
        statuses = [status for page in pages for status in page.statuses]
        _complete(source, pages[-1].total_count, [status.context for status in statuses])
        if any(page.sha != commit for page in pages):
            raise SourceError(source, f"expected that commit's, got {pages[0].sha}'s")
        return statuses

    def issue(self, number: int) -> Issue:
        """An issue as it now is."""
        source = f"forge: issue {number}"
        found = wire.decode(source, self._get(source, f"{self._base}/issues/{number}").body, Issue)
        if found.number != number:
            raise SourceError(source, f"expected issue {number}, got {found.number}")
        return found

    def comments(self, number: int) -> list[Comment]:
        """All comments of an issue, oldest first."""
        source = f"forge: comments of issue {number}"
        pages = self._pages(source, f"/issues/{number}/comments", _comments)
        comments = [comment for page in pages for comment in page]
        _complete(source, len(comments), [comment.id for comment in comments])
        return comments

    def _pages(
        self, source: str, path: str, read: Callable[[str, bytes], Page], **query: str
    ) -> list[Page]:
        url, pages = f"{self._base}{path}", list[Page]()
        params = (*sorted(query.items()), ("per_page", str(PER_PAGE)))
        while url:
            if len(pages) == MAX_PAGES:
                raise SourceError(source, f"expected at most {MAX_PAGES} pages, got more")
            got = self._get(source, url, params)
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

    def _get(
        self,
        source: str,
        url: str,
        params: tuple[tuple[str, str], ...] = (),
        *,
        absent: bool = False,
    ) -> Answer:
        """The answer of status 200; with ``absent`` also of 404."""
        request = wire.request(
            self._settings,
            "GET",
            url,
            params=params,
            headers=(
                ("accept", "application/vnd.github+json"),
                ("x-github-api-version", "2022-11-28"),
                ("user-agent", "rpp-runbooks"),
            ),
        )
        got = self._scope.http([request])[0]
        if isinstance(got, Failure) or got.status == 200:
            wire.content(source, got)
            assert isinstance(got, Answer)
            return got
        if absent and got.status == 404:
            return got
        raise SourceError(source, f"expected status 200, got {got.status}: {_why(got)}")


def _why(got: Answer) -> str:
    """GitHub says 403 for a used-up rate limit too, and 404 for what a token may not see."""
    left, retry = got.headers.get("x-ratelimit-remaining"), got.headers.get("retry-after")
    if got.status in (403, 429) and (left == "0" or retry or got.status == 429):
        reset = got.headers.get("x-ratelimit-reset", "")
        if retry:
            return f"the rate limit is used up; ask again in {retry} s"
        if reset.isdigit() and len(reset) < 12:
            return f"the rate limit is used up until {datetime.fromtimestamp(int(reset), UTC):%Y-%m-%d %H:%M:%SZ}"
        return "the rate limit is used up; ask again later"
    message = _message(got.body)
    match got.status:
        case 401:
            return f"{message}; the token is wrong or expired"
        case 403:
            return f"{message}; the token lacks a permission"
        case 404:
            return f"{message}; it does not exist, or the token may not see it"
    return message


def _message(body: bytes) -> str:
    try:
        found: Any = json.loads(body)
        return str(found["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return " ".join(body[:200].decode("utf-8", "replace").split()) or "no message"


def _complete(source: str, expected: int, keys: list[Any]) -> None:
    if len(set(keys)) != len(keys):
        raise SourceError(source, "expected every entry once, got one twice; it changed meanwhile")
    if len(keys) != expected:
        raise SourceError(source, f"expected {expected} entries on all pages, got {len(keys)}")
