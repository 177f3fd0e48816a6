"""Findings that fail closed: each is INCONCLUSIVE until it is judged, or when its source cannot be read."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .errors import Answers, ParameterError, SourceError
from .outcomes import Outcome, Row, Value, check_row, unknown_row

P = ParamSpec("P")
T = TypeVar("T")
Observed = Value | SourceError | ParameterError
Ok = bool | Outcome | None


if TYPE_CHECKING:
    # Typed as one that may end its block early, so that what stands behind it counts as reached.
    def suppressing(
        make: Callable[P, Iterator[T]],
    ) -> Callable[P, AbstractContextManager[T, bool]]: ...
else:
    suppressing = contextmanager


@dataclass
class Findings:
    """The findings of one run of an item, in the order in which they were opened."""

    findings: list[Row] = field(default_factory=list, kw_only=True)

    def judge(
        self,
        subject: str,
        what: str,
        expected: Value,
        observed: Observed,
        ok: Ok = None,
        **more: Any,
    ) -> bool:
        """Add a finding as ``check_row`` judges it. Whether it holds."""
        self.findings.append(check_row(subject, what, expected, observed, ok, **more))
        return self.findings[-1].outcome is Outcome.PASS

    def unknown(
        self, subject: str, what: str, expected: Value, why: Value, due: datetime | None = None
    ) -> None:
        """Add a finding that nothing proves: no data, an error, not yet (``due`` says until when)."""
        self.judge(subject, what, expected, why, Outcome.INCONCLUSIVE, return_at=due)

    @suppressing
    def finding(self, subject: str, what: str, expected: Value) -> Iterator[Callable[..., bool]]:
        """Open a finding, to be judged once, by what this gives: ``judge(observed, ok)``."""
        place, opened = len(self.findings), unknown_row(subject, what, expected, "not judged")
        self.findings.append(opened)

        def judge(observed: Observed, ok: Ok = None, **more: Any) -> bool:
            assert self.findings[place] is opened, f"{subject}: {what}: judged twice"
            self.findings[place] = check_row(subject, what, expected, observed, ok, **more)
            return self.findings[place].outcome is Outcome.PASS

        try:
            yield judge
        except SourceError as error:
            judge(error)

    @suppressing
    def reading(
        self,
        what: str,
        expected: Value,
        subject: str = "",
        problem: type[Exception] | tuple[type[Exception], ...] = SourceError,
        *,
        clean: Value | None = None,
    ) -> Iterator[None]:
        """What cannot be read in here is one INCONCLUSIVE finding; of its source, unless named.

        ``clean`` is a finding that holds, where nothing else is found in here.
        """
        start = len(self.findings)
        try:
            yield
        except problem as error:
            source = error.source if isinstance(error, SourceError) and not subject else ""
            why = str(error).removeprefix(f"{source}: ") if source else str(error)
            self.unknown(subject or source or what, what, expected, why)
        if clean is not None and len(self.findings) == start:
            self.judge(subject, what, expected, clean, ok=True)

    def answers(
        self, what: str, expected: Value, asked: Answers[str, T]
    ) -> Iterator[tuple[str, T]]:
        """(Name, answer) of those that answered; each that did not is a finding."""
        for name in asked:
            if name in asked.failed:
                self.judge(name, what, expected, asked.failed[name])
            else:
                yield name, asked[name]

    @property
    def holds(self) -> bool:
        """Whether nothing was found that is not PASS; of no finding, too."""
        return all(row.outcome is Outcome.PASS for row in self.findings)

    @contextmanager
    def apart(self) -> Iterator[list[Row]]:
        """What is judged in here is taken out, into a list of its own."""
        start, found = len(self.findings), list[Row]()
        yield found
        found += self.findings[start:]
        del self.findings[start:]
