"""Figures show what was measured: gaps, zeros and lone samples included, the same bytes each time."""

import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from runbook_lib.metrics import panels, plots
from runbook_lib.metrics.catalogue import Metric
from runbook_lib.metrics.compare import Compared
from runbook_lib.metrics.judge import Comparison
from runbook_lib.metrics.panels import Mark, PlotSeries, letter, series_words
from runbook_lib.metrics.plots import LINES, PALETTE
from runbook_lib.outcomes import Outcome
from runbook_lib.wording import number

from .samples import METRIC

START = np.datetime64("2026-11-23T13:00:00", "ms")
NOON = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")
Figures = Callable[..., Any]
NEVER = np.array([], dtype="datetime64[ms]")


def series(*values: float, title: str = "Latency", step: int = 60, **more: Any) -> PlotSeries:
    times = START + np.arange(len(values)) * np.timedelta64(step, "s")
    return PlotSeries(title, "ms", times, {"dev-1": values}, **more)


def many(count: int, samples: int = 50) -> PlotSeries:
    noise = np.random.default_rng(7).normal(400, 20, (count, samples))
    noise[-1] += 200
    times = START + np.arange(samples) * np.timedelta64(15, "s")
    return PlotSeries("Latency", "ms", times, {f"val-{i:02}": noise[i] for i in range(count)})


def comparison(outcome: Outcome = Outcome.PASS, *changes: Any, **more: Any) -> Compared:
    """A judged metric; its tolerance is 0.1 of the baseline, lower is better."""
    usual = ("median", (0.01, -0.02, 0.04)), ("p95", (0.02, -0.03, 0.07))
    metric = Metric.model_validate({**METRIC, **more})
    facts = {"changes": changes or usual, "outcome": outcome, "reason": "not worse"}
    return cast(Compared, SimpleNamespace(metric=metric, **facts))


@pytest.fixture
def figure_of(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """The figure that a plot function draws, before it becomes pixels."""

    def catch(function: Callable[..., object], *args: object, **more: object) -> Figure:
        figure = Figure()

        def png(draw: Callable[[Figure], None], height: float) -> bytes:
            figure.set_size_inches(plots.WIDTH, height)
            draw(figure)
            return b""

        monkeypatch.setattr(sys.modules[function.__module__], "to_png", png)
        function(*args, **more)
        return figure

    return catch


@pytest.mark.parametrize(
    "made",
    [
        [series(400, 410, 420, limits=(500,))], [series(0, 0, 0)], [series(41.5, limits=(60,))],
        [series(NAN, NAN), series(1, NAN, 3)], [series()], [PlotSeries("Nothing", "", NEVER, {})],
        [series(1, float("inf"), -5, limits=(-1000,))], [many(25), many(3)],
        [series(1, 2, title="$x^2$ \\(y\\) <b> \x1b[31m \u202e 漢字")],
    ],
)  # fmt: skip
def test_every_kind_of_data_gives_one_image_of_800_pixels(made: list[PlotSeries]) -> None:
    once, again = panels.baseline_figure(made), panels.baseline_figure(made)

    assert once == again
    assert Image.open(io.BytesIO(once.png)).width == 800


def test_an_image_keeps_the_colours_of_its_lines_and_no_other() -> None:
    image = Image.open(io.BytesIO(panels.baseline_figure([many(6)]).png)).convert("RGB")
    colours = {"#" + bytes(pixel).hex() for _, pixel in image.getcolors() or []}

    assert {colour for colour, _ in LINES} <= colours <= set(PALETTE)


def test_a_gap_is_not_bridged_but_under_a_strip_and_a_lone_sample_is_a_dot(
    figure_of: Figures,
) -> None:
    """The strip covers the missing samples, each from half a step before to half a step after."""
    line, *_ = figure_of(panels.baseline_figure, [series(1, NAN, 3, INF, 5)]).axes[0].lines
    assert np.isfinite(line.get_ydata()).tolist() == [True, False, True, False, True]

    axes = figure_of(panels.baseline_figure, [series(1, 2, NAN, NAN, 5)]).axes[0]
    strip = [x for path in axes.collections[-1].get_paths() for x in path.vertices[:, 0]]
    day = (START - np.datetime64(0, "ms")) / np.timedelta64(1, "D")
    seconds = [round((x - day) * 86400) for x in (min(strip), max(strip))]
    assert seconds == [90, 210]
    assert axes.lines[0].get_marker() == "."


@pytest.mark.parametrize(
    ("limits", "said", "drawn"),
    [
        ((500.0,), "limit 500 ms", {500.0}),
        ((380.0, 480.0), "limit 380 ms and 480 ms", {380.0, 480.0}),
        ((9000.0,), "limit 9000 ms (above)", set()),
        ((-9000.0,), "limit -9000 ms (below)", set()),
    ],
)
def test_a_far_limit_is_said_instead_of_flattening_the_data(
    figure_of: Figures, limits: tuple[float, ...], said: str, drawn: set[float]
) -> None:
    axes = figure_of(panels.baseline_figure, [series(400, 450, 480, limits=limits)]).axes[0]

    assert axes.get_title(loc="right") == said
    assert {line.get_ydata()[0] for line in axes.lines} & set(limits) == drawn


def test_axes_name_unit_and_zone_and_leave_room_around_the_data(figure_of: Figures) -> None:
    zeros = figure_of(panels.baseline_figure, [series(0, 0, 0)]).axes[0]
    low, high = figure_of(panels.baseline_figure, [series(1.0)]).axes[0].get_xlim()

    assert (zeros.get_ylabel(), zeros.get_xlabel()) == ("ms", "time (UTC)")
    assert zeros.get_ylim() == pytest.approx((-0.08, 1.08))
    assert (high - low) * 1440 == pytest.approx(10)  # minutes around a lone instant, not years


@pytest.mark.parametrize("minutes", [2, 61, 179, 241, 299, 400, 2900, 10_080, 43_200, 130_000])
def test_a_window_of_any_length_has_a_readable_axis(figure_of: Figures, minutes: int) -> None:
    figure = figure_of(panels.baseline_figure, [series(1.0, 2.0, 1.5, step=30 * minutes)])

    assert 1 <= len(figure.axes[0].get_xticks()) <= 9


def test_many_lines_show_their_median_and_the_furthest_and_a_few_differ_without_colour(
    figure_of: Figures,
) -> None:
    axes = figure_of(panels.baseline_figure, [many(25)]).axes[0]

    assert axes.get_title(loc="left") == "Latency: 1,250 samples"
    assert "furthest: val-24" in [text.get_text() for text in axes.texts]
    assert [line.get_linewidth() for line in axes.lines[25:27]] == [1, 1.6]
    few = figure_of(panels.baseline_figure, [many(6)]).axes[0].lines[:6]
    assert len({str(line._unscaled_dash_pattern) for line in few}) == 6


def test_marks_stand_in_the_figure_and_in_the_words(figure_of: Figures) -> None:
    marks = [
        Mark(NOON, "gate on, dev-1"),
        Mark(NOON, "alert Slow", until=NOON + timedelta(seconds=20)),
    ]
    words = [
        "A 2026-11-23 13:00:00 UTC gate on, dev-1",
        "B 2026-11-23 13:00:00 to 2026-11-23 13:00:20 UTC alert Slow",
    ]
    assert panels.baseline_figure([series(1, 2)], marks=marks).text.splitlines()[1:] == words
    figure = figure_of(panels.baseline_figure, [series(1, 2)], marks=marks)

    assert [text.get_text() for text in figure.texts] == ["\n".join(words)]
    letters = [text for text in figure.axes[0].texts if text.get_text() in ("A", "B")]
    assert len({label.get_position() for label in letters}) == 2


def test_the_overview_says_each_outcome_worse_to_the_right(figure_of: Figures) -> None:
    """A row a change, beyond the tolerance hatched; an end without bound is an arrow."""
    falls = ("mean", (-3.0, -6.0, 0.0))
    unbounded = ("median", (NAN, -INF, INF)), ("p95", (NAN, NAN, NAN))
    shown = [
        comparison(),
        comparison(Outcome.FAIL, falls, tolerance={"absolute": 3.0}, direction="higher"),
        comparison(Outcome.INCONCLUSIVE, *unbounded, direction="either"),
    ]
    axes = figure_of(plots.overview_figure, shown).axes[0]

    names = zip(("median", "p95", "mean", "median", "p95"), "✓✓✗??", strict=True)
    labels = [label.get_text().rpartition(" ")[0] for label in axes.get_yticklabels()]
    assert labels == [f"Latency, {name}  {symbol}" for name, symbol in names]
    drawn = {marker: [] for marker in "os<>"}
    for line in axes.lines:
        drawn.setdefault(line.get_marker(), []).append(line.get_xdata()[0])
    assert [*drawn["o"], *drawn["s"]] == pytest.approx([0.1, 0.2, 1.0])
    assert drawn["<"] and drawn[">"]
    assert [text.get_text() for text in axes.texts] == ["no interval"]
    sides = [p.get_x() + p.get_width() / 2 > 0 for p in axes.patches]
    assert sides == [True, True, True, True, False, True, False]
    text = plots.overview_figure(shown).text.splitlines()
    assert text == [
        f"Latency: {outcome}: not worse" for outcome in ("PASS", "FAIL", "INCONCLUSIVE")
    ]


@pytest.mark.filterwarnings("ignore:Glyph")  # boxes, as wide
@pytest.mark.parametrize(
    "title",
    ["Latency", "Transactions per second of the whole cluster, against the rest", "漢字" * 40,
     "W" * 300, "\u202e" * 40],
)  # fmt: skip
def test_no_label_of_the_overview_is_clipped(figure_of: Figures, title: str) -> None:
    figure = figure_of(plots.overview_figure, [comparison(title=title), comparison()])
    figure.draw_without_rendering()
    [axes] = figure.axes

    boxes = [label.get_window_extent() for label in [*axes.get_yticklabels(), axes.xaxis.label]]
    assert all(0 <= box.x0 < box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(0 <= box.y0 < box.y1 <= figure.bbox.y1 for box in boxes)
    assert all(below.y1 <= above.y0 for above, below in pairwise(boxes))
    assert axes.get_window_extent().width > 150


def test_a_configured_style_does_not_alter_evidence() -> None:
    import matplotlib as mpl

    def drawn() -> list[object]:
        overview = plots.overview_figure([comparison(), comparison(Outcome.FAIL)])
        return [panels.baseline_figure([series(1, 2)]), overview]

    plain = drawn()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        styled = drawn()
        assert mpl.rcParams["font.size"] == 30

    assert styled == plain


# --- The words and numbers of a figure say what it shows ---


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            series(100, 200, NAN, 300, limits=(500,)),
            "Latency: p5 110 ms, p50 200 ms, p95 290 ms, limit 500 ms; 3 samples, 1 missing, "
            "2026-11-23 13:00:00 to 2026-11-23 13:03:00 UTC",
        ),
        (
            PlotSeries("Queue", "", np.array([START]), {"b": [3], "a": [1], "c": [1]}),
            "Queue: p5 1, p50 1, p95 2.8; 3 samples of 3 series (furthest from their median: b), "
            "0 missing, 2026-11-23 13:00:00 to 2026-11-23 13:00:00 UTC",
        ),
        (
            series(0, 0),
            "Latency: every sample is 0 ms; 2 samples, 0 missing, "
            "2026-11-23 13:00:00 to 2026-11-23 13:01:00 UTC",
        ),
    ],
)
def test_words_say_everything_that_a_panel_shows(made: PlotSeries, said: str) -> None:
    assert series_words(made) == said
    for empty in (series(), series(NAN), PlotSeries("Latency", "ms", NEVER, {})):
        assert series_words(empty).startswith("Latency: no samples, ")


def test_what_the_judge_cannot_give_is_unbounded_or_unknown() -> None:
    known, unknown = (
        Comparison.model_construct(estimate=estimate, interval=ends).change
        for estimate, ends in [(0.1, (None, 0.3)), (None, (0.1, None))]
    )

    assert (known, number(unknown[0])) == ((0.1, -INF, 0.3), "unknown")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"), (1234.5, "1234"), (123456.0, "123,456"), (0.00012345, "0.0001234"),
        (NAN, "unknown"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits_and_letters_do_not_run_out(value: float, said: str) -> None:
    assert number(value) == said
    assert [letter(0), letter(25), letter(26), letter(53)] == ["A", "Z", "A1", "B2"]
