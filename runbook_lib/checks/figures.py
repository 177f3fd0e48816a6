"""The figures of a stage: metrics beside their baselines, and what happened meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from ..context import Context
from ..errors import SourceError, tried
from ..evidence.events import Event, NodeVerified, RunEnded, of
from ..files import keep_file
from ..metrics.baseline import SETTLE, Measured
from ..metrics.catalogue import Metric
from ..metrics.frames import Flags, Stretch, fetch
from ..outcomes import worst
from ..playbook import BASELINE_TOPICS
from ..wording import count, outcome_word, utc
from .baselines import (
    capture,
    concerns,
    data_of,
    names_of,
    pinned,
    pinned_before,
    read_catalogue,
    restarts,
)

if TYPE_CHECKING:
    from ..metrics.plots import Drawn, Mark


ALERTS = 'ALERTS{alertstate="firing"}'
MOST = 12
"""Marks drawn; more would hide the lines."""
BASELINE = "development.activate.baseline"
FIRST = "no baseline: this window is pinned as the first one"


def stage_figure(
    context: Context, item: str, window: Stretch, *topics: str, change: str = ""
) -> Drawn:
    """Metrics of ``topics`` and the playbook's three over a window, as ``item`` judged them.

    Beside what ``change`` pinned before its first step and the level that development pinned; a
    panel says why it has no baseline. Raises SourceError.
    """
    from ..metrics.plots import spread

    results = [event.result for event in of(context.journal, RunEnded) if event.item == item]
    rows = results[-1].rows if results else ()
    before = tried(pinned_before, context, context.journal, change) if change else None
    level = tried(_development, context) if change else None

    def beside(name: str, query: str) -> dict[str, Any]:
        band, note = None, FIRST
        if isinstance(before, SourceError):
            note = f"no baseline: {before.problem}"
        elif before is not None and before.queries.get(name) != query:
            note = "no baseline: not measured before, or by another query"
        elif before is not None:
            band, note = spread(before.frames[name]), ""
        usual = level.frames.get(name) if isinstance(level, Measured) else None
        found = spread(usual) if usual is not None else None
        judged = [row.outcome for row in rows if row.subject.partition(" ")[0] == name]
        verdict = outcome_word(worst(judged)) if judged else "not judged here"
        reference = found.p50 if found is not None else None
        return {"baseline": band, "reference": reference, "verdict": verdict, "note": note}

    metrics = read_catalogue(context).of_topic(*dict.fromkeys((*topics, *BASELINE_TOPICS)))
    return draw(context, f"figures/{context.stage}.png", metrics, window, beside)


def _development(context: Context) -> Measured:
    """What the newest attempt at development pinned. Raises SourceError."""
    attempts = context.ledger.attempts(context.params.release, "development", RunEnded)
    found = [data for _, events in attempts for data in data_of(events, BASELINE)]
    return pinned(context, found[-1] if found else None, BASELINE)


def draw(
    context: Context,
    file: str,
    metrics: Sequence[Metric],
    window: Stretch,
    beside: Callable[[str, str], Mapping[str, Any]] = lambda name, query: {},
    *,
    marks: Sequence[Mark] = (),
    note: str = "",
) -> Drawn:
    """A panel a metric over a window, with what happened in it; kept as a file of the attempt.

    A metric without data is named under the panels. Raises SourceError when none has any.
    """
    from ..metrics.plots import Panel, figure

    if window[1] <= window[0]:
        raise SourceError("the figure", f"its window begins at {utc(window[0])}; draw it later")
    made, missing = capture(context, metrics, *window)
    if not made.frames:
        raise SourceError("the figure", f"{missing[0].subject}: {missing[0].observed}")
    names = names_of(context)
    panels = [
        Panel(metric, made.frames[name], names, **beside(name, made.queries[name]))
        for metric in metrics
        if (name := metric.name) in made.frames
    ]
    found, said = happened(context, *window)
    notes = [said, note, *(f"{row.subject}: no data" for row in missing)]
    drawn = figure(panels, marks=[*marks, *found], note="; ".join(filter(None, notes)))
    keep_file(context.folder, file, drawn.png)
    return drawn


# --- What happened around a window: changes, restarts, alerts ---


def happened(context: Context, start: datetime, end: datetime) -> tuple[list[Mark], str]:
    """Marks in time order, and what they cannot say: no alerts, alerts unknown, or more of them.

    A change that ended shortly before ``start`` is marked too, as it made the window what it is.
    """
    marks = changes(context, start - 2 * SETTLE, end) + planned(context.journal, start, end)
    fired = tried(alerts, context, start, end)
    if isinstance(fired, SourceError):
        return marks, f"alerts: unknown: {fired.problem}"
    marks = sorted([*marks, *fired], key=lambda mark: (mark.time, mark.label))
    more = len(marks) - MOST
    left = f"{count(more, 'later mark')} not drawn" if more > 0 else ""
    return marks[:MOST], left if fired else "alerts: none fired"


def planned(journal: Sequence[Event], start: datetime, end: datetime) -> list[Mark]:
    """Planned restarts in the window; those that overlap, such as a wave's, are one mark."""
    from ..metrics.plots import Mark

    found: list[Stretch] = []
    for begun, over in sorted((max(a, start), min(b, end)) for a, b in restarts(journal)):
        if begun < over and found and begun <= found[-1][1]:
            found[-1] = (found[-1][0], max(over, found[-1][1]))
        elif begun < over:
            found.append((begun, over))
    return [Mark(begun, "planned restarts, left out", over) for begun, over in found]


def changes(context: Context, start: datetime, end: datetime) -> list[Mark]:
    """Where the journal says that a change took effect, with the gates that the plan turned."""
    from ..metrics.plots import Mark

    effects: dict[str, dict[str, datetime]] = {}
    for event in of(context.journal, NodeVerified):
        effects.setdefault(event.item, {})[event.node] = event.at
    return [
        Mark(at, f"{item}, last of {count(len(nodes), 'node')}{_gates(context, item)}")
        for item, nodes in effects.items()
        if start <= (at := max(nodes.values())) <= end
    ]


def _gates(context: Context, item: str) -> str:
    """Which gates the plan turns in ``item``: ``: witness_network on``; empty for none."""
    turned = {
        f"{key.rpartition('.')[2]} {'on' if after else 'off'}"
        for phase in (context.plan.of(item) if context.plan else ())
        for node in phase.nodes
        for key, _, after in node.changes()
        if key.startswith("rollout.feature_gates.")
    }
    return f": {', '.join(sorted(turned))}" if turned else ""


def alerts(context: Context, start: datetime, end: datetime) -> list[Mark]:
    """Stretches in which an alert of this cluster fired, series of one name together.

    An alert without the cluster's labels may be this cluster's, and is marked. Raises SourceError
    when the alert that always fires is not among them: then none proves nothing.
    """
    from ..metrics.plots import Mark

    watchdog, fired = context.site.telemetry.watchdog, dict[str, Flags]()
    frame = fetch(context.prometheus, ALERTS, start, end)
    for labels, values in frame.series:
        if concerns(labels, context.matchers):
            name = f"{labels.get('alertname', '')} ({labels.get('severity') or 'no severity'})"
            fired[name] = fired.get(name, np.zeros(len(values), bool)) | ~np.isnan(values)
    always = [name for name in fired if name.startswith(f"{watchdog} (")]
    if not always:
        raise SourceError("prometheus", f"expected {watchdog} to fire, got nothing of it")
    return [
        Mark(begun, f"alert {name}", over)
        for name, flags in fired.items()
        if name not in always
        for begun, over in frame.runs(flags)
    ]
