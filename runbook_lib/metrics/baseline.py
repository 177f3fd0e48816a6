"""Capturing metrics over a window: whether they can be trusted, pinned by digest, and read back."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AwareDatetime, Field, ValidationError

from ..canonical import canonical, digest_bytes
from ..errors import SourceError
from ..findings import Findings
from ..outcomes import Model, Row, check_row, unknown_row
from ..sources.matrix import label_text
from ..sources.prometheus import Prometheus
from .catalogue import LOAD, Catalogue, Metric, inject, limit_words, resolve
from .frames import STEP, Frame, fetch

if TYPE_CHECKING:
    import pandas as pd


SETTLE = timedelta(minutes=5)
"""After a planned restart: the rates of the catalogue look three minutes back."""
SUFFIX = "_by_node"
CLUSTER_WIDE = frozenset({"finality_lag"})
"""Topics that compare nodes with each other: they say nothing of one alone."""


@dataclass(frozen=True)
class Captured:
    """One metric over a window: the query that had data, and what it gave."""

    metric: Metric
    query: str
    frame: Frame


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
            captured.append(ask(prometheus, metric, query, nodes, start, end))
    return captured, findings.findings


def ask(
    prometheus: Prometheus,
    metric: Metric,
    query: str,
    nodes: Sequence[str],
    start: datetime,
    end: datetime,
) -> Captured:
    """A metric by ``query``; one of ``by_node`` is the aggregate asked once a node. SourceError."""
    if not metric.name.endswith(SUFFIX):
        return Captured(metric, query, fetch(prometheus, query, start, end))
    import pandas as pd

    own, parts = [{metric.label: node} for node in nodes], []
    for labels in own:
        frame = fetch(prometheus, inject(query, labels), start, end)
        frame.only()
        parts.append(frame.values.set_axis([label_text(labels)], axis=1))
    return Captured(metric, query, Frame(pd.concat(parts, axis=1), tuple(own)))


def judge(captured: Captured, max_missing: float) -> list[Row]:
    """Rows of one metric: coverage of each series, and its median against the healthy limit."""
    metric, frame = captured.metric, captured.frame
    if not frame.labels:
        return [unknown_row(metric.name, "series", "at least one", "none in the window")]
    rows, points = [], len(frame.values)
    for labels, column in frame.series:
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
        rows.append(
            check_row(
                subject,
                "median",
                limit_words(metric.limit, metric.unit),
                shown,
                ok,
                unit=metric.unit,
            )
        )
    return rows


def mean(captured: Captured, max_missing: float) -> float | None:
    """The mean of a metric of one series; None where there are others, or it has too many holes."""
    values = captured.frame.values.to_numpy()
    finite = values[np.isfinite(values)]
    if values.shape[1] != 1 or len(finite) < (1 - max_missing) * len(values):
        return None
    return float(f"{np.mean(finite):.6g}")


def called(series: str, names: Mapping[str, str]) -> str:
    """What a figure calls a series: the site's name of its node, or the whole cluster."""
    found = (name for address, name in names.items() if address and f'"{address}"' in series)
    return next(found, "all nodes" if series == "{}" else series)


# --- What a window held, pinned as a baseline and read back, whole and unaltered ---


class About(Model):
    """Where and when metrics were measured, and what makes two windows comparable.

    ``load`` is the mean of the catalogue's load metric, in its unit; None where it is not known.
    """

    release: str
    cluster: str
    start: AwareDatetime
    end: AwareDatetime
    digest: str = ""
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

    @classmethod
    def of(cls, captured: Sequence[Captured], about: About, max_missing: float) -> Measured:
        """What was captured, with its load and the digest of its content."""
        loads = [mean(one, max_missing) for one in captured if one.metric.topic == LOAD]
        made = cls(
            about.model_copy(update={"load": loads[0] if loads else None}),
            {one.metric.name: one.query for one in captured},
            {one.metric.name: one.frame.values for one in captured},
        )
        return cls(
            made.about.model_copy(update={"digest": made.content_digest}), made.queries, made.frames
        )

    @property
    def content_digest(self) -> str:
        """Of queries, window, series and every sample as float64."""
        metrics = [
            {"name": name, "query": self.queries[name], "series": list(frame.columns)}
            for name, frame in self.frames.items()
        ]
        ends = {"start": self.about.start.isoformat(), "end": self.about.end.isoformat()}
        head = {**ends, "step_s": STEP.total_seconds(), "metrics": metrics}
        samples = [frame.to_numpy().astype("<f8").tobytes() for frame in self.frames.values()]
        return digest_bytes(b"\n".join([canonical(head), *samples]))

    def file(self) -> bytes:
        """A parquet file: ``time`` (UTC), then a column a series, ``METRIC {LABELS}``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"time": pa.array(_grid(self.about))} | {
            f"{name} {series}": pa.array(values.to_numpy())
            for name, frame in self.frames.items()
            for series, values in frame.items()
        }
        table = pa.table(columns, metadata={"baseline": self.about.model_dump_json()})
        written = pa.BufferOutputStream()
        pq.write_table(table, written)
        return bytes(written.getvalue().to_pybytes())


def read(body: bytes, expected: About, queries: Mapping[str, str], where: str) -> Measured:
    """A file as ``Measured.file`` gives it, of which a log says what it is and, by metric, the query.

    Raises SourceError when it is no such file, or not the one that the log tells of.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(body))
        told = About.model_validate_json((table.schema.metadata or {})[b"baseline"])
        values = table.to_pandas().set_index("time").astype("float64")
    except (pa.ArrowException, OSError, KeyError, ValueError, ValidationError) as error:
        raise SourceError(where, f"expected a pinned baseline, got: {error!r:.200}") from error
    grid = _grid(told)
    if not pd.DatetimeIndex(values.index).equals(grid):
        problem = f"expected {len(grid)} points at {STEP}, got {len(values)} at others"
        raise SourceError(where, problem)
    series: dict[str, dict[str, pd.Series[float]]] = {}
    for column in values.columns:
        metric, _, labels = str(column).partition(" ")
        series.setdefault(metric, {})[labels] = values[column]
    if set(series) != set(queries):
        got = f"{', '.join(sorted(series)) or 'none'}"
        raise SourceError(where, f"expected metrics {', '.join(sorted(queries))}, got {got}")
    frames = {name: pd.DataFrame(each) for name, each in series.items()}
    found = Measured(expected, dict(queries), frames)
    if found.content_digest != expected.digest:
        raise SourceError(where, f"expected content {expected.digest}, got {found.content_digest}")
    if told != expected:
        raise SourceError(where, f"expected {expected!r} as recorded, got {told!r}")
    return found


def _grid(about: About) -> pd.DatetimeIndex:
    """The instants a capture asks for, whole milliseconds as Prometheus takes them."""
    import pandas as pd

    first = pd.Timestamp(about.start).floor("ms")
    points = (about.end - about.start) // STEP + 1
    return pd.date_range(first, periods=points, freq=STEP, unit="ms")
