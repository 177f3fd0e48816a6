"""Numbers and judged changes in words, as figures and reasons say them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runbook_lib.canonical import digest

if TYPE_CHECKING:
    from .compare import Compared


@dataclass(frozen=True)
class Change:
    """An estimated change and its interval: shares of the baseline, or in the metric's unit.

    An end that is not finite is unbounded; an estimate or an end that is NaN is unknown.
    """

    name: str
    estimate: float
    low: float
    high: float

    @classmethod
    def judged(
        cls, name: str, estimate: float | None, interval: tuple[float | None, float | None]
    ) -> Change:
        """From a judgement, where None is what the data do not give."""
        if estimate is None:
            return cls(name, math.nan, math.nan, math.nan)
        low, high = interval
        return cls(
            name, estimate, -math.inf if low is None else low, math.inf if high is None else high
        )


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


def comparison_data(comparisons: Sequence[Compared]) -> dict[str, Any]:
    """What is drawn of each metric, for programs, and the digest of it."""
    judged = [
        {
            "title": one.metric.title,
            "outcome": one.outcome.value,
            "reason": one.reason,
            "changes": [
                {"name": c.name, "estimate": _finite(c.estimate), "low": _finite(c.low),
                 "high": _finite(c.high)}
                for c in one.changes
            ],
            "tolerance": one.metric.tolerance.amount,
            "direction": one.metric.direction,
            "relative": one.metric.tolerance.absolute is None,
        }
        for one in comparisons
    ]  # fmt: skip
    return {"digest": digest(judged), "metrics": judged}


def _finite(value: float) -> float | str:
    """JSON has no word for an unbounded or unknown number."""
    return value if math.isfinite(value) else number(value)
