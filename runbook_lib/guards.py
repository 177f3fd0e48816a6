"""What blocks an item: an earlier one that does not hold, the plan that is missing, truth that aged.

``blocker`` is asked before any try begins. ``Guard`` is asked when a change begins, and before each
of its waves: every item before it whose truth has aged is judged again. Such a judgement is recorded
under the change; unless it holds, or a waiver that has not ended covers what does not, nothing more
is begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from . import playbook
from .context import Context, Judge
from .evidence import standing as standings
from .evidence.record import Entry
from .outcomes import CheckResult, Outcome
from .planning import plans
from .session import Session
from .verdicts import Standing
from .wording import utc

Again = Callable[[Context, Judge, str], CheckResult]
"""Judges a check in that context, and records it under the change that is named."""


def blocker(session: Session, item: str) -> Standing | None:
    """The first earlier item that stands in the way of ``item``; in a recovery none does."""
    if session.recovery:
        return None
    before = before_item(session.stage, item)
    downstream = any(playbook.ITEMS[i].kind == "change" for i in (*before, item))
    # What a change would do can be said while those before it are planned, too.
    drafts = session.mode == "plan" and playbook.ITEMS[item].kind == "change"
    known = session.journal(item, session.next_try(item))
    for earlier in before:
        standing = standings.standing(known, earlier)
        if drafts and standing.state == "planned":
            continue
        if standing.state == "missing" or (downstream and standing.outcome is not Outcome.PASS):
            return standing
    return _plan_missing(known) if needs_plan(session.stage, item) else None


def before_item(stage: str, item: str) -> Sequence[str]:
    """The items that a stage declares before ``item``, in the playbook's order."""
    declared = playbook.DECLARED[stage]
    return declared[: declared.index(item)]


def needs_plan(stage: str, item: str) -> bool:
    """Whether ``item`` follows the plan of its stage."""
    first = playbook.PLAN_BEFORE.get(stage)
    return first == item or first in before_item(stage, item)


def _plan_missing(known: Sequence[Entry]) -> Standing | None:
    """What stands in the way of whatever needs the plan: none was made, or it is refused."""
    made = plans(known)
    if made and made[-1].kind == "plan":
        return None
    reason = f"refused: {made[-1].body['reason']}" if made else "none was made"
    return Standing(item="the plan", kind="check", state="missing", reason=reason)


def stale(
    standing: Standing, now: datetime, valid_for: timedelta, judged: datetime | None = None
) -> bool:
    """Whether a PASS that ages is older than ``valid_for``; ``judged`` is when it was again.

    One by a clock that was fast has no age that could be told: it would be young for too long.
    """
    if playbook.ITEMS[standing.item].ages != "clock" or standing.result is None:
        return False
    age = now - (judged or standing.result.started)
    return not -playbook.NOW_SOURCE_LAG <= age <= valid_for


def waiver_ended(standing: Standing, now: datetime) -> str:
    """Why a PASS by waiver is none any more; empty for what needs no waiver that has ended."""
    left = tuple(row for row in standing.waived if row.expires > now)
    if standing.model_copy(update={"waived": left}).outcome is standing.outcome:
        return ""
    ended = max(row.expires for row in standing.waived if row.expires <= now)
    return f"the waiver of {standing.item} ended at {utc(ended)}; continue with one in force"


@dataclass
class Guard:
    """Call it: what stands in the way of the change now, in words; empty when nothing does.

    ``due`` is then when to come back, where that is known.
    """

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
        valid_for = self.session.params.valid_for
        for item in before_item(self.session.stage, self.change):
            standing = standings.standing(self.context.journal, item)
            if stale(standing, now, valid_for, self._judged.get(item)) and (
                why := self._judge(item, now)
            ):
                return why
            if why := waiver_ended(self._found(item), now):
                return why
        return ""

    def _found(self, item: str) -> Standing:
        known = self.session.aftermath(self.change, self.context.scope.number)
        return standings.standing(known, item)

    def _judge(self, item: str, now: datetime) -> str:
        number, check = self.context.scope.number, self.checks.get(item)
        if check is None or not self.session.may_judge_again(self.change, item, number):
            return f"{item} is too old; run its cell again"
        # Each round of one try has a place of its own on the tape.
        under = f"{self.change}/{item}" + (f"#{self._rounds}" if self._rounds > 1 else "")
        scope = self.session.scope(under, number)
        self.again(replace(self.context, item=item, scope=scope), check, under)
        self._judged[item] = now
        found = self._found(item)
        if found.outcome is Outcome.PASS:
            return ""
        self.due = found.return_at
        return f"blocked by {item}"
