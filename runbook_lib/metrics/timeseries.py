"""Series over time and their annotations, in numbers and in words, for who sees no image.

Times are UTC, ``datetime64[ms]``. A sample that is not there is NaN, or its time is left out; both
are gaps. A zero is a sample.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runbook_lib.canonical import canonical
from runbook_lib.wording import count

from .plotdata import quantity

Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class PlotSeries:
    """One metric. ``values``: label (a node) to samples, each of the shape of ``times``.

    ``step`` is the expected distance of samples in seconds, by default the usual one seen;
    ``limits`` are drawn as lines. Raises ValueError when shapes disagree or times do not ascend.
    """

    title: str
    unit: str
    times: ArrayLike
    values: Mapping[str, ArrayLike]
    limits: tuple[float, ...] = ()
    step: float | None = None
    grid: Times = field(init=False, repr=False)
    lines: dict[str, Floats] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        grid = np.asarray(self.times, dtype="datetime64[ms]")
        lines = {name: np.asarray(self.values[name], dtype=float) for name in sorted(self.values)}
        wrong = [name for name, line in lines.items() if line.shape != grid.shape]
        if grid.ndim != 1 or wrong:
            raise ValueError(
                f"{self.title}: expected one value per time, got {wrong or grid.shape}"
            )
        if np.any(np.diff(grid) <= np.timedelta64(0, "ms")):
            raise ValueError(f"{self.title}: expected ascending times")
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "lines", lines)

    @property
    def matrix(self) -> Floats:
        """(labels, times)"""
        return np.array(list(self.lines.values())).reshape(len(self.lines), len(self.grid))

    @property
    def samples(self) -> Floats:
        """Every finite sample."""
        matrix = self.matrix
        return matrix[np.isfinite(matrix)]

    @property
    def missing(self) -> int:
        """Samples that are not there: NaN, infinite, or with their time left out."""
        skipped = np.rint(np.diff(self.grid) / self.gap_step()) - 1
        left_out = int(np.sum(np.clip(skipped, 0, None)))
        return self.matrix.size - self.samples.size + left_out * len(self.lines)

    def gap_step(self) -> np.timedelta64:
        """The distance of two samples: given, or the median one."""
        if self.step is not None:
            return np.timedelta64(round(self.step * 1000), "ms")
        gaps = np.diff(self.grid)
        return np.median(gaps).astype(gaps.dtype) if len(gaps) else np.timedelta64(1000, "ms")

    def with_gaps(self) -> tuple[Times, Floats]:
        """Times and matrix with a NaN at both ends of every stretch whose times are left out."""
        step = self.gap_step()
        after = np.flatnonzero(np.diff(self.grid) > step * 1.5)
        edges = np.concatenate([self.grid[after] + step, self.grid[after + 1] - step])
        times, kept = np.unique(np.concatenate([self.grid, edges]), return_index=True)
        padding = np.full((len(self.lines), len(edges)), np.nan)
        return times, np.concatenate([self.matrix, padding], axis=1)[:, kept]


@dataclass(frozen=True)
class Mark:
    """An alert or a gate change. With ``until`` it is a stretch of time."""

    time: datetime
    label: str
    until: datetime | None = None


def percentiles(samples: Floats) -> dict[str, float]:
    if not samples.size:
        return {}
    at = np.percentile(samples, (5, 50, 95))
    return {name: float(x) for name, x in zip(("p5", "p50", "p95"), at, strict=True)}


def middle_and_furthest(lines: Mapping[str, Floats]) -> tuple[Floats, str]:
    """The median of ``lines`` at each time, and the name of the line furthest from it."""
    matrix = np.array(list(lines.values()))
    matrix[~np.isfinite(matrix)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a time without any sample stays NaN
        middle = np.nanmedian(matrix, axis=0)
    away = np.nan_to_num(np.abs(matrix - middle)).sum(axis=1)
    return middle, list(lines)[int(np.argmax(away))]


def series_words(series: PlotSeries) -> str:
    """One line that says what the panel of ``series`` shows."""
    samples = series.samples
    if not samples.size:
        return f"{series.title}: no samples, {series.missing:,} missing"
    if samples.min() == samples.max():
        said = f"every sample is {quantity(float(samples[0]), series.unit)}"
    else:
        said = ", ".join(f"{k} {quantity(v, series.unit)}" for k, v in percentiles(samples).items())
    limits = "".join(f", limit {quantity(limit, series.unit)}" for limit in series.limits)
    first, last = (moment(t) for t in (series.grid[0], series.grid[-1]))
    plural = "" if len(series.lines) == 1 else f" of {len(series.lines)} series"
    if len(series.lines) > 1:
        plural += f" (furthest from their median: {middle_and_furthest(series.lines)[1]})"
    return (
        f"{series.title}: {said}{limits}; {count(samples.size, 'sample')}{plural}, "
        f"{series.missing:,} missing, {first} to {last} UTC"
    )


def mark_words(marks: Sequence[Mark], note: str = "") -> list[str]:
    """``A 2026-11-23 14:05:00 gate on dev-1``: the letters that stand in the figure; last the note."""
    said = [f"{letter(i)} {_span(mark)} {mark.label}" for i, mark in enumerate(marks)]
    return [*said, note] if note else said


def letter(index: int) -> str:
    """A, B, ... Z, then A1, B1, ..."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def moment(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("T", " ")


def _span(mark: Mark) -> str:
    times = [t.astimezone(UTC) for t in (mark.time, mark.until) if t is not None]
    return " to ".join(f"{t:%Y-%m-%d %H:%M:%S}" for t in times) + " UTC"


def plotted_digest(series: Sequence[PlotSeries], said: Sequence[str] = ()) -> str:
    """``sha256:HEX`` over all that is drawn: for each series the canonical JSON of its head, its
    times (int64 milliseconds) and its lines (float64), little-endian; last the marks in words."""
    sha = hashlib.sha256()
    for one in series:
        head = [one.title, one.unit, list(one.limits), one.step, list(one.lines), len(one.grid)]
        sha.update(canonical(head))
        sha.update(one.grid.astype("<i8").tobytes())
        matrix = one.matrix
        matrix[np.isnan(matrix)] = np.nan  # a NaN's payload is no data
        sha.update(matrix.astype("<f8").tobytes())
    sha.update(canonical(list(said)))
    return "sha256:" + sha.hexdigest()


def series_data(series: PlotSeries) -> dict[str, Any]:
    """The numbers of ``series_words`` for programs."""
    return {
        "title": series.title,
        "unit": series.unit,
        "limits": list(series.limits),
        "series": list(series.lines),
        "samples": int(series.samples.size),
        "missing": series.missing,
        **percentiles(series.samples),
    }
