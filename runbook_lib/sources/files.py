"""The files of a release: straight from the disk for a command, through the tape for a check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..errors import SourceError
from .scope import Scope

UNREADABLE = "expected a readable file"

Judge = Callable[[bytes], str]
"""What is wrong with a file's content; empty when nothing is."""
Whole = Callable[[str, Judge], str]
"""Judges all of a file's content, under a name of the question; only the answer is kept."""


class Files(Protocol):
    """Where an examination reads. An unreadable file is an error of the project's own."""

    def digest(self, path: Path) -> str: ...

    def read(self, path: Path) -> bytes: ...

    def exists(self, path: Path) -> bool: ...

    def whole(self, path: Path) -> Whole: ...


class Taped:
    """Through the tape: documents are recorded, of an artifact only digest and answers are.

    Raises SourceError.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def digest(self, path: Path) -> str:
        return self._scope.file_digest(path)

    def read(self, path: Path) -> bytes:
        return self._scope.read(path)

    def exists(self, path: Path) -> bool:
        return path.name in self._scope.listing(path.parent)

    def whole(self, path: Path) -> Whole:
        def ask(what: str, judge: Judge) -> str:
            def compute() -> str:
                try:
                    return judge(path.read_bytes())
                except OSError as error:
                    return f"{UNREADABLE}, got: {error.strerror}"

            problem = self._scope.derive(f"{what} over {path.name}", compute)
            if problem.startswith(UNREADABLE):
                raise SourceError(path.name, problem)
            return problem

        return ask
