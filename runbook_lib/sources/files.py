"""The files of a release: straight from the disk for a command, through the tape for a check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..canonical import digest_file
from ..errors import ParameterError, SourceError
from ..markup import visible
from .scope import Scope

MAX_DOCUMENT = 64 * 1024 * 1024
_UNREADABLE = "expected a readable file"

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


class Disk:
    """The disk itself. Raises ParameterError."""

    def digest(self, path: Path) -> str:
        try:
            return digest_file(path)
        except OSError as error:
            raise ParameterError(
                f"{visible(str(path))}: expected a file or sha256: and 64 hex digits, got:"
                f" {error.strerror}"
            ) from error
        except ValueError as error:  # a path that no system takes
            raise ParameterError(f"artifact: expected a file, got: {error}") from error

    def read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_DOCUMENT + 1)
        except (OSError, ValueError) as error:
            raise ParameterError(f"{visible(str(path))}: {_UNREADABLE}, got: {error}") from error
        if len(data) > MAX_DOCUMENT:
            raise ParameterError(
                f"{visible(str(path))}: expected at most {MAX_DOCUMENT} bytes, got more"
            )
        return data

    def exists(self, path: Path) -> bool:
        return path.exists()

    def whole(self, path: Path) -> Whole:
        return lambda what, judge: judge(path.read_bytes())


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
                    return f"{_UNREADABLE}, got: {error.strerror}"

            problem = self._scope.derive(f"{what} over {path.name}", compute)
            if problem.startswith(_UNREADABLE):
                raise SourceError(path.name, problem)
            return problem

        return ask
