"""GitHub: checks of a commit, issues and comments, releases and assets. REST API of 2022-11-28.

A list that cannot be read to its last page is never a shorter list. A write goes out once: whether
one whose answer was lost took place is for the caller to look up.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from httpx import Response
from pydantic import AwareDatetime, BeforeValidator, Field

from .. import site
from ..canonical import canonical
from ..errors import SourceError, SourceRefused, tried
from . import wire
from .http import Pairs, Purpose, make_request
from .scope import Scope
from .wire import Wire

MAX_PAGES, SECONDARY_S = 100, 60.0
REFUSED = frozenset({403, 404, 410, 413, 422})
"""Answers to a write that say it was not done and will not be."""
PER_PAGE = 100
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?')
M = TypeVar("M")


def inner(key: str) -> Callable[[object], object]:
    """The text under ``key``; of null, which GitHub gives for what was deleted, nobody's name."""

    def take(value: object) -> object:
        if value is None:
            return ""
        if isinstance(value, dict) and isinstance(value.get(key), str):
            return value[key]
        raise ValueError(f"expected an object with {key}, or null")

    return take


Author = Annotated[str, BeforeValidator(inner("login")), Field(validation_alias="user")]


class _Suite(Wire):
    id: int


class CheckRun(Wire):
    """One check of a commit by an app. ``conclusion`` is null until ``status`` is completed.

    An app may report the same name in several suites, as for a push and for a pull request.
    """

    id: int
    suite: Annotated[_Suite | None, Field(validation_alias="check_suite")] = None
    name: str
    app: Annotated[str, BeforeValidator(inner("slug"))]
    head_sha: str
    status: str
    conclusion: str | None


class CommitStatus(Wire):
    """The last status a context reported; who reports by statuses has no check run."""

    context: str
    state: Literal["error", "failure", "pending", "success"]


class Post(Wire):
    """A comment or an issue; ``updated_at`` differs from ``created_at`` once it was edited."""

    number: int
    author: Author
    body: str
    created_at: AwareDatetime
    updated_at: AwareDatetime
    html_url: str


class Comment(Post):
    """A comment of an issue."""

    number: Annotated[int, Field(validation_alias="id")]


class Issue(Post):
    """An issue; ``author`` wrote its body, which may be null."""

    body: Annotated[str, BeforeValidator(lambda text: "" if text is None else text)]
    title: str
    state: Literal["open", "closed"]


class _User(Wire):
    login: str


class _CheckRunPage(Wire):
    total_count: Annotated[int, Field(ge=0)]
    check_runs: list[CheckRun]


class _StatusPage(Wire):
    sha: str
    total_count: Annotated[int, Field(ge=0)]
    statuses: list[CommitStatus]


class GitHub:
    """Reads and writes of one repository, below ``base``. Every method raises SourceError; a write that
    the forge will not do raises SourceRefused.
    """

    def __init__(self, scope: Scope, settings: site.Forge, writes: Purpose = "change") -> None:
        self._scope, self._settings, self._writes = scope, settings, writes
        self._patient = True
        self.base = f"{settings.url}/repos/{settings.repository}"

    def listed(self, source: str, path: str, model: type[M], **query: str) -> list[M]:
        """All of a list below ``base``, at most MAX_PAGES pages."""
        lists: type[list[M]] = list[model]  # type: ignore[valid-type] # known when it runs
        return [one for page in self._pages(source, path, lists, **query) for one in page]

    def _pages(self, source: str, path: str, model: type[M], **query: str) -> list[M]:
        url, params = f"{self.base}{path}", (*sorted(query.items()), ("per_page", str(PER_PAGE)))
        found = list[M]()
        while len(found) < MAX_PAGES:
            got = self.ask(source, "GET", url, params=params)
            found.append(wire.decode(source, got.content, model))
            if (more := _NEXT.search(got.headers.get("link", ""))) is None:
                return found
            # The token goes along: a page elsewhere would be handed it.
            ours, theirs = urlsplit(self._settings.url), urlsplit(more[1])
            if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
                raise SourceError(source, f"expected the next page at {ours.netloc}, got {more[1]}")
            url, params = more[1], ()
        raise SourceError(source, f"expected at most {MAX_PAGES} pages, got more")

    def read(self, source: str, path: str, model: type[M], params: Pairs = ()) -> M:
        """What is below ``base``."""
        got = self.ask(source, "GET", f"{self.base}{path}", params=params)
        return wire.decode(source, got.content, model)

    def find(self, source: str, path: str, model: type[M]) -> M | None:
        """What is below ``base``; None for what is not there, or the token may not see."""
        got = self.ask(source, "GET", f"{self.base}{path}", absent=True)
        return None if got.status_code == 404 else wire.decode(source, got.content, model)

    def written(
        self, source: str, method: str, path: str, given: Mapping[str, object], model: type[M]
    ) -> M:
        """What was answered to a document that was sent to ``path`` below ``base``."""
        got = self.ask(source, method, f"{self.base}{path}", canonical(given))
        return wire.decode(source, got.content, model)

    def ask(
        self,
        source: str,
        method: str,
        url: str,
        body: bytes = b"",
        *,
        params: Pairs = (),
        kind: str = "application/json",
        absent: bool = False,
    ) -> Response:
        """A good answer; with ``absent`` 404 is one."""
        headers: Pairs = (
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
            ("user-agent", "rpp-runbooks"),
        )
        reads = method == "GET"
        request = make_request(
            method, url, self._settings, params=params, body=body,
            headers=headers if reads else (*headers, ("content-type", kind)),
            purpose="read" if reads else self._writes,
        )  # fmt: skip
        [got] = self._scope.http([request])
        if _secondary(got) and self._patient:  # it was not done, a write neither: once more, once
            self._patient = False
            self._scope.sleep(SECONDARY_S)
            [got] = self._scope.http([request])
        if got.status_code in ((200,) if reads else (200, 201)) or (
            absent and got.status_code == 404
        ):
            return got
        if not got.status_code:
            wire.content(source, got)
        refused = not reads and got.status_code in REFUSED and not _limited(got)
        error, wanted = (
            SourceRefused if refused else SourceError,
            "status 200" if reads else "it written",
        )
        raise error(source, f"expected {wanted}, got {got.status_code}: {_why(got)}")

    def check_runs(self, commit: str) -> list[CheckRun]:
        """The latest run of every check of a commit, as many as the forge says there are."""
        source = f"forge: check runs of {commit[:12]}"
        pages = self._pages(source, f"/commits/{commit}/check-runs", _CheckRunPage, filter="latest")
        runs = [run for page in pages for run in page.check_runs]
        complete(source, pages[-1].total_count, [run.id for run in runs])
        if strange := [run.name for run in runs if run.head_sha != commit]:
            raise SourceError(source, f"expected that commit's, got another's: {strange[0]}")
        return runs

    def statuses(self, commit: str) -> list[CommitStatus]:
        """The last status of every context of a commit."""
        source = f"forge: statuses of {commit[:12]}"
        pages = self._pages(source, f"/commits/{commit}/status", _StatusPage)
        statuses = [status for page in pages for status in page.statuses]
        complete(source, pages[-1].total_count, [status.context for status in statuses])
        if any(page.sha != commit for page in pages):
            raise SourceError(source, f"expected that commit's, got {pages[0].sha}'s")
        return statuses

    def issue(self, number: int) -> Issue:
        """An issue as it now is."""
        return numbered(number, self.read(f"forge: issue {number}", f"/issues/{number}", Issue))

    def comments(self, number: int) -> list[Comment]:
        """All comments of an issue, oldest first."""
        source = f"forge: comments of issue {number}"
        comments = self.listed(source, f"/issues/{number}/comments", Comment)
        complete(source, len(comments), [comment.number for comment in comments])
        return comments

    def me(self) -> str:
        """The account whose token it is: what the site says, else what the forge says."""
        if self._settings.account:
            return self._settings.account
        source = "forge: whose token it is"
        got = tried(self.ask, source, "GET", f"{self._settings.url}/user")
        if isinstance(got, SourceError):
            raise SourceError(source, f"{got.problem}; or set forge.account in the site file")
        return wire.decode(source, got.content, _User).login

    def issues(self, since: datetime) -> list[Issue]:
        """Issues (and pull requests), open or closed, updated at ``since`` (UTC) or later."""
        # By number: what is updated meanwhile does not change its place.
        order = {"sort": "created", "direction": "asc"}
        at = f"{since:%Y-%m-%dT%H:%M:%SZ}"
        return self.listed("forge: issues", "/issues", Issue, state="all", since=at, **order)

    def post(self, number: int, *, issue: int) -> Post | None:
        """A comment (of an ``issue``; 0: an issue itself) as it now is; None where none is shown."""
        if issue:
            return self.find(f"forge: comment {number}", f"/issues/comments/{number}", Comment)
        found = self.find(f"forge: issue {number}", f"/issues/{number}", Issue)
        return found and numbered(number, found)

    def write(self, body: str, *, issue: int = 0, title: str = "", number: int = 0) -> Post:
        """Write a comment (of an ``issue``), or an issue of a ``title``: ``number``, else a new one."""
        model: type[Post] = Comment if issue else Issue
        if number:
            what, path = ("comment", f"/comments/{number}") if issue else ("issue", f"/{number}")
            source, path = f"forge: {what} {number}", f"/issues{path}"
            return self.written(source, "PATCH", path, {"body": body}, model)
        source = f"forge: a comment in issue {issue}" if issue else "forge: a new issue"
        path = f"/issues/{issue}/comments" if issue else "/issues"
        return self.written(
            source, "POST", path, {"body": body} | ({} if issue else {"title": title}), model
        )


def numbered(number: int, found: Issue) -> Issue:
    """An issue, which must be the one asked for: one that was moved answers by another number."""
    if found.number != number:
        raise SourceError(f"forge: issue {number}", f"expected issue {number}, got {found.number}")
    return found


def _secondary(got: Response) -> bool:
    """Whether we asked too much at once: GitHub says so in words, and wants a minute of quiet."""
    return got.status_code in (403, 429) and b"secondary rate limit" in got.content.lower()


def _limited(got: Response) -> bool:
    """GitHub says 403 for a used-up rate limit too."""
    left, retry = got.headers.get("x-ratelimit-remaining"), got.headers.get("retry-after")
    used_up = left == "0" or bool(retry) or _secondary(got)
    return got.status_code == 429 or (got.status_code == 403 and used_up)


def _why(got: Response) -> str:
    """What was said, and what to do. GitHub says 404 for what a token may not see."""
    if _limited(got):
        retry, reset = (got.headers.get(n, "") for n in ("retry-after", "x-ratelimit-reset"))
        when = f"; ask again in {retry} s" if retry else "; ask again later"
        if not retry and reset.isdigit() and len(reset) < 12:
            when = f" until {datetime.fromtimestamp(int(reset), UTC):%Y-%m-%d %H:%M:%SZ}"
        return f"the rate limit is used up{when}"
    said, hint = explanation(got.content), _HINTS.get(got.status_code, "")
    if "locked" in said:
        hint = "unlock it there, or name another issue"
    return f"{said}; {hint}" if hint else said


_HINTS = {
    401: "the token is wrong or expired",
    403: "the token lacks a permission",
    404: "it does not exist, or the token may not see it",
    410: "it was deleted, or issues are switched off",
}


def explanation(body: bytes) -> str:
    """What GitHub said, and of which field; its text where it is no JSON."""
    try:
        found: Any = json.loads(body)
        errors = [each.get("message") or each["code"] for each in found.get("errors", ())]
        return ": ".join(map(str, [found["message"], *errors[:1]]))[:200]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return " ".join(body[:200].decode("utf-8", "replace").split()) or "no message"


def complete(source: str, expected: int, keys: list[Any]) -> None:
    """Raises SourceError unless a list has that many entries, each once."""
    if len(set(keys)) != len(keys):
        raise SourceError(source, "expected every entry once, got one twice; it changed meanwhile")
    if len(keys) != expected:
        raise SourceError(source, f"expected {expected} entries on all pages, got {len(keys)}")
