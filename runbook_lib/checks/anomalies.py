"""Anomalies of a watch: what is wrong, who acknowledged it, and what was decided.

A finding of a look (or of the judged window) is part of the anomaly of its subject that is open;
once that is decided, a finding that begins anew is a new one. Whether an anomaly was acknowledged
in time is computed from timestamps by each look; there is no timer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..canonical import digest
from ..evidence.events import Acknowledged, AnomalyOpened, Decided, WindowJudged
from ..findings import Findings
from ..outcomes import Outcome, Row
from ..wording import utc
from .watch_log import Log


@dataclass(frozen=True)
class Anomaly:
    """``at`` is the look that found it, ``opened`` when the commander was first to be told."""

    id: str
    subject: str
    query: str
    at: datetime
    opened: datetime
    row: Row
    acknowledged: Acknowledged | None = None
    decided: Decided | None = None

    @property
    def summary(self) -> str:
        row = self.row
        return f"{row.subject}: {row.what}: expected {row.expected}, got {row.observed} {row.unit}"

    @property
    def restarted(self) -> datetime | None:
        """Where the watch begins anew by its decision: never before what was found.

        A word is of the instant that its speaker's clock says; a wrong one would leave the window
        as it is, and the finding out of it.
        """
        if self.decided is None or self.decided.decision != "restart":
            return None
        return max(self.decided.at, self.at)

    def escalated(self, now: datetime, within: timedelta) -> bool:
        """Whether nobody acknowledged it within that time, whatever came later."""
        answered = self.acknowledged.at if self.acknowledged else now
        return min(now, answered) >= self.opened + within

    def judge(self, context: Findings, trouble: str, *, escalated: bool) -> None:
        """The finding, until a decision restarts the watch, and who decided what of it.

        ``trouble`` says what could not be sent or read. That the watch goes on needs a waiver of
        the finding.
        """
        subject, what, expected = f"anomaly {self.id}", "decided", "continue, restart or recover"
        finding = self.row.model_copy(update={"what": f"{self.row.what} ({utc(self.at)})"})
        done, known = self.decided, self.acknowledged
        if done is not None and done.decision == "restart":
            # Named for ever; the window that it spoilt is no longer judged.
            got = f"{finding.observed} {finding.unit}, the watch was restarted"
            context.judge(finding.subject, finding.what, finding.expected, got, ok=True)
        else:
            context.findings.append(finding)
        if done is not None:
            got = f"{done.decision} by {done.by} {utc(done.at)}: {done.reason}"
            context.judge(subject, what, expected, got, done.decision != "recover")
            return
        word = f"acknowledged by {known.by} {utc(known.at)}" if known else "not acknowledged"
        word += ", escalated" if escalated else ""
        got = f"undecided, {word}" + (f"; {trouble}" if trouble else "")
        context.unknown(subject, what, expected, got)


def known(log: Log) -> list[Anomaly]:
    """Every anomaly of the attempt, in the order of its looks."""
    acknowledged = {answer.key: answer for answer in log.of(Acknowledged)}
    decided = {answer.key: answer for answer in log.of(Decided)}
    found = [
        Anomaly(
            id=each.key,
            subject=each.subject,
            query=each.query,
            at=each.at,
            opened=each.opened,
            row=each.row,
            acknowledged=acknowledged.get(each.key),
            decided=decided.get(each.key),
        )
        for each in log.of(AnomalyOpened)
    ]
    return sorted(found, key=lambda each: (each.at, each.subject))


def open_new(log: Log, attempt: str, now: datetime, queries: Mapping[str, str]) -> list[str]:
    """An anomaly for every finding that is part of none, of any look and of judged windows.

    ``queries`` by subject, for a person to look with. The ids of those that we opened.
    """
    opened = []
    before: set[str] = set()
    for judged in log.judged():
        at, whole = judged.at, isinstance(judged, WindowJudged)
        failing = [row for row in judged.rows if row.outcome is Outcome.FAIL]
        for row in failing:
            if not _part(known(log), row.subject, at, before, whole=whole):
                opened += _open(log, attempt, row, at, now, queries)
        before = {row.subject for row in failing}
    return opened


def _part(
    anomalies: Sequence[Anomaly], subject: str, at: datetime, before: set[str], *, whole: bool
) -> bool:
    """Whether a finding is part of what is known; one of a whole window is of any in it."""
    last = next((each for each in reversed(anomalies) if each.subject == subject), None)
    if last is None:
        return False
    if last.decided is None or at <= last.decided.at:
        return True
    return last.decided.decision == "continue" and (whole or subject in before)


def _open(
    log: Log, attempt: str, row: Row, at: datetime, now: datetime, queries: Mapping[str, str]
) -> list[str]:
    key = {"attempt": attempt, "subject": row.subject, "at": at.isoformat()}
    name = "A" + digest(key).removeprefix("sha256:")[:8]
    first, _, rest = row.subject.partition(" ")
    alert = f'ALERTS{{alertstate="firing",alertname="{rest}"}}'
    query = alert if first == "alert" else queries.get(first, f"{row.what}, by its own source")
    made = AnomalyOpened(key=name, subject=row.subject, query=query, at=at, opened=now, row=row)
    return [name] if log.add(made) else []
