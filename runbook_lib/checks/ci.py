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
        return [unknown_row("checkout", f"commit {when}", context.params.commit, error.problem)]
    commit = context.params.commit
    dirty = f"{len(status.splitlines())} changed files"
    return [
        check_row("checkout", f"commit {when}", commit, revision, revision == commit),
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
    mine = [run for run in runs if run.name == name and run.app == app]
    if mine:
        newest = max(mine, key=lambda run: run.id)
        return _run_row(name, newest)
    for status in statuses:
        if status.context == name:
            return status_row(status)
    others = sorted({run.app for run in runs if run.name == name})
    if others:
        return unknown_row(name, f"check by {app}", "success", f"only by {', '.join(others)}")
    return unknown_row(name, f"check by {app}", "success", "no such check for this commit")


def _run_row(name: str, run: CheckRun) -> Row:
    what = f"check by {run.app}"
    if run.status != "completed":
        return unknown_row(name, what, "success", f"not finished: {run.status}")
    got = str(run.conclusion)
    if got in RED:
        return check_row(name, what, "success", got, ok=False)
    return check_row(
        name, what, "success", got, Outcome.PASS if got == "success" else Outcome.INCONCLUSIVE
    )


def status_row(status: CommitStatus) -> Row:
    """One commit status; red is red whoever reported it."""
    outcome = {"success": Outcome.PASS, "pending": Outcome.INCONCLUSIVE}.get(
        status.state, Outcome.FAIL
    )
    return check_row(status.context, "commit status", "success", status.state, outcome)
