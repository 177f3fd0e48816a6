"""What happened around a window, as annotations of its figure: changes, restarts, alerts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..context import Context
from ..errors import SourceError
from ..evidence.events import Event, NodeVerified, of
from ..findings import unread
from ..metrics.baseline import SETTLE
from ..metrics.frames import STEP, Stretch
from ..wording import count
from .baselines import ALERTS, firing, restarts

if TYPE_CHECKING:
    from ..metrics.panels import Mark
    from ..sources.matrix import Series


MOST = 12
"""Marks drawn; more would hide the lines."""


def happened(context: Context, start: datetime, end: datetime) -> tuple[list[Mark], str]:
    """Marks in time order, and what they cannot say: no alerts, alerts unknown, or more of them.

    A change that ended shortly before ``start`` is marked too, as it made the window what it is.
    """
    marks = changes(context, start - 2 * SETTLE, end)
    marks += planned(context.journal, start, end)
    fired, problem = list["Mark"](), list[str]()
    with unread(lambda error: problem.append(f"alerts: unknown: {error.problem}")):
        found = context.prometheus.range(ALERTS, start, end, STEP)
        fired = alerts(found, context.matchers, context.site.telemetry.watchdog)
    if problem:
        return marks, problem[0]
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


def alerts(found: Sequence[Series], matchers: Mapping[str, str], watchdog: str) -> list[Mark]:
    """Stretches in which an alert of this cluster fired, series of one name together.

    An alert without the cluster's labels may be this cluster's, and is marked. Raises SourceError
    when the alert that always fires is not among them: then none proves nothing.
    """
    from ..metrics.panels import Mark

    instants = firing(found, matchers)
    if not any(name == watchdog for name, _ in instants):
        raise SourceError("prometheus", f"expected {watchdog} to fire, got nothing of it")
    return [
        Mark(begun, f"alert {name} ({severity or 'no severity'})", over)
        for (name, severity), times in instants.items()
        if name != watchdog
        for begun, over in _stretches(sorted(times), STEP)
    ]


def _stretches(times: Iterable[int], step: timedelta) -> list[Stretch]:
    """Runs of instants (ms since 1970) no more than a step apart, each up to a step after its last."""
    found: list[Stretch] = []
    for at in (datetime.fromtimestamp(time / 1000, UTC) for time in times):
        if found and at <= found[-1][1]:
            found[-1] = found[-1][0], at + step
        else:
            found.append((at, at + step))
    return found
