"""A window of a cluster, looked over: what was seen, and the breaks in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from ..changes.state import journals
from ..context import Context
from ..errors import SourceError
from ..metrics import queries
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..wording import utc
from .marks import restarts as journalled

if TYPE_CHECKING:
    from ..metrics.coverage import Stretch, Watched

ALERTS = 'present_over_time(ALERTS{alertstate="firing"}[2m])'


@dataclass(frozen=True)
class Break:
    """What was not quiet, from when to when; not ``proven`` means that nothing is known of it.

    ``ended`` is whether its end is known otherwise than by what the newest data say.
    """

    start: datetime
    end: datetime
    text: str
    proven: bool
    ended: bool = False


@dataclass(frozen=True)
class Seen:
    """One thing looked at over a window. ``known`` is false when it could not be read at all."""

    subject: str
    what: str
    expected: str
    observed: str = ""
    breaks: tuple[Break, ...] = ()
    known: bool = True

    def rows(self) -> list[Row]:
        """PASS with what was seen, or a row a break."""
        if not self.known:
            return [unknown_row(self.subject, self.what, self.expected, self.observed)]
        outcome = {True: Outcome.FAIL, False: Outcome.INCONCLUSIVE}
        return [
            check_row(self.subject, self.what, self.expected, told(each), outcome[each.proven])
            for each in self.breaks
        ] or [check_row(self.subject, self.what, self.expected, self.observed, ok=True)]


def told(found: Break) -> str:
    """A break as a row says it."""
    until = f" to {utc(found.end)}" if found.end > found.start else ""
    return f"{found.text}, {utc(found.start)}{until}"


@dataclass
class Window:
    """A cluster (that of ``context``) from ``start`` to ``end``; ``planned`` restarts are cut out."""

    context: Context
    start: datetime
    end: datetime
    planned: tuple[Stretch, ...] = ()

    @cached_property
    def paging(self) -> set[str]:
        """Severities that page: those of the parameters and those of the site."""
        telemetry = self.context.site.telemetry
        return {*self.context.params.paging_severities, *telemetry.paging_severities}

    @cached_property
    def firing(self) -> Watched:
        """Every alert that fired: the watchdog's proof and what it proves, in one answer."""
        return self.read(ALERTS, narrow=False)

    @cached_property
    def up(self) -> Watched:
        """Per node: whether it could be scraped."""
        return self.read(f"max by ({self.label}) (max_over_time(up[2m]))")

    @property
    def label(self) -> str:
        return self.context.site.telemetry.node_label

    def read(self, query: str, *, narrow: bool = True) -> Watched:
        """``query`` over the window, of this cluster alone unless not ``narrow``. SourceError."""
        from ..metrics.coverage import read

        asked = queries.inject(query, self.context.matchers) if narrow else query
        return read(self.context.prometheus, asked, self.start, self.end, self.planned)

    def concerns(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert may be this cluster's: one without its labels counts for every cluster."""
        return all(labels.get(name, v) == v for name, v in self.context.matchers.items())


def window(context: Context, start: datetime, end: datetime) -> Window:
    """A window on the context's cluster, the restarts of every journal there cut out."""
    stretches = [
        stretch
        for _, entries in journals(context.scope, context.store, context.cluster_name)
        for stretch in journalled(entries)
        if stretch[0] < end and stretch[1] > start
    ]
    return Window(context, start, end, tuple(stretches))


Look = Callable[[Window], Iterable[Seen]]


def look(over: Window, *looks: Look) -> list[Seen]:
    """What each sees; one whose source cannot be read is a finding that is not known."""
    found: list[Seen] = []
    for each in looks:
        try:
            found += each(over)
        except SourceError as error:
            unread = Seen(error.source, "readable", "an answer", error.problem, known=False)
            found.append(unread)
    return found
