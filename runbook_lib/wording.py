"""How outcomes are said: one word and symbol for every state an item or an attempt can be in."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from .outcomes import Outcome
from .playbook import RECOVERY
from .verdicts import ExitCode, ItemStatus, Verdict

LONGEST = 300
"""Characters of one string that a card shows; the whole string stays in its JSON."""
GREEN, RED, AMBER, GREY = "#2e7d32", "#c62828", "#b26a00", "#607d8b"
SOURCE = {
    "live": "",
    "rehearsal": "REHEARSAL: a practice network; this never permits a promotion",
    "replay": "REPLAY OF A RECORDING: nothing was asked or changed; this never permits a promotion",
}

RECORDING = "REHEARSAL RECORDING: NOTHING WILL BE CHANGED"

_SYMBOL = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.INCONCLUSIVE: "?"}
_COLOUR = {Outcome.PASS: GREEN, Outcome.FAIL: RED, Outcome.INCONCLUSIVE: AMBER}
_NOT_JUDGED = {
    "planned": ("▷ PLANNED", GREY),
    "not-reached": ("– NOT REACHED", AMBER),
    "missing": ("! MISSING", RED),
}


def visible(text: str, limit: int = LONGEST) -> str:
    """``text`` on one line: what is not printable (controls, bidi marks, lone surrogates) as
    escapes, and what exceeds ``limit`` characters cut, saying how long it was."""
    cut = text if len(text) <= limit else text[:limit]
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut
    )
    return shown if len(text) <= limit else f"{shown}… ({len(text):,} characters)"


def source(verdict: Verdict) -> str:
    """What must be said first of where a run was made; a recovery's recording is no recovery."""
    if verdict.source == "replay" and verdict.stage in RECOVERY:
        return RECORDING
    return SOURCE[verdict.source]


def utc(moment: datetime) -> str:
    """``2026-11-23 14:00:05 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count(n: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def outcome_word(outcome: Outcome) -> str:
    return f"{_SYMBOL[outcome]} {outcome.value}"


def standing_word(standing: ItemStatus) -> tuple[str, str]:
    """Symbol and word of an item, and its colour."""
    if standing.state != "judged" or standing.result is None:
        word, colour = _NOT_JUDGED.get(standing.state, _NOT_JUDGED["missing"])
        return (f"{word}, not yet due" if standing.return_at else word), colour
    outcome = standing.outcome
    if outcome is Outcome.PASS and standing.result.outcome is not Outcome.PASS:
        return "✓ PASS by waiver", AMBER
    if standing.return_at is not None:
        return "◔ INCONCLUSIVE, not yet due", AMBER
    return outcome_word(outcome), _COLOUR[outcome]


def progress(standing: ItemStatus) -> str:
    """An item that ended, in one line."""
    return f"{standing_word(standing)[0]:<14} {standing.item}: {standing.reason}"


def verdict_word(verdict: Verdict) -> tuple[str, str]:
    """Symbol and word of an attempt, and its colour; a plan that is ready has not passed."""
    words = {
        ExitCode.PASSED: ("✓ PASS" if verdict.mode == "apply" else "▷ READY TO APPLY", GREEN),
        ExitCode.REFUSED: ("✗ FAIL", RED),
        ExitCode.BROKEN: ("! BROKEN", RED),
        ExitCode.WAITING: ("◔ WAITING, not yet due", AMBER),
    }
    return words.get(verdict.exit_code, ("? INCONCLUSIVE", AMBER))


def reason(standing: ItemStatus) -> str:
    """Why an item stands where it stands, in one sentence."""
    if standing.result is not None and standing.state == "judged":
        return standing.reason or standing.result.reason
    return standing.reason or ("it never ran" if standing.state == "missing" else "")


def runs(standing: ItemStatus) -> str:
    """``run 3, FAIL on run 1``; empty on a first try."""
    failed = [str(t.number) for t in standing.earlier if t.outcome is Outcome.FAIL]
    said = [f"run {standing.number}"] if standing.number > 1 or standing.earlier else []
    said += [f"FAIL on run {' and '.join(failed)}"] if failed else []
    return ", ".join(said)


def history(standing: ItemStatus) -> list[str]:
    """One line for each earlier run: none is ever forgotten."""
    return [
        f"run {t.number}: {outcome_word(t.outcome)}: {t.reason}"
        + (f" (retried: {t.retry_reason})" if t.retry_reason else "")
        for t in standing.earlier
    ]


def waivers(standing: ItemStatus) -> Iterator[str]:
    """One line for each waived row: who accepted it, until when and why, and what that leaves out."""
    for row in standing.waived:
        by = " and ".join(row.approved_by) or "nobody"
        own = ", self-approved" if row.self_approved else ""
        found = standing.result.rows if standing.result is not None else ()
        named = [r for r in found if (r.subject, r.outcome) == (row.subject, row.outcome)]
        never = ", ".join(r.what for r in named if not r.waivable)
        said = f"{row.subject} ({row.outcome.value}) waived by {by} until {utc(row.expires)}{own}"
        yield f"{said}: {row.reason}" + (f"; never waivable: {never}" if never else "")


def tally(words: Iterable[str]) -> str:
    """``2 ✗ FAIL, 5 ✓ PASS``: how often each word stands there, in order of appearance."""
    return ", ".join(f"{n:,} {word}" for word, n in Counter(words).items())


def number(value: float) -> str:
    """Four significant digits, thousands apart."""
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else "unbounded"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def quantity(value: float, unit: str) -> str:
    """``42.5 ms``; what is not finite has no unit."""
    return f"{number(value)} {unit}".rstrip() if math.isfinite(value) else number(value)


def share(value: float, relative: bool, unit: str) -> str:
    """A signed change: ``+3.2 %`` or ``-0.5 ms``."""
    sign = "+" if 0 < value < math.inf else ""
    return sign + (quantity(value * 100, "%") if relative else quantity(value, unit))
