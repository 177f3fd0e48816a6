"""Panels over time: lines, gaps, limits, marks, and the distribution at the side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np

from runbook_lib.markup import visible
from runbook_lib.wording import count

from .colours import BLUE, GREY, HATCH, LIGHT, LINES, MANY, RED
from .plotdata import (
    Floats,
    Mark,
    PlotSeries,
    Times,
    letter,
    middle_and_furthest,
    number,
    percentiles,
    quantity,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 6
"""Up to so many lines are told apart; more are drawn thin, with their median and the furthest."""
_DENSE = 1000  # more samples than pixels: thinner lines


def styles_of(series: Sequence[PlotSeries]) -> dict[str, tuple[str, Any]]:
    """Colour and dash by name, the same in every panel; none when there are too many to tell."""
    names = sorted({name for one in series for name in one.lines})
    return dict(zip(names, LINES, strict=False)) if len(names) <= NAMED else {}


def time_panel(
    axes: Axes, series: PlotSeries, reference: Floats, styles: dict[str, tuple[str, Any]]
) -> tuple[float, float]:
    """Draw ``series`` on the band of ``reference``; returns the ends of the value axis."""
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
    low, high = _value_axis(series, reference)
    axes.set_ylim(low, high)
    _lines(axes, days, dict(zip(series.lines, matrix, strict=True)), styles)
    _strip(axes, days, matrix, series.gap_step() / np.timedelta64(1, "D"))
    if reference.size:
        band = percentiles(reference)
        axes.axhspan(band["p5"], band["p95"], color=LIGHT, zorder=0, lw=0)
        axes.axhline(band["p50"], color=GREY, lw=1, ls=(0, (4, 2)), zorder=1)
    if not series.samples.size:
        axes.text(0.5, 0.5, "no samples", transform=axes.transAxes, ha="center", va="center",
                  backgroundcolor="white")  # fmt: skip
    _limits(axes, series, low, high)
    return low, high


def _value_axis(series: PlotSeries, reference: Floats) -> tuple[float, float]:
    """From zero when the data come near it; with the limits that are not far away."""
    seen = np.concatenate([series.samples, reference])
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


def distribution(axes: Axes, samples: Floats, low: float, high: float, *, filled: bool) -> None:
    """How the samples lie, sideways: filled, or as an outline over another."""
    if not samples.size:
        return
    look: dict[str, Any] = {"histtype": "stepfilled", "color": MANY}
    if not filled:
        look = {"histtype": "step", "color": "black", "linewidth": 1.2}
    weights = np.full(samples.size, 1 / samples.size)
    bins = np.linspace(low, high, 31).tolist()
    axes.hist(samples, bins=bins, weights=weights, orientation="horizontal", **look)


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
