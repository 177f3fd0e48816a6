"""Every error a caller must tell apart; ``exit_code`` is what a command ends with.

A failed check is a value (``outcomes.CheckResult``), never an exception.
Messages read ``where: what: expected X, got Y`` and end with what to do.
"""

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from tempfile import NamedTemporaryFile
from typing import Any, ParamSpec, TypeVar


class RunbookError(Exception):
    """Root of the tree. ``exit_code`` is what a command ends with when nothing catches it."""

    exit_code = 3

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows in place of a traceback: a person's mistake needs none."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(RunbookError):
    """Wrong input of a user; ``problems`` lists every one found, not only the first."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class NotebookError(RunbookError):
    """The notebook cannot be trusted to be the one we ship."""


class SourceError(RunbookError):
    """A source outside could not be read, or its answer makes no sense.

    ``source`` names where (a node, ``prometheus``, a file); the message says what was expected.
    """

    exit_code = 2

    def __init__(self, source: str, problem: str) -> None:
        self.source, self.problem = source, problem
        super().__init__(f"{source}: {problem}")


P = ParamSpec("P")
K = TypeVar("K")
T = TypeVar("T")


def tried(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | SourceError:
    """What a source gives; its error in its place, for a caller that goes on without it."""
    try:
        return ask(*args, **kwargs)
    except SourceError as error:
        return error


class Answers(Mapping[K, T]):
    """What several sources gave, by name, in their order; taking one that failed raises its error."""

    def __init__(self, ask: Callable[[K], T], names: Iterable[K], each: Any = map) -> None:
        self._names = list(dict.fromkeys(names))
        self.known, self.failed = dict[K, T](), dict[K, SourceError]()
        for name, answer in zip(
            self._names, each(lambda name: tried(ask, name), self._names), strict=True
        ):
            (self.failed if isinstance(answer, SourceError) else self.known)[name] = answer

    def __getitem__(self, name: K) -> T:
        if name in self.failed:
            raise self.failed[name]
        return self.known[name]

    def fill(self, name: K, answer: T) -> None:
        """An answer in place of one that failed."""
        self.known[name] = answer
        self.failed.pop(name, None)

    def __iter__(self) -> Iterator[K]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class SourceRefused(SourceError):
    """A source understood what it should do, and will not."""


class TapeMiss(RunbookError):
    """Replay needs an answer the tape does not hold; never retried."""


class StoreError(RunbookError):
    """The store cannot be used as it is."""


class LockHeld(StoreError):
    """Another run is changing the same cluster."""


class LogDamaged(StoreError):
    """A log, tape or manifest does not match its own digests."""


class Stopped(RunbookError):
    """The attempt at work is undone, or no longer approved: it stops before its next step."""


class StageRefused(RunbookError):
    """The stage did not pass, by ``stage.enforce()`` alone; ``exit_code`` is 1, 2, 3 or 4."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class MachineError(RunbookError):
    """This machine cannot be worked on as it is."""


class Defect(RunbookError):
    """What nobody foresaw."""


@contextmanager
def guarded() -> Iterator[None]:
    """Around a command or a cell: whatever is no RunbookError ends as one, in one sentence."""
    try:
        yield
    except RunbookError:
        raise
    except Exception as error:
        if isinstance(error, OSError | MemoryError) or str(error) == "can't start new thread":
            raise MachineError(_refused(error)) from error
        with guarded(), NamedTemporaryFile("w", prefix="runbook-bug-", delete=False) as file:
            traceback.print_exc(file=file)
        said = f"this is a bug of runbook: {type(error).__name__}: {error}".splitlines()[0]
        raise Defect(f"{said}; please report it with {file.name}") from error


def _refused(error: Exception) -> str:
    """Which file cannot be used, and why; an error that names none is about something of the process."""
    why = getattr(error, "strerror", None) or repr(error)
    if name := getattr(error, "filename", None):
        return f"{os.fsdecode(name)}: expected a file or folder that can be used, got: {why}"
    where = "this machine"
    for named, works in (("working directory", os.getcwd), ("stdout", partial(print, flush=True))):
        try:
            works()
        except OSError:
            where = named
    return f"{where}: expected it usable, got: {why}"
