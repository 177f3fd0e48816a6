"""The overview of all judged changes, and what every figure has in common.

Made to be read at 800 pixels, in grey and by the colour-blind: lines differ in dash and lightness,
areas in hatching, outcomes in their marker and word. No pyplot; the same data give the same bytes.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from ..outcomes import Outcome
from ..wording import outcome_word, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .compare import Compared


WIDTH = 8.0  # inches; 800 pixels
_NAME = 45  # characters of a line of a row's name
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
    """A figure: PNG, and the same in words."""

    png: bytes
    text: str


def overview_figure(comparisons: Sequence[Compared]) -> Drawn:
    """All judged changes on one axis, in tolerances of their metrics, worse to the right."""
    every = [(one, name, change) for one in comparisons for name, change in one.changes]
    names = [
        wrap(f"{visible(one.metric.title)}, {name}  {outcome_word(one.outcome)}", _NAME)
        for one, name, _ in every
    ]
    room = 0.1 + 0.12 * max(map(len, names), default=1)  # inches a row, for its longest name

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("constrained")  # the labels' width is known only when drawn
        axes = figure.add_subplot()
        estimates = [abs(change[0] / one.metric.tolerance.amount) for one, _, change in every]
        reach = min(max([2.0, *(1.3 * x for x in estimates if math.isfinite(x))]), 10.0)
        for row, (one, _, change) in enumerate(every):
            turned = -1 if one.metric.direction == "higher" else 1
            for side in (1, -1) if one.metric.direction == "either" else (1,):
                # What is worse than the tolerance is hatched.
                axes.vlines(side, row - 0.5, row + 0.5, color=RED, lw=1.5)
                width = side * (1.04 * reach - 1)
                axes.barh(row, width, 1, side, color="none", ec=HATCH, hatch="////", lw=0)
            _interval(axes, row, change, turned / one.metric.tolerance.amount, one.outcome, reach)
        axes.axvline(0, color=GREY, lw=1, ls=":")
        axes.tick_params(axis="y", labelsize=8)
        axes.set_yticks(range(len(names)), ["\n".join(lines) for lines in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-1.04 * reach, 1.04 * reach)
        axes.set_xlabel("change, in tolerances of each metric; worse to the right", loc="right")

    text = "\n".join(
        f"{one.metric.title}: {one.outcome.value}: {one.reason}" for one in comparisons
    )
    return Drawn(to_png(draw, 0.6 + room * len(every)), text)


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
_MARKERS = {
    Outcome.PASS: ("o", "white"),
    Outcome.FAIL: ("s", "black"),
    Outcome.INCONCLUSIVE: ("D", "white"),
}


def _interval(
    axes: Axes, row: int, change: tuple[float, ...], scale: float, outcome: Outcome, reach: float
) -> None:
    """A bar over the interval, its estimate marked; an end outside the axis is an arrow."""
    at, *ends = (value * scale for value in change)
    low, high = sorted(ends)
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
