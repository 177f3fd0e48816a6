"""The forge: checks of a commit, an issue and its comments, releases and their assets.

GitHub is the first (``github``); others join behind ``Forge``. A write goes out once: whether one
whose answer was lost took place is for the caller to look up.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal, Protocol

from pydantic import AwareDatetime, BeforeValidator, Field

from .wire import Wire


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


class CheckRun(Wire):
    """One check of a commit by an app. ``conclusion`` is null until ``status`` is completed."""

    id: int
    name: str
    app: Annotated[str, BeforeValidator(inner("slug"))]
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


class Release(Wire):
    """A release of the repository; ``upload_url`` is a template that ends in ``{?name,label}``."""

    id: int
    tag_name: str
    prerelease: bool
    upload_url: str
    html_url: str


class Asset(Wire):
    """A file of a release. ``digest`` is ``sha256:HEX`` where the forge tells it."""

    id: int
    name: str
    label: str | None = None
    state: str
    size: int
    digest: str | None = None
    browser_download_url: str


class Forge(Protocol):
    """What a stage asks of a forge. Every method raises SourceError; a write that the forge will
    not do raises SourceRefused.
    """

    def check_runs(self, commit: str) -> list[CheckRun]: ...

    def statuses(self, commit: str) -> list[CommitStatus]: ...

    def issue(self, number: int) -> Issue: ...

    def issue_if_there(self, number: int) -> Issue | None: ...

    def issues(self, since: datetime) -> list[Issue]: ...

    def create_issue(self, title: str, body: str) -> Issue: ...

    def update_issue(self, number: int, body: str) -> Issue: ...

    def comments(self, number: int) -> list[Comment]: ...

    def me(self) -> str: ...

    def comment(self, id: int) -> Comment: ...

    def create_comment(self, number: int, body: str) -> Comment: ...

    def update_comment(self, id: int, body: str) -> Comment: ...

    def release(self, tag: str) -> Release | None: ...

    def create_release(self, tag: str, commit: str, name: str, body: str) -> Release: ...

    def assets(self, release: Release) -> list[Asset]: ...

    def upload(self, release: Release, name: str, label: str, data: bytes, kind: str) -> Asset: ...
