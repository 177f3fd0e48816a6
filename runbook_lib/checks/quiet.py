"""Whether a window of a cluster was quiet: covered by data first, then without a page or a halt.

Silences do not hide an alert from the metrics store, so that what fired is known from there; a
silence is a break because nobody was called. Alertmanager forgets expired ones after its retention
(120 h unless it says otherwise): older ones cannot be known, and the row says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..errors import SourceError
from ..metrics.catalogue import resolve
from ..sources.alertmanager import Silence
from ..sources.routes import Matcher
from .baselines import read_catalogue
from .lookout import Break, Seen, Window

if TYPE_CHECKING:
    from ..metrics.coverage import Flags, Watched

HEIGHTS = "rpp_runtime_chain_block_height_count"
HALT_BLOCKS, HALT = 36, timedelta(minutes=3)
"""No block for so many block times, and at least so long, is a halt."""
IDLE = timedelta(minutes=10)


def coverage(over: Window) -> Iterator[Seen]:
    """The watchdog fired and every node told its height throughout: else silence is not quiet."""
    import numpy as np

    watchdog = over.context.site.telemetry.watchdog
    fired = np.zeros(len(over.firing.instants), dtype=bool)
    for labels, values in zip(over.firing.labels, over.firing.values, strict=True):
        if labels.get("alertname") == watchdog and over.concerns(labels):
            fired |= ~np.isnan(values)
    yield _covered(over, over.firing, watchdog, "fires throughout", ~fired)
    heights = over.read(f"max by ({over.label}) (present_over_time({HEIGHTS}[2m]))")
    for node in over.context.cluster.nodes:
        up = over.up.of(over.label, node.name)
        untold = np.isnan(heights.of(over.label, node.name))
        # A node that is known to be down tells nothing; that is no hole in what is known.
        yield _covered(over, over.up, node.name, "telemetry", np.isnan(up) | (untold & (up != 0)))


def _covered(over: Window, watched: Watched, subject: str, what: str, missing: Flags) -> Seen:
    from ..metrics.coverage import LONGEST

    allowed = over.context.params.max_missing
    lost = int((missing & watched.kept).sum())
    breaks = tuple(
        Break(start, end, f"no data ({lost} of {watched.points} min missing)", proven=False)
        for start, end in watched.holes(missing, allowed)
    )
    minutes = LONGEST // timedelta(minutes=1)
    expected = f"at most {allowed:.0%} missing, no hole over {minutes} min"
    return Seen(subject, what, expected, f"{lost} of {watched.points} min missing", breaks)


def pages(over: Window) -> Iterator[Seen]:
    """No alert of a paging severity fired at any point of the window, by the metrics store."""
    import numpy as np

    expected, what = " or ".join(sorted(over.paging)), "paging alerts"
    fired = False
    for labels, values in zip(over.firing.labels, over.firing.values, strict=True):
        if labels.get("severity") not in over.paging or not over.concerns(labels):
            continue
        breaks = tuple(
            Break(start, end, _named(over, labels), proven=True)
            for start, end in over.firing.runs(~np.isnan(values))
        )
        if breaks:
            fired = True
            name = labels.get("alertname", "an alert without a name")
            yield Seen(name, what, f"none of severity {expected}", breaks=breaks)
    if not fired:
        cluster = over.context.cluster_name
        yield Seen(cluster, what, f"none of severity {expected}", "none fired")


def _named(over: Window, labels: Mapping[str, str]) -> str:
    node = labels.get(over.label)
    return f"fired ({labels['severity']})" + (f" on {node}" if node else "")


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
        yield Seen(
            f"silence {each.id}",
            what,
            expected,
            breaks=(Break(each.starts_at, each.ends_at, said, proven=True, ended=True),),
        )
    if not hiding:
        others = f"none among the {len(found)} that Alertmanager remembers"
        yield Seen(context.cluster_name, what, expected, f"{others} (120 h unless configured)")


def _hides(over: Window, silence: Silence) -> bool:
    """Whether a paging alert of this cluster could match; what a matcher leaves open, it could."""
    fixed = {name: {value} for name, value in over.context.matchers.items()}
    possible: dict[str, set[str]] = {**fixed, "severity": over.paging}
    watchdog = over.context.site.telemetry.watchdog
    return all(
        _may_match(each, possible.get(each.name)) for each in silence.matchers
    ) and not _only(silence, "alertname", watchdog)


def _only(silence: Silence, label: str, value: str) -> bool:
    return any(
        (m.name, m.value, m.is_regex, m.is_equal) == (label, value, False, True)
        for m in silence.matchers
    )


def _may_match(matcher: Matcher, values: set[str] | None) -> bool:
    if values is None:
        return True
    try:
        return any(matcher.matches({matcher.name: value}) for value in values)
    except SourceError:
        return True  # an expression of another kind: nothing is known of what it matches


def halts(over: Window) -> Iterator[Seen]:
    """Blocks were committed throughout: by the nodes' own counts, whichever saw the most."""
    cluster = over.context.cluster
    span = max(HALT, HALT_BLOCKS * timedelta(milliseconds=cluster.block_time_ms))
    seconds = span // timedelta(seconds=1)
    watched = over.read(f"max(increase({HEIGHTS}[{seconds}s]))")
    breaks = tuple(
        Break(start - span, end, "no block", proven=True)
        for start, end in watched.runs(watched.only() <= 0)
    )
    name, expected = over.context.cluster_name, f"no halt of {seconds} s"
    yield Seen(name, "blocks committed", expected, "none stood still", breaks)


def load(over: Window) -> Iterator[Seen]:
    """Transactions were submitted in every ten minutes: an idle cluster soaks nothing."""
    import numpy as np

    context = over.context
    metric = read_catalogue(context).load
    if metric is None:
        raise SourceError("metrics", "expected a metric of topic load in the catalogue, got none")
    found = resolve(context.prometheus, metric, context.matchers, over.end)
    watched = over.read(found.query, narrow=False)
    values = watched.only()
    idle, unknown = values <= 0, np.isnan(values)
    breaks = [
        Break(start, end, "no transaction", proven=not unknown[_inside(watched, start, end)].any())
        for start, end in watched.runs(idle | unknown, IDLE)
    ]
    expected = f"some in every {IDLE // timedelta(minutes=1)} min"
    seen = float(f"{np.nanmean(values[watched.kept]):.3g}") if not breaks else 0.0
    yield Seen(context.cluster_name, "transactions", expected, f"{seen:g} tx/s", tuple(breaks))


def _inside(watched: Watched, start: datetime, end: datetime) -> list[int]:
    return [i for i, instant in enumerate(watched.instants) if start <= instant < end]


def restarts(over: Window) -> dict[str, list[Break]]:
    """By node, when it restarted or was down and no journal of ours planned it. SourceError.

    Counters that begin again are restarts: nothing exports when a process began. A planned one is
    scraped up to a minute after it was read back, and must be out of sight when its cut ends.
    """
    import numpy as np

    resets = over.read(f"max by ({over.label}) (resets({HEIGHTS}[4m]))")
    found: dict[str, list[Break]] = {}
    for node in over.context.cluster.nodes:
        down = over.up.runs(over.up.of(over.label, node.name) == 0)
        again = resets.runs(np.nan_to_num(resets.of(over.label, node.name)) > 0)
        # A node that comes back begins its counters again: one event, not two.
        alone = [at for at, _ in again if not any(s - IDLE < at < e + IDLE for s, e in down)]
        events = [Break(start, end, "down", proven=True) for start, end in down]
        events += [
            Break(at, at, "its counters began again", proven=True, ended=True) for at in alone
        ]
        if events:
            found[node.name] = sorted(events, key=lambda event: event.start)
    return found
