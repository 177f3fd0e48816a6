"""Where items stand, and the verdict and exit code of a whole attempt. Frozen values, too."""

from datetime import datetime
from enum import IntEnum
from typing import Literal

from pydantic import AwareDatetime

from .outcomes import CheckResult, Model, Outcome, Row, due, worst

Mode = Literal["plan", "apply"]
Source = Literal["live", "rehearsal", "replay"]
RunKind = Literal["interactive", "headless"]


class ExitCode(IntEnum):
    """How a run ends. The order in which one outranks another is ``RANK``, not the number."""

    PASSED = 0
    REFUSED = 1
    INCONCLUSIVE = 2
    BROKEN = 3
    WAITING = 4


RANK = tuple(ExitCode[name] for name in ["PASSED", "WAITING", "INCONCLUSIVE", "REFUSED", "BROKEN"])


class EarlierRun(Model):
    """A run that was replaced: shown for ever after."""

    number: int
    outcome: Outcome
    reason: str
    retry_reason: str = ""


class WaivedRow(Model):
    """One row that a recorded waiver accepts, and on whose word."""

    subject: str
    outcome: Outcome
    reason: str
    approved_by: tuple[str, ...]
    self_approved: bool
    expires: AwareDatetime


class ItemStatus(Model):
    """Where one item of an attempt stands: its last run, the runs before it, its waivers.

    ``state`` tells results from what is not one: ``planned`` (a change in plan mode and all that
    follows it), ``not-reached`` (blocked by an earlier item), ``missing`` (never ran). ``planned``
    rows say what a change would do.
    """

    item: str
    kind: Literal["check", "change"]
    state: Literal["judged", "planned", "not-reached", "missing"]
    reason: str = ""
    result: CheckResult | None = None
    planned: tuple[Row, ...] = ()
    number: int = 0
    earlier: tuple[EarlierRun, ...] = ()
    waived: tuple[WaivedRow, ...] = ()
    due: AwareDatetime | None = None

    @property
    def open_rows(self) -> tuple[Row, ...]:
        """Rows that are neither PASS nor covered by a waiver."""
        if self.result is None:
            return ()
        rows = self.result.rows
        return tuple(r for r in rows if r.outcome is not Outcome.PASS and not self.covers(r))

    def covers(self, row: Row) -> bool:
        """Whether a waiver names the row's subject and outcome, and the row may be waived at all."""
        named = any((one.subject, one.outcome) == (row.subject, row.outcome) for one in self.waived)
        return named and row.waivable

    @property
    def outcome(self) -> Outcome:
        """The outcome that counts: PASS also when every row that is not PASS is waived."""
        if self.state != "judged" or self.result is None:
            return Outcome.INCONCLUSIVE
        if self.result.rows and not self.open_rows:
            return Outcome.PASS
        return worst(row.outcome for row in self.open_rows)

    @property
    def return_at(self) -> datetime | None:
        """When to come back, if nothing is wrong and only time is missing."""
        if self.state == "not-reached":
            return self.due
        return due(self.open_rows)


class Verdict(Model):
    """What a whole attempt amounts to. ``broken`` lists why the run cannot count at all."""

    release: str
    commit: str
    stage: str
    site: str
    mode: Mode
    attempt: int
    number: int
    source: Source
    run: RunKind
    operator: str
    started: AwareDatetime
    ended: AwareDatetime
    items: tuple[ItemStatus, ...]
    broken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        codes = [ExitCode.BROKEN] if self.broken else [ExitCode.PASSED]
        codes += [_code(standing, self.mode) for standing in self.items]
        return max(codes, key=RANK.index)

    @property
    def outcome(self) -> Outcome:
        """PASS only when nothing is open; a plan's PASS means ready to apply, not promoted."""
        codes = {ExitCode.PASSED: Outcome.PASS, ExitCode.REFUSED: Outcome.FAIL}
        return codes.get(self.exit_code, Outcome.INCONCLUSIVE)

    @property
    def blocking(self) -> tuple[ItemStatus, ...]:
        """Items that stand in the way, in the playbook's order."""
        return tuple(item for item in self.items if _code(item, self.mode) is not ExitCode.PASSED)

    @property
    def why(self) -> str:
        """What stands in the way first; empty for nothing."""
        return next(
            iter([*self.broken, *(f"{one.item}: {one.reason}" for one in self.blocking)]), ""
        )

    @property
    def return_at(self) -> datetime | None:
        """When to come back; only when waiting is all that is left to do."""
        if self.exit_code is not ExitCode.WAITING:
            return None
        return max(item.return_at for item in self.blocking if item.return_at is not None)


def _code(standing: ItemStatus, mode: str) -> ExitCode:
    if standing.state == "missing":
        return ExitCode.BROKEN
    if standing.state == "planned":
        return ExitCode.PASSED if mode == "plan" else ExitCode.BROKEN
    if standing.return_at is not None:
        return ExitCode.WAITING
    if standing.outcome is Outcome.PASS and standing.state == "judged":
        return ExitCode.PASSED
    return ExitCode.REFUSED if standing.outcome is Outcome.FAIL else ExitCode.INCONCLUSIVE
