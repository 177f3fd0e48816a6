"""Baselines: captured, pinned by digest, drawn, and measured again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .. import playbook
from ..context import Context, judges
from ..errors import SourceError
from ..evidence.order import effect
from ..evidence.record import Entry, parse
from ..files import keep_file
from ..metrics.catalogue import Catalogue, parse_catalogue
from ..outcomes import CheckResult, Outcome, Row, check_row, unknown_row, worst
from ..strict import parse_instant, project_path
from ..wording import count
from .rollouts import captured as kept_by

if TYPE_CHECKING:
    from ..metrics.baseline import Captured, Measured
    from ..metrics.catalogue import Catalogue, Metric
    from ..metrics.plotdata import Mark
    from ..sources.matrix import Matrix


CATALOGUE = "params/metrics.yaml"
FILE = "metrics/baseline.parquet"
DEPLOY = "development.activate.deploy"


@judges("development.activate.baseline")
def baseline(context: Context) -> CheckResult:
    """Consensus latency, proof queue depth and VRF participation of the new build.

    The window is anchored at the instant the journal says the last node took the build, past its
    restart, so that a later return judges the same window. Playbook: activation, 3.
    """
    from ..metrics import baseline as capturing

    start = effect(context.journal, DEPLOY) + capturing.SETTLE
    end = start + timedelta(hours=context.params.baseline_hours)
    if context.now < end:
        expected = f"over at {end:%Y-%m-%d %H:%M:%S} UTC"
        row = unknown_row("baseline", "window", expected, "still open", return_at=end)
        return context.conclude([row], passed="", empty="")
    if context.params.as_of and parse_instant(context.params.as_of) < end:
        raise SourceError(
            "as_of", f"expected an instant after {end.isoformat()}, got an earlier one"
        )
    catalogue = read_catalogue(context)
    captured, rows = capturing.capture(
        context.prometheus, catalogue, playbook.BASELINE_TOPICS, context.matchers, start, end
    )
    for one in captured:
        rows += capturing.judge(one, context.params.max_missing)
    kept = _pin(context, [*captured, *_load(context, catalogue, start, end)], rows, start, end)
    unknown = (
        "" if "load" in kept or catalogue.load is None else "; its load is unknown, so that it"
    )
    unknown += " compares with none" if unknown else ""
    count, digest = len(kept["metrics"]), kept["digest"][:19]
    return context.conclude(
        rows,
        passed=f"{count} metrics captured over {end - start}, pinned as {digest}{unknown}",
        empty="the catalogue names no metric of the playbook's topics",
        data=kept,
    )


def _pin(
    context: Context,
    captured: Sequence[Captured],
    rows: Sequence[Row],
    start: datetime,
    end: datetime,
) -> dict[str, Any]:
    """Write what was captured, pin it where every row holds, and what the result must say of it."""
    from ..metrics import baseline as capturing
    from ..metrics.catalogue import LOAD

    digest, path = capturing.content_digest(captured, start, end), context.folder / FILE
    about: dict[str, Any] = {
        "release": context.params.release,
        "cluster": context.cluster_name,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "digest": digest,
        "epoch_length": context.cluster.epoch_length,
        "validators": len(context.cluster.nodes),
    }
    for one in captured:
        if one.metric.topic == LOAD:
            about["load"] = capturing.mean(one, context.params.max_missing)
    capturing.write(captured, path, about)
    if worst(row.outcome for row in rows) is Outcome.PASS:
        context.store.pin(context.cluster_name, digest, path)
    return {**about, "metrics": {one.metric.name: one.query for one in captured}}


def _load(context: Context, catalogue: Catalogue, start: datetime, end: datetime) -> list[Captured]:
    """What the cluster was asked to do; nothing where that cannot be told.

    No item of the playbook asks for it, so that its absence blocks nothing: it only leaves the
    baseline comparable with no other.
    """
    from ..metrics import baseline as capturing

    wanted = [metric for metric in (catalogue.load,) if metric is not None]
    found, _ = capturing.capture_metrics(
        context.prometheus, wanted, context.matchers, (), start, end
    )
    allowed = context.params.max_missing
    return [one for one in found if capturing.mean(one, allowed) is not None]


def baseline_figure(context: Context) -> tuple[bytes, str, dict[str, object]] | None:
    """What was captured, each metric with its limit, and what happened; None when nothing was."""
    from ..metrics import baseline as capturing

    path = context.folder / FILE
    if not path.exists():
        return None
    names = {node.validator: node.name for node in context.cluster.nodes}
    about, frames = capturing.parse(path.read_bytes(), FILE)
    if not frames:
        return None
    marks, note = happened(context, about.start, about.end)
    drawn = capturing.draw(frames, read_catalogue(context), names, marks, note)
    keep_file(context.folder, "figures/baseline.png", drawn.png)
    return drawn.png, drawn.text, drawn.data


def read_catalogue(context: Context) -> Catalogue:
    """The metric catalogue. Raises ParameterError, SourceError."""
    return parse_catalogue(context.scope.read(project_path(CATALOGUE)), CATALOGUE)


# --- The baseline of a stage's own cluster before its first change ---
#
# Everything of the catalogue is captured; what is critical must be there and healthy. Aggregates are
# captured node by node too, so that canaries have a past of their own. Design: section 10.


def pin_before(context: Context) -> tuple[list[Row], dict[str, Any]]:
    """Capture the hours before now and pin them: rows, and what the result's data must say.

    A metric that is not critical may have no series yet, as rewards have none while their gate is
    off: it is left out. Where an earlier attempt of the release began this change, it pinned what
    was before, and that stands.
    """
    if (earlier := _begun_before(context)) is not None:
        return earlier
    from ..metrics import baseline as capturing
    from ..metrics.catalogue import LOAD

    catalogue = read_catalogue(context)
    end = context.now
    start = end - _hours(catalogue, context.params.baseline_hours)
    by_topic = {m.topic: None for m in catalogue.metrics if m.topic != LOAD}
    metrics = [metric for topic in by_topic for metric in catalogue.of_topic(topic)]
    metrics += capturing.by_node(catalogue, context.site.telemetry.node_label)
    nodes = [node.name for node in context.cluster.nodes]
    found, missing = capturing.capture_metrics(
        context.prometheus, metrics, context.matchers, nodes, start, end
    )
    must = {metric.name for metric in metrics if metric.critical}
    rows = [row for row in missing if row.subject in must]
    for one in found:
        if one.metric.name in must:
            rows += capturing.judge(one, context.params.max_missing)
    everything = [*found, *_load(context, catalogue, start, end)]
    return _brief(rows), _pin(context, everything, rows, start, end)


def _brief(rows: list[Row]) -> list[Row]:
    """One row where every series holds: the frames are kept, point by point."""
    if worst(row.outcome for row in rows) is not Outcome.PASS:
        return [row for row in rows if row.outcome is not Outcome.PASS] or rows
    text = f"{len(rows)} series covered and healthy"
    return [check_row("baseline", "before the first change", text, text, ok=True)]


def _begun_before(context: Context) -> tuple[list[Row], dict[str, Any]] | None:
    """What the first attempt pinned that took a step of this change here. Raises SourceError."""
    from ..metrics.baseline import About

    scope, folder = context.scope, context.store.root / context.params.release / context.stage
    own = int(context.folder.name)
    for number in sorted(n for n in scope.listing(folder) if n.isdigit() and int(n) < own):
        entries, _ = parse(scope.read(folder / number / "record.jsonl"), number)
        opened, kept = entries[0].body, kept_by(entries, context.item)
        stepped = any(e.kind == "step" and e.body["item"] == context.item for e in entries)
        same = (opened["source"], opened["cluster"]) == (context.source, context.cluster_name)
        if kept and "digest" in kept and stepped and same:
            pinned = {key: kept[key] for key in (*About.model_fields, "metrics") if key in kept}
            text = f"pinned by attempt {int(number)}"
            return [
                check_row("baseline", "before the first change", "pinned", text, ok=True)
            ], pinned
    return None


def _hours(catalogue: Catalogue, hours: float) -> timedelta:
    """At least ``hours``, in whole cycles of every metric that declares one."""
    for metric in catalogue.metrics:
        if metric.cycle_hours:
            hours = math.ceil(hours / metric.cycle_hours) * metric.cycle_hours
    return timedelta(hours=hours)


def pinned_before(context: Context, journal: Sequence[Entry], change: str) -> Measured:
    """The baseline that ``change`` pinned, by the journal of its attempt. Raises SourceError."""
    from ..canonical import canonical
    from ..metrics.baseline import About, read

    kept = kept_by(journal, change)
    if kept is None or "digest" not in kept:
        raise SourceError(change, "expected a baseline pinned before it, got none")
    body = {key: kept[key] for key in About.model_fields if key in kept}
    about = About.model_validate_json(canonical(body))
    path = context.store.pinned(about.cluster, about.digest, ".parquet")
    return read(context.scope.read(path), about, kept["metrics"], f"{change}: baseline")


def measure(
    context: Context,
    before: Measured,
    metrics: Sequence[Metric],
    start: datetime,
    end: datetime,
) -> Measured:
    """The same metrics over a later window, asked as they were for ``before``. Raises SourceError.

    A metric that ``before`` lacks is left out. A partial answer raises: it proves nothing.
    """
    from ..metrics import baseline as capturing

    nodes = [node.name for node in context.cluster.nodes]
    frames, asked = {}, {}
    for metric in metrics:
        if (query := before.queries.get(metric.name)) is None:
            continue
        frame = capturing.fetch_metric(context.prometheus, metric, query, nodes, start, end)
        if frame.partial:
            raise SourceError("prometheus", f"{metric.name}: {frame.warnings[0]}")
        frames[metric.name], asked[metric.name] = frame.values, query
    load = None
    for one in _load(context, read_catalogue(context), start, end):
        frames[one.metric.name], asked[one.metric.name] = one.frame.values, one.query
        load = capturing.mean(one, context.params.max_missing)
    about = before.about.model_copy(
        update={
            "start": start,
            "end": end,
            "digest": "",
            "epoch_length": context.cluster.epoch_length,
            "validators": len(nodes),
            "cluster": context.cluster_name,
            "load": load,
        }
    )
    return type(before)(about, asked, frames)


def names_of(context: Context) -> Mapping[str, str]:
    """What figures and rows call a series: the node's name, by its validator or itself."""
    nodes = context.cluster.nodes
    return {node.validator: node.name for node in nodes if node.validator} | {
        node.name: node.name for node in nodes
    }


# --- What happened around a window: changes, restarts, alerts ---

ALERTS = 'ALERTS{alertstate="firing"}'
MOST = 12
"""Marks drawn; more would hide the lines."""

Stretch = tuple[datetime, datetime]


def happened(context: Context, start: datetime, end: datetime) -> tuple[list[Mark], str]:
    """Marks in time order, and what they cannot say: no alerts, alerts unknown, or more of them.

    A change that ended shortly before ``start`` is marked too, as it made the window what it is.
    """
    from ..metrics.baseline import SETTLE, STEP

    marks = changes(context, start - 2 * SETTLE, end)
    marks += planned(context.journal, start, end)
    try:
        matrix = context.prometheus.range(ALERTS, start, end, STEP)
        fired = alerts(matrix, context.matchers, context.site.telemetry.watchdog)
    except SourceError as error:
        return marks, f"alerts: unknown: {error.problem}"
    marks = sorted([*marks, *fired], key=lambda mark: (mark.time, mark.label))
    if not fired:
        return marks[:MOST], "alerts: none fired"
    more = len(marks) - MOST
    return marks[:MOST], f"{count(more, 'later mark')} not drawn" if more > 0 else ""


def planned(journal: Sequence[Entry], start: datetime, end: datetime) -> list[Mark]:
    """Planned restarts in the window; those that overlap, such as a wave's, are one mark."""
    from ..metrics.plotdata import Mark

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
    from ..metrics.plotdata import Mark

    effects: dict[str, dict[str, datetime]] = {}
    for entry in context.journal:
        if entry.kind == "state":
            at = datetime.fromisoformat(entry.body["at"])
            effects.setdefault(entry.body["item"], {})[entry.body["node"]] = at
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


def alerts(matrix: Matrix, matchers: Mapping[str, str], watchdog: str) -> list[Mark]:
    """Stretches in which an alert of this cluster fired, series of one name together.

    An alert without the cluster's labels may be this cluster's, and is marked. Raises SourceError
    when the answer is partial, or the alert that always fires is not in it: then none proves nothing.
    """
    from ..metrics.baseline import STEP
    from ..metrics.plotdata import Mark

    if matrix.partial:
        raise SourceError("prometheus", matrix.warnings[0])
    instants: dict[tuple[str, str], set[int]] = {}
    for series in matrix.series:
        labels = series.labels
        if all(labels.get(label, value) == value for label, value in matchers.items()):
            key = labels.get("alertname", ""), labels.get("severity", "no severity")
            instants.setdefault(key, set()).update(series.times.tolist())
    if not any(name == watchdog for name, _ in instants):
        raise SourceError("prometheus", f"expected {watchdog} to fire, got nothing of it")
    return [
        Mark(begun, f"alert {name} ({severity})", over)
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


def restarts(journal: Sequence[Entry]) -> list[Stretch]:
    """From the intent to restart a node until its rates have settled, by the journal."""
    from ..metrics.baseline import SETTLE

    found: list[Stretch] = []
    begun: dict[str, datetime] = {}
    for entry in journal:
        if entry.kind == "step" and entry.body["step"].startswith("restart"):
            at = datetime.fromisoformat(entry.body["at"])
            start = begun.setdefault(entry.body["node"], at)
            if entry.body["phase"] != "intent":
                found.append((start, at + SETTLE))
                del begun[entry.body["node"]]
    return found
