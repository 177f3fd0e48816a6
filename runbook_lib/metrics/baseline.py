"""Metrics over a window: whether they can be trusted, pinned by digest, and read back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import AwareDatetime, Field, ValidationError

from ..canonical import canonical, digest_bytes
from ..errors import SourceError
from ..outcomes import Model, Row, check_row, unknown_row
from .catalogue import Catalogue, Metric, limit_words
from .frames import STEP

if TYPE_CHECKING:
    import pandas as pd


SETTLE = timedelta(minutes=5)
"""After a planned restart: the rates of the catalogue look three minutes back."""
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


def judge(
    metric: Metric, frame: pd.DataFrame, max_missing: float, names: Mapping[str, str]
) -> list[Row]:
    """Rows of one metric: coverage of each series, and its median against the healthy limit."""
    if not len(frame.columns):
        return [unknown_row(metric.name, "series", "at least one", "none in the window")]
    rows, points = [], len(frame)
    for series in frame.columns:
        subject = (
            f"{metric.name} {called(series, names)}" if len(frame.columns) > 1 else metric.name
        )
        values = frame[series].to_numpy()
        finite = values[np.isfinite(values)]
        lost = 1 - len(finite) / points
        if lost > max_missing:
            got = f"{lost:.1%} of {points} points missing"
            rows.append(unknown_row(subject, "coverage", f"at most {max_missing:.0%} missing", got))
            continue
        median = float(np.median(finite))
        shown, ok = float(f"{median:.6g}"), metric.limit is None or metric.limit.holds(median)
        expected = limit_words(metric.limit, metric.unit)
        rows.append(check_row(subject, "median", expected, shown, ok, unit=metric.unit))
    return rows


def mean(frame: pd.DataFrame, max_missing: float) -> float | None:
    """The mean of one series; None where there are others, or it has too many holes."""
    values = frame.to_numpy()
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

    @property
    def sealed(self) -> Measured:
        """The same, with the digest of its content."""
        return replace(self, about=self.about.model_copy(update={"digest": self.content_digest}))

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
