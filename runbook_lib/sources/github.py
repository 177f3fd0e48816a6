"""GitHub behind ``Forge``; a list that cannot be read to its last page is never a shorter list."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Annotated
from urllib.parse import quote, urlsplit

from pydantic import Field

from ..errors import SourceError
from . import wire
from .forge import Asset, CheckRun, Comment, CommitStatus, Issue, Release
from .github_api import Api, complete
from .wire import Wire


class _User(Wire):
    login: str


class _CheckRunPage(Wire):
    total_count: Annotated[int, Field(ge=0)]
    check_runs: list[CheckRun]


class _StatusPage(Wire):
    sha: str
    total_count: Annotated[int, Field(ge=0)]
    statuses: list[CommitStatus]


_check_runs = partial(wire.decode, model=_CheckRunPage)
_statuses = partial(wire.decode, model=_StatusPage)
_comments = partial(wire.decode_list, model=Comment)
_issues = partial(wire.decode_list, model=Issue)
_assets = partial(wire.decode_list, model=Asset)


class GitHub(Api):
    """GitHub's REST API, version 2022-11-28."""

    def check_runs(self, commit: str) -> list[CheckRun]:
        """The latest run of every check of a commit, as many as the forge says there are."""
        source = f"forge: check runs of {commit[:12]}"
        pages = self.pages(source, f"/commits/{commit}/check-runs", _check_runs, filter="latest")
        runs = [run for page in pages for run in page.check_runs]
        complete(source, pages[-1].total_count, [run.id for run in runs])
        if strange := [run.name for run in runs if run.head_sha != commit]:
            raise SourceError(source, f"expected that commit's, got another's: {strange[0]}")
        return runs

    def statuses(self, commit: str) -> list[CommitStatus]:
        """The last status of every context of a commit."""
        source = f"forge: statuses of {commit[:12]}"
        pages = self.pages(source, f"/commits/{commit}/status", _statuses)
        statuses = [status for page in pages for status in page.statuses]
        complete(source, pages[-1].total_count, [status.context for status in statuses])
        if any(page.sha != commit for page in pages):
            raise SourceError(source, f"expected that commit's, got {pages[0].sha}'s")
        return statuses

    def issue(self, number: int) -> Issue:
        """An issue as it now is."""
        found = self._issue(number, absent=False)
        assert found is not None
        return found

    def issue_if_there(self, number: int) -> Issue | None:
        """The same; None for one that does not exist, or that the token may not see."""
        return self._issue(number, absent=True)

    def _issue(self, number: int, *, absent: bool) -> Issue | None:
        source = f"forge: issue {number}"
        got = self.get(source, f"{self.base}/issues/{number}", absent=absent)
        if got.status == 404:
            return None
        found = wire.decode(source, got.body, Issue)
        if found.number != number:
            raise SourceError(source, f"expected issue {number}, got {found.number}")
        return found

    def issues(self, since: datetime) -> list[Issue]:
        """Issues (and pull requests), open or closed, updated at ``since`` or later."""
        source, at = "forge: issues", since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # By number: what is updated meanwhile does not change its place.
        order = {"sort": "created", "direction": "asc"}
        pages = self.pages(source, "/issues", _issues, state="all", since=at, **order)
        return [issue for page in pages for issue in page]

    def create_issue(self, title: str, body: str) -> Issue:
        """A new issue."""
        source, given = "forge: a new issue", {"title": title, "body": body}
        return wire.decode(source, self.write(source, "POST", f"{self.base}/issues", given), Issue)

    def update_issue(self, number: int, body: str) -> Issue:
        """Another text for an issue."""
        source, path = f"forge: issue {number}", f"{self.base}/issues/{number}"
        return wire.decode(source, self.write(source, "PATCH", path, {"body": body}), Issue)

    def comments(self, number: int) -> list[Comment]:
        """All comments of an issue, oldest first."""
        source = f"forge: comments of issue {number}"
        pages = self.pages(source, f"/issues/{number}/comments", _comments)
        comments = [comment for page in pages for comment in page]
        complete(source, len(comments), [comment.id for comment in comments])
        return comments

    def me(self) -> str:
        """The account whose token it is: what the site says, else what the forge says."""
        if self._settings.account:
            return self._settings.account
        source = "forge: whose token it is"
        try:
            got = self.get(source, f"{self._settings.url}/user")
        except SourceError as error:
            hint = "; or set forge.account in the site file"
            raise SourceError(source, error.problem + hint) from error
        return wire.decode(source, got.body, _User).login

    def comment(self, id: int) -> Comment:
        """A comment as it now is."""
        source = f"forge: comment {id}"
        got = self.get(source, f"{self.base}/issues/comments/{id}")
        return wire.decode(source, got.body, Comment)

    def create_comment(self, number: int, body: str) -> Comment:
        """A new comment in an issue."""
        source = f"forge: a comment in issue {number}"
        path = f"{self.base}/issues/{number}/comments"
        return wire.decode(source, self.write(source, "POST", path, {"body": body}), Comment)

    def update_comment(self, id: int, body: str) -> Comment:
        """Another text for a comment."""
        source = f"forge: comment {id}"
        path = f"{self.base}/issues/comments/{id}"
        return wire.decode(source, self.write(source, "PATCH", path, {"body": body}), Comment)

    def release(self, tag: str) -> Release | None:
        """The release of a tag; None when there is none."""
        source = f"forge: release {tag}"
        url = f"{self.base}/releases/tags/{quote(tag, safe='')}"
        got = self.get(source, url, absent=True)
        return None if got.status == 404 else wire.decode(source, got.body, Release)

    def create_release(self, tag: str, commit: str, name: str, body: str) -> Release:
        """A pre-release with a tag of its own at ``commit``; it never becomes the latest."""
        source = f"forge: release {tag}"
        given = {
            "tag_name": tag,
            "target_commitish": commit,
            "name": name,
            "body": body,
            "prerelease": True,
            "make_latest": "false",
        }
        return wire.decode(
            source, self.write(source, "POST", f"{self.base}/releases", given), Release
        )

    def assets(self, release: Release) -> list[Asset]:
        """All files of a release."""
        source = f"forge: assets of {release.tag_name}"
        pages = self.pages(source, f"/releases/{release.id}/assets", _assets)
        assets = [asset for page in pages for asset in page]
        complete(source, len(assets), [asset.id for asset in assets])
        return assets

    def upload(self, release: Release, name: str, label: str, data: bytes, kind: str) -> Asset:
        """Add a file of media type ``kind`` to a release."""
        source = f"forge: asset {name}"
        url, ours = urlsplit(release.upload_url.partition("{")[0]), urlsplit(self._settings.url)
        # The token goes along, and github.com takes uploads at a host of their own.
        hosts = {ours.netloc, f"uploads.{ours.netloc.removeprefix('api.')}"}
        if url.scheme != ours.scheme or url.netloc not in hosts:
            expected = f"expected an upload address at {ours.netloc}, got {release.upload_url}"
            raise SourceError(source, expected)
        params = (("label", label), ("name", name))
        got = self.write(source, "POST", url.geturl(), data, params=params, kind=kind)
        asset = wire.decode(source, got, Asset)
        if (asset.name, asset.size, asset.state) != (name, len(data), "uploaded"):
            found = f"{asset.name} of {asset.size} bytes, {asset.state}"
            raise SourceError(source, f"expected {len(data)} bytes uploaded, got {found}")
        return asset
