"""mainnet.activate.watch: 24 h of looks at most 15 min apart, then the whole window judged once.

The window begins when the journal says that the last node took the gate, and anew at a decision to
restart the watch. A look that was missed is made up from the metrics store and named "seen late".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ..context import Context, judges
from ..errors import SourceError
from ..evidence.order import effect
from ..metrics import baseline as capturing
from ..metrics.baseline import Captured
from ..metrics.catalogue import LOAD, Catalogue, Metric, limit_words, narrow, resolve
from ..metrics.frames import Frame, Stretch, fetch
from ..outcomes import CheckResult, Outcome, Row, check_row, unknown_row
from ..params import MainnetParams
from ..sources.matrix import Matrix
from ..wording import count, utc
from . import quiet
from .anomalies import Anomaly, Body, Log, deadline, known, open_new, patience, reachable
from .baselines import ALERTS, measure, names_of, pinned_before, read_catalogue, restarts

ITEM = "mainnet.activate.watch"
GATE = "mainnet.activate.witness-gate"
HEIGHT = "height in /status/node of every node"
LIVE, LATE = "live", "late"
AGAINST = "against the baseline"


def expected(context: Context) -> tuple[str, str]:
    """What must hold, and its threshold."""
    params: MainnetParams = context.params
    looks = f"looks at most {params.look_minutes:g} min apart"
    return "the cluster is watched and nothing is undecided", f"{params.watch_hours:g} h, {looks}"


@judges(ITEM)
def watch(context: Context) -> CheckResult:
    """Make the looks that are due, engage who must know, and at the end judge the whole window.

    Playbook: mainnet, activation, 3.
    """
    watching = Watching(context)
    rows = watching.look(judge=True)
    hours = f"{context.params.watch_hours:g} h"
    return context.conclude(
        rows,
        passed=f"{hours} watched in {len(watching.all)} looks, nothing left undecided",
        empty="no look",
        data={"anchor": watching.slots.anchor.isoformat(), "end": watching.slots.end.isoformat()},
    )


class Watching:
    """One call of the watch: what it knows, what it looks at, and the rows that follow.

    Raises SourceError when the journal does not say that the gate took effect.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.log = context, Log(context)
        self.catalogue = read_catalogue(context)
        self.metrics = watched(self.catalogue)
        self.effect = effect(context.journal, GATE)
        self.trouble: dict[str, str] = {}
        self.problems: list[Row] = []
        self.judged: list[Row] = []
        self._place()

    @property
    def now(self) -> datetime:
        """The instant to judge ranges at."""
        return self.context.at

    # --- one round ------------------------------------------------------------------------------

    def look(self, *, judge: bool) -> list[Row]:
        """Make what looks are due; with ``judge``, judge the window when it is over. The rows."""
        self.log.refresh()
        self._place()
        self.problems = []
        try:
            self._look()
        except SourceError as error:
            due = ", ".join(f"{slot.at:%H:%M}" for slot in self.missed()[:3])
            self.problems = [self.context.unreadable(f"look of {due}", "an answer", error)]
        self.engage()
        if judge and self.over and not self.missed():
            self._judge()
            self.engage()
        return rows_of(self)

    def engage(self) -> None:
        """Open what was found, tell people, hear them; a decision may begin the window anew."""
        now, queries = self.context.now, {"chain": HEIGHT, **self._queries()}
        for opened in open_new(self.log, self.context.attempt_name, now, queries):
            self._draw(opened)
        if known(self.log):
            from .notification import engage

            self.trouble = engage(self.context, self.log)
        self._place()

    def _draw(self, opened: str) -> None:
        """The figure of an anomaly of a metric: the hours before it, with the limit."""
        from .notification import draw

        anomaly = next(each for each in known(self.log) if each.id == opened)
        name = anomaly.subject.partition(" ")[0]
        metric = next((each for each in self.metrics if each.name == name), None)
        if metric is None:
            return
        try:
            draw(self.context, metric, anomaly)
        except SourceError as error:
            self.problems.append(self.context.unreadable(f"figure of {opened}", "data", error))

    def _place(self) -> None:
        params: MainnetParams = self.context.params
        again = [at for each in known(self.log) if (at := each.restarted) is not None]
        span, apart = timedelta(hours=params.watch_hours), timedelta(minutes=params.look_minutes)
        left_out = restarts(self.context.journal)
        self.slots = Slots.of(max([self.effect, *again]), span, apart, left_out)
        self.all = self.slots.all()

    def _look(self) -> None:
        due = [slot for slot in self.missed() if slot.at <= self.now]
        if not due:
            return
        seen, queries = take(self.context, self.metrics, self.slots, due, self._queries())
        for one in seen:
            self._record(one, queries)

    def _record(self, one: Seen, queries: dict[str, str]) -> None:
        live = self.now - one.slot.at < self.slots.length
        rows, height = list(one.rows), None
        if live and not self.context.params.as_of:
            row, height = self._advancing()
            rows.append(row)
        body: Body = {
            "slot": one.slot.number,
            "at": one.slot.at.isoformat(),
            "made": self.context.now.isoformat(),
            "seen": LIVE if live else LATE,
            "rows": [row.model_dump(mode="json") for row in rows],
            "levels": dict(one.levels),
            "height": height,
            "queries": {n: query for n, query in queries.items() if n not in self._queries()},
        }
        self.log.add("look", self._key(one.slot), body)

    def _advancing(self) -> tuple[Row, int | None]:
        """Whether the highest node is past where the last look saw it: nodes have no past."""
        what = "advances"
        # A look just before may have seen the same block.
        until = self.context.now - 10 * timedelta(milliseconds=self.context.cluster.block_time_ms)
        made = [b for b in self.log.of("look") if datetime.fromisoformat(b["made"]) <= until]
        before = max((body["height"] for body in made if body["height"]), default=0)
        answers = self.context.fleet.status().values()
        heights = [found.height for found in answers if not isinstance(found, SourceError)]
        expected = f"above {before}"
        if not heights:
            return unknown_row("chain height", what, expected, "no node answers"), None
        height = max(heights)
        return check_row("chain height", what, expected, height, height > before), height

    def _judge(self) -> None:
        """Judge the window, once; what could not be told then is asked again, a FAIL stays."""
        stored = self.stored()
        if stored and not _open(self.log.rows_of(stored[-1])):
            return
        self.judged = whole(self.context, self.catalogue, self.slots)
        if _open(self.judged) and all(row.outcome is not Outcome.FAIL for row in self.judged):
            return
        body = {
            "start": self.slots.anchor.isoformat(),
            "at": self.slots.end.isoformat(),
            "rows": [row.model_dump(mode="json") for row in self.judged],
        }
        self.log.add("watched", f"{self._window_key()}/{len(stored) + 1}", body)

    def stored(self) -> list[Body]:
        return [b for b in self.log.of("watched") if b["key"].startswith(self._window_key() + "/")]

    def _window_key(self) -> str:
        return f"{self.slots.anchor.isoformat()}..{self.slots.end.isoformat()}"

    # --- what is known --------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self.now >= self.slots.end

    def due(self) -> datetime | None:
        """When to look, or to see whether somebody answered, next; None when there is no need."""
        recovering = any(e.decided and e.decided.kind == "recover" for e in known(self.log))
        if recovering or self.over or self.context.params.as_of:
            return None
        left = [slot.at for slot in self.all if slot.at > self.now]
        answer = deadline(self.context, self.log)
        return min([*left[:1], *([answer] if answer else [])], default=None)

    def _key(self, slot: Slot) -> str:
        return f"{self.slots.anchor.isoformat()}/{slot.number}"

    def looks(self) -> dict[int, Body]:
        """The looks of this window, by number."""
        keys = {self._key(slot): slot.number for slot in self.all}
        return {keys[b["key"]]: b for b in self.log.of("look") if b["key"] in keys}

    def missed(self) -> list[Slot]:
        made = self.looks()
        return [slot for slot in self.all if slot.number not in made]

    def _queries(self) -> dict[str, str]:
        """By metric, the query that the first look with data asked."""
        found: dict[str, str] = {}
        for body in self.log.of("look"):
            found = {**body["queries"], **found}
        return found


def _open(rows: list[Row]) -> bool:
    return any(row.outcome is Outcome.INCONCLUSIVE for row in rows)


# --- what the watch amounts to --------------------------------------------------------------------


def rows_of(watch: Watching) -> list[Row]:
    """What the watch amounts to now: looks, what lacked data, anomalies, the window."""
    found = [reachable(watch.context), *watch.problems, _made(watch), *_unseen(watch)]
    anomalies = known(watch.log)
    within = patience(watch.context)
    for each in anomalies:
        late = each.escalated(watch.context.now, within)
        found += each.rows(watch.trouble.get(each.id, ""), escalated=late)
    return [*found, *_window(watch, anomalies)]


def _made(watch: Watching) -> Row:
    looks = watch.looks().values()
    late = [_clock(body) for body in looks if body["seen"] == LATE]
    expected = f"one every {watch.slots.length / timedelta(minutes=1):g} min"
    got = f"{len(looks)} of {len(watch.all)} made"
    if late:
        more = f" and {len(late) - 4} more" if len(late) > 4 else ""
        got += f", {len(late)} seen late ({', '.join(late[:4])}{more})"
    return check_row("looks", "made", expected, got, ok=True)


def _unseen(watch: Watching) -> Iterator[Row]:
    """One row for each thing of which looks had no data."""
    found: dict[str, list[tuple[str, Row]]] = {}
    for body in watch.looks().values():
        for row in watch.log.rows_of(body):
            if row.outcome is Outcome.INCONCLUSIVE:
                found.setdefault(row.subject, []).append((_clock(body), row))
    for subject, lacking in found.items():
        at, row = lacking[0]
        more = f" and at {count(len(lacking) - 1, 'more look')}" if len(lacking) > 1 else ""
        problem = f"{row.observed} at {at}{more}"
        yield unknown_row(subject, "data at every look", row.expected, problem)


def _clock(body: Body) -> str:
    return f"{datetime.fromisoformat(body['at']):%H:%M}"


def _window(watch: Watching, anomalies: Sequence[Anomaly]) -> list[Row]:
    start, end = watch.slots.anchor, watch.slots.end
    what, expected = "watched", f"over at {utc(end)}"
    begun = f"since {utc(start)}" + (" (restarted)" if start > watch.effect else "")
    if not watch.over:
        due = watch.due() or end
        return [unknown_row("window", what, expected, f"still open, {begun}", return_at=due)]
    if watch.missed():
        return [unknown_row("window", what, expected, "looks are missing")]
    judged = _judgement(watch)
    if not judged:
        text = "over, not judged yet: runbook run mainnet --continue"
        return [unknown_row("window", what, expected, text, return_at=watch.now)]
    # What is an anomaly has its own row already.
    told = {each.subject for each in anomalies}
    shown = [r for r in judged if r.outcome is not Outcome.FAIL or r.subject not in told]
    return [*shown, check_row("window", what, expected, begun, ok=True)]


def _judgement(watch: Watching) -> list[Row]:
    """What the window was last judged to be, with every FAIL of a judgement before."""
    stored = watch.stored()
    last = watch.judged or (watch.log.rows_of(stored[-1]) if stored else [])
    failing = {row.subject for row in last if row.outcome is Outcome.FAIL}
    earlier = [row for body in stored[:-1] for row in watch.log.rows_of(body)]
    kept = [r for r in earlier if r.outcome is Outcome.FAIL and r.subject not in failing]
    return [*last, *kept]


# --- the whole window -----------------------------------------------------------------------------


def whole(context: Context, catalogue: Catalogue, slots: Slots) -> list[Row]:
    """Rows over the window: every point against the limits with coverage, pages, the comparison.

    What cannot be read is a row as well.
    """
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


def _quiet(context: Context, start: datetime, end: datetime) -> list[Row]:
    """Covered, without a page, a silence or a halt; alerts under the name that looks give them."""
    over = quiet.window(context, start, end)
    looks = (quiet.coverage, quiet.silences, quiet.halts)
    rows = [row for seen in quiet.look(over, *looks) for row in seen.rows()]
    for row in [row for seen in quiet.look(over, quiet.pages) for row in seen.rows()]:
        failed = row.outcome is Outcome.FAIL
        rows.append(row.model_copy(update={"subject": subject_of(row.subject)}) if failed else row)
    return rows


def _limits(captured: Captured, slots: Slots, max_missing: float) -> list[Row]:
    from ..metrics.compare import cut

    metric, frame = captured.metric, captured.frame
    what, expected = "over the whole window", limit_words(captured.metric)
    if frame.partial or not frame.labels:
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
        worst = shown(_worst(metric, values[np.isfinite(values)]))
        rows.append(check_row(metric.name, what, expected, worst, ok=True, unit=metric.unit))
    return rows


def _compared(context: Context, catalogue: Catalogue, slots: Slots) -> list[Row]:
    """Each critical metric of the watch against what the gate's change pinned before its first step.

    As in the other comparisons: what is not critical is judged by its limit and coverage alone.
    """
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


# --- A look of the watch: what the metrics store says of the minutes since the look before ---

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
    if matrix.warnings:
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
