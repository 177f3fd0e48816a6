"""mainnet.activate.watch: 24 h of looks at most 15 min apart, then the whole window judged once.

The window begins when the journal says that the last node took the gate, and anew at a decision to
restart the watch. A look that was missed is made up from the metrics store and named "seen late".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..context import Context
from ..errors import SourceError, tried
from ..evidence.events import AnomalyOpened, Looked, WindowJudged
from ..evidence.status import effect
from ..metrics import baseline as capturing
from ..metrics.catalogue import Catalogue, Metric, NoData, limit_words, narrow, resolve
from ..metrics.frames import STEP, Floats, Frame, Stretch
from ..outcomes import CheckResult, Outcome, Row
from ..params import MainnetParams
from ..sources.matrix import Partial
from ..wording import count, utc
from . import quiet
from .baselines import measure, names_of, pinned_before, read_catalogue, restarts
from .epochs import Span
from .watch_log import WatchLog, patience, reachable

if TYPE_CHECKING:
    from .anomalies import Anomaly

T = TypeVar("T")
ITEM = "mainnet.activate.watch"
GATE = "mainnet.activate.witness-gate"
HEIGHT = "height in /status/node of every node"
LATE = "late"
AGAINST = "against the baseline"


def watched(context: Context) -> CheckResult:
    """What ``mainnet.activate.watch`` amounts to now."""
    watching = Watching(context)
    watching.look(judge=True)
    hours = f"{context.params.watch_hours:g} h"
    return context.conclude(
        passed=f"{hours} watched in {len(watching.all)} looks, nothing left undecided",
        data={"anchor": watching.slots.anchor.isoformat(), "end": watching.slots.end.isoformat()},
    )


class Watching:
    """One call of the watch: what it knows, what it looks at, and the findings that follow.

    Raises SourceError when the journal does not say that the gate took effect.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.log = context, WatchLog(context)
        self.catalogue = read_catalogue(context)
        self.metrics = self.catalogue.of_topic(*TOPICS)
        self.effect = effect(context.journal, GATE)
        self.trouble: dict[str, str] = {}
        self.judged: list[Row] = []
        self._place()

    # --- one round ------------------------------------------------------------------------------

    def look(self, *, judge: bool) -> None:
        """Make what looks are due; with ``judge``, judge the window when it is over."""
        self.log.refresh()
        self._place()
        with self.context.apart() as problems:
            failed = tried(self._look)
            if isinstance(failed, SourceError):
                due = ", ".join(f"{slot.end:%H:%M}" for slot in self.missed()[:3])
                self.context.judge(failed.source, f"look of {due}", "an answer", failed)
            self.engage()
            if judge and self.over and not self.missed():
                self._judge()
                self.engage()
        reachable(self.context)
        self.context.findings += problems
        judge_watch(self)

    def engage(self) -> None:
        """Open what was found, tell people, hear them; a decision may begin the window anew."""
        if not any(_failing(each.rows) for each in self.log.judged()):
            return
        from .anomalies import engage

        queries = {"chain": HEIGHT, **self._queries()}
        self.trouble = engage(self.context, self.log, self.metrics, queries)
        self._place()

    @property
    def anomalies(self) -> list[Anomaly]:
        """Those of the attempt; what deals with them is loaded where there are any."""
        if not self.log.of(AnomalyOpened):
            return []
        from .anomalies import known

        return known(self.log)

    def _place(self) -> None:
        params: MainnetParams = self.context.params
        again = [at for each in self.anomalies if (at := each.restarted) is not None]
        span, apart = timedelta(hours=params.watch_hours), timedelta(minutes=params.look_minutes)
        left_out = restarts(self.context.journal)
        self.slots = Slots.of(max([self.effect, *again]), span, apart, left_out)
        self.all = self.slots.all()

    def _look(self) -> None:
        """Log the looks that are due. A look of one query all along; live ones see nodes too."""
        context, asked = self.context, self._queries()
        due = [slot for slot in self.missed() if slot.end <= context.at]
        if not due:
            return
        over = quiet.Window(context, due[0].start + STEP, due[-1].end, self.slots.left_out)
        _whole(lambda: over.firing)
        queries, frames = dict[str, str](), dict[str, Frame | Partial]()
        for metric in self.metrics:
            query = asked.get(metric.name) or query_of(context, metric, over.end)
            frame = frames[metric.name] = _whole(partial(over.read, query, narrow=False))
            if metric.name not in asked and isinstance(frame, Frame) and frame.labels:
                queries[metric.name] = query
        for slot in due:
            live, height = context.at - slot.end < self.slots.length, None
            part = replace(over, start=slot.start, end=slot.end, within=over)
            with context.apart() as rows:
                quiet.judge(part, quiet.watchdog, _pages)
                levels = {
                    metric.name: level
                    for metric in self.metrics
                    if (level := _look_at(context, metric, frames[metric.name], slot)) is not None
                }
                if live and not context.params.as_of:
                    height = self._advancing()
            look = Looked(
                key=self._key(slot),
                slot=int(slot.name),
                at=slot.end,
                made=context.now,
                seen="live" if live else "late",
                rows=tuple(rows),
                levels={name: levels[name] for name in SHOWN if name in levels},
                height=height,
                queries=queries,
            )
            self.log.add(look)

    def _advancing(self) -> int | None:
        """Whether the highest node is past where the last look saw it: nodes have no past."""
        # A look just before may have seen the same block.
        until = self.context.now - 10 * timedelta(milliseconds=self.context.cluster.block_time_ms)
        made = [look for look in self.log.of(Looked) if look.made <= until]
        before = max((look.height for look in made if look.height), default=0)
        heights = [found.height for found in self.context.fleet.status().known.values()]
        height, got = max(heights, default=None), max(heights, default="no node answers")
        outcome = Outcome.INCONCLUSIVE if height is None else height > before
        self.context.judge("chain height", "advances", f"above {before}", got, outcome)
        return height

    def _judge(self) -> None:
        """Judge the window, once; what could not be told then is asked again, a FAIL stays."""
        stored = self.stored()
        if stored and not _open(stored[-1].rows):
            return
        with self.context.apart() as self.judged:
            whole(self.context, self.catalogue, self.slots)
        if _open(self.judged) and not _failing(self.judged):
            return
        key, rows = f"{self._window_key()}/{len(stored) + 1}", tuple(self.judged)
        start, end = self.slots.anchor, self.slots.end
        self.log.add(WindowJudged(key=key, start=start, at=end, rows=rows))

    def stored(self) -> list[WindowJudged]:
        mine = self._window_key() + "/"
        return [judged for judged in self.log.of(WindowJudged) if judged.key.startswith(mine)]

    def _window_key(self) -> str:
        return f"{self.slots.anchor.isoformat()}..{self.slots.end.isoformat()}"

    # --- what is known --------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self.context.at >= self.slots.end

    def due(self) -> datetime | None:
        """When to look, or to see whether somebody answered, next; None when there is no need."""
        now, within, anomalies = self.context.now, patience(self.context), self.anomalies
        recovering = any(each.decided and each.decided.decision == "recover" for each in anomalies)
        if recovering or self.over or self.context.params.as_of:
            return None
        left = [slot.end for slot in self.all if slot.end > self.context.at]
        open_ = [e for e in anomalies if not e.acknowledged and not e.escalated(now, within)]
        return min([*left[:1], *(each.found.opened + within for each in open_)], default=None)

    def _key(self, slot: Span) -> str:
        return f"{self.slots.anchor.isoformat()}/{slot.name}"

    def looks(self) -> list[Looked]:
        """The looks of this window."""
        keys = {self._key(slot) for slot in self.all}
        return [look for look in self.log.of(Looked) if look.key in keys]

    def missed(self) -> list[Span]:
        made = {look.key for look in self.looks()}
        return [slot for slot in self.all if self._key(slot) not in made]

    def _queries(self) -> dict[str, str]:
        """By metric, the query that the first look with data asked."""
        found: dict[str, str] = {}
        for look in self.log.of(Looked):
            found = {**look.queries, **found}
        return found


def _open(rows: Sequence[Row]) -> bool:
    return any(row.outcome is Outcome.INCONCLUSIVE for row in rows)


def _failing(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.outcome is Outcome.FAIL]


# --- what the watch amounts to --------------------------------------------------------------------


def judge_watch(watch: Watching) -> None:
    """What the watch amounts to now: looks, what lacked data, anomalies, the window."""
    context = watch.context
    _made(watch)
    _unseen(watch)
    for each in watch.anomalies:
        late = each.escalated(context.now, patience(context))
        each.judge(context, watch.trouble.get(each.id, ""), escalated=late)
    _window(watch)


def _made(watch: Watching) -> None:
    looks = watch.looks()
    late = [f"{look.at:%H:%M}" for look in looks if look.seen == LATE]
    expected = f"one every {watch.slots.length / timedelta(minutes=1):g} min"
    got = f"{len(looks)} of {len(watch.all)} made"
    if late:
        more = f" and {len(late) - 4} more" if len(late) > 4 else ""
        got += f", {len(late)} seen late ({', '.join(late[:4])}{more})"
    watch.context.judge("looks", "made", expected, got, ok=True)


def _unseen(watch: Watching) -> None:
    """One finding for each thing of which looks had no data."""
    found: dict[str, list[tuple[str, Row]]] = {}
    for look in watch.looks():
        for row in look.rows:
            if row.outcome is Outcome.INCONCLUSIVE:
                found.setdefault(row.subject, []).append((f"{look.at:%H:%M}", row))
    for subject, lacking in found.items():
        at, row = lacking[0]
        more = f" and at {count(len(lacking) - 1, 'more look')}" if len(lacking) > 1 else ""
        problem = f"{row.observed} at {at}{more}"
        watch.context.unknown(subject, "data at every look", row.expected, problem)


def _window(watch: Watching) -> None:
    context, start, end = watch.context, watch.slots.anchor, watch.slots.end
    judge = partial(context.judge, "window", "watched", f"over at {utc(end)}")
    unknown = partial(context.unknown, "window", "watched", f"over at {utc(end)}")
    begun = f"since {utc(start)}" + (" (restarted)" if start > watch.effect else "")
    if not watch.over:
        unknown(f"still open, {begun}", watch.due() or end)
    elif watch.missed():
        unknown("looks are missing")
    elif judged := _judgement(watch):
        # What is an anomaly has its own row already.
        told = {each.found.subject for each in watch.anomalies}
        anomalous = [row for row in _failing(judged) if row.subject in told]
        context.findings += [row for row in judged if row not in anomalous]
        judge(begun, ok=True)
    else:
        unknown("over, not judged yet: runbook run mainnet --continue", context.at)


def _judgement(watch: Watching) -> list[Row]:
    """What the window was last judged to be, with every FAIL of a judgement before."""
    stored = watch.stored()
    last = watch.judged or (stored[-1].rows if stored else ())
    failing = {row.subject for row in _failing(last)}
    earlier = [row for each in stored[:-1] for row in _failing(each.rows)]
    return [*last, *(row for row in earlier if row.subject not in failing)]


# --- the whole window -----------------------------------------------------------------------------


def whole(context: Context, catalogue: Catalogue, slots: Slots) -> None:
    """Judge the window: every point against the limits with coverage, pages, the comparison.

    What cannot be read is a finding as well.
    """
    start, end = slots.anchor, slots.end
    captured, missing = capturing.capture(
        context.prometheus, catalogue.of_topic(*TOPICS), context.matchers, start, end
    )
    context.findings += missing
    for one in captured:
        frame = replace(one.frame, planned=slots.left_out)
        judge_level(context, one.metric, "over the whole window", frame)
    over = quiet.window(context, start, end)
    quiet.judge(over, quiet.watchdog, quiet.telemetry, quiet.silences, quiet.halts, _pages)
    with context.reading("comparison", "pinned before the activation"):
        _compare(context, catalogue, slots)


def _pages(over: quiet.Window) -> Iterator[quiet.Seen]:
    """Alerts under the name that looks give them."""
    for seen in quiet.pages(over):
        yield replace(seen, subject=f"alert {seen.subject}") if seen.breaks else seen


def judge_level(
    context: Context, metric: Metric, what: str, frame: Frame, *, look: bool = False
) -> float | None:
    """Every judged point of a metric against its limit; the worst, unless one is beyond it or unknown.

    A look has few points: one may be missing, but of no series the newest.
    """
    values, most = frame.values.to_numpy()[frame.kept], context.params.max_missing
    judge = partial(context.judge, metric.name, what, limit_words(metric))
    gone = ~np.isfinite(values)
    lost = int(gone.sum(axis=0).max()) if values.size else len(values)
    got = f"{lost} of {len(values)} points missing, more than {most:.0%}"
    if lacking := not values.size or lost > max(most * len(values), int(look)):
        judge(got if frame.labels else "no series", Outcome.INCONCLUSIVE)
    elif lacking := look and bool(gone[-1].any()):
        judge(f"no data of {gone[-1].sum()} of {gone[-1].size} series", Outcome.INCONCLUSIVE)
    finite = values[np.isfinite(values)]
    if (wrong := beyond(metric, finite)) is not None:
        judge(wrong, ok=False, unit=metric.unit)
    elif not lacking:
        worst = shown(finite.min() if metric.direction == "higher" else finite.max())
        judge(worst, ok=True, unit=metric.unit)
        return worst
    return None


def beyond(metric: Metric, values: Floats) -> float | None:
    """The value that is farthest beyond the metric's limit; None for none."""
    limit = metric.limit
    if limit is None or not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if limit.max is not None and high > limit.max:
        return shown(high)
    return shown(low) if limit.min is not None and low < limit.min else None


def shown(value: float) -> float:
    """Six digits: what a person reads, the same on every machine."""
    return float(f"{value:.6g}")


def _compare(context: Context, catalogue: Catalogue, slots: Slots) -> None:
    """Each critical metric of the watch against what the gate's change pinned before its first step.

    As in the other comparisons: what is not critical is judged by its limit and coverage alone.
    """
    from ..metrics.compare import compare, tolerance_words

    before = pinned_before(context, context.journal, GATE)
    critical = [m for m in catalogue.metrics if m.topic in TOPICS and m.critical]
    compared = compare(
        critical,
        before,
        measure(context, before, critical, slots.anchor, slots.end),
        load=catalogue.load,
        max_missing=context.params.max_missing,
        names=names_of(context),
        restarts=restarts(context.journal),
    )
    for each in compared:
        name, expected = f"{each.metric.name} {AGAINST}", tolerance_words(each.metric)
        context.judge(name, "no worse", expected, each.reason, each.outcome)


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
EPOCH, MS = datetime.fromtimestamp(0, UTC), timedelta(milliseconds=1)


@dataclass(frozen=True)
class Slots:
    """The looks of a window: ``length`` apart, in whole minutes, the last at its end.

    None lies in a planned restart (``left_out``).
    """

    anchor: datetime
    end: datetime
    length: timedelta
    left_out: tuple[Stretch, ...] = ()

    @classmethod
    def of(
        cls, anchor: datetime, span: timedelta, apart: timedelta, left_out: Sequence[Stretch]
    ) -> Slots:
        """Prometheus is asked in milliseconds, and every look must be an instant it is asked of."""
        start = EPOCH + (anchor - EPOCH) // MS * MS
        length = apart // STEP * STEP
        return cls(start, start + length * -(-span // length), length, tuple(left_out))

    def all(self) -> list[Span]:
        """The time each look covers, after its start, up to its end; named by number, from 1."""
        count = (self.end - self.anchor) // self.length
        ends = [self.anchor + self.length * number for number in range(count + 1)]
        return [
            Span(str(number), ends[number - 1], ends[number])
            for number in range(1, count + 1)
            if not any(start <= ends[number] < over for start, over in self.left_out)
        ]


def _whole(ask: Callable[[], T]) -> T | Partial:
    """A partial answer proves nothing, yet what others say is a look; none at all is no look."""
    found = tried(ask)
    if isinstance(found, SourceError) and not isinstance(found, Partial):
        raise found
    return found


def query_of(context: Context, metric: Metric, at: datetime) -> str:
    """The candidate that has data; without any, the first: its emptiness is what is seen then."""
    first = narrow(metric, context.matchers)[0]
    found = tried(resolve, context.prometheus, metric, context.matchers, at)
    if isinstance(found, SourceError) and not isinstance(found, NoData):
        raise found
    return found if isinstance(found, str) else first


def _look_at(context: Context, metric: Metric, frame: Frame | Partial, slot: Span) -> float | None:
    what = "level since the look before"
    if isinstance(frame, Frame):
        return judge_level(context, metric, what, frame.between(slot.start, slot.end), look=True)
    context.unknown(metric.name, what, limit_words(metric), frame.problem)
    return None
