"""Capturing a baseline: the frames of a window, whether they can be trusted, and their digest."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import AwareDatetime, Field, ValidationError

from ..canonical import canonical, digest_bytes
from ..errors import SourceError
from ..files import keep_file
from ..findings import Findings
from ..outcomes import Model, Row, check_row, unknown_row
from ..sources.matrix import label_text
from ..sources.prometheus import Prometheus
from .catalogue import Catalogue, Metric, inject, limit_words, resolve
from .frames import STEP, Frame, fetch

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = ("metric", "series", "unit", "time", "value")
SETTLE = timedelta(minutes=5)
"""After a planned restart: the rates of the catalogue look three minutes back."""


@dataclass(frozen=True)
class Captured:
    """One metric over a window: the query that had data, and what it gave."""

    metric: Metric
    query: str
    frame: Frame


SUFFIX = "_by_node"
CLUSTER_WIDE = frozenset({"finality_lag"})
"""Topics that compare nodes with each other: they say nothing of one alone."""


def by_node(catalogue: Catalogue, label: str) -> list[Metric]:
    """The critical aggregates, each as a metric of single nodes: so a canary has a past of its own."""
    return [
        metric.model_copy(
            update={
                "name": metric.name + SUFFIX,
                "title": f"{metric.title}, by node",
                "per": "validator",
                "label": label,
            }
        )
        for metric in catalogue.metrics
        if metric.per == "aggregate" and metric.critical and metric.topic not in CLUSTER_WIDE
    ]


def capture(
    prometheus: Prometheus,
    metrics: Sequence[Metric],
    matchers: Mapping[str, str],
    start: datetime,
    end: datetime,
    nodes: Sequence[str] = (),
) -> tuple[list[Captured], list[Row]]:
    """Frames of ``metrics``, those of ``by_node`` one series a node; what cannot be read is a row."""
    captured, findings = [], Findings()
    for metric in metrics:
        with findings.reading("has data", "a fresh series", metric.name):
            query = resolve(prometheus, metric, matchers, end)
            frame = fetch_metric(prometheus, metric, query, nodes, start, end)
            captured.append(Captured(metric, query, frame))
    return captured, findings.findings


def fetch_metric(
    prometheus: Prometheus,
    metric: Metric,
    query: str,
    nodes: Sequence[str],
    start: datetime,
    end: datetime,
) -> Frame:
    """A metric's frame; of one of ``by_node`` the aggregate asked once a node. Raises SourceError."""
    if not metric.name.endswith(SUFFIX):
        return fetch(prometheus, query, start, end, STEP)
    import pandas as pd

    parts, labels, warnings = [], [], list[str]()
    for node in nodes:
        own = {metric.label: node}
        frame = fetch(prometheus, inject(query, own), start, end, STEP)
        if len(frame.labels) != 1:
            got = f"{len(frame.labels)}"
            raise SourceError("prometheus", f"{node}: expected one series, got {got}")
        parts.append(frame.values.set_axis([label_text(own)], axis=1))
        labels.append(own)
        warnings += frame.warnings
    return Frame(pd.concat(parts, axis=1), tuple(labels), tuple(warnings))


def judge(captured: Captured, max_missing: float) -> list[Row]:
    """Rows of one metric: coverage of each series, and its median against the healthy limit."""
    metric, frame = captured.metric, captured.frame
    if frame.partial:
        return [unknown_row(metric.name, "complete answer", "yes", frame.warnings[0])]
    if not frame.labels:
        return [unknown_row(metric.name, "series", "at least one", "none in the window")]
    rows, points = [], len(frame.values)
    for labels, column in zip(frame.labels, frame.values.to_numpy().T, strict=True):
        name = labels.get(metric.label, "") or ", ".join(labels.values()) or "all nodes"
        subject = f"{metric.name} {name}" if len(frame.labels) > 1 else metric.name
        finite = column[np.isfinite(column)]
        lost = 1 - len(finite) / points
        if lost > max_missing:
            got = f"{lost:.1%} of {points} points missing"
            rows.append(unknown_row(subject, "coverage", f"at most {max_missing:.0%} missing", got))
            continue
        median = float(np.median(finite))
        shown, ok = float(f"{median:.6g}"), metric.limit is None or metric.limit.holds(median)
        rows.append(check_row(subject, "median", limit_words(metric), shown, ok, unit=metric.unit))
    return rows


def mean(captured: Captured, max_missing: float) -> float | None:
    """The mean of a metric of one series; None where the answer is partial or has too many holes."""
    frame = captured.frame
    if frame.partial or len(frame.labels) != 1:
        return None
    values = frame.values.to_numpy()
    finite = values[np.isfinite(values)]
    if len(finite) < (1 - max_missing) * len(values):
        return None
    return float(f"{np.mean(finite):.6g}")


def content_digest(captured: Sequence[Captured], start: datetime, end: datetime) -> str:
    """The digest of what was captured: queries, window, series and every sample as float64."""
    return digest_of([(c.metric.name, c.query, c.frame.values) for c in captured], start, end)


def digest_of(
    parts: Sequence[tuple[str, str, pd.DataFrame]], start: datetime, end: datetime
) -> str:
    """``content_digest`` of (metric's name, query, frame)."""
    metrics = [
        {"name": name, "query": query, "series": list(f.columns)} for name, query, f in parts
    ]
    ends = {"start": start.isoformat(), "end": end.isoformat()}
    head = {**ends, "step_s": STEP.total_seconds(), "metrics": metrics}
    samples = [frame.to_numpy().astype("<f8").tobytes() for _, _, frame in parts]
    return digest_bytes(b"\n".join([canonical(head), *samples]))


def write(captured: Sequence[Captured], path: Path, about: Mapping[str, Any]) -> None:
    """The frames as one parquet file: metric, series, unit, time (UTC), value; ``about`` beside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"time": pa.timestamp("ms", "UTC"), "value": pa.float64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    batches = []
    for one in captured:
        for series, values in one.frame.values.items():
            same = {"metric": one.metric.name, "series": str(series), "unit": one.metric.unit}
            columns = {name: pa.repeat(text, len(values)) for name, text in same.items()}
            columns |= {"time": values.index.to_numpy(), "value": values.to_numpy()}
            batches.append(pa.record_batch(columns, schema))
    table = pa.Table.from_batches(batches, schema)
    written = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"baseline": json.dumps(about)}), written)
    keep_file(
        path.parent.parent, f"{path.parent.name}/{path.name}", written.getvalue().to_pybytes()
    )


def called(series: str, names: Mapping[str, str]) -> str:
    """What a figure calls a series: the site's name of its node, or the whole cluster."""
    found = (name for address, name in names.items() if address and f'"{address}"' in series)
    return next(found, "all nodes" if series == "{}" else series)


# --- A pinned baseline read back, whole and unaltered ---


class About(Model):
    """Where and when a baseline was captured, and what makes two of them comparable.

    ``load`` is the mean of the catalogue's load metric, in its unit; None where it is not known.
    """

    release: str
    cluster: str
    start: AwareDatetime
    end: AwareDatetime
    digest: str
    epoch_length: Annotated[int, Field(gt=0)]
    validators: Annotated[int, Field(gt=0)]
    load: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True)
class Measured:
    """What a window held: by metric the query that gave it, and its frame.

    A frame has a UTC index at a constant step and one float column a series, NaN where a point is
    missing.
    """

    about: About
    queries: Mapping[str, str]
    frames: Mapping[str, pd.DataFrame]


def parse(body: bytes, where: str) -> tuple[About, dict[str, pd.DataFrame]]:
    """What a file as ``baseline.write`` wrote it says of itself, and its frames by metric.

    Nothing vouches for either. Raises SourceError when it is no such file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(body))
        about = About.model_validate_json((table.schema.metadata or {})[b"baseline"])
    except (pa.ArrowException, OSError, KeyError, ValidationError) as error:
        raise SourceError(where, f"expected a pinned baseline, got: {error!r:.200}") from error
    if tuple(table.column_names) != COLUMNS:
        got = ", ".join(table.column_names)
        raise SourceError(where, f"expected columns {', '.join(COLUMNS)}, got {got}")
    return about, _frames(table.to_pandas(), about, where)


def read(body: bytes, expected: About, queries: Mapping[str, str], where: str) -> Measured:
    """A baseline of which a log says what it is and, by metric, the query.

    Raises SourceError when it is no such file, or not the one that the log tells of.
    """
    told, frames = parse(body, where)
    if set(frames) != set(queries):
        got = f"{', '.join(sorted(frames)) or 'none'}"
        raise SourceError(where, f"expected metrics {', '.join(sorted(queries))}, got {got}")
    parts = [(name, queries[name], frame) for name, frame in frames.items()]
    found = digest_of(parts, expected.start, expected.end)
    if found != expected.digest:
        raise SourceError(where, f"expected content {expected.digest}, got {found}")
    if told != expected:
        raise SourceError(where, f"expected {expected!r} as recorded, got {told!r}")
    return Measured(expected, dict(queries), frames)


def _frames(table: pd.DataFrame, about: About, where: str) -> dict[str, pd.DataFrame]:
    """By metric, in the file's order, as are its series."""
    import pandas as pd

    grid = _grid(about.start, about.end)
    frames = {}
    for name, rows in table.groupby("metric", sort=False):
        series = {}
        for label, part in rows.groupby("series", sort=False):
            if not pd.DatetimeIndex(part["time"]).equals(grid):
                got = f"{len(part)} at others"
                problem = f"{name} {label}: expected {len(grid)} points at {STEP}, got {got}"
                raise SourceError(where, problem)
            series[str(label)] = part["value"].to_numpy(dtype="float64")
        frames[str(name)] = pd.DataFrame(series, index=grid)
    return frames


def _grid(start: datetime, end: datetime) -> pd.DatetimeIndex:
    """The instants a capture asks for, whole milliseconds as Prometheus takes them."""
    import pandas as pd

    first = pd.Timestamp(start).floor("ms")
    return pd.date_range(first, periods=(end - start) // STEP + 1, freq=STEP, unit="ms")
