"""Every error a caller must tell apart.

* RunbookError
  * ParameterError    parameters, site, catalogue or command line are wrong: exit 3, nothing ran
  * NotebookError     the notebook is not one of ours, or its code was altered: exit 3
  * SourceError       something outside could not be read: the check is INCONCLUSIVE
    * SourceRefused   something outside said no: what was asked of it was not done
  * TapeMiss          replay asked for an answer that was never recorded: exit 3, never retried
  * StoreError        the store or an attempt in it cannot be used: exit 3
    * LockHeld        somebody else is changing this cluster
    * RecordDamaged   a record or tape contradicts its own digests
  * Stopped           undone, or no longer approved: no more of this attempt is begun
  * StageRefused      raised by ``stage.enforce()`` alone; carries the exit code

A failed check is a value (``outcomes.CheckResult``), never an exception.
Messages read ``where: what: expected X, got Y`` and end with what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


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

    def __reduce__(self) -> tuple[type[ParameterError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


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

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, str]]:
        return type(self), (self.source, self.problem)


class SourceRefused(SourceError):
    """A source understood what it should do, and will not."""


class TapeMiss(RunbookError):
    """Replay needs an answer the tape does not hold."""


class StoreError(RunbookError):
    """The store cannot be used as it is."""


class LockHeld(StoreError):
    """Another run is changing the same cluster."""


class RecordDamaged(StoreError):
    """A record, tape or manifest does not match its own digests."""


class Stopped(RunbookError):
    """The attempt at work is undone, or no longer approved: it stops before its next step."""


class StageRefused(RunbookError):
    """The stage did not pass; ``exit_code`` is 1, 2, 3 or 4."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)

    def __reduce__(self) -> tuple[type[StageRefused], tuple[str, int]]:
        return type(self), (str(self), self.exit_code)
