"""The baseline that a stage pins of its own cluster before its first change, and what it reads back.

Everything of the catalogue is captured; what is critical must be there and healthy. Aggregates are
captured node by node too, so that canaries have a past of their own. Design: section 10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..context import Context
from ..errors import SourceError
from ..evidence.record import Entry, parse
from ..outcomes import Outcome, Row, check_row, worst
from .baselines import FILE, load_of, read_catalogue
from .rollouts import captured as kept_by

if TYPE_CHECKING:
    from ..metrics.catalogue import Catalogue, Metric
    from ..metrics.pinned import Measured


def pin_before(context: Context) -> tuple[list[Row], dict[str, Any]]:
    """Capture the hours before now and pin them: rows, and what the result's data must say.

    A metric that is not critical may have no series yet, as rewards have none while their gate is
    off: it is left out. Where an earlier attempt of the release began this change, it pinned what
    was before, and that stands.
    """
    if (earlier := _begun_before(context)) is not None:
        return earlier
    from ..metrics import baseline as capturing
    from ..metrics import bynode

    catalogue = read_catalogue(context)
    end = context.now
    start = end - _hours(catalogue, context.params.baseline_hours)
    judged = [m for m in catalogue.metrics if m.critical]
    topics = list(dict.fromkeys(m.topic for m in catalogue.metrics if m.topic != "load"))
    found, missing = capturing.capture(
        context.prometheus, catalogue, topics, context.matchers, start, end
    )
    nodes = [node.name for node in context.cluster.nodes]
    single = bynode.of_nodes(catalogue, context.site.telemetry.node_label)
    more, unread = bynode.capture(context.prometheus, single, context.matchers, nodes, start, end)
    must = {m.name for m in (*judged, *single) if m.critical}
    rows = [row for row in (*missing, *unread) if row.subject in must]
    for one in (*found, *more):
        if one.metric.name in must:
            rows += capturing.judge(one, context.params.max_missing)
    load = load_of(context, catalogue, start, end)
    everything = [*found, *more, *load]
    about: dict[str, Any] = {
        "release": context.params.release,
        "cluster": context.cluster_name,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "digest": capturing.content_digest(everything, start, end),
        "epoch_length": context.cluster.epoch_length,
        "validators": len(nodes),
    }
    if load:
        about["load"] = capturing.mean(load[0], context.params.max_missing)
    path = context.folder / FILE
    capturing.write(everything, path, about)
    if worst(row.outcome for row in rows) is Outcome.PASS:
        context.store.pin(context.cluster_name, about["digest"], path)
    return _brief(rows), {**about, "metrics": {one.metric.name: one.query for one in everything}}


def _brief(rows: list[Row]) -> list[Row]:
    """One row where every series holds: the frames are kept, point by point."""
    if worst(row.outcome for row in rows) is not Outcome.PASS:
        return [row for row in rows if row.outcome is not Outcome.PASS] or rows
    text = f"{len(rows)} series covered and healthy"
    return [check_row("baseline", "before the first change", text, text, ok=True)]


def _begun_before(context: Context) -> tuple[list[Row], dict[str, Any]] | None:
    """What the first attempt pinned that took a step of this change here. Raises SourceError."""
    from ..metrics.pinned import About

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
    from ..metrics.pinned import About, read

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
    from ..metrics import bynode
    from ..metrics.frames import fetch

    label = context.site.telemetry.node_label
    nodes = [node.name for node in context.cluster.nodes]
    frames, asked = {}, {}
    for metric in metrics:
        query = before.queries.get(metric.name)
        if query is None:
            continue
        if metric.name.endswith(bynode.SUFFIX):
            frame = bynode.fetch_nodes(context.prometheus, query, label, nodes, start, end)
        else:
            frame = fetch(context.prometheus, query, start, end, capturing.STEP)
        if frame.partial:
            raise SourceError("prometheus", f"{metric.name}: {frame.warnings[0]}")
        frames[metric.name], asked[metric.name] = frame.values, query
    catalogue = read_catalogue(context)
    load = load_of(context, catalogue, start, end)
    about = before.about.model_copy(
        update={
            "start": start,
            "end": end,
            "digest": "",
            "epoch_length": context.cluster.epoch_length,
            "validators": len(nodes),
            "cluster": context.cluster_name,
            "load": capturing.mean(load[0], context.params.max_missing) if load else None,
        }
    )
    if load:
        frames[load[0].metric.name], asked[load[0].metric.name] = (
            load[0].frame.values,
            load[0].query,
        )
    return type(before)(about, asked, frames)


def names_of(context: Context) -> Mapping[str, str]:
    """What figures and rows call a series: the node's name, by its validator or itself."""
    nodes = context.cluster.nodes
    return {node.validator: node.name for node in nodes if node.validator} | {
        node.name: node.name for node in nodes
    }
