"""Forest plots: judged intervals on one axis, against the tolerance of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runbook_lib.markup import visible
from runbook_lib.outcomes import Outcome
from runbook_lib.wording import outcome_word

from .colours import GREY, HATCH, RED
from .plotdata import Change, PlotComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {
    Outcome.PASS: ("o", "white"),
    Outcome.FAIL: ("s", "black"),
    Outcome.INCONCLUSIVE: ("D", "white"),
}


def intervals(one: PlotComparison, axes: Axes) -> None:
    """The changes of one metric, a row each, in its unit or in per cent."""
    scale = 100.0 if one.relative else 1.0
    ends = [x * scale for c in one.changes for x in (c.low, c.high, c.estimate)]
    reach = 1.3 * max([one.tolerance * scale, *(abs(x) for x in ends if math.isfinite(x))])
    for row, change in enumerate(one.changes):
        _beyond(axes, row, one.tolerance * scale, reach, one.direction)
        _interval(axes, row, change, scale, one.outcome, reach)
    _rows(axes, [change.name for change in one.changes], reach)
    axes.set_xlabel(f"change ({'%' if one.relative else visible(one.current.unit) or 'count'})")
    axes.set_title(outcome_word(one.outcome), loc="right", fontweight="bold")


def overview(comparisons: Sequence[PlotComparison], axes: Axes) -> None:
    """The changes of all metrics, a row each, in tolerances of each."""
    estimates = [c.estimate / one.tolerance for one in comparisons for c in one.changes]
    far = max([abs(x) for x in estimates if math.isfinite(x)], default=0.0)
    reach = min(max(2.0, 1.3 * far), 10.0)
    names: list[str] = []
    for one, change in ((c, change) for c in comparisons for change in c.changes):
        turned = -1 if one.direction == "higher" else 1
        _beyond(axes, len(names), 1.0, reach, "either" if one.direction == "either" else "lower")
        _interval(axes, len(names), change, turned / one.tolerance, one.outcome, reach)
        names.append(
            f"{visible(one.current.title, 40)}, {change.name}  {outcome_word(one.outcome)}"
        )
    axes.tick_params(axis="y", labelsize=8)
    _rows(axes, names, reach)
    axes.set_xlabel("change, in tolerances of each metric; worse to the right")


def _rows(axes: Axes, names: Sequence[str], reach: float) -> None:
    axes.axvline(0, color=GREY, lw=1, ls=":")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-1.04 * reach, 1.04 * reach)


def _beyond(axes: Axes, row: int, tolerance: float, reach: float, direction: str) -> None:
    """Hatch what is worse than the tolerance."""
    for side, harmless in ((1, "higher"), (-1, "lower")):
        if direction != harmless:
            axes.vlines(side * tolerance, row - 0.5, row + 0.5, color=RED, lw=1.5)
            width = side * (1.04 * reach - tolerance)
            axes.barh(row, width, 1, side * tolerance, color="none", ec=HATCH, hatch="////", lw=0)


def _interval(
    axes: Axes, row: int, change: Change, scale: float, outcome: Outcome, reach: float
) -> None:
    """A bar over the interval, its estimate marked; an end outside the axis is an arrow."""
    low, high = sorted((change.low * scale, change.high * scale))
    at = change.estimate * scale
    if math.isnan(low) or math.isnan(high):
        box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "lw": 0}
        axes.text(0, row, "no interval", ha="center", va="center", bbox=box)
        return
    axes.hlines(row, max(low, -reach), min(high, reach), color="black", lw=2)
    for end, side, arrow in ((low, -reach, "<"), (high, reach, ">")):
        inside = abs(end) <= reach
        marker, edge = ("|", 2.0) if inside else (arrow, 1.0)
        axes.plot(end if inside else side, row, marker, ms=9, mew=edge, color="black")
    if abs(at) <= reach:
        marker, fill = _MARKERS[outcome]
        axes.plot(at, row, marker, ms=7, color=fill, mec="black", mew=1.5)
