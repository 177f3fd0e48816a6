"""A look of the watch: what the metrics store says of the minutes since the look before.

The store answers for any instant, so that a look that was missed is made up from it later and sees
the same. One range query a metric covers all looks that are due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..context import Context
from ..errors import SourceError
from ..metrics.catalogue import Catalogue, Metric, limit_words, narrow, resolve
from ..outcomes import Outcome, Row, check_row, unknown_row
from .baselines import ALERTS, Stretch

if TYPE_CHECKING:
    from ..metrics.frames import Frame
    from ..sources.matrix import Matrix

TOPICS = (
    "consensus_latency",
    "proof_latency",
    "vrf_participation",
    "finality_lag",
    "block_production",
    "telemetry_freshness",
)
SHOWN = ("vrf_participation", "proof_latency")
"""Metrics of which a status line tells the level."""
NO_PAGE = "alerts that page"


@dataclass(frozen=True)
class Slot:
    """The time a look covers: after ``start``, up to ``at``; ``number`` counts from 1."""

    number: int
    start: datetime
    at: datetime


@dataclass(frozen=True)
class Slots:
    """The looks of a window: ``length`` apart, sampled every ``step``, the last at its end.

    None lies in a planned restart (``left_out``).
    """

    anchor: datetime
    end: datetime
    length: timedelta
    step: timedelta
    left_out: tuple[Stretch, ...] = ()

    @classmethod
    def of(
        cls, anchor: datetime, span: timedelta, apart: timedelta, left_out: Sequence[Stretch]
    ) -> Slots:
        """Prometheus is asked in milliseconds, and every look must be an instant it is asked of."""
        ms = timedelta(milliseconds=1)
        start = (
            datetime.fromtimestamp(0, UTC) + (anchor - datetime.fromtimestamp(0, UTC)) // ms * ms
        )
        points = -(-apart // timedelta(minutes=1))
        step = apart // points // ms * ms
        count = -(-span // (step * points))
        end = start + step * points * count
        return cls(start, end, step * points, step, tuple(left_out))

    def all(self) -> list[Slot]:
        count = (self.end - self.anchor) // self.length
        ends = [self.anchor + self.length * number for number in range(count + 1)]
        return [
            Slot(number, ends[number - 1], ends[number])
            for number in range(1, count + 1)
            if not any(start <= ends[number] < over for start, over in self.left_out)
        ]


@dataclass(frozen=True)
class Seen:
    """What a look found: its rows, and by metric the level at its instant."""

    slot: Slot
    rows: tuple[Row, ...]
    levels: Mapping[str, float]


def subject_of(alert: str) -> str:
    return f"alert {alert}"


def watched(catalogue: Catalogue) -> list[Metric]:
    """The metrics of a watch. Raises ParameterError for a topic that has none."""
    return [metric for topic in TOPICS for metric in catalogue.of_topic(topic)]


def take(
    context: Context,
    metrics: Sequence[Metric],
    slots: Slots,
    due: Sequence[Slot],
    known: Mapping[str, str],
) -> tuple[list[Seen], dict[str, str]]:
    """The looks that are ``due``, and by metric the query that has data.

    ``known`` are those of earlier looks: a watch asks one query of a metric all along. Raises SourceError when the store does not answer: then there was no look.
    """
    from ..metrics.frames import fetch

    first, last = due[0].start + slots.step, due[-1].at
    alerts = context.prometheus.range(ALERTS, first, last, slots.step)
    found: dict[str, tuple[Frame, str]] = {}
    for metric in metrics:
        query = known.get(metric.name) or query_of(context, metric, last)
        found[metric.name] = fetch(context.prometheus, query, first, last, slots.step), query
    seen = []
    for slot in due:
        rows, levels = alert_rows(context, alerts, slot.start, slot.at, slots.step), {}
        for metric in metrics:
            row, level = limit_of(metric, found[metric.name][0], slot, slots)
            rows.append(row)
            if level is not None and metric.name in SHOWN:
                levels[metric.name] = level
        seen.append(Seen(slot, tuple(rows), levels))
    return seen, {name: query for name, (frame, query) in found.items() if frame.labels}


def query_of(context: Context, metric: Metric, at: datetime) -> str:
    """The candidate that has data; without any, the first: its emptiness is what is seen then."""
    try:
        return resolve(context.prometheus, metric, context.matchers, at).query
    except SourceError as error:
        if ": no candidate has data: " not in error.problem:
            raise
        return narrow(metric, context.matchers)[0]


def limit_of(metric: Metric, frame: Frame, slot: Slot, slots: Slots) -> tuple[Row, float | None]:
    """A metric's row, and its level: the worst of its series at the look's instant."""
    import numpy as np
    import pandas as pd

    what, expected = "level since the look before", limit_words(metric)
    if frame.partial:
        return unknown_row(metric.name, what, expected, frame.warnings[0]), None
    values = frame.values
    inside = (values.index > pd.Timestamp(slot.start)) & (values.index <= pd.Timestamp(slot.at))
    for begun, over in slots.left_out:
        inside &= ~((values.index >= begun) & (values.index < over))
    part = values[inside].to_numpy()
    if not part.size:
        return unknown_row(metric.name, what, expected, "no data"), None
    unit = metric.unit
    wrong = beyond(metric, part)
    if wrong is not None:
        return check_row(metric.name, what, expected, wrong, ok=False, unit=unit), None
    last = part[-1]
    if not np.isfinite(last).all():
        missing = f"no data of {(~np.isfinite(last)).sum()} of {last.size} series"
        return unknown_row(metric.name, what, expected, missing), None
    level = shown(_worst(metric, last))
    return check_row(metric.name, what, expected, level, ok=True, unit=unit), level


def beyond(metric: Metric, values: Any) -> float | None:
    """The value of an array that is farthest beyond the metric's limit; None for none."""
    import numpy as np

    limit, finite = metric.limit, values[np.isfinite(values)]
    if limit is None:
        return None
    high = finite[finite > limit.max] if limit.max is not None else finite[:0]
    low = finite[finite < limit.min] if limit.min is not None else finite[:0]
    if len(high):
        return shown(high.max())
    return shown(low.min()) if len(low) else None


def _worst(metric: Metric, values: Any) -> float:
    return float(values.min() if metric.direction == "higher" else values.max())


def shown(value: Any) -> float:
    """Six digits: what a person reads, the same on every machine."""
    return float(f"{float(value):.6g}")


def alert_rows(
    context: Context, matrix: Matrix, start: datetime, end: datetime, step: timedelta
) -> list[Row]:
    """A row for every paging alert that fired in (start, end], else one that says there was none.

    None proves nothing unless the alert that always fires was there, at the end and at all but
    ``max_missing`` of the instants. An alert without the cluster's labels may be this cluster's.
    """
    telemetry, expected = context.site.telemetry, "none firing"
    if matrix.partial:
        return [unknown_row(NO_PAGE, "firing", expected, matrix.warnings[0])]
    pages = {*context.params.paging_severities, *telemetry.paging_severities}
    epoch, ms = datetime.fromtimestamp(0, UTC), timedelta(milliseconds=1)
    first, last = (start - epoch) // ms, (end - epoch) // ms
    control: set[int] = set()
    firing: dict[tuple[str, str], int] = {}
    for series in matrix.series:
        labels = series.labels
        if any(labels.get(label, want) != want for label, want in context.matchers.items()):
            continue
        times = series.times[(series.times > first) & (series.times <= last)].tolist()
        name, severity = labels.get("alertname", ""), labels.get("severity", "")
        if name == telemetry.watchdog:
            control.update(times)
        elif severity in pages and times:
            key = name, severity
            firing[key] = min(firing.get(key, times[0]), times[0])
    rows = [
        check_row(
            subject_of(name),
            "firing",
            expected,
            f"{severity}, from {epoch + ms * since:%Y-%m-%d %H:%M:%S} UTC",
            ok=False,
        )
        for (name, severity), since in sorted(firing.items())
    ]
    points = (end - start) // step
    lacking = points - len(control)
    if last not in control or lacking > max(context.params.max_missing * points, 1):
        problem = f"{telemetry.watchdog} was missing at {lacking} of {points} instants"
        rows.append(unknown_row(NO_PAGE, "firing", expected, problem))
    elif not firing:
        got = f"none, {telemetry.watchdog} was there"
        rows.append(check_row(NO_PAGE, "firing", expected, got, Outcome.PASS))
    return rows
