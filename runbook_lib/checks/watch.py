"""mainnet.activate.watch: 24 h of looks at most 15 min apart, at their end judged against before.

A look is a function of the metrics store: each sees the whole window so far, so that the next one
makes up for one that was missed, whose minutes are named "seen late". Only that somebody looked, and
what was done about anomalies, stands in the log. The window begins when the journal says that the
last node took the gate, and anew at a decision to restart the watch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..context import Context
from ..evidence.events import AnomalyOpened, Looked
from ..evidence.status import effect
from ..metrics.baseline import SETTLE
from ..metrics.catalogue import Catalogue, Metric, limit_words, narrow
from ..metrics.frames import STEP, Stretch
from ..outcomes import CheckResult, Outcome, Row
from ..wording import count, quantity, utc
from . import quiet
from .baselines import capture, names_of, pinned_before, read_catalogue, restarts
from .quiet import Seen, breaks
from .watch_log import WatchLog, patience, reachable

if TYPE_CHECKING:
    from .anomalies import Anomaly

ITEM = "mainnet.activate.watch"
GATE = "mainnet.activate.witness-gate"
AGAINST = "against the baseline"
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


def watched(context: Context) -> CheckResult:
    """What ``mainnet.activate.watch`` amounts to now."""
    watch = Watch(context)
    watch.look(judge=True)
    hours = f"{context.params.watch_hours:g} h"
    return context.conclude(
        passed=f"{hours} watched in {count(len(watch.looks), 'look')}, nothing left undecided",
        data={"anchor": watch.start.isoformat(), "end": watch.end.isoformat()},
    )


class Watch:
    """One look at the watch: what it sees, who must know of it, and the findings that follow.

    Raises SourceError when the journal does not say that the gate took effect.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.log = context, WatchLog(context)
        self.apart = timedelta(minutes=context.params.look_minutes)
        self.effect = effect(context.journal, GATE)
        self.queries: dict[str, str] = {}
        self.seen: list[Seen] = []

    def look(self, *, judge: bool) -> None:
        """Look at the window until now; with ``judge``, judge it against before when it is over."""
        context, start = self.context, self.start
        catalogue = read_catalogue(context)
        metrics = catalogue.of_topic(*TOPICS)
        found: list[tuple[Row, Stretch]] = []
        if context.at >= self.first:
            over = quiet.Window(
                context, start, min(context.at, self.end), tuple(restarts(context.journal))
            )
            levels = [partial(level, metric, self.queries) for metric in metrics]
            self.seen = quiet.look(over, quiet.watchdog, pages, *levels, quiet.halts)
            if self.seen[0].known:
                self.log.add(Looked(key=f"{start.isoformat()}/{utc(over.end)}", at=over.end))
            if judge and self.over:
                self.seen += quiet.look(over, quiet.telemetry, quiet.silences)
        for seen in self.seen:
            spans = [(each.start, each.end) for each in seen.breaks] or [(start, start)]
            found += zip(seen.rows(), spans, strict=True)
        if judge and self.over:
            with (
                context.apart() as against,
                context.reading("comparison", "pinned before the activation"),
            ):
                context.findings += compared(context, catalogue, start, self.end)
            found += [(row, (self.end, self.end)) for row in against]
        failing = [(row, span) for row, span in found if row.outcome is Outcome.FAIL]
        trouble = {}
        if failing or self.log.of(AnomalyOpened):
            from .anomalies import engage

            trouble = engage(context, self.log, metrics, self.queries, failing)
        # What a decision to restart leaves behind is no part of the window that it begins.
        self._conclude(found if self.start == start else [], trouble, judged=judge)

    def _conclude(
        self, found: list[tuple[Row, Stretch]], trouble: dict[str, str], *, judged: bool
    ) -> None:
        """The findings: looks, what was seen, anomalies in place of what is part of one, the window."""
        context, anomalies = self.context, self.anomalies
        reachable(context)
        late = [f"{utc(begun)} to {utc(end)}" for begun, end in self.late]
        got = f"{len(self.looks)} made" + (f", seen late: {'; '.join(late)}" if late else "")
        expected = f"one every {self.apart / timedelta(minutes=1):g} min"
        context.judge("looks", "made", expected, got, ok=True)
        last = {each.found.subject: each for each in anomalies}
        for row, span in found:
            part = row.outcome is Outcome.FAIL and last.get(row.subject)
            if not part or not part.covers(span, self.apart):
                context.findings.append(row)
        for each in anomalies:
            late_answer = each.escalated(context.now, patience(context))
            each.judge(context, trouble.get(each.id, ""), escalated=late_answer)
        begun = f"since {utc(self.start)}" + (" (restarted)" if self.start > self.effect else "")
        what, expected = "watched", f"over at {utc(self.end)}"
        if not self.over:
            due = self.due() or self.end
            context.unknown("window", what, expected, f"still open, {begun}", due)
        elif judged:
            context.judge("window", what, expected, begun, ok=True)
        else:
            got = "over, not judged yet: runbook run mainnet --continue"
            context.unknown("window", what, expected, got, context.at)

    # --- what is known --------------------------------------------------------------------------

    @property
    def anomalies(self) -> list[Anomaly]:
        """Those of the attempt; what deals with them is loaded where there are any."""
        if not self.log.of(AnomalyOpened):
            return []
        from .anomalies import known

        return known(self.log)

    @property
    def start(self) -> datetime:
        """When the gate took effect, or the last decision to begin anew."""
        return max([self.effect, *(at for each in self.anomalies if (at := each.restarted))])

    @property
    def end(self) -> datetime:
        return self.start + timedelta(hours=self.context.params.watch_hours)

    @property
    def first(self) -> datetime:
        """When the first look is due: rates have settled by then."""
        return self.start + max(self.apart, 2 * SETTLE)

    @property
    def over(self) -> bool:
        return self.context.at >= self.end

    @property
    def looks(self) -> list[datetime]:
        """Until when each look at this window saw it."""
        return sorted({look.at for look in self.log.of(Looked) if look.at > self.start})

    @property
    def late(self) -> list[Stretch]:
        """What was first seen when it was older than a look may be, and a minute."""
        every = pairwise([self.start, *self.looks])
        return [(before, look) for before, look in every if look - before > self.apart + STEP]

    def due(self) -> datetime | None:
        """When to look, or to see whether somebody answered, next; None when there is no need."""
        context, anomalies = self.context, self.anomalies
        now, within = context.now, patience(context)
        recovering = any(each.decided and each.decided.decision == "recover" for each in anomalies)
        if recovering or self.over or context.params.as_of:
            return None
        open_ = [e for e in anomalies if not e.acknowledged and not e.escalated(now, within)]
        look = self.first if context.at < self.first else context.at + self.apart
        return min(look, self.end, *(each.found.opened + within for each in open_))


# --- what is looked at, besides what every quiet window is ------------------------------------------


def level(metric: Metric, queries: dict[str, str], over: quiet.Window) -> Iterator[Seen]:
    """A metric within its limit at every minute, and covered until now.

    The first candidate with any series in the window is asked, and kept in ``queries``.
    """
    for query in narrow(metric, over.context.matchers):
        frame = over.read(query, narrow=False)
        if frame.labels:
            queries[metric.name] = query
            break
    what, expected = "level", limit_words(metric.limit, metric.unit)
    if not frame.labels:
        yield Seen(metric.name, what, expected, "no series", known=False)
        return
    values, most = frame.values.to_numpy(), over.context.params.max_missing
    gone = ~np.isfinite(values)
    lost = {hole for column in gone.T for hole in frame.holes(column, most)}
    if gone[-1].any():  # of no series the newest point
        lost |= set(frame.runs(gone.any(axis=1))[-1:])
    worst = np.min if metric.direction == "higher" else np.max
    low, high = (metric.limit.min, metric.limit.max) if metric.limit else (None, None)
    seen = ~gone & frame.kept[:, None]
    beyond = (values > (np.inf if high is None else high)) | (
        values < (-np.inf if low is None else low)
    )
    found, wrong = breaks(sorted(lost), "no data", proven=False), seen & beyond
    if wrong.any():
        text = quantity(float(worst(values[wrong])), metric.unit)
        found += breaks(frame.runs(wrong.any(axis=1)), text)
    usual = quantity(float(worst(values[seen])), metric.unit) if seen.any() else ""
    yield Seen(metric.name, what, expected, usual, found)


def pages(over: quiet.Window) -> Iterator[Seen]:
    """Alerts, each as an anomaly is called."""
    for seen in quiet.pages(over):
        yield replace(seen, subject=f"alert {seen.subject}") if seen.breaks else seen


def compared(context: Context, catalogue: Catalogue, start: datetime, end: datetime) -> list[Row]:
    """Each critical metric of the watch against what the gate's change pinned before its first step.

    What is not critical is judged by its level alone. Raises SourceError.
    """
    from ..metrics.compare import compare

    before = pinned_before(context, context.journal, GATE)
    critical = [metric for metric in catalogue.of_topic(*TOPICS) if metric.critical]
    now, _ = capture(context, [*critical, *catalogue.loads], start, end, before.queries)
    found = compare(
        critical,
        before,
        now,
        load=catalogue.load,
        max_missing=context.params.max_missing,
        names=names_of(context),
        restarts=restarts(context.journal),
    )
    return [row for each in found for row in each.rows(AGAINST)]
