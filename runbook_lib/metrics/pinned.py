"""A baseline file read back: only what was pinned, whole and unaltered, is something to compare with."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, Field, ValidationError

from ..errors import SourceError
from ..outcomes import Model
from .baseline import STEP, digest_of

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("metric", "series", "unit", "time", "value")


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
    """A baseline of which a record says what it is and, by metric, the query.

    Raises SourceError when it is no such file, or not the one that the record tells of.
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
