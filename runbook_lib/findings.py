"""Findings that fail closed: each is INCONCLUSIVE until it is judged, or when its source cannot be read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from .errors import ParameterError, SourceError
from .outcomes import Outcome, Row, Value, check_row, unknown_row

T = TypeVar("T")
Observed = Value | SourceError | ParameterError
Problem = type[Exception] | tuple[type[Exception], ...]
Ok = bool | Outcome | None
Asked = Mapping[str, T | SourceError]


@contextmanager
def unread(tell: Callable[[Any], object], problem: Problem = SourceError) -> Iterator[None]:
    """What cannot be read in here goes to ``tell``, and the check goes on behind it."""
    try:
        yield
    except problem as error:
        tell(error)


def read_or(instead: T, read: Callable[[], T], problem: Problem = SourceError) -> T:
    """What ``read`` gives, else ``instead``: only where a finding follows from that one, too."""
    try:
        return read()
    except problem:
        return instead


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

    @contextmanager
    def finding(self, subject: str, what: str, expected: Value) -> Iterator[Callable[..., bool]]:
        """Open a finding, to be judged once, by what this gives: ``judge(observed, ok)``."""
        place, opened = len(self.findings), unknown_row(subject, what, expected, "not judged")
        self.findings.append(opened)

        def judge(observed: Observed, ok: Ok = None, **more: Any) -> bool:
            assert self.findings[place] is opened, f"{subject}: {what}: judged twice"
            self.findings[place] = check_row(subject, what, expected, observed, ok, **more)
            return self.findings[place].outcome is Outcome.PASS

        with unread(judge):
            yield judge

    @contextmanager
    def reading(
        self, what: str, expected: Value, subject: str = "", *, whole: bool = False
    ) -> Iterator[None]:
        """What cannot be read in here is one INCONCLUSIVE finding; of its source, unless named.

        ``whole``: the problem names the source as well.
        """

        def tell(error: SourceError) -> None:
            why = str(error) if whole else error.problem
            self.unknown(subject or error.source, what, expected, why)

        with unread(tell):
            yield

    def read(
        self,
        what: str,
        expected: Value,
        ask: Callable[[], T],
        subject: str = "",
        problem: tuple[type[SourceError | ParameterError], ...] = (SourceError,),
    ) -> T | None:
        """What ``ask`` gives; None for what cannot be read, which is a finding."""
        try:
            return ask()
        except problem as error:
            source = error.source if isinstance(error, SourceError) else what
            self.judge(subject or source, what, expected, error)
            return None

    def answer(self, subject: str, what: str, expected: Value, answer: T | SourceError) -> T | None:
        """An answer; None for an error, which is a finding."""
        if not isinstance(answer, SourceError):
            return answer
        self.judge(subject, what, expected, answer)
        return None

    def answers(
        self, what: str, expected: Value, asked: Asked[T], *, whose: bool = True
    ) -> Iterator[tuple[str, T]]:
        """(Name, answer) of those that answered; each that did not is a finding, by name or source."""
        for name, answer in asked.items():
            if not isinstance(answer, SourceError):
                yield name, answer
            else:
                self.judge(name if whose else answer.source, what, expected, answer)

    @contextmanager
    def clean(self, subject: str, what: str, expected: Value, got: Value = "") -> Iterator[None]:
        """Where nothing is found in here, that is a finding, which holds."""
        start = len(self.findings)
        yield
        if len(self.findings) == start:
            self.judge(subject, what, expected, got or expected, ok=True)

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
