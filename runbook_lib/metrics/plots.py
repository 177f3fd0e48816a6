"""Figures: what was measured over time, its distribution, and what was made of it.

Made to be read at 800 pixels, in grey and by the colour-blind: lines differ in dash and lightness,
areas in hatching, outcomes in their marker and word. Gaps stay gaps with a strip under them, zeros
are drawn as zeros, a lone sample is a dot. No pyplot; the same data give the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from runbook_lib.markup import visible
from runbook_lib.metrics.colours import BLUE, LIGHT, MANY, PALETTE
from runbook_lib.metrics.panels import (
    distribution,
    intervals,
    labels,
    overview,
    styles_of,
    time_axis,
    time_panel,
)
from runbook_lib.metrics.plotdata import (
    Mark,
    PlotComparison,
    PlotSeries,
    comparison_data,
    comparison_words,
    mark_words,
    percentiles,
    plotted_digest,
    series_data,
    series_words,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 125  # characters of a line under the panels
_WIDTH = 8.0  # inches; 800 pixels
_COMPARED = [(0.75, 3.35, 0.0), (4.2, 0.7, 0.0), (5.7, 2.15, 0.35)]
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
        panels = _grid(figure, len(series), [(0.75, 5.35, 0.0), (6.2, 1.0, 0.0)])
        for one, (left, right) in zip(series, panels, strict=True):
            low, high = time_panel(left, one, one.samples, styles)
            distribution(right, one.samples, low, high, filled=True)
            labels(right, percentiles(one.samples), low, high)
        time_axis([row[0] for row in panels], series, marks)
        _key(figure, styles, "all samples", said)

    text = "\n".join([*map(series_words, series), *said])
    data = {"digest": plotted_digest(series, said), "metrics": [series_data(s) for s in series]}
    return Drawn(_png(draw, _height(series, said)), text, data)


def comparison_figure(
    comparisons: Sequence[PlotComparison], *, marks: Sequence[Mark] = (), note: str = ""
) -> Drawn:
    """One panel per metric: the current lines on the baseline's band, both distributions, and the
    judged intervals against the tolerance."""
    currents = [one.current for one in comparisons]
    styles, said = styles_of(currents), mark_words(marks, note)

    def draw(figure: Figure) -> None:
        panels = _grid(figure, len(comparisons), _COMPARED)
        for one, (left, middle, right) in zip(comparisons, panels, strict=True):
            low, high = time_panel(left, one.current, one.baseline.samples, styles)
            distribution(middle, one.baseline.samples, low, high, filled=True)
            distribution(middle, one.current.samples, low, high, filled=False)
            intervals(one, right)
        time_axis([row[0] for row in panels], currents, marks)
        _key(figure, styles, "grey: baseline, outline: current", said)

    text = "\n".join([*map(comparison_words, comparisons), *said])
    return Drawn(_png(draw, _height(currents, said)), text, comparison_data(comparisons, said))


def overview_figure(comparisons: Sequence[PlotComparison]) -> Drawn:
    """All metrics on one axis, their intervals in units of their tolerance, worse to the right."""
    rows = sum(len(one.changes) for one in comparisons)

    def draw(figure: Figure) -> None:
        overview(comparisons, _axes(figure, 3.9, 0.5, 3.95, 0.22 * rows))

    text = "\n".join(comparison_words(one).split("\n")[0] for one in comparisons)
    return Drawn(_png(draw, 0.6 + 0.22 * rows), text, comparison_data(comparisons))


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


def _grid(
    figure: Figure, rows: int, columns: Sequence[tuple[float, float, float]]
) -> list[list[Axes]]:
    """Rows of axes; ``columns`` are (left edge, width, room below) in inches: placed by hand, in
    half the time that matplotlib's own layout takes. All share their times, a row its values."""
    panels: list[list[Axes]] = []
    for row in range(rows):
        bottom = figure.get_figheight() - _TOP - (row + 1) * _PANEL + 0.35
        axes = [
            _axes(figure, left, bottom + below, width, _PANEL - 0.35 - below)
            for left, width, below in columns
        ]
        if panels:
            axes[0].sharex(panels[0][0])
        axes[1].sharey(axes[0])
        axes[1].tick_params(labelleft=False)
        axes[1].set_xticks([])
        panels.append(axes)
    return panels


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    high = figure.get_figheight()
    return figure.add_axes((left / _WIDTH, bottom / high, width / _WIDTH, height / high))


def _key(
    figure: Figure, styles: dict[str, tuple[str, Any]], band: str, said: Sequence[str]
) -> None:
    """What the lines, the band and the letters mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    many: dict[str, tuple[str, Any]] = {
        "each series": (MANY, "-"),
        "their median": ("#000000", "-"),
    }
    many["furthest from it"] = (BLUE, (0, (6, 1.5)))
    handles: list[Any] = [
        Line2D([], [], color=colour, ls=dash, label=visible(name, 30))
        for name, (colour, dash) in (styles or many).items()
        if name
    ]
    handles.append(Patch(color=LIGHT, label=f"{band}; band: p5 to p95, dashed: p50"))
    figure.legend(handles=handles, loc="upper left", ncols=4)
    if said:
        figure.text(0.01, 0.05 / figure.get_figheight(), "\n".join(_wrapped(said)), fontsize=8)


def _wrapped(said: Sequence[str]) -> list[str]:
    """What stands under the panels, as long as the figure is wide."""
    return [line for words in said for line in wrap(visible(words), _WIDE, subsequent_indent="   ")]
