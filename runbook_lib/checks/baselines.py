"""Baselines: captured, pinned by digest, and measured again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..canonical import canonical
from ..changes.apply import all_pass
from ..context import Context
from ..errors import SourceError
from ..evidence.events import Captured as Kept
from ..evidence.events import Event, RunEnded, StepTaken, of
from ..evidence.log import opened_by
from ..files import keep_file
from ..findings import Findings
from ..metrics import baseline as capturing
from ..metrics.baseline import SETTLE, About, Measured, read
from ..metrics.catalogue import LOAD, Catalogue, Metric, inject, parse_catalogue, resolve
from ..metrics.frames import Stretch, fetch
from ..outcomes import Outcome, Row
from ..sources.matrix import label_text
from ..strict import project_path
from .rollouts import captured as kept_by

if TYPE_CHECKING:
    import pandas as pd

CATALOGUE = "params/metrics.yaml"
FILE = "metrics/baseline.parquet"
BEFORE = "before the first change"


def capture(
    context: Context,
    metrics: Sequence[Metric],
    start: datetime,
    end: datetime,
    queries: Mapping[str, str] | None = None,
) -> tuple[Measured, list[Row]]:
    """What metrics held over a window; what cannot be read is a row.

    With ``queries`` they are asked as before, and what was not is left out; then what cannot be read
    raises SourceError. That the load is unknown leaves the window comparable with no other, and
    blocks nothing.
    """
    about = About(
        release=context.params.release,
        cluster=context.cluster_name,
        start=start,
        end=end,
        epoch_length=context.cluster.epoch_length,
        validators=len(context.cluster.nodes),
    )
    frames: dict[str, pd.DataFrame] = {}
    asked, missing = dict[str, str](), Findings()
    for metric in metrics:
        name, is_load = metric.name, metric.topic == LOAD
        query = "" if is_load else (queries or {}).get(name, "")
        if queries is not None and not (query or is_load):
            continue
        with missing.reading("has data", "a fresh series", name, () if query else SourceError):
            query = query or resolve(context.prometheus, metric, context.matchers, end)
            frame = _ask(context, metric, query, start, end)
            if is_load:
                load = capturing.mean(frame, context.params.max_missing)
                about = about.model_copy(update={"load": load})
            if not is_load or about.load is not None:
                asked[name], frames[name] = query, frame
    return Measured(about, asked, frames).sealed, missing.findings


def _ask(
    context: Context, metric: Metric, query: str, start: datetime, end: datetime
) -> pd.DataFrame:
    """A metric by ``query``; one of ``by_node`` is the aggregate asked once a node. SourceError."""
    import pandas as pd

    if not metric.name.endswith(capturing.SUFFIX):
        return fetch(context.prometheus, query, start, end).values
    parts = []
    for node in context.cluster.nodes:
        own = {metric.label: node.name}
        frame = fetch(context.prometheus, inject(query, own), start, end)
        frame.only()
        parts.append(frame.values.set_axis([label_text(own)], axis=1))
    return pd.concat(parts, axis=1)


def pin(context: Context, made: Measured, rows: list[Row]) -> dict[str, Any]:
    """Keep what was captured, pinned where every row holds; what the result must say of it."""
    path = keep_file(context.folder, FILE, made.file())
    if all_pass(rows):
        context.store.pin(context.cluster_name, made.about.digest, path)
    about = made.about.model_dump(mode="json", exclude_none=True)
    return {**about, "metrics": dict(made.queries)}


def read_catalogue(context: Context) -> Catalogue:
    """The metric catalogue. Raises ParameterError, SourceError."""
    return parse_catalogue(context.scope.read(project_path(CATALOGUE)), CATALOGUE)


# --- The baseline of a stage's own cluster before its first change ---
#
# Everything of the catalogue is captured; what is critical must be there and healthy. Aggregates are
# captured node by node too, so that canaries have a past of their own. Design: section 10.


def pin_before(context: Context) -> dict[str, Any]:
    """Capture the hours before now and pin them: rows, and what the result's data must say.

    A metric that is not critical may have no series yet, as rewards have none while their gate is
    off: it is left out. Where an earlier attempt of the release began this change, it pinned what
    was before, and that stands.
    """
    if (earlier := _begun_before(context)) is not None:
        return earlier
    catalogue = read_catalogue(context)
    end = context.now
    hours = context.params.baseline_hours
    for cycle in (metric.cycle_hours for metric in catalogue.metrics):
        hours = math.ceil(hours / cycle) * cycle if cycle else hours  # whole ones of each
    start = end - timedelta(hours=hours)
    nodes = capturing.by_node(catalogue, context.site.telemetry.node_label)
    metrics = [*catalogue.metrics, *nodes]
    made, missing = capture(context, metrics, start, end)
    must = {metric.name for metric in metrics if metric.critical}
    rows = [row for row in missing if row.subject in must]
    for metric in metrics:
        if metric.name in must and metric.name in made.frames:
            frame = made.frames[metric.name]
            rows += capturing.judge(metric, frame, context.params.max_missing, names_of(context))
    context.findings += [row for row in rows if row.outcome is not Outcome.PASS]
    if all_pass(rows):  # the frames are kept, point by point
        text = f"{len(rows)} series covered and healthy"
        context.judge("baseline", BEFORE, text, text)
    return pin(context, made, rows)


def _begun_before(context: Context) -> dict[str, Any] | None:
    """What the first attempt pinned that took a step of this change here. Raises SourceError."""
    params, item = context.params, context.item
    found = context.ledger.attempts(params.release, context.stage, Kept, StepTaken)
    for name, entries in found:
        if name == context.attempt_name:
            break
        opened, kept = opened_by(entries, name), kept_by(entries, item)
        stepped = any(step.item == item for step in of(entries, StepTaken))
        same = (opened.source, opened.cluster) == (context.source, context.cluster_name)
        if kept and "digest" in kept and stepped and same:
            text = f"pinned by attempt {int(name.rpartition('/')[2])}"
            context.judge("baseline", BEFORE, "pinned", text, ok=True)
            return kept
    return None


def pinned_before(context: Context, journal: Sequence[Event], change: str) -> Measured:
    """The baseline that ``change`` pinned, by the journal of its attempt. Raises SourceError."""
    return pinned(context, kept_by(journal, change), change)


def pinned(context: Context, kept: Mapping[str, Any] | None, by: str) -> Measured:
    """The baseline that an item kept, by what its result or its attempt says. Raises SourceError."""
    if kept is None or "digest" not in kept:
        raise SourceError(by, "expected a baseline pinned before it, got none")
    known = {key: kept[key] for key in About.model_fields if key in kept}
    about = About.model_validate_json(canonical(known))
    path = context.store.pinned(about.cluster, about.digest, ".parquet")
    return read(context.scope.read(path), about, kept["metrics"], f"{by}: baseline")


def names_of(context: Context) -> Mapping[str, str]:
    """What figures and rows call a series: the node's name, by its validator or itself."""
    nodes = context.cluster.nodes
    own = {node.name: node.name for node in nodes}
    return {node.validator: node.name for node in nodes if node.validator} | own


def restarts(journal: Sequence[Event]) -> list[Stretch]:
    """From the intent to restart a node until its rates have settled, by the journal."""
    found: list[Stretch] = []
    begun: dict[str, datetime] = {}
    for step in of(journal, StepTaken):
        if step.step.startswith("restart"):
            start = begun.setdefault(step.node, step.at)
            if step.phase != "intent":
                found.append((start, step.at + SETTLE))
                del begun[step.node]
    return found


def concerns(labels: Mapping[str, str], matchers: Mapping[str, str]) -> bool:
    """Whether an alert may be a cluster's: one without its labels counts for every cluster."""
    return all(labels.get(name, value) == value for name, value in matchers.items())


def data_of(journal: Sequence[Event], item: str) -> list[dict[str, Any]]:
    """What the results of an item kept, run by run."""
    return [event.result.data for event in of(journal, RunEnded) if event.item == item]
