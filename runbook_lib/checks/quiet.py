"""Windows of a cluster: whether one was quiet, which is covered by data, without a page or a halt.

Silences do not hide an alert from the metrics store, so that what fired is known from there; a
silence is a break because nobody was called. Alertmanager forgets expired ones after its retention
(120 h unless it says otherwise): older ones cannot be known, and the row says so.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np

from ..context import Context
from ..errors import SourceError, tried
from ..evidence.events import StepTaken
from ..metrics import catalogue
from ..metrics.frames import LONGEST, Flags, Frame, Stretch, fetch
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..sources.alertmanager import Silence, host_labels, matched
from ..wording import utc
from .baselines import concerns
from .baselines import restarts as journalled

ALERTS = 'present_over_time(ALERTS{alertstate="firing"}[2m])'
HEIGHTS = "rpp_runtime_chain_block_height_count"
HALT_BLOCKS, HALT = 36, timedelta(minutes=3)
"""No block for so many block times, and at least so long, is a halt."""
IDLE = timedelta(minutes=10)


@dataclass(frozen=True)
class Break:
    """What was not quiet, from when to when; not ``proven`` means that nothing is known of it.

    ``ended`` is whether its end is known otherwise than by what the newest data say.
    """

    start: datetime
    end: datetime
    text: str
    proven: bool = True
    ended: bool = True


@dataclass(frozen=True)
class Seen:
    """One thing looked at over a window. ``known`` is false when it could not be read at all."""

    subject: str
    what: str
    expected: str
    observed: str = ""
    breaks: tuple[Break, ...] = ()
    known: bool = True

    def rows(self) -> list[Row]:
        """PASS with what was seen, or a row a break."""
        if not self.known:
            return [unknown_row(self.subject, self.what, self.expected, self.observed)]
        outcome = {True: Outcome.FAIL, False: Outcome.INCONCLUSIVE}
        return [
            check_row(self.subject, self.what, self.expected, told(each), outcome[each.proven])
            for each in self.breaks
        ] or [check_row(self.subject, self.what, self.expected, self.observed, ok=True)]


def breaks(stretches: Iterable[Stretch], text: str, *, proven: bool = True) -> tuple[Break, ...]:
    """Breaks as the metrics store shows them: the last may go on."""
    return tuple(Break(start, end, text, proven, ended=False) for start, end in stretches)


def told(found: Break) -> str:
    """A break as a row says it."""
    until = f" to {utc(found.end)}" if found.end > found.start else ""
    return f"{found.text}, {utc(found.start)}{until}"


@dataclass
class Window:
    """A cluster (that of ``context``) from ``start`` to ``end``; ``planned`` restarts are cut out."""

    context: Context
    start: datetime
    end: datetime
    planned: tuple[Stretch, ...] = ()

    @cached_property
    def paging(self) -> set[str]:
        """Severities that page: those of the parameters and those of the site."""
        telemetry = self.context.site.telemetry
        return {*self.context.params.paging_severities, *telemetry.paging_severities}

    @cached_property
    def firing(self) -> Frame:
        """Every alert that fired: the watchdog's proof and what it proves, in one answer."""
        return self.read(ALERTS, narrow=False)

    @cached_property
    def up(self) -> Frame:
        """Per node: whether it could be scraped."""
        return self.read(f"max by ({self.label}) (max_over_time(up[2m]))")

    @property
    def label(self) -> str:
        return self.context.site.telemetry.node_label

    def read(self, query: str, *, narrow: bool = True) -> Frame:
        """``query`` over the window, of this cluster alone unless not ``narrow``. SourceError."""
        asked = catalogue.inject(query, self.context.matchers) if narrow else query
        prometheus = self.context.prometheus
        return fetch(prometheus, asked, self.start, self.end, self.planned)


def window(context: Context, start: datetime, end: datetime) -> Window:
    """A window on the context's cluster, the restarts of every journal there cut out."""
    stretches = [
        stretch
        for _, entries in context.ledger.changes(context.cluster_name, StepTaken)
        for stretch in journalled(entries)
        if stretch[0] < end and stretch[1] > start
    ]
    return Window(context, start, end, tuple(stretches))


Look = Callable[[Window], Iterable[Seen]]


def look(over: Window, *looks: Look) -> list[Seen]:
    """What each sees; one whose source cannot be read is a finding that is not known."""
    found: list[Seen] = []
    for each in looks:
        seen = tried(lambda look: list(look(over)), each)
        if isinstance(seen, SourceError):
            seen = [Seen(seen.source, "readable", "an answer", seen.problem, known=False)]
        found += seen
    return found


def judge(over: Window, *looks: Look) -> None:
    """What each sees, as findings of the window's context."""
    over.context.findings += [row for seen in look(over, *looks) for row in seen.rows()]


# --- what is looked at ----------------------------------------------------------------------------


def watchdog(over: Window) -> Iterator[Seen]:
    """The alert that always fires did: else silence is not quiet."""
    name = over.context.site.telemetry.watchdog
    fired = np.zeros(len(over.firing.instants), dtype=bool)
    for labels, values in over.firing.series:
        if labels.get("alertname") == name and concerns(labels, over.context.matchers):
            fired |= ~np.isnan(values)
    yield _covered(over, over.firing, name, "fires throughout", ~fired)


def telemetry(over: Window) -> Iterator[Seen]:
    """Every node told its height throughout."""
    heights = over.read(f"max by ({over.label}) (present_over_time({HEIGHTS}[2m]))")
    for node in over.context.cluster.nodes:
        up = over.up.of(over.label, node.name)
        untold = np.isnan(heights.of(over.label, node.name))
        # A node that is known to be down tells nothing; that is no hole in what is known.
        yield _covered(over, over.up, node.name, "telemetry", np.isnan(up) | (untold & (up != 0)))


def _covered(over: Window, watched: Frame, subject: str, what: str, missing: Flags) -> Seen:
    allowed = over.context.params.max_missing
    lost = int((missing & watched.kept).sum())
    got, minutes = f"{lost} of {watched.points} min missing", LONGEST // timedelta(minutes=1)
    expected = f"at most {allowed:.0%} missing, no hole over {minutes} min"
    holes = breaks(watched.holes(missing, allowed), f"no data ({got})", proven=False)
    return Seen(subject, what, expected, got, holes)


def pages(over: Window) -> Iterator[Seen]:
    """No alert of a paging severity fired at any point of the window, by the metrics store."""
    expected, what = f"none of severity {' or '.join(sorted(over.paging))}", "paging alerts"
    fired, cluster = False, over.context.cluster_name
    for labels, values in over.firing.series:
        if labels.get("severity") not in over.paging or not concerns(labels, over.context.matchers):
            continue
        node = labels.get(over.label)
        text = f"fired ({labels['severity']})" + (f" on {node}" if node else "")
        if found := breaks(over.firing.runs(~np.isnan(values)), text):
            fired = True
            yield Seen(
                labels.get("alertname", "an alert without a name"), what, expected, "", found
            )
    if not fired:
        yield Seen(cluster, what, expected, "none fired")


def silences(over: Window) -> Iterator[Seen]:
    """No silence that could keep a page of this cluster back overlaps the window."""
    context = over.context
    found = context.alertmanager.silences()
    hiding = [
        each
        for each in found
        if each.starts_at < over.end and each.ends_at > over.start and _hides(over, each)
    ]
    what, expected = "silences on paging alerts", "none in the window"
    for each in hiding:
        said = f"{each.status.state}, by {each.created_by}: {each.comment}"[:200]
        silenced = Break(each.starts_at, each.ends_at, said)
        yield Seen(f"silence {each.id}", what, expected, "", (silenced,))
    if not hiding:
        others = f"none among the {len(found)} that Alertmanager remembers"
        yield Seen(context.cluster_name, what, expected, f"{others} (120 h unless configured)")


def _hides(over: Window, silence: Silence) -> bool:
    """Whether a paging alert of this cluster could match; what a matcher leaves open, it could."""
    context = over.context
    alone = ("alertname", context.site.telemetry.watchdog, False, True)
    if any((m.name, m.value, m.is_regex, m.is_equal) == alone for m in silence.matchers):
        return False
    fixed = {name: [value] for name, value in context.matchers.items()}
    hosts = host_labels(over.label, context.cluster.nodes, silence.matchers)
    possible = {**hosts, **fixed, "severity": over.paging}
    return matched(silence.matchers, possible) is not False


def halts(over: Window) -> Iterator[Seen]:
    """Blocks were committed throughout: by the nodes' own counts, whichever saw the most."""
    cluster = over.context.cluster
    span = max(HALT, HALT_BLOCKS * timedelta(milliseconds=cluster.block_time_ms))
    seconds = span // timedelta(seconds=1)
    watched = over.read(f"max(increase({HEIGHTS}[{seconds}s]))")
    stretches = [(start - span, end) for start, end in watched.runs(watched.only() <= 0)]
    found = breaks(stretches, "no block")
    name, expected = over.context.cluster_name, f"no halt of {seconds} s"
    yield Seen(name, "blocks committed", expected, "none stood still", found)


def restarts(over: Window) -> dict[str, list[Break]]:
    """By node, when it restarted or was down and no journal of ours planned it. SourceError.

    Counters that begin again are restarts: nothing exports when a process began. A planned one is
    scraped up to a minute after it was read back, and must be out of sight when its cut ends.
    """
    resets = over.read(f"max by ({over.label}) (resets({HEIGHTS}[4m]))")
    found: dict[str, list[Break]] = {}
    for node in over.context.cluster.nodes:
        down = over.up.runs(over.up.of(over.label, node.name) == 0)
        again = resets.runs(np.nan_to_num(resets.of(over.label, node.name)) > 0)
        # A node that comes back begins its counters again: one event, not two.
        alone = [at for at, _ in again if not any(s - IDLE < at < e + IDLE for s, e in down)]
        text = "its counters began again"
        events = [Break(at, at, text) for at in alone]
        events += breaks(down, "down")
        if events:
            found[node.name] = sorted(events, key=lambda event: event.start)
    return found
