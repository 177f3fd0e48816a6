"""Small multiples: a panel a metric over time, beside its baseline; drawn, and the same in words.

Made to be read at 800 pixels, in grey and by the colour-blind. A sample that is not there is NaN: a
gap, that stays a gap with a strip under it; a lone sample is a dot. No pyplot; the same data give the
same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..wording import count, quantity, visible
from .baseline import called
from .catalogue import Metric
from .frames import STEP

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Floats = NDArray[np.float64]

WIDTH, COLUMNS = 8.0, 2  # inches, of 100 pixels; panels side by side
_TOP, _PANEL, _LINE = 0.4, 1.75, 0.15  # inches: the key, a panel with its title, a line of text
_TITLE, _WIDE = 58, 125  # characters of a panel's title, and of a line under the panels
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "lines.antialiased": False,  # half the bytes
    "text.parse_math": False,  # a name with dollar signs is no formula
}
BLUE, RED, GREY, MANY, LIGHT, HATCH = (
    "#0072b2", "#d55e00", "#595959", "#a6a6a6", "#e8e8e8", "#bfbfbf"
)  # fmt: skip
PALETTE = ("#ffffff", "#000000", BLUE, RED, GREY, MANY, LIGHT, HATCH)
DASHED, DOTTED, LONG = (0, (4, 2)), (0, (1, 1.5)), (0, (8, 2))


class Drawn(NamedTuple):
    """A figure: PNG, and the same in words."""

    png: bytes
    text: str


@dataclass(frozen=True)
class Mark:
    """An alert or a gate change. With ``until`` it is a stretch of time."""

    time: datetime
    label: str
    until: datetime | None = None


class Spread(NamedTuple):
    """Of all samples of a window; ``p5`` to ``p95`` is drawn as a band."""

    p5: float
    p50: float
    p95: float


def spread(frame: pd.DataFrame) -> Spread | None:
    """Over every finite sample; None of none."""
    values = frame.to_numpy()
    finite = values[np.isfinite(values)]
    return Spread(*map(float, np.percentile(finite, (5, 50, 95)))) if finite.size else None


@dataclass(frozen=True)
class Panel:
    """A metric over a window: a UTC index at ``STEP``, a column a series.

    ``names`` maps a validator's address to what the site calls its node. ``baseline`` is what the
    metric is judged against, ``reference`` a level to read it by; ``note`` says why one is missing.
    """

    metric: Metric
    frame: pd.DataFrame
    names: Mapping[str, str]
    baseline: Spread | None = None
    reference: float | None = None
    verdict: str = ""
    note: str = ""

    @cached_property
    def lines(self) -> dict[str, Floats]:
        return {called(str(c), self.names): self.frame[c].to_numpy() for c in self.frame.columns}

    @cached_property
    def days(self) -> Floats:
        """Days since 1970, the numbers of a date axis."""
        import pandas as pd

        index = pd.DatetimeIndex(self.frame.index).tz_localize(None)
        days: Floats = index.to_numpy("datetime64[ms]").astype(np.int64) / 86_400_000
        return days

    @cached_property
    def gone(self) -> NDArray[np.bool_]:
        """(times, series): samples that are not there, NaN or infinite."""
        gone: NDArray[np.bool_] = ~np.isfinite(self.frame.to_numpy(dtype=float))
        return gone

    @property
    def limits(self) -> list[float]:
        limit = self.metric.limit
        return [] if limit is None else [x for x in (limit.min, limit.max) if x is not None]

    @property
    def title(self) -> str:
        return visible(self.metric.title) + (f": {self.verdict}" if self.verdict else "")

    @property
    def text(self) -> str:
        """One line that says what the panel shows."""
        unit, now = self.metric.unit, spread(self.frame)
        known = (("now", now), ("baseline", self.baseline))
        said = [
            f"{name} {quantity(one.p50, unit)} ({quantity(one.p5, unit)} to {quantity(one.p95, unit)})"
            for name, one in known
            if one is not None
        ]
        if now is None:
            said.insert(0, "no samples")
        if self.reference is not None:
            said.append(f"development {quantity(self.reference, unit)}")
        said += [f"limit {quantity(limit, unit)}" for limit in self.limits]
        said += [self.note] if self.note else []
        seen, several = int((~self.gone).sum()), len(self.lines)
        series = f" of {several} series" if several > 1 else ""
        missing = f", {int(self.gone.sum()):,} missing" if self.gone.any() else ""
        return f"{self.title}: {'; '.join(said)}; {count(seen, 'sample')}{series}{missing}"


def mark_words(marks: Sequence[Mark]) -> list[str]:
    """``A 2026-11-23 14:05:00 UTC gate on dev-1``: the letters that stand in the figure."""
    said = []
    for index, mark in enumerate(marks):
        times = [t.astimezone(UTC) for t in (mark.time, mark.until) if t is not None]
        span = " to ".join(f"{t:%Y-%m-%d %H:%M:%S}" for t in times)
        said.append(f"{letter(index)} {span} UTC {mark.label}")
    return said


def letter(index: int) -> str:
    """A, B, ... Z, then A1, B1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def figure(panels: Sequence[Panel], *, marks: Sequence[Mark] = (), note: str = "") -> Drawn:
    """A panel a metric, on one axis of time; ``note`` is a last line under them and in the text."""
    said = [*mark_words(marks), *([note] if note else [])]
    under = [line for one in said for line in wrap(visible(one), _WIDE, subsequent_indent="   ")]
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    height = _TOP + _PANEL * rows + _LINE * len(under) + 0.1

    def draw(drawn: Figure) -> None:
        low, room = (height - _TOP - _PANEL * rows) / height, _PANEL * rows / height
        drawn.set_layout_engine("constrained", rect=(0, low, 1, room))
        grid = drawn.subplots(rows, columns, sharex=True, squeeze=False)
        every: list[Axes] = list(grid.flat)
        for axes, panel in zip(every, panels, strict=False):
            _draw(axes, panel)
        for axes in every[len(panels) :]:
            axes.set_axis_off()
        _time_axis(every[: len(panels)], columns, panels, marks)
        _key(drawn, panels)
        if under:
            drawn.text(0.01, 0.05 / height, "\n".join(under))

    text = "\n".join([*(panel.text for panel in panels), *said])
    return Drawn(to_png(draw, height), text)


def _key(drawn: Figure, panels: Sequence[Panel]) -> None:
    """What the lines and the band mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    now = Line2D([], [], color="black", lw=0.8, label="now (of several their median)")
    shown: list[Any] = [now]
    if any(panel.baseline for panel in panels):
        shown.append(Patch(color=LIGHT, label="baseline, p5 to p95"))
        shown.append(Line2D([], [], color=GREY, ls=DASHED, label="its median"))
    if any(panel.reference is not None for panel in panels):
        shown.append(Line2D([], [], color=BLUE, ls=DOTTED, label="development's median"))
    if any(panel.limits for panel in panels):
        shown.append(Line2D([], [], color=RED, ls=LONG, label="limit"))
    drawn.legend(handles=shown, loc="upper left", ncols=len(shown))


def _draw(axes: Axes, panel: Panel) -> None:
    low, high = _value_axis(panel)
    axes.set_ylim(low, high)
    far = [
        f"limit {quantity(limit, panel.metric.unit)} ({'above' if limit > high else 'below'})"
        for limit in panel.limits
        if not low <= limit <= high
    ]
    title = wrap(panel.title, _TITLE) + wrap(
        "; ".join(filter(None, [visible(panel.note), *far])), _TITLE
    )
    axes.set_title("\n".join(title), loc="left")
    axes.set_ylabel(visible(panel.metric.unit) or "count")
    _lines(axes, panel)
    # Under a gap: dark where every series is missing, light where some are.
    step = STEP / timedelta(days=1)
    for mask, colour in ((panel.gone.any(axis=1), MANY), (panel.gone.all(axis=1), "black")):
        bars = [(day - step / 2, step) for day in panel.days[mask]]
        axes.broken_barh(bars, (0, 0.04), transform=axes.get_xaxis_transform(), color=colour, lw=0)
    if panel.baseline is not None:
        axes.axhspan(panel.baseline.p5, panel.baseline.p95, color=LIGHT, zorder=0, lw=0)
        axes.axhline(panel.baseline.p50, color=GREY, lw=1, ls=DASHED, zorder=1)
    if panel.reference is not None:
        axes.axhline(panel.reference, color=BLUE, lw=1.2, ls=DOTTED, zorder=1)
    for limit in panel.limits:
        axes.axhline(limit, color=RED, lw=1.5, ls=LONG)
    if panel.gone.all():
        centre: Any = {"ha": "center", "va": "center", "backgroundcolor": "white"}
        axes.text(0.5, 0.5, "no samples", transform=axes.transAxes, **centre)


def _value_axis(panel: Panel) -> tuple[float, float]:
    """From zero when the data come near it; with limits and levels that are not far away."""
    seen = panel.frame.to_numpy()[~panel.gone]
    levels = [*(panel.baseline or ()), *panel.limits]
    levels += [panel.reference] if panel.reference is not None else []
    if not seen.size:
        seen = np.array(levels or [0.0, 1.0])
    low, high = float(seen.min()), float(seen.max())
    if low == high or 0 < low < 0.5 * high:  # a constant is seen against zero
        low, high = min(low, 0.0), max(high, 0.0) or 1.0
    near = low - 2 * (high - low), high + 2 * (high - low)
    ends = [low, high, *(level for level in levels if near[0] <= level <= near[1])]
    room = (max(ends) - min(ends)) * 0.08
    return min(ends) - room, max(ends) + room


def _lines(axes: Axes, panel: Panel) -> None:
    """Each series with a dot where a sample has no neighbours, and no line through it."""
    values = np.where(panel.gone, np.nan, panel.frame.to_numpy(dtype=float))
    drawn = [(line, MANY, 0.5) for line in values.T] if len(panel.lines) > 1 else []
    if not panel.gone.all():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a time without any sample
            drawn.append((np.nanmedian(values, axis=1), "black", 0.7))
    for line, colour, width in drawn:
        there = np.concatenate(([False], np.isfinite(line), [False]))
        alone = np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()
        axes.plot(panel.days, line, color=colour, lw=width, marker=".", ms=2, markevery=alone)


def _time_axis(
    every: Sequence[Axes], columns: int, panels: Sequence[Panel], marks: Sequence[Mark]
) -> None:
    """One axis of UTC times for all panels, with the marks and their letters."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    instants = {float(one.days[at]) for one in panels if one.days.size for at in (0, -1)}
    if instants:
        # Three at least: with more, no interval fits some lengths, and matplotlib warns.
        locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=7)
        every[0].xaxis.set_major_locator(locator)  # shared by all of them
        every[0].xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    else:
        every[0].set_xticks([])
    for axes in every[-columns:]:
        axes.set_xlabel("time (UTC)")
        axes.tick_params(axis="x", labelbottom=True)
    for axes in every:
        for index, mark in enumerate(marks):
            name = letter(index) if axes in every[:columns] else ""
            _mark(axes, mark, name, 0.97 - 0.17 * (index % 3))
    if len(instants) == 1 and not marks:  # matplotlib would show years around a lone instant
        [at] = instants
        every[0].set_xlim(at - 300 / 86400, at + 300 / 86400)


def _mark(axes: Axes, mark: Mark, name: str, high: float) -> None:
    """A line, or a hatched stretch; its letter at the height ``high``, off its neighbours' letters."""
    start = mark.time.timestamp() / 86400
    axes.axvline(start, color="black", lw=1, ls=":")
    if mark.until is not None:
        end = mark.until.timestamp() / 86400
        axes.axvspan(start, end, facecolor="none", edgecolor=HATCH, hatch=r"\\\\", lw=0)
    if name:
        box = {"boxstyle": "square,pad=0.1", "facecolor": "white", "lw": 0.5}
        at = axes.get_xaxis_transform()
        axes.text(start, high, name, transform=at, ha="center", va="top", bbox=box)


def to_png(draw: Callable[[Figure], None], height: float) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure  # draws with agg, whatever backend is configured
    from PIL import Image, ImageColor

    out = io.BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        # A name in a script without a glyph is drawn as boxes; the text form has it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        mpl.rcdefaults()  # a user's matplotlibrc does not alter evidence
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(WIDTH, height), dpi=100)
        draw(figure)
        figure.savefig(out, format="raw")
    pixels = out.getvalue()
    width = round(WIDTH * 100)
    image = Image.frombytes("RGBA", (width, len(pixels) // width // 4), pixels).convert("RGB")
    # Few and always the same colours: half the bytes, and no hue is merged with another.
    few = Image.new("P", (1, 1))
    few.putpalette([part for colour in PALETTE for part in ImageColor.getrgb(colour)])
    small = io.BytesIO()
    image.quantize(palette=few, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()
