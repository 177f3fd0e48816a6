"""Panels over time: series, their annotations and limits, drawn and in words.

Times are UTC, ``datetime64[ms]``. A sample that is not there is NaN: a gap, that stays a gap with a
strip under it. Zeros are drawn as zeros, a lone sample is a dot.
"""

from __future__ import annotations

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
Styles = Mapping[str, tuple[str, Any]]


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

    @cached_property
    def matrix(self) -> Floats:
        """(labels, times)"""
        return np.array(list(self.lines.values())).reshape(len(self.lines), len(self.times))

    @cached_property
    def samples(self) -> Floats:
        """Every finite sample."""
        return self.matrix[np.isfinite(self.matrix)]

    @property
    def missing(self) -> int:
        """Samples that are not there: NaN or infinite."""
        return self.matrix.size - self.samples.size

    @property
    def percentiles(self) -> dict[str, float]:
        """By name; none of no samples."""
        if not self.samples.size:
            return {}
        at = np.percentile(self.samples, (5, 50, 95))
        return {name: float(x) for name, x in zip(("p5", "p50", "p95"), at, strict=True)}

    @property
    def furthest(self) -> str:
        """The name of the line furthest from the median of all."""
        away = np.nan_to_num(np.abs(self.matrix - self.median)).sum(axis=1)
        return list(self.lines)[int(np.argmax(away))]

    @cached_property
    def median(self) -> Floats:
        """Of all lines, at each time; NaN where none has a sample."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a time without any sample
            return np.nanmedian(np.where(np.isfinite(self.matrix), self.matrix, np.nan), axis=0)


@dataclass(frozen=True)
class Mark:
    """An alert or a gate change. With ``until`` it is a stretch of time."""

    time: datetime
    label: str
    until: datetime | None = None


def series_words(series: PlotSeries) -> str:
    """One line that says what the panel of ``series`` shows."""
    samples = series.samples
    if not samples.size:
        return f"{series.title}: no samples, {series.missing:,} missing"
    if samples.min() == samples.max():
        said = f"every sample is {quantity(float(samples[0]), series.unit)}"
    else:
        said = ", ".join(f"{k} {quantity(v, series.unit)}" for k, v in series.percentiles.items())
    limits = "".join(f", limit {quantity(limit, series.unit)}" for limit in series.limits)
    first, last = (str(t).replace("T", " ") for t in series.times[[0, -1]].astype("datetime64[s]"))
    several = len(series.lines)
    plural = f" of {several} series (furthest from their median: {series.furthest})"
    return (
        f"{series.title}: {said}{limits}; {count(samples.size, 'sample')}"
        f"{plural if several > 1 else ''}, {series.missing:,} missing, {first} to {last} UTC"
    )


def mark_words(marks: Sequence[Mark]) -> list[str]:
    """``A 2026-11-23 14:05:00 gate on dev-1``: the letters that stand in the figure."""
    said = []
    for index, mark in enumerate(marks):
        times = [t.astimezone(UTC) for t in (mark.time, mark.until) if t is not None]
        span = " to ".join(f"{t:%Y-%m-%d %H:%M:%S}" for t in times)
        said.append(f"{letter(index)} {span} UTC {mark.label}")
    return said


def letter(index: int) -> str:
    """A, B, ... Z, then A1, B1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


# --- Drawing them ---

_WIDE = 125  # characters of a line under the panels
NAMED = 6
"""Up to so many lines are told apart; more are drawn thin, with their median and the furthest."""
_DENSE = 1000  # more samples than pixels: thinner lines
_TOP, _PANEL = 0.65, 1.5  # inches: room for the key, and of a panel with its title
_WHITE = {"boxstyle": "square,pad=0.1", "facecolor": "white", "lw": 0}


def baseline_figure(
    series: Sequence[PlotSeries], *, marks: Sequence[Mark] = (), note: str = ""
) -> Drawn:
    """One panel per metric: lines over time, the p5 to p95 band with its values, the limit.

    ``note`` is a last line under the panels and in the text.
    """
    said = [*mark_words(marks), *([note] if note else [])]
    under = [line for one in said for line in wrap(visible(one), _WIDE, subsequent_indent="   ")]
    names = sorted({name for one in series for name in one.lines})
    styles = dict(zip(names, LINES, strict=False)) if len(names) <= NAMED else {}
    height = _TOP + _PANEL * len(series) + 0.15 + 0.15 * len(under)

    def draw(figure: Figure) -> None:
        # Placed by hand, in half the time that matplotlib's own layout takes.
        low, high = height - _TOP - _PANEL * len(series) + 0.35, height - _TOP
        place = {"left": 0.75 / WIDTH, "right": 7.2 / WIDTH, "hspace": 0.35 / (_PANEL - 0.35)}
        place |= {"bottom": low / height, "top": high / height}
        grid = figure.subplots(len(series), sharex=True, squeeze=False, gridspec_kw=place)
        panels = list(grid[:, 0])
        for axes, one in zip(panels, series, strict=True):
            _panel(axes, one, styles)
        _time_axis(panels, series, marks)
        _key(figure, styles, under)

    text = "\n".join([*map(series_words, series), *said])
    return Drawn(to_png(draw, height), text)


def _key(figure: Figure, styles: Styles, under: Sequence[str]) -> None:
    """What the lines, the band and the letters mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    many: Styles = {
        "each series": (MANY, "-"),
        "their median": ("#000000", "-"),
        "furthest from it": (BLUE, (0, (6, 1.5))),
    }
    handles: list[Any] = [
        Line2D([], [], color=colour, ls=dash, label=visible(name, 30))
        for name, (colour, dash) in (styles or many).items()
        if name
    ]
    handles.append(Patch(color=LIGHT, label="band: p5 to p95 of all samples, dashed: p50"))
    figure.legend(handles=handles, loc="upper left", ncols=4)
    if under:
        figure.text(0.01, 0.05 / figure.get_figheight(), "\n".join(under), fontsize=8)


def _panel(axes: Axes, series: PlotSeries, styles: Styles) -> None:
    """Draw ``series`` on its p5 to p95 band."""
    title = f"{visible(series.title)}: {count(series.samples.size, 'sample')}"
    title += f", {series.missing:,} missing" if series.missing else ""
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_ylabel(visible(series.unit) or "count")
    days, (low, high) = _days(series.times), _value_axis(series)
    axes.set_ylim(low, high)
    _lines(axes, days, series, styles)
    # Under a gap: dark where every line is missing, light where some are.
    step, gone = STEP / timedelta(days=1), ~np.isfinite(series.matrix)
    for mask, colour in ((gone.any(axis=0), MANY), (gone.all(axis=0), "black")):
        bars = [(day - step / 2, step) for day in days[mask]]
        axes.broken_barh(bars, (0, 0.04), transform=axes.get_xaxis_transform(), color=colour, lw=0)
    if band := series.percentiles:
        axes.axhspan(band["p5"], band["p95"], color=LIGHT, zorder=0, lw=0)
        axes.axhline(band["p50"], color=GREY, lw=1, ls=(0, (4, 2)), zorder=1)
        if band["p5"] == band["p95"]:
            band = {"p5–p95": band["p50"]}
    else:
        centre: Any = {"ha": "center", "va": "center", "backgroundcolor": "white"}
        axes.text(0.5, 0.5, "no samples", transform=axes.transAxes, **centre)
    at, room = -math.inf, (high - low) * 0.13
    for name, value in band.items():  # moved apart where they would overlap
        at, said = max(value, at + room), f"{name} {number(value)}"
        axes.text(1.01, at, said, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    _limits(axes, series, low, high)


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


def _lines(axes: Axes, days: Floats, series: PlotSeries, styles: Styles) -> None:
    """Each line with a dot a sample: one without neighbours has no line through it."""
    thin = 0.6 if len(days) > _DENSE else 1.0
    if styles or len(series.lines) == 1:
        for name, line in series.lines.items():
            colour, dash = styles.get(name, LINES[0])
            axes.plot(days, line, color=colour, ls=dash, lw=1.2 * thin, marker=".", ms=2)
    elif series.lines:
        for line in series.lines.values():
            axes.plot(days, line, color=MANY, lw=0.5, alpha=0.6, marker=".", ms=1)
        furthest = series.furthest
        axes.plot(days, series.lines[furthest], color=BLUE, lw=1, ls=(0, (6, 1.5)))
        axes.plot(days, series.median, color="black", lw=1.6 * thin, marker=".", ms=2)
        corner: Any = {"ha": "right", "va": "top", "fontsize": 8, "bbox": _WHITE}
        axes.text(1, 0.98, f"furthest: {visible(furthest, 30)}", transform=axes.transAxes, **corner)


def _days(times: Times) -> Floats:
    """Days since 1970, the numbers of a date axis."""
    days: Floats = times.astype("datetime64[ms]").astype(np.int64) / 86_400_000
    return days


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


def _time_axis(panels: Sequence[Axes], series: Sequence[PlotSeries], marks: Sequence[Mark]) -> None:
    """One axis of UTC times for all panels, with the marks and their letters."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    instants = {one.times[at] for one in series if one.times.size for at in (0, -1)}
    if instants:
        # Three at least: with more, no interval fits some lengths, and matplotlib warns.
        locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=7)
        panels[0].xaxis.set_major_locator(locator)  # shared by all of them
        panels[0].xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    else:
        panels[0].set_xticks([])
    panels[-1].set_xlabel("time (UTC)")
    for axes in panels:
        for index, mark in enumerate(marks):
            _mark(axes, mark, letter(index) if axes is panels[0] else "", 0.97 - 0.17 * (index % 3))
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
    if name:
        box, at = {**_WHITE, "lw": 0.5}, axes.get_xaxis_transform()
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
