"""Whether CI is green for a commit: only a success that the expected app reported is."""

from collections.abc import Sequence

from ..context import Context
from ..outcomes import Outcome, Row, check_row, unknown_row, worst
from ..site import Ci
from ..sources.github import CheckRun, CommitStatus


def checkout(context: Context, when: str) -> None:
    """Judge whether the commit is checked out and its tree is clean."""
    what, commit = f"commit {when}", context.params.commit
    with context.reading(what, commit, "checkout"):
        revision, status = context.commands.revision(), context.commands.tree_status()
        context.judge("checkout", what, commit, revision)
        tree = f"{len(status.splitlines())} changed files" if status else "clean"
        context.judge("checkout", f"tree {when}", "clean", tree, not status)


RED = frozenset({"failure", "timed_out", "action_required", "startup_failure"})


def ci_rows(ci: Ci, runs: Sequence[CheckRun], statuses: Sequence[CommitStatus]) -> list[Row]:
    """One row per required check, and one per status that nobody requires."""
    rows = [required_row(name, ci.app, runs, statuses) for name in ci.required]
    return rows + [status_row(status) for status in statuses if status.context not in ci.required]


def required_row(
    name: str, app: str, runs: Sequence[CheckRun], statuses: Sequence[CommitStatus]
) -> Row:
    """One required check: success by the expected app, and by everybody else who reports it.

    Of each app and suite the newest run counts.
    """
    what, newest = f"check by {app}", dict[tuple[str, object], CheckRun]()
    for run in sorted((run for run in runs if run.name == name), key=lambda run: run.id):
        newest[run.app, run.suite] = run
    by = sorted(newest.values(), key=lambda run: run.app != app)
    rows = [_run_row(what, run, "" if run.app == app else f" by {run.app}") for run in by]
    rows += [status_row(each) for each in statuses if each.context == name]
    if not any(run.app == app for run in by) and (by or not rows):
        others = ", ".join(dict.fromkeys(run.app for run in by))
        got = f"only by {others}" if others else "no such check for this commit"
        rows.append(unknown_row(name, what, "success", got))
    outcome = worst(row.outcome for row in rows)
    return next(row for row in rows if row.outcome is outcome)


def _run_row(what: str, run: CheckRun, by: str) -> Row:
    if run.status != "completed":
        return unknown_row(run.name, what, "success", f"not finished: {run.status}{by}")
    ok = Outcome.FAIL if run.conclusion in RED else Outcome.INCONCLUSIVE
    ok = Outcome.PASS if run.conclusion == "success" else ok
    return check_row(run.name, what, "success", f"{run.conclusion}{by}", ok)


def status_row(status: CommitStatus) -> Row:
    """One commit status; red is red whoever reported it."""
    outcome = {"success": Outcome.PASS, "pending": Outcome.INCONCLUSIVE}.get(
        status.state, Outcome.FAIL
    )
    return check_row(status.context, "commit status", "success", status.state, outcome)
