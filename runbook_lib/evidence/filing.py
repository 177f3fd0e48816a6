"""Issues that tell of an incident: found by their marker, written, and read back.

    <!-- rpp-runbook incident=v1.4.0-canary-001 audience=public -->

One issue an audience, its text put in place of the earlier one. What others wrote under our marker
is never trusted nor edited.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import SourceError, SourceRefused
from ..outcomes import Row, check_row
from ..sources.forge import Forge, Issue
from .comment import lines
from .posting import digest, same

CLOCKS_APART = timedelta(days=1)
"""How far the forge's clock may lag behind the site's."""


@dataclass(frozen=True)
class Report:
    """What an issue is to hold. ``since``: nothing of it can have been filed before."""

    incident: str
    audience: str
    title: str
    text: str
    since: datetime

    @property
    def marker(self) -> str:
        return f"<!-- rpp-runbook incident={self.incident} audience={self.audience} -->"

    @property
    def body(self) -> str:
        return f"{self.marker}\n{self.text}"

    @property
    def digest(self) -> str:
        return digest(self.body)


@dataclass(frozen=True)
class Found:
    """Our issue of a report; ``others`` bear its marker too."""

    me: str
    ours: Issue | None
    others: tuple[Issue, ...] = ()

    def holds(self, report: Report) -> bool:
        return self.ours is not None and same(self.ours.body or "", report.body)

    def rows(self) -> list[Row]:
        said = "bears the marker too: ignored; close it"
        return [check_row(f"issue {one.number}", "by", said, said, ok=True) for one in self.others]


def find(forge: Forge, report: Report) -> Found:
    """The issues that bear the report's marker. Raises SourceError."""
    me = forge.me()
    marked = [
        one
        for one in forge.issues(report.since - CLOCKS_APART)
        if lines(one.body or "").partition("\n")[0].strip() == report.marker
    ]
    mine = sorted(
        (one for one in marked if one.author.casefold() == me.casefold()),
        key=lambda one: one.number,
    )
    ours = mine[0] if mine else None
    return Found(me, ours, tuple(one for one in marked if one is not ours))


def write(forge: Forge, report: Report, found: Found) -> Issue:
    """Put the report in place. Raises SourceRefused, SourceError.

    After a lost answer what stands there says whether it was written: it is never written twice.
    """
    if found.ours is not None and found.holds(report):
        return found.ours
    try:
        if found.ours is not None:
            return forge.update_issue(found.ours.number, report.body)
        return forge.create_issue(report.title, report.body)
    except SourceRefused:
        raise
    except SourceError:
        stands = find(forge, report)
        if stands.ours is None or not stands.holds(report):
            raise
        return stands.ours


def read_back(forge: Forge, me: str, number: int, report: Report) -> list[Row]:
    """The issue as it now stands against what was written. Raises SourceError."""
    where, wanted = f"issue {number}", report.digest
    now = forge.issue_if_there(number)
    if now is None:
        return [check_row(where, "read back", wanted, "no such issue", ok=False)]
    got = digest(now.body or "")
    mine = now.author.casefold() == me.casefold()
    return [
        check_row(where, "author", me, now.author or "nobody", mine),
        check_row(where, "text read back", wanted, got, wanted == got),
    ]
