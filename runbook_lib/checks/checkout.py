"""The checkout that the suites run in: the very commit, and nothing beside it."""

from __future__ import annotations

from ..context import Context
from ..errors import SourceError
from ..outcomes import Row, check_row, unknown_row


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
