"""The files of a release: straight from the disk for a command, through the tape for a check."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError
from .scope import Scope

UNREADABLE = "expected a readable file"

Judge = Callable[[bytes], str]
"""What is wrong with a file's content; empty when nothing is."""
Whole = Callable[[str, Judge], str]
"""Judges all of a file's content, under a name of the question; only the answer is kept."""


@dataclass(frozen=True)
class Files:
    """Where an examination reads. An unreadable file is an error of the project's own."""

    digest: Callable[[Path], str]
    read: Callable[[Path], bytes]
    exists: Callable[[Path], bool]
    whole: Callable[[Path], Whole]


def taped(scope: Scope) -> Files:
    """Through the tape: documents are recorded, of an artifact only digest and answers are.

    Each raises SourceError.
    """

    def exists(path: Path) -> bool:
        return path.name in scope.listing(path.parent)

    def whole(path: Path) -> Whole:
        def ask(what: str, judge: Judge) -> str:
            def compute() -> str:
                try:
                    return judge(path.read_bytes())
                except OSError as error:
                    return f"{UNREADABLE}, got: {error.strerror}"

            problem = scope.derive(f"{what} over {path.name}", compute)
            if problem.startswith(UNREADABLE):
                raise SourceError(path.name, problem)
            return problem

        return ask

    return Files(scope.file_digest, scope.read, exists, whole)
