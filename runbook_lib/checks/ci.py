"""Whether CI is green for a commit: only a success that the expected app reported is."""

from __future__ import annotations

from collections.abc import Sequence

from ..context import Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..site import Ci
from ..sources.github import CheckRun, CommitStatus


def checkout(context: Context, when: str) -> list[Row]:
    """Whether the commit is checked out and its tree is clean."""
    try:
        revision, status = context.commands.revision(), context.commands.tree_status()
    except SourceError as error:
        return [check_row("checkout", f"commit {when}", context.params.commit, error)]
    commit = context.params.commit
    dirty = f"{len(status.splitlines())} changed files"
    return [
        check_row("checkout", f"commit {when}", commit, revision),
        check_row("checkout", f"tree {when}", "clean", dirty if status else "clean", not status),
    ]


RED = frozenset({"failure", "timed_out", "action_required", "startup_failure"})


def ci_rows(ci: Ci, runs: Sequence[CheckRun], statuses: Sequence[CommitStatus]) -> list[Row]:
    """One row per required check, and one per status that nobody requires."""
    rows = [required_row(name, ci.app, runs, statuses) for name in ci.required]
    return rows + [status_row(status) for status in statuses if status.context not in ci.required]


def required_row(
    name: str, app: str, runs: Sequence[CheckRun], statuses: Sequence[CommitStatus]
) -> Row:
    """One required check, by the expected app; the newest run counts."""
    what, named = f"check by {app}", [run for run in runs if run.name == name]
    if mine := [run for run in named if run.app == app]:
        newest = max(mine, key=lambda run: run.id)
        if newest.status != "completed":
            return unknown_row(name, what, "success", f"not finished: {newest.status}")
        got = str(newest.conclusion)
        ok = Outcome.INCONCLUSIVE if got not in {*RED, "success"} else got == "success"
        return check_row(name, what, "success", got, ok)
    if status := next((each for each in statuses if each.context == name), None):
        return status_row(status)
    others = ", ".join(sorted({run.app for run in named}))
    got = f"only by {others}" if others else "no such check for this commit"
    return unknown_row(name, what, "success", got)


def status_row(status: CommitStatus) -> Row:
    """One commit status; red is red whoever reported it."""
    outcome = {"success": Outcome.PASS, "pending": Outcome.INCONCLUSIVE}.get(
        status.state, Outcome.FAIL
    )
    return check_row(status.context, "commit status", "success", status.state, outcome)
