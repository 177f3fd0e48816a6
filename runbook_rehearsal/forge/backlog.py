"""What the rehearsal's release leaves open: its milestone, two low-risk issues, their branches."""

from __future__ import annotations

import hashlib
from typing import Any

from ..faults.board import FaultBoard
from ..layout import REPOSITORY, Release

Json = dict[str, Any]
MILESTONE, BEFORE = 2, 1
HOTFIXES = {
    43: ("Gossip backs off too slowly", "hotfix/gossip-backoff"),
    44: ("Typo in a metric's help", "hotfix/typo-in-metrics"),
}
PULL_REQUEST = 45
FIRST = 43  # the issue, and the branch, that faults are about


class Backlog:
    """Milestones, and the branches of hotfixes, each one commit ahead of the release."""

    def __init__(self, release: Release, faults: FaultBoard) -> None:
        self._release, self._faults = release, faults
        self.heads = {
            branch: hashlib.sha1(  # noqa: S324 - a commit's name
                f"{release.commit}/{branch}".encode()
            ).hexdigest()
            for _, branch in HOTFIXES.values()
        }

    def milestones(self, issues: dict[int, Json]) -> list[Json]:
        """Of this release and the one before, with how many issues each has."""
        ours = self._release.version
        numbers = {ours: MILESTONE, self._release.previous.version: BEFORE}
        if self._faults.is_on("milestone-missing"):
            del numbers[ours]
        return [
            {
                "number": number,
                "title": title,
                "state": "open" if title == ours else "closed",
                **{
                    f"{state}_issues": sum(
                        issue["state"] == state and _in(issue, number) for issue in issues.values()
                    )
                    for state in ("open", "closed")
                },
                "html_url": f"https://forge.invalid/{REPOSITORY}/milestone/{number}",
            }
            for title, number in numbers.items()
        ]

    def shown(self, issue: Json) -> Json:
        """An issue as the faults have it."""
        if issue["number"] == FIRST and self._faults.is_on("hotfix-not-low-risk"):
            return {**issue, "labels": [{"name": "high-risk"}]}
        if issue["number"] == FIRST and self._faults.is_on("hotfix-unlabelled"):
            return {**issue, "labels": []}
        if issue["number"] == FIRST and self._faults.is_on("hotfix-unlinked"):
            return {**issue, "body": "Someone is on it."}
        return issue

    def exists(self, branch: str) -> bool:
        missing = self._faults.is_on("hotfix-branch-missing")
        return not (missing and branch == HOTFIXES[FIRST][1])

    def compare(self, base: str, head: str) -> Json | None:
        """As GET /compare has it, from the release's commit; None for commits it does not know."""
        ours, before = self._release.commit, self._release.previous.commit
        known = (ours, before, *self.heads.values())
        if base != ours or head not in known:
            return None
        ahead, behind, common = (1 if head in self.heads.values() else 0), 0, ours
        if self._faults.is_on("hotfix-diverged") and head == self.heads[HOTFIXES[FIRST][1]]:
            behind, common = 1, before
        if head == before:
            behind, common = 1, before
        status = {(0, 0): "identical", (1, 0): "ahead", (0, 1): "behind"}
        return {
            "status": status.get((ahead, behind), "diverged"),
            "ahead_by": ahead,
            "behind_by": behind,
            "total_commits": ahead,
            "base_commit": {"sha": base},
            "merge_base_commit": {"sha": common},
            "commits": [{"sha": head}][:ahead],
        }

    def runs(self, runs: list[Json], head: str) -> list[Json]:
        """The release's checks as a hotfix branch's."""
        if self._faults.is_on("hotfix-ci-red") and head == self.heads[HOTFIXES[FIRST][1]]:
            return [*runs[:-1], {**runs[-1], "conclusion": "failure"}]
        if self._faults.is_on("hotfix-ci-pending") and head == self.heads[HOTFIXES[FIRST][1]]:
            pending = {"status": "in_progress", "conclusion": None, "completed_at": None}
            return [*runs[:-1], {**runs[-1], **pending}]
        return runs


def _in(issue: Json, milestone: int) -> bool:
    found: Json | None = issue.get("milestone")
    return found is not None and found["number"] == milestone


def of_milestone(issues: list[Json], wanted: str | None) -> list[Json]:
    """Issues by GET /issues' ``milestone``: a number, ``none``, ``*``, or all of them."""
    if wanted in (None, "*"):
        return [issue for issue in issues if wanted is None or issue.get("milestone")]
    if wanted == "none":
        return [issue for issue in issues if not issue.get("milestone")]
    return [issue for issue in issues if wanted.isdigit() and _in(issue, int(wanted))]
