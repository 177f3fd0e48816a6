"""What happened around a window, as annotations of its figure: changes, restarts, alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from ..context import Context
from ..errors import SourceError, tried
from ..evidence.events import Event, NodeVerified, of
from ..metrics.baseline import SETTLE
from ..metrics.frames import Flags, Stretch, fetch
from ..wording import count
from .baselines import concerns, restarts

if TYPE_CHECKING:
    from ..metrics.panels import Mark


ALERTS = 'ALERTS{alertstate="firing"}'
MOST = 12
"""Marks drawn; more would hide the lines."""


def happened(context: Context, start: datetime, end: datetime) -> tuple[list[Mark], str]:
    """Marks in time order, and what they cannot say: no alerts, alerts unknown, or more of them.

    A change that ended shortly before ``start`` is marked too, as it made the window what it is.
    """
    marks = changes(context, start - 2 * SETTLE, end)
    marks += planned(context.journal, start, end)
    fired = tried(alerts, context, start, end)
    if isinstance(fired, SourceError):
        return marks, f"alerts: unknown: {fired.problem}"
    marks = sorted([*marks, *fired], key=lambda mark: (mark.time, mark.label))
    if not fired:
        return marks[:MOST], "alerts: none fired"
    more = len(marks) - MOST
    return marks[:MOST], f"{count(more, 'later mark')} not drawn" if more > 0 else ""


def planned(journal: Sequence[Event], start: datetime, end: datetime) -> list[Mark]:
    """Planned restarts in the window; those that overlap, such as a wave's, are one mark."""
    from ..metrics.panels import Mark

    seen = sorted((max(begun, start), min(over, end)) for begun, over in restarts(journal))
    waves: list[list[Stretch]] = []
    for begun, over in seen:
        if begun < over and waves and begun <= max(over for _, over in waves[-1]):
            waves[-1].append((begun, over))
        elif begun < over:
            waves.append([(begun, over)])
    return [
        Mark(
            wave[0][0],
            f"{count(len(wave), 'planned restart')}, left out",
            max(over for _, over in wave),
        )
        for wave in waves
    ]


def changes(context: Context, start: datetime, end: datetime) -> list[Mark]:
    """Where the journal says that a change took effect, with the gates that the plan turned."""
    from ..metrics.panels import Mark

    effects: dict[str, dict[str, datetime]] = {}
    for event in of(context.journal, NodeVerified):
        effects.setdefault(event.item, {})[event.node] = event.at
    return [
        Mark(
            max(nodes.values()),
            f"{item}, last of {count(len(nodes), 'node')}{_gates(context, item)}",
        )
        for item, nodes in effects.items()
        if start <= max(nodes.values()) <= end
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
    from ..metrics.panels import Mark

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
