"""Figures show what was measured: gaps, zeros and lone samples included, the same bytes each time."""

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from runbook_lib.metrics import plots
from runbook_lib.metrics.catalogue import Metric
from runbook_lib.metrics.plots import PALETTE, Mark, Panel, Spread, figure, letter, spread
from runbook_lib.wording import number

from .samples import METRIC

NOON = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")
Figures = Callable[..., Any]


def panel(
    *values: float, limit: dict[str, float] | None = None, step: int = 60, **more: Any
) -> Panel:
    """One series of node dev-1."""
    about = {**METRIC, **{key: more.pop(key) for key in ("title", "unit") if key in more}}
    metric = Metric.model_validate({**about, "direction": "either", "limit": limit})
    grid = pd.date_range(NOON, periods=len(values), freq=f"{step}s", unit="ms")
    frame = pd.DataFrame({"{}": np.array(values, dtype=float)}, index=grid)
    return Panel(metric, frame, {}, **more)


def many(count: int, samples: int = 50) -> Panel:
    noise = np.random.default_rng(7).normal(400, 20, (count, samples))
    grid = pd.date_range(NOON, periods=samples, freq="60s", unit="ms")
    frame = pd.DataFrame({f'{{validator="v{i}"}}': noise[i] for i in range(count)}, index=grid)
    return Panel(panel(1).metric, frame, {f"v{i}": f"val-{i:02}" for i in range(count)})


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """The figure that is drawn, before it becomes pixels."""

    def catch(panels: Sequence[Panel], **more: Any) -> Figure:
        found = Figure()

        def png(draw: Callable[[Figure], None], height: float) -> bytes:
            found.set_size_inches(plots.WIDTH, height)
            draw(found)
            return b""

        monkeypatch.setattr(plots, "to_png", png)
        figure(panels, **more)
        return found

    return catch


@pytest.mark.parametrize(
    "made",
    [
        [panel(400, 410, 420, limit={"max": 500})], [panel(0, 0, 0)], [panel(41.5, limit={"max": 60})],
        [panel(NAN, NAN), panel(1, NAN, 3)], [panel()], [panel(1, INF, -5, limit={"min": -1000})],
        [many(25), many(3), panel(1)], [panel(1, 2, baseline=Spread(0.5, 1, 3), reference=1.5)],
        [panel(1, 2, title="$x^2$ \\(y\\) <b> \x1b[31m \u202e 漢字")],
    ],
)  # fmt: skip
def test_every_kind_of_data_gives_one_image_of_800_pixels(made: list[Panel]) -> None:
    once, again = figure(made), figure(made)
    image = Image.open(io.BytesIO(once.png))
    colours = {"#" + bytes(pixel).hex() for _, pixel in image.convert("RGB").getcolors() or []}

    assert once == again
    assert image.width == 800
    assert colours <= set(PALETTE)


def test_a_gap_is_not_bridged_but_under_a_strip_and_a_lone_sample_is_a_dot(drawn: Figures) -> None:
    """The strip covers the missing samples, each from half a step before to half a step after."""
    [line] = drawn([panel(1, NAN, 3, INF, 5)]).axes[0].lines
    assert np.isfinite(line.get_ydata()).tolist() == [True, False, True, False, True]
    assert line.get_marker() == "."

    axes = drawn([panel(1, 2, NAN, NAN, 5)]).axes[0]
    strip = [x for path in axes.collections[-1].get_paths() for x in path.vertices[:, 0]]
    seconds = [round(x * 86400 - NOON.timestamp()) for x in (min(strip), max(strip))]
    assert seconds == [90, 210]


@pytest.mark.parametrize(
    ("limit", "said", "levels"),
    [
        ({"max": 500.0}, "", {500.0}),
        ({"min": 380.0, "max": 480.0}, "", {380.0, 480.0}),
        ({"max": 9000.0}, "limit 9000 ms (above)", set()),
        ({"min": -9000.0}, "limit -9000 ms (below)", set()),
    ],
)
def test_a_far_limit_is_said_instead_of_flattening_the_data(
    drawn: Figures, limit: dict[str, float], said: str, levels: set[float]
) -> None:
    axes = drawn([panel(400, 450, 480, limit=limit)]).axes[0]
    low, high = axes.get_ylim()

    assert axes.get_title(loc="left").splitlines()[1:] == ([said] if said else [])
    shown = {line.get_ydata()[0] for line in axes.lines} & set(limit.values())
    assert {level for level in shown if low <= level <= high} == levels


def test_a_panel_shows_its_baseline_and_says_its_verdict_and_why_it_has_none(
    drawn: Figures,
) -> None:
    band = {"baseline": Spread(390, 400, 410), "reference": 395.0, "verdict": "✓ PASS"}
    beside, alone = drawn([panel(400, 410, **band), panel(1, 2, note="no baseline: lost")]).axes[:2]

    assert (beside.get_title(loc="left"), alone.get_title(loc="left")) == (
        "Latency: ✓ PASS", "Latency\nno baseline: lost",
    )  # fmt: skip
    assert {400, 395.0} <= {line.get_ydata()[0] for line in beside.lines[1:]}
    assert [patch.get_height() for patch in beside.patches] == [20]


def test_axes_name_unit_and_zone_and_leave_room_around_the_data(drawn: Figures) -> None:
    zeros = drawn([panel(0, 0, 0)]).axes[0]
    low, high = drawn([panel(1.0)]).axes[0].get_xlim()

    assert (zeros.get_ylabel(), zeros.get_xlabel()) == ("ms", "time (UTC)")
    assert zeros.get_ylim() == pytest.approx((-0.08, 1.08))
    assert (high - low) * 1440 == pytest.approx(10)  # minutes around a lone instant, not years


@pytest.mark.parametrize("minutes", [2, 61, 179, 241, 299, 400, 2900, 10_080, 43_200, 130_000])
def test_a_window_of_any_length_has_a_readable_axis(drawn: Figures, minutes: int) -> None:
    axes = drawn([panel(1.0, 2.0, 1.5, step=30 * minutes)]).axes[0]

    assert 1 <= len(axes.get_xticks()) <= 9


def test_several_series_are_grey_behind_their_median(drawn: Figures) -> None:
    lines = drawn([many(25)]).axes[0].lines

    assert [line.get_color() for line in lines] == [plots.MANY] * 25 + ["black"]
    assert sorted(many(3).lines) == ["val-00", "val-01", "val-02"]


def test_marks_stand_in_the_figure_and_in_the_words(drawn: Figures) -> None:
    marks = [
        Mark(NOON, "gate on, dev-1"),
        Mark(NOON, "alert Slow", until=NOON + timedelta(seconds=20)),
    ]
    words = [
        "A 2026-11-23 13:00:00 UTC gate on, dev-1",
        "B 2026-11-23 13:00:00 to 2026-11-23 13:00:20 UTC alert Slow",
        "alerts: one",
    ]
    assert figure([panel(1, 2)], marks=marks, note="alerts: one").text.splitlines()[1:] == words
    found = drawn([panel(1, 2)], marks=marks, note="alerts: one")

    assert [text.get_text() for text in found.texts] == ["\n".join(words)]
    letters = [text for text in found.axes[0].texts if text.get_text() in ("A", "B")]
    assert len({label.get_position() for label in letters}) == 2


@pytest.mark.parametrize(
    "title",
    [
        "Latency",
        "Transactions per second of the whole cluster, against the rest " * 3,
        "\u202e" * 40,
    ],
)
def test_no_label_is_clipped(drawn: Figures, title: str) -> None:
    found = drawn([panel(1e6, 2e6, title=title, verdict="✓ PASS"), *[panel(1, 2)] * 4])
    found.draw_without_rendering()

    for axes in found.axes[:5]:
        boxes = [axes._left_title.get_window_extent(), axes.yaxis.label.get_window_extent()]
        assert all(0 <= box.x0 < box.x1 <= found.bbox.x1 for box in boxes), title
        assert all(0 <= box.y0 < box.y1 <= found.bbox.y1 for box in boxes), title


def test_a_configured_style_does_not_alter_evidence() -> None:
    import matplotlib as mpl

    plain = figure([panel(1, 2)])
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        styled = figure([panel(1, 2)])
        assert mpl.rcParams["font.size"] == 30

    assert styled == plain


# --- The words and numbers of a figure say what it shows ---


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            panel(100, 200, NAN, 300, limit={"max": 500}, verdict="✓ PASS", reference=150.0),
            "Latency: ✓ PASS: now 200 ms (110 ms to 290 ms); development 150 ms; limit 500 ms; "
            "3 samples, 1 missing",
        ),
        (
            panel(0, 0, unit="", baseline=Spread(1, 2, 3)),
            "Latency: now 0 (0 to 0); baseline 2 (1 to 3); 2 samples",
        ),
        (panel(NAN, note="no baseline: lost"), "Latency: no samples; no baseline: lost; 0 samples, 1 missing"),
        (panel(), "Latency: no samples; 0 samples"),
    ],
)  # fmt: skip
def test_words_say_everything_that_a_panel_shows(made: Panel, said: str) -> None:
    assert made.text == said
    assert many(3).text.endswith("; 150 samples of 3 series")


def test_a_spread_is_of_what_is_there() -> None:
    assert spread(panel(1, NAN, INF, 3).frame) == pytest.approx((1.1, 2, 2.9))
    assert spread(panel(NAN).frame) is None


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
