"""The whole window of a watch, judged once: limits, pages, and metrics against the pinned baseline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..context import Context
from ..errors import SourceError
from ..files import replace_file
from ..metrics.catalogue import Catalogue, Metric
from ..outcomes import Outcome, Row, check_row, unknown_row
from . import lookout, quiet
from .anomalies import Anomaly
from .engaging import figure_name
from .looks import TOPICS, Slots, beyond, limit_words, shown, subject_of
from .marks import restarts
from .pinning import measure, names_of, pinned_before

if TYPE_CHECKING:
    from ..metrics.baseline import Captured

GATE = "mainnet.activate.witness-gate"
SHOWN_BEFORE = timedelta(hours=3)
AGAINST = "against the baseline"


def whole(context: Context, catalogue: Catalogue, slots: Slots) -> list[Row]:
    """Rows over the window: every point against the limits with coverage, pages, the comparison.

    What cannot be read is a row as well.
    """
    from ..metrics import baseline as capturing

    start, end = slots.anchor, slots.end
    captured, rows = capturing.capture(
        context.prometheus, catalogue, TOPICS, context.matchers, start, end
    )
    for one in captured:
        rows += _limits(one, slots, context.params.max_missing)
    rows += _quiet(context, start, end)
    try:
        return rows + _compared(context, catalogue, slots)
    except SourceError as error:
        expected = "pinned before the activation"
        return [*rows, context.unreadable("comparison", expected, error)]


def draw(context: Context, metric: Metric, anomaly: Anomaly, folder: Path) -> None:
    """The figure of an anomaly: its metric over the hours before it. Raises SourceError."""
    from ..metrics import baseline as capturing
    from ..metrics.frames import fetch

    start, step = anomaly.at - SHOWN_BEFORE, capturing.STEP
    frame = fetch(context.prometheus, anomaly.query, start, anomaly.at, step)
    names = {node.validator: node.name for node in context.cluster.nodes}
    drawn = capturing.draw({metric.name: frame.values}, Catalogue(metrics=[metric]), names)
    folder.mkdir(exist_ok=True)
    replace_file(folder / figure_name(anomaly), drawn.png)


def _quiet(context: Context, start: datetime, end: datetime) -> list[Row]:
    """Covered, without a page, a silence or a halt; alerts under the name that looks give them."""
    over = lookout.window(context, start, end)
    looks = (quiet.coverage, quiet.silences, quiet.halts)
    rows = [row for seen in lookout.look(over, *looks) for row in seen.rows()]
    for row in [row for seen in lookout.look(over, quiet.pages) for row in seen.rows()]:
        failed = row.outcome is Outcome.FAIL
        rows.append(row.model_copy(update={"subject": subject_of(row.subject)}) if failed else row)
    return rows


def _limits(captured: Captured, slots: Slots, max_missing: float) -> list[Row]:
    import numpy as np

    from ..metrics.compare import cut

    metric, frame = captured.metric, captured.frame
    what, expected = "over the whole window", limit_words(captured.metric)
    if frame.partial or not frame.tallies:
        problem = frame.warnings[0] if frame.partial else "no series"
        return [unknown_row(metric.name, what, expected, problem)]
    values = cut(frame.values, slots.left_out).to_numpy()
    rows = []
    lost = float((~np.isfinite(values)).mean(axis=0).max()) if values.size else 1.0
    if lost > max_missing:
        got = f"{lost:.1%} of {len(values)} points missing, more than {max_missing:.0%}"
        rows.append(unknown_row(metric.name, what, expected, got))
    wrong = beyond(metric, values)
    if wrong is not None:
        rows.append(check_row(metric.name, what, expected, wrong, ok=False, unit=metric.unit))
    if not rows:
        worst = _worst(metric, values[np.isfinite(values)])
        rows.append(check_row(metric.name, what, expected, worst, ok=True, unit=metric.unit))
    return rows


def _worst(metric: Metric, values: Sequence[float]) -> float:
    return shown(min(values) if metric.direction == "higher" else max(values))


def _compared(context: Context, catalogue: Catalogue, slots: Slots) -> list[Row]:
    """Each critical metric of the watch against what the gate's change pinned before its first step.

    As in the other comparisons: what is not critical is judged by its limit and coverage alone.
    """
    from ..metrics.catalogue import LOAD
    from ..metrics.compare import compare

    found = pinned_before(context, context.journal, GATE)
    critical = [m for m in catalogue.metrics if m.topic in TOPICS and m.critical]
    wanted = [*critical, *(m for m in catalogue.metrics if m.topic == LOAD)]
    names = {metric.name for metric in wanted}
    queries = {name: query for name, query in found.queries.items() if name in names}
    frames = {name: frame for name, frame in found.frames.items() if name in names}
    before = type(found)(found.about, queries, frames)
    compared = compare(
        catalogue,
        before,
        measure(context, before, critical, slots.anchor, slots.end),
        max_missing=context.params.max_missing,
        names=names_of(context),
        restarts=restarts(context.journal),
    )
    what = "no worse"
    lacking = [
        unknown_row(f"{metric.name} {AGAINST}", what, "a baseline", "none of it was pinned")
        for metric in critical
        if metric.name not in queries
    ]
    return lacking + [
        check_row(f"{each.metric.name} {AGAINST}", what, each.row()[3], each.reason, each.outcome)
        for each in compared
    ]
