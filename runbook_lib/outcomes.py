"""Outcomes and results: what a check says. ``verdicts`` holds what a stage makes of it.

Three outcomes, no booleans: PASS needs proof, FAIL is disproof, everything else is INCONCLUSIVE
and blocks as well. Everything here is a frozen value that survives a round trip through JSON.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, model_validator

from .errors import ParameterError, SourceError

_EXACT = 2**53 - 1  # canonical JSON holds no larger whole number
Value = Annotated[
    str
    | bool
    | Annotated[int, Field(ge=-_EXACT, le=_EXACT)]
    | Annotated[float, Field(allow_inf_nan=False)],
    Field(union_mode="left_to_right"),
]


class Outcome(StrEnum):
    PASS = "PASS"  # noqa: S105 - an outcome, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Model(BaseModel):
    """Frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, ser_json_inf_nan="constants"
    )


class Row(Model):
    """One thing looked at: who, what, what was expected, what was seen.

    ``return_at`` is set when nothing is wrong and only time is missing ("not yet due"). No waiver
    covers a row that is not ``waivable``: a wrong signature or digest, a forged word.
    """

    subject: str
    what: str
    expected: Value
    observed: Value
    outcome: Outcome
    unit: str = ""
    return_at: AwareDatetime | None = None
    waivable: bool = Field(default=True, exclude_if=lambda waivable: waivable is True)


class CheckResult(Model):
    """What one run of one item found.

    ``inputs`` is the digest of the tape entries it was judged on; ``data`` holds what later items
    and readers need (digests, frames by digest, figures), never secrets.
    """

    item: str
    outcome: Outcome
    reason: str
    rows: tuple[Row, ...] = ()
    started: AwareDatetime
    ended: AwareDatetime
    inputs: str = ""
    data: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _follows_from_rows(self) -> Self:
        expected = worst(row.outcome for row in self.rows)
        if self.outcome is not expected:
            raise ValueError(f"expected {expected}, the worst of its rows, got {self.outcome}")
        return self

    @property
    def return_at(self) -> datetime | None:
        """When to come back, if every row that is not PASS is merely not yet due."""
        return due([row for row in self.rows if row.outcome is not Outcome.PASS])


def check_row(
    subject: str,
    what: str,
    expected: Value,
    observed: Value | SourceError | ParameterError,
    ok: bool | Outcome | None = None,
    *,
    unit: str = "",
    return_at: datetime | None = None,
    waivable: bool = True,
) -> Row:
    """A row. ``ok`` is a comparison's truth value, or the outcome itself when there is no proof.

    By default it is whether ``observed`` equals ``expected``; of a source's error INCONCLUSIVE.
    """
    if isinstance(observed, SourceError | ParameterError):
        said = observed.problem if isinstance(observed, SourceError) else str(observed)
        observed, ok = said, Outcome.INCONCLUSIVE
    ok = expected == observed if ok is None else ok
    outcome = ok if isinstance(ok, Outcome) else (Outcome.PASS if ok else Outcome.FAIL)
    return Row(
        subject=subject,
        what=what,
        expected=expected,
        observed=observed,
        outcome=outcome,
        unit=unit,
        return_at=return_at,
        waivable=waivable or outcome is Outcome.PASS,
    )


unknown_row = partial(check_row, ok=Outcome.INCONCLUSIVE)
"""A row for what could not be determined: no data, an error, an unreadable answer."""


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """FAIL outranks INCONCLUSIVE outranks PASS; of nothing, INCONCLUSIVE."""
    rank = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL)
    return max(outcomes, key=rank.index, default=Outcome.INCONCLUSIVE)


def value_text(value: Value, unit: str = "", *, exact: bool = False) -> str:
    """A value with its unit; floats to six significant digits unless ``exact``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        shown = f"{value:,}"
    elif exact:
        shown = repr(value)
    else:
        shown = f"{value:,.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:,.6g}"
    return f"{shown} {unit}" if unit else shown


def due(rows: Sequence[Row]) -> datetime | None:
    """The latest instant at which ``rows`` are due, if time is all that each of them lacks."""
    instants = [r.return_at for r in rows if r.return_at and r.outcome is Outcome.INCONCLUSIVE]
    return max(instants) if instants and len(instants) == len(rows) else None


def explain(rows: Sequence[Row], passed: str, empty: str) -> str:
    """One sentence: ``passed`` when all rows hold, else the worst row and how many are like it."""
    if not rows:
        return f"nothing to judge: {empty}"
    outcome = worst(row.outcome for row in rows)
    if outcome is Outcome.PASS:
        return passed
    row, *others = (row for row in rows if row.outcome is outcome)
    more = f" (and {len(others)} more)" if others else ""
    where = f"{row.subject}: {row.what}"
    observed = value_text(row.observed, row.unit if isinstance(row.observed, int | float) else "")
    # A source's own problem already says what it expected.
    if row.outcome is Outcome.INCONCLUSIVE and observed.startswith("expected "):
        return f"{where}: {observed}{more}"
    return f"{where}: expected {value_text(row.expected, row.unit)}, got {observed}{more}"
