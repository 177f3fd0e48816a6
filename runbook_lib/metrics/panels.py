"""Panels over time: series, their annotations and limits, drawn, in numbers and in words.

Times are UTC, ``datetime64[ms]``. A sample that is not there is NaN: a gap, that stays a gap with a
strip under it. Zeros are drawn as zeros, a lone sample is a dot.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..canonical import canonical
from ..wording import count, number, quantity, visible
from .baseline import called
from .catalogue import Metric
from .frames import STEP
from .plots import BLUE, GREY, HATCH, LIGHT, LINES, MANY, RED, WIDTH, Drawn, to_png

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class PlotSeries:
    """One metric. ``values``: label (a node) to samples, one a time; times are ``STEP`` apart.

    ``limits`` are drawn as lines.
    """

    title: str
    unit: str
    times: Times
    values: Mapping[str, ArrayLike]
    limits: tuple[float, ...] = ()

    @cached_property
    def lines(self) -> dict[str, Floats]:
        return {name: np.asarray(self.values[name], dtype=float) for name in sorted(self.values)}

    @property
    def matrix(self) -> Floats:
        """(labels, times)"""
        return np.array(list(self.lines.values())).reshape(len(self.lines), len(self.times))

    @property
    def samples(self) -> Floats:
        """Every finite sample."""
        matrix = self.matrix
        return matrix[np.isfinite(matrix)]

    @property
    def missing(self) -> int:
        """Samples that are not there: NaN or infinite."""
        return self.matrix.size - self.samples.size


@dataclass(frozen=True)
class Mark:
    """An alert or a gate change. With ``until`` it is a stretch of time."""

    time: datetime
    label: str
    until: datetime | None = None


def percentiles(samples: Floats) -> dict[str, float]:
    if not samples.size:
        return {}
    at = np.percentile(samples, (5, 50, 95))
    return {name: float(x) for name, x in zip(("p5", "p50", "p95"), at, strict=True)}


def middle_and_furthest(lines: Mapping[str, Floats]) -> tuple[Floats, str]:
    """The median of ``lines`` at each time, and the name of the line furthest from it."""
    matrix = np.array(list(lines.values()))
    matrix[~np.isfinite(matrix)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a time without any sample stays NaN
        middle = np.nanmedian(matrix, axis=0)
    away = np.nan_to_num(np.abs(matrix - middle)).sum(axis=1)
    return middle, list(lines)[int(np.argmax(away))]


def series_words(series: PlotSeries) -> str:
    """One line that says what the panel of ``series`` shows."""
    samples = series.samples
    if not samples.size:
        return f"{series.title}: no samples, {series.missing:,} missing"
    if samples.min() == samples.max():
        said = f"every sample is {quantity(float(samples[0]), series.unit)}"
    else:
        said = ", ".join(f"{k} {quantity(v, series.unit)}" for k, v in percentiles(samples).items())
    limits = "".join(f", limit {quantity(limit, series.unit)}" for limit in series.limits)
    first, last = (str(t).replace("T", " ") for t in series.times[[0, -1]].astype("datetime64[s]"))
    plural = "" if len(series.lines) == 1 else f" of {len(series.lines)} series"
    if len(series.lines) > 1:
        plural += f" (furthest from their median: {middle_and_furthest(series.lines)[1]})"
    return (
        f"{series.title}: {said}{limits}; {count(samples.size, 'sample')}{plural}, "
        f"{series.missing:,} missing, {first} to {last} UTC"
    )


def mark_words(marks: Sequence[Mark], note: str = "") -> list[str]:
    """``A 2026-11-23 14:05:00 gate on dev-1``: the letters that stand in the figure; last the note."""
    said = []
    for index, mark in enumerate(marks):
        times = [t.astimezone(UTC) for t in (mark.time, mark.until) if t is not None]
        span = " to ".join(f"{t:%Y-%m-%d %H:%M:%S}" for t in times)
        said.append(f"{letter(index)} {span} UTC {mark.label}")
    return [*said, note] if note else said


def letter(index: int) -> str:
    """A, B, ... Z, then A1, B1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def plotted_digest(series: Sequence[PlotSeries], said: Sequence[str] = ()) -> str:
    """``sha256:HEX`` over all that is drawn: for each series the canonical JSON of its head, its
    times (int64 milliseconds) and its lines (float64), little-endian; last the marks in words."""
    sha = hashlib.sha256()
    for one in series:
        head = [one.title, one.unit, list(one.limits), STEP.total_seconds()]
        sha.update(canonical([*head, list(one.lines), len(one.times)]))
        sha.update(one.times.astype("<i8").tobytes())
        matrix = one.matrix
        matrix[np.isnan(matrix)] = np.nan  # a NaN's payload is no data
        sha.update(matrix.astype("<f8").tobytes())
    sha.update(canonical(list(said)))
    return "sha256:" + sha.hexdigest()


def series_data(series: PlotSeries) -> dict[str, Any]:
    """The numbers of ``series_words`` for programs."""
    return {
        "title": series.title,
        "unit": series.unit,
        "limits": list(series.limits),
        "series": list(series.lines),
        "samples": int(series.samples.size),
        "missing": series.missing,
        **percentiles(series.samples),
    }


# --- Drawing them ---

_WIDE = 125  # characters of a line under the panels
NAMED = 6
"""Up to so many lines are told apart; more are drawn thin, with their median and the furthest."""
_DENSE = 1000  # more samples than pixels: thinner lines
_TOP, _PANEL = 0.65, 1.5  # inches: room for the key, and of a panel with its title


def baseline_figure(
    series: Sequence[PlotSeries], *, marks: Sequence[Mark] = (), note: str = ""
) -> Drawn:
    """One panel per metric: lines over time, the p5 to p95 band, limit, distribution at the side.

    ``note`` is a last line under the panels and in the text.
    """
    said = mark_words(marks, note)
    under = [line for one in said for line in wrap(visible(one), _WIDE, subsequent_indent="   ")]
    names = sorted({name for one in series for name in one.lines})
    styles = dict(zip(names, LINES, strict=False)) if len(names) <= NAMED else {}

    def draw(figure: Figure) -> None:
        panels = _grid(figure, len(series))
        for one, (left, right) in zip(series, panels, strict=True):
            low, high = time_panel(left, one, styles)
            distribution(right, one.samples, low, high)
            labels(right, percentiles(one.samples), low, high)
        time_axis([row[0] for row in panels], series, marks)
        _key(figure, styles, under)

    text = "\n".join([*map(series_words, series), *said])
    data = {"digest": plotted_digest(series, said), "metrics": [series_data(s) for s in series]}
    height = _TOP + _PANEL * len(series) + 0.15 + 0.15 * len(under)
    return Drawn(to_png(draw, height), text, data)


def _grid(figure: Figure, rows: int) -> list[tuple[Axes, Axes]]:
    """Rows of axes, lines and their distribution: placed by hand, in half the time that matplotlib's
    own layout takes. All share their times, a row its values."""
    tall = figure.get_figheight()

    def axes(row: int, left: float, width: float, **shared: Any) -> Axes:
        low = tall - _TOP - (row + 1) * _PANEL + 0.35
        place = (left / WIDTH, low / tall, width / WIDTH, (_PANEL - 0.35) / tall)
        return figure.add_axes(place, **shared)

    panels: list[tuple[Axes, Axes]] = []
    for row in range(rows):
        lines = axes(row, 0.75, 5.35, sharex=panels[0][0] if panels else None)
        side = axes(row, 6.2, 1.0, sharey=lines)
        side.tick_params(labelleft=False)
        side.set_xticks([])
        panels.append((lines, side))
    return panels


def _key(figure: Figure, styles: dict[str, tuple[str, Any]], under: Sequence[str]) -> None:
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
    if under:
        figure.text(0.01, 0.05 / figure.get_figheight(), "\n".join(under), fontsize=8)


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
    days = _days(series.times)
    low, high = _value_axis(series)
    axes.set_ylim(low, high)
    _lines(axes, days, series.lines, styles)
    _strip(axes, days, series.matrix)
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


def _strip(axes: Axes, days: Floats, matrix: Floats) -> None:
    """Under a gap: dark where every line is missing, light where some are."""
    step = STEP / timedelta(days=1)
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

    if any(one.times.size for one in series):
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
    instants = {one.times[at] for one in series if one.times.size for at in (0, -1)}
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


def plotted(
    metric: Metric, frame: pd.DataFrame, names: Mapping[str, str], *, limited: bool = False
) -> PlotSeries:
    """A frame as a figure draws it, ``limited`` with the metric's healthy limit."""
    import pandas as pd

    ends = (metric.limit.min, metric.limit.max) if limited and metric.limit else ()
    return PlotSeries(
        title=metric.title,
        unit=metric.unit,
        times=pd.DatetimeIndex(frame.index).tz_localize(None).to_numpy("datetime64[ms]"),
        values={called(str(c), names): frame[c].to_numpy() for c in frame.columns},
        limits=tuple(end for end in ends if end is not None),
    )
