"""What a release leaves open: the forge's milestone of its name, the issues in it, their branches.

Source: GitHub's REST API. It shows no "development" links (those are GraphQL's alone), so an issue
names its branch by a line ``branch: NAME`` in its body.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BeforeValidator, Field

from ..errors import SourceError
from . import wire
from .github import GitHub, complete, explanation, inner
from .wire import Wire

_LINK = re.compile(r"^[ \t]*branch:[ \t]*(\S+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_BRANCH = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9][\w./+-]{0,199}(?<![./])", re.ASCII)
Count = Annotated[int, Field(ge=0)]


def _name(value: object) -> object:
    return value if isinstance(value, str) else inner("name")(value)


class Milestone(Wire):
    """A milestone; ``open_issues`` counts its open issues and pull requests."""

    number: int
    title: str
    state: Literal["open", "closed"]
    open_issues: Count
    closed_issues: Count


class _Number(Wire):
    number: int


class MilestoneIssue(Wire):
    """An open issue of a milestone, or a pull request, which has ``pull_request``."""

    number: int
    title: str
    state: Literal["open", "closed"]
    body: str | None
    labels: list[Annotated[str, BeforeValidator(_name)]]
    milestone: _Number | None
    pull_request: object = None
    html_url: str

    @property
    def branches(self) -> list[str]:
        """The branches its body names, each once."""
        return list(dict.fromkeys(_LINK.findall(self.body or "")))


class Branch(Wire):
    name: str
    sha: Annotated[str, BeforeValidator(inner("sha")), Field(validation_alias="commit")]


class Comparison(Wire):
    """A head against a base: ``merge_base`` is the newest commit that both contain."""

    status: Literal["ahead", "behind", "diverged", "identical"]
    ahead_by: Count
    behind_by: Count
    base: Annotated[str, BeforeValidator(inner("sha")), Field(validation_alias="base_commit")]
    merge_base: Annotated[
        str, BeforeValidator(inner("sha")), Field(validation_alias="merge_base_commit")
    ]


class Backlog(GitHub):
    """The forge, asked about milestones. Every method raises SourceError."""

    def milestone(self, title: str) -> Milestone | None:
        """The milestone of exactly that title, open or closed; None when there is none."""
        source = "forge: milestones"
        found = self.listed(source, "/milestones", Milestone, state="all")
        complete(source, len(found), [milestone.number for milestone in found])
        mine = [milestone for milestone in found if milestone.title == title]
        if len(mine) > 1:
            raise SourceError(source, f"expected one called {title}, got {len(mine)}")
        return mine[0] if mine else None

    def open_issues(self, milestone: Milestone) -> list[MilestoneIssue]:
        """Its open issues, without pull requests; as many as the milestone itself counts."""
        source = f"forge: issues of milestone {milestone.title}"
        query = {"milestone": str(milestone.number), "state": "open"}
        found = self.listed(source, "/issues", MilestoneIssue, **query)
        complete(source, milestone.open_issues, [issue.number for issue in found])
        for issue in found:
            where = issue.milestone.number if issue.milestone else None
            if (where, issue.state) != (milestone.number, "open"):
                got = f"#{issue.number} of {where}, {issue.state}"
                raise SourceError(source, f"expected open ones of {milestone.number}, got {got}")
        return [issue for issue in found if issue.pull_request is None]

    def branch(self, name: str) -> Branch | None:
        """A branch and its head; None when the forge says that there is none."""
        source = f"forge: branch {name[:80]}"
        if not _BRANCH.fullmatch(name):
            raise SourceError(source, "expected a branch's name, got something else")
        got = self.get(source, f"{self.base}/branches/{quote(name)}", absent=True)
        if got.status != 404:
            found = wire.decode(source, got.body, Branch)
            if found.name != name:
                raise SourceError(source, f"expected {name}, got {found.name}; it was renamed")
            return found
        if (
            said := explanation(got.body)
        ) != "Branch not found":  # said of a repository we may not see
            raise SourceError(source, f"expected a branch or none, got 404: {said}")
        return None

    def compare(self, base: str, head: str) -> Comparison:
        """What ``head`` has that ``base`` has not, and the other way round; both are commits."""
        source = f"forge: {base[:12]}...{head[:12]}"
        url = f"{self.base}/compare/{base}...{head}"
        got = self.get(source, url, (("per_page", "1"),))
        found = wire.decode(source, got.body, Comparison)
        if found.base != base:
            raise SourceError(source, f"expected the base {base[:12]}, got {found.base[:12]}")
        return found
