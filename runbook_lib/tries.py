"""One try of an item: whether a new one is due and may begin, what it came to, and its record.

Every try begins with "started" in the record and ends with "result", "planned" or "not-reached";
one that has no end was interrupted.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from . import playbook
from .changes.plan import Plan
from .context import Context, Judge
from .errors import RunbookError, SourceError
from .evidence import standing as standings
from .guards import blocker, stale
from .outcomes import CheckResult, Outcome, unknown_row
from .session import Session
from .verdicts import Standing

Run = Callable[[Context], CheckResult | None]
"""Comes to a result; to None when it has recorded its own end."""


def context_of(session: Session, item: str, number: int, plan: Plan | None = None) -> Context:
    """What try ``number`` of ``item`` gets."""
    return Context(
        item=item,
        stage=session.promoted,
        params=session.params_of(item, number),
        site=session.site,
        scope=session.scope(item, number),
        store=session.store,
        folder=session.attempt.folder,
        record=session.record,
        journal=session.journal(item, number),
        plan=plan,
        attempt_name=session.attempt.name,
        source=session.world,
        private=session.private,
    )


@dataclass
class Tries:
    """The tries of one opening of an attempt.

    ``plan`` is the attempt's, once it has one. ``checks`` are those whose cells ran: a guard that
    has aged can be judged again by them.
    """

    session: Session
    plan: Plan | None = None
    checks: dict[str, Judge] = field(default_factory=dict)
    _shown: set[str] = field(default_factory=set)

    def context(self, item: str, number: int) -> Context:
        """What try ``number`` of ``item`` gets, the plan with it."""
        return context_of(self.session, item, number, self.plan)

    def standing(self, item: str) -> Standing:
        """Where ``item`` stands after its last try."""
        return standings.standing(self.session.record.entries(), item)

    def run(self, item: str, run: Run) -> Standing:
        """Where ``item`` stands after a new try, or after its last one where none is due.

        Raises RunbookError for an item that the stage does not declare.
        """
        stage = self.session.stage
        if item not in playbook.DECLARED[stage]:
            raise RunbookError(
                f"{stage}: {item}: expected an item this stage declares, got another"
            )
        note = self._last_stands(item)
        if note is None and self._begin(item):
            number = self.session.next_try(item)
            self._start(item, number)
            context = self.context(item, number)
            result = self._ended(context, run)
            if result is not None:
                self._judged(item, number, result)
        self._shown.add(item)
        standing = self.standing(item)
        if note:
            standing = standing.model_copy(update={"reason": f"{standing.reason} ({note})"})
        return standing

    def again(self, context: Context, check: Judge, under: str) -> CheckResult:
        """A guard judged again; what is not PASS becomes a try of its item."""
        session = self.session
        result = self._ended(context, check)
        assert result is not None
        session.tape.sync()
        number = context.scope.number
        body = {"change": under.partition("/")[0], "item": check.item, "number": number}
        session.record.append("guard", {**body, "result": result.model_dump(mode="json")})
        if result.outcome is not Outcome.PASS and not session.replay:
            tried = session.next_try(check.item)
            session.record.append("started", {"item": check.item, "number": tried})
            self._judged(check.item, tried, result, under=[under, number])
        return result

    def not_reached(self, item: str, number: int, why: str, due: datetime | None) -> None:
        """Record that a try ended before anything was asked; ``due`` is when to come back."""
        body = {"item": item, "number": number, "reason": f"not reached: {why}"}
        due_at = due.isoformat() if due else None
        self.session.record.append("not-reached", {**body, "due": due_at})

    # --- whether it begins ----------------------------------------------------------------------

    def _last_stands(self, item: str) -> str | None:
        """Why the last try stands without a new one; None when a new one is due."""
        if self.session.replay:
            return None
        before = self.standing(item)
        if before.outcome is Outcome.PASS and item not in self._shown and not self._stale(before):
            return f"judged by an earlier try, {before.number}"
        last = before.result or (before.earlier[-1] if before.earlier else None)
        failed = last is not None and last.outcome is Outcome.FAIL
        if failed and not self.session.params.retry_reason:
            return "a FAIL stands; to try again, continue with a retry_reason"
        return None

    def _stale(self, standing: Standing) -> bool:
        now = self.session.scope(f"{standing.item}/age", self.session.number).now()
        return stale(standing, now, self.session.params.valid_for)

    def _begin(self, item: str) -> bool:
        """Whether ``item`` may run; when not, that it was not reached is recorded."""
        session = self.session
        if session.replay and session.next_try(item) == 0:
            self.not_reached(item, 0, "the recording ends before it", None)
            return False
        blocking = blocker(session, item)
        if blocking is None:
            return True
        planned = session.mode == "plan" and blocking.state == "planned"
        if planned and playbook.ITEMS[item].kind == "change":
            return True  # behind another it can still be planned
        number = session.next_try(item)
        self._start(item, number)
        if planned:
            reason = f"planned: follows {blocking.item}"
            session.record.append("planned", {"item": item, "number": number, "reason": reason})
        else:
            why = f" {blocking.reason}" if blocking.item == "the plan" and blocking.reason else ""
            self.not_reached(item, number, f"blocked by {blocking.item}{why}", blocking.return_at)
        return False

    def _start(self, item: str, number: int) -> None:
        """Record that a try begins; in replay behind the recorded tries before the one that counts."""
        session = self.session
        if session.replay and item not in self._shown:
            for entry in session.recorded:
                body = entry.body
                if entry.kind == "result" and body["item"] == item and body["number"] < number:
                    session.record.append("result", body)
        session.record.append("started", {"item": item, "number": number})

    # --- how it ends ----------------------------------------------------------------------------

    def _ended(self, context: Context, run: Run) -> CheckResult | None:
        """What ``run`` comes to; what cannot be read, or breaks within us, is INCONCLUSIVE."""
        session = self.session
        try:
            return run(context)
        except SourceError as error:
            row = unknown_row(error.source, "readable", "an answer", error.problem)
            return context.conclude([row], passed="", empty="")
        except RunbookError:
            raise
        except KeyboardInterrupt:
            session.tape.sync()
            body = {"item": context.item, "number": context.scope.number}
            session.record.append("stopped", body)
            raise
        except Exception as error:
            row = unknown_row(context.item, "completes", "a result", f"internal error: {error!r}")
            text = session.outside.redactor.clean_text(traceback.format_exc())
            return context.conclude([row], passed="", empty="", data={"traceback": text})

    def _judged(self, item: str, number: int, result: CheckResult, **more: object) -> None:
        self.session.tape.sync()
        if self.session.params.retry_reason:
            more["retry_reason"] = self.session.params.retry_reason
        body = {"item": item, "number": number, "result": result.model_dump(mode="json")}
        self.session.record.append("result", {**body, **more})
