"""Figures: what was measured over time, its distribution, and what was made of it.

Made to be read at 800 pixels, in grey and by the colour-blind: lines differ in dash and lightness,
areas in hatching, outcomes in their marker and word. Gaps stay gaps with a strip under them, zeros
are drawn as zeros, a lone sample is a dot. No pyplot; the same data give the same bytes.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from runbook_lib.markup import visible
from runbook_lib.outcomes import Outcome
from runbook_lib.wording import count, outcome_word

from .plotdata import (
    Change,
    Floats,
    Mark,
    PlotSeries,
    Times,
    comparison_data,
    letter,
    mark_words,
    middle_and_furthest,
    number,
    percentiles,
    plotted_digest,
    quantity,
    series_data,
    series_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .compare import Compared


_WIDE = 125  # characters of a line under the panels
_WIDTH = 8.0  # inches; 800 pixels
_TOP, _PANEL = 0.65, 1.5  # inches: room for the key, and of a panel with its title
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # a name with dollar signs is no formula
}


class Drawn(NamedTuple):
    """A figure as ``display.figure_card`` takes it: PNG, the same in words, and for programs."""

    png: bytes
    text: str
    data: dict[str, Any]


def baseline_figure(
    series: Sequence[PlotSeries], *, marks: Sequence[Mark] = (), note: str = ""
) -> Drawn:
    """One panel per metric: lines over time, the p5 to p95 band, limit, distribution at the side.

    ``note`` is a last line under the panels and in the text.
    """
    styles, said = styles_of(series), mark_words(marks, note)

    def draw(figure: Figure) -> None:
        panels = _grid(figure, len(series))
        for one, (left, right) in zip(series, panels, strict=True):
            low, high = time_panel(left, one, styles)
            distribution(right, one.samples, low, high)
            labels(right, percentiles(one.samples), low, high)
        time_axis([row[0] for row in panels], series, marks)
        _key(figure, styles, said)

    text = "\n".join([*map(series_words, series), *said])
    data = {"digest": plotted_digest(series, said), "metrics": [series_data(s) for s in series]}
    return Drawn(_png(draw, _height(series, said)), text, data)


def overview_figure(comparisons: Sequence[Compared]) -> Drawn:
    """All judged changes on one axis, in tolerances of their metrics, worse to the right."""
    every = [(one, change) for one in comparisons for change in one.changes]

    def draw(figure: Figure) -> None:
        axes = _axes(figure, 3.9, 0.5, 3.95, 0.22 * len(every))
        estimates = [abs(change.estimate / one.metric.tolerance.amount) for one, change in every]
        reach = min(max([2.0, *(1.3 * x for x in estimates if math.isfinite(x))]), 10.0)
        for row, (one, change) in enumerate(every):
            turned = -1 if one.metric.direction == "higher" else 1
            _beyond(axes, row, reach, (1, -1) if one.metric.direction == "either" else (1,))
            _interval(axes, row, change, turned / one.metric.tolerance.amount, one.outcome, reach)
        names = [
            f"{visible(one.metric.title, 40)}, {change.name}  {outcome_word(one.outcome)}"
            for one, change in every
        ]
        axes.axvline(0, color=GREY, lw=1, ls=":")
        axes.tick_params(axis="y", labelsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-1.04 * reach, 1.04 * reach)
        axes.set_xlabel("change, in tolerances of each metric; worse to the right")

    text = "\n".join(
        f"{one.metric.title}: {one.outcome.value}: {one.reason}" for one in comparisons
    )
    return Drawn(_png(draw, 0.6 + 0.22 * len(every)), text, comparison_data(comparisons))


def _png(draw: Callable[[Figure], None], height: float) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure  # draws with agg, whatever backend is configured
    from PIL import Image, ImageColor

    out = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        # A name in a script without a glyph is drawn as boxes; the text form has it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        mpl.rcdefaults()  # a user's matplotlibrc does not alter evidence
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH, height), dpi=100)
        draw(figure)
        figure.savefig(out, format="raw")
    pixels = out.getvalue()
    width = round(_WIDTH * 100)
    image = Image.frombytes("RGBA", (width, len(pixels) // width // 4), pixels).convert("RGB")
    # Few and always the same colours: half the bytes, and no hue is merged with another.
    few = Image.new("P", (1, 1))
    few.putpalette([part for colour in PALETTE for part in ImageColor.getrgb(colour)])
    small = io.BytesIO()
    image.quantize(palette=few, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def _height(series: Sequence[PlotSeries], said: Sequence[str]) -> float:
    return _TOP + _PANEL * len(series) + 0.15 + 0.15 * len(_wrapped(said))


def _grid(figure: Figure, rows: int) -> list[tuple[Axes, Axes]]:
    """Rows of axes, lines and their distribution: placed by hand, in half the time that matplotlib's
    own layout takes. All share their times, a row its values."""
    panels: list[tuple[Axes, Axes]] = []
    for row in range(rows):
        bottom = figure.get_figheight() - _TOP - (row + 1) * _PANEL + 0.35
        left = _axes(figure, 0.75, bottom, 5.35, _PANEL - 0.35)
        right = _axes(figure, 6.2, bottom, 1.0, _PANEL - 0.35)
        if panels:
            left.sharex(panels[0][0])
        right.sharey(left)
        right.tick_params(labelleft=False)
        right.set_xticks([])
        panels.append((left, right))
    return panels


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    high = figure.get_figheight()
    return figure.add_axes((left / _WIDTH, bottom / high, width / _WIDTH, height / high))


def _key(figure: Figure, styles: dict[str, tuple[str, Any]], said: Sequence[str]) -> None:
    """What the lines, the band and the letters mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    many: dict[str, tuple[str, Any]] = {
        "each series": (MANY, "-"),
        "their median": ("#000000", "-"),
        "furthest from it": (BLUE, (0, (6, 1.5))),
    }
    handles: list[Any] = [
        Line2D([], [], color=colour, ls=dash, label=visible(name, 30))
        for name, (colour, dash) in (styles or many).items()
        if name
    ]
    handles.append(Patch(color=LIGHT, label="all samples; band: p5 to p95, dashed: p50"))
    figure.legend(handles=handles, loc="upper left", ncols=4)
    if said:
        figure.text(0.01, 0.05 / figure.get_figheight(), "\n".join(_wrapped(said)), fontsize=8)


def _wrapped(said: Sequence[str]) -> list[str]:
    """What stands under the panels, as long as the figure is wide."""
    return [line for words in said for line in wrap(visible(words), _WIDE, subsequent_indent="   ")]


# --- Colours and dashes: told apart in grey, and by the colour-blind ---

BLUE, RED, GREY, MANY, LIGHT = "#0072b2", "#d55e00", "#595959", "#a6a6a6", "#e8e8e8"
LINES: tuple[tuple[str, Any], ...] = (
    ("#000000", "-"),
    (BLUE, (0, (5, 1.5))),
    ("#e69f00", (0, (6, 1.5, 1, 1.5))),
    ("#009e73", (0, (1, 1))),
    ("#56b4e9", (0, (9, 2))),
    ("#cc79a7", (0, (3, 1, 1, 1, 1, 1))),
)
HATCH = "#bfbfbf"
PALETTE = ("#ffffff", LIGHT, HATCH, MANY, GREY, *(colour for colour, _ in LINES), RED)


# --- Panels over time: lines, gaps, limits, marks, and the distribution at the side ---

NAMED = 6
"""Up to so many lines are told apart; more are drawn thin, with their median and the furthest."""
_DENSE = 1000  # more samples than pixels: thinner lines


def styles_of(series: Sequence[PlotSeries]) -> dict[str, tuple[str, Any]]:
    """Colour and dash by name, the same in every panel; none when there are too many to tell."""
    names = sorted({name for one in series for name in one.lines})
    return dict(zip(names, LINES, strict=False)) if len(names) <= NAMED else {}


def time_panel(
    axes: Axes, series: PlotSeries, styles: dict[str, tuple[str, Any]]
) -> tuple[float, float]:
    """Draw ``series`` on its p5 to p95 band; returns the ends of the value axis."""
    title = f"{visible(series.title)}: {count(series.samples.size, 'sample')}"
    title += f", {series.missing:,} missing" if series.missing else ""
    axes.set_title(title, loc="left", fontweight="bold")
    if not styles and len(series.lines) > 1:
        named = f"furthest: {visible(middle_and_furthest(series.lines)[1], 30)}"
        box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "lw": 0}
        at = axes.transAxes
        axes.text(1, 0.98, named, transform=at, ha="right", va="top", fontsize=8, bbox=box)
    axes.set_ylabel(visible(series.unit) or "count")
    times, matrix = series.with_gaps()
    days = _days(times)
    low, high = _value_axis(series)
    axes.set_ylim(low, high)
    _lines(axes, days, dict(zip(series.lines, matrix, strict=True)), styles)
    _strip(axes, days, matrix, series.gap_step() / np.timedelta64(1, "D"))
    if band := percentiles(series.samples):
        axes.axhspan(band["p5"], band["p95"], color=LIGHT, zorder=0, lw=0)
        axes.axhline(band["p50"], color=GREY, lw=1, ls=(0, (4, 2)), zorder=1)
    else:
        axes.text(0.5, 0.5, "no samples", transform=axes.transAxes, ha="center", va="center",
                  backgroundcolor="white")  # fmt: skip
    _limits(axes, series, low, high)
    return low, high


def _value_axis(series: PlotSeries) -> tuple[float, float]:
    """From zero when the data come near it; with the limits that are not far away."""
    seen = series.samples
    if not seen.size:
        return -0.05, 1.0
    low, high = float(seen.min()), float(seen.max())
    if low == high or 0 < low < 0.5 * high:  # a constant is seen against zero
        low, high = min(low, 0.0), max(high, 0.0) or 1.0
    near = low - 2 * (high - low), high + 2 * (high - low)
    ends = [low, high, *(limit for limit in series.limits if near[0] <= limit <= near[1])]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.08
    return low - room, high + room


def _lines(
    axes: Axes, days: Floats, lines: dict[str, Floats], styles: dict[str, tuple[str, Any]]
) -> None:
    thin = 0.6 if len(days) > _DENSE else 1.0
    if styles or len(lines) == 1:
        for name, line in lines.items():
            colour, dash = styles.get(name, LINES[0])
            axes.plot(days, line, color=colour, ls=dash, lw=1.2 * thin)
            _dots(axes, days, line, colour)
    elif lines:
        for line in lines.values():
            axes.plot(days, line, color=MANY, lw=0.5, alpha=0.6)
            _dots(axes, days, line, MANY)
        middle, furthest = middle_and_furthest(lines)
        axes.plot(days, lines[furthest], color=BLUE, lw=1, ls=(0, (6, 1.5)))
        axes.plot(days, middle, color="black", lw=1.6 * thin)
        _dots(axes, days, middle, "black")


def _days(times: Times) -> Floats:
    """Days since 1970, the numbers of a date axis."""
    days: Floats = times.astype("datetime64[ms]").astype(np.int64) / 86_400_000
    return days


def _dots(axes: Axes, days: Floats, line: Floats, colour: str) -> None:
    """A sample without neighbours has no line through it."""
    there = np.concatenate([[False], np.isfinite(line), [False]])
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    if alone.any():
        axes.plot(days[alone], line[alone], ls="", marker="o", ms=4, color=colour)


def _strip(axes: Axes, days: Floats, matrix: Floats, step: float) -> None:
    """Under a gap: dark where every line is missing, light where some are."""
    gone = ~np.isfinite(matrix)
    for mask, colour in ((gone.any(axis=0), MANY), (gone.all(axis=0), "black")):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
        starts, ends = days[edges[::2]], days[edges[1::2] - 1]
        stretches = list(zip(starts - step / 2, ends - starts + step, strict=True))
        at = axes.get_xaxis_transform()
        axes.broken_barh(stretches, (0, 0.04), transform=at, color=colour, lw=0)


def _limits(axes: Axes, series: PlotSeries, low: float, high: float) -> None:
    """Lines where they lie within the axis; in words in any case."""
    said = []
    for limit in series.limits:
        off = " (above)" if limit > high else " (below)" if limit < low else ""
        said.append(quantity(limit, visible(series.unit)) + off)
        if not off:
            axes.axhline(limit, color=RED, lw=1.5, ls=(0, (8, 2)))
    if said:
        axes.set_title(f"limit {' and '.join(said)}", loc="right")


def distribution(axes: Axes, samples: Floats, low: float, high: float) -> None:
    """How the samples lie, sideways."""
    if samples.size:
        weights = np.full(samples.size, 1 / samples.size)
        bins = np.linspace(low, high, 31).tolist()
        axes.hist(samples, bins, weights=weights, orientation="horizontal", histtype="stepfilled",
                  color=MANY)  # fmt: skip


def labels(axes: Axes, band: dict[str, float], low: float, high: float) -> None:
    """Percentiles at their values, moved apart where they would overlap."""
    if band and band["p5"] == band["p95"]:
        band = {"p5–p95": band["p50"]}
    at, room = -math.inf, (high - low) * 0.13
    for name, value in band.items():
        at, said = max(value, at + room), f"{name} {number(value)}"
        axes.text(1.02, at, said, transform=axes.get_yaxis_transform(), va="center", fontsize=8)


def time_axis(panels: Sequence[Axes], series: Sequence[PlotSeries], marks: Sequence[Mark]) -> None:
    """One axis of UTC times for all panels, with the marks and their letters."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if any(one.grid.size for one in series):
        # Three at least: with more, no interval fits some lengths, and matplotlib warns.
        locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=7)
        panels[0].xaxis.set_major_locator(locator)  # shared by all of them
        formatter = ConciseDateFormatter(locator, tz=UTC)
        panels[0].xaxis.set_major_formatter(formatter)
    else:
        panels[0].set_xticks([])
    panels[-1].set_xlabel("time (UTC)")
    for axes in panels:
        axes.tick_params(labelbottom=axes is panels[-1])
        for index, mark in enumerate(marks):
            _mark(axes, mark, letter(index) if axes is panels[0] else "", 0.97 - 0.17 * (index % 3))
    instants = {one.grid[at] for one in series if one.grid.size for at in (0, -1)}
    if len(instants) == 1 and not marks:  # matplotlib would show years around a lone instant
        [at] = _days(np.array(list(instants)))
        panels[0].set_xlim(at - 300 / 86400, at + 300 / 86400)


def _mark(axes: Axes, mark: Mark, name: str, high: float) -> None:
    """A line, or a hatched stretch; its letter at the height ``high``, off its neighbours' letters."""
    start = mark.time.timestamp() / 86400
    axes.axvline(start, color="black", lw=1, ls=":")
    if mark.until is not None:
        end = mark.until.timestamp() / 86400
        axes.axvspan(start, end, facecolor="none", edgecolor=HATCH, hatch=r"\\\\", lw=0)
    box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "lw": 0.5}
    if name:
        at = axes.get_xaxis_transform()
        axes.text(start, high, name, transform=at, ha="center", va="top", fontsize=8, bbox=box)


_MARKERS = {
    Outcome.PASS: ("o", "white"),
    Outcome.FAIL: ("s", "black"),
    Outcome.INCONCLUSIVE: ("D", "white"),
}


def _beyond(axes: Axes, row: int, reach: float, sides: Sequence[int]) -> None:
    """Hatch what is worse than the tolerance."""
    for side in sides:
        axes.vlines(side, row - 0.5, row + 0.5, color=RED, lw=1.5)
        width = side * (1.04 * reach - 1)
        axes.barh(row, width, 1, side, color="none", ec=HATCH, hatch="////", lw=0)


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
