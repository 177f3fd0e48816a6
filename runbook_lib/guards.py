"""The guards of a change: every item before it, judged again where its truth has aged.

Asked when the change begins, and before each of its waves. Such a judgement is recorded under the
change; unless it holds, or a waiver covers what does not, nothing more is begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from . import playbook
from .context import Context, Judge
from .evidence import standing as standings
from .outcomes import CheckResult, Outcome, Standing
from .session import Session

Again = Callable[[Context, Judge, str], CheckResult]
"""Judges a check in that context, and records it under the change that is named."""


def stale(
    standing: Standing, now: datetime, valid_for: timedelta, judged: datetime | None = None
) -> bool:
    """Whether a PASS that ages is older than ``valid_for``; ``judged`` is when it was again."""
    if playbook.ITEMS[standing.item].ages != "clock" or standing.result is None:
        return False
    return now - (judged or standing.result.started) > valid_for


@dataclass
class Guard:
    """Call it: what stands in the way of the change now, in words; empty when nothing does."""

    session: Session
    checks: Mapping[str, Judge]
    change: str
    context: Context
    again: Again
    due: datetime | None = None
    _judged: dict[str, datetime] = field(default_factory=dict)
    _rounds: int = 0

    def __call__(self) -> str:
        scope = self.context.scope
        now = scope.reread() if self._rounds else scope.now()
        self._rounds += 1
        declared = playbook.DECLARED[self.session.stage]
        for item in declared[: declared.index(self.change)]:
            standing = standings.standing(self.context.journal, item)
            valid_for = self.session.params.valid_for
            if stale(standing, now, valid_for, self._judged.get(item)) and (
                why := self._judge(item, now)
            ):
                return why
        return ""

    def _judge(self, item: str, now: datetime) -> str:
        number, check = self.context.scope.number, self.checks.get(item)
        if check is None or not self.session.may_judge_again(self.change, item, number):
            return f"{item} is too old; run its cell again"
        # Each round of one try has a place of its own on the tape.
        under = f"{self.change}/{item}" + (f"#{self._rounds}" if self._rounds > 1 else "")
        scope = self.session.scope(under, number)
        self.again(replace(self.context, item=item, scope=scope), check, under)
        self._judged[item] = now
        found = standings.standing(self.session.aftermath(self.change, number), item)
        if found.outcome is Outcome.PASS:
            return ""
        self.due = found.return_at
        return f"blocked by {item}"
