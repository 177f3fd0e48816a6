"""What PromQL's functions, aggregations and operators do to arrays, as Prometheus 2 does it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Flags, Floats, Indices, Instants
from .tsdb import Series

# (series, first and past-the-end sample per step, window ends, window length in ms)
OverRange = Callable[[Series, Indices, Indices, Instants, int], tuple[Floats, Flags]]

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.true_divide,
    "%": np.fmod,
    "^": np.power,
}


def binary(operation: str, left: Floats, right: Floats) -> Floats:
    """Arithmetic, or 1 and 0 for a comparison."""
    function = _ARITHMETIC.get(operation) or COMPARISONS[operation]
    return np.asarray(function(left, right), dtype=np.float64)


ELEMENTWISE: dict[str, Callable[..., Floats]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "exp": np.exp,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "clamp": np.clip,
    "clamp_min": np.maximum,
    "clamp_max": np.minimum,
}


def _sum(values: Floats, present: Flags) -> Floats:
    return np.asarray(np.where(present, values, 0.0).sum(axis=0))


def _count(values: Floats, present: Flags) -> Floats:
    return np.asarray(present.sum(axis=0), dtype=np.float64)


def _average(values: Floats, present: Flags) -> Floats:
    return _sum(values, present) / np.maximum(_count(values, present), 1.0)


def _deviation(values: Floats, present: Flags) -> Floats:
    mean = _average(values, present)
    return np.sqrt(_average((values - mean) ** 2, present))


AGGREGATE: dict[str, Callable[[Floats, Flags], Floats]] = {
    "sum": _sum,
    "count": _count,
    "avg": _average,
    "stddev": _deviation,
    "group": lambda values, present: np.ones(values.shape[1]),
    # NaN is ignored unless there is nothing else.
    "min": lambda values, present: np.fmin.reduce(np.where(present, values, np.nan)),
    "max": lambda values, present: np.fmax.reduce(np.where(present, values, np.nan)),
}


def quantile(rank: Floats, values: Floats, present: Flags) -> Floats:
    """The quantile over series at each step."""
    columns = range(values.shape[1])
    return np.array([_quantile(rank[c], values[present[:, c], c]) for c in columns])


def _quantile(rank: float, values: Floats) -> float:
    if not len(values) or np.isnan(rank):
        return float("nan")
    if not 0.0 <= rank <= 1.0:
        return float("-inf") if rank < 0.0 else float("inf")
    # NaN sorts first in Prometheus.
    ordered = np.sort(np.where(np.isnan(values), -np.inf, values))
    ordered[: np.isnan(values).sum()] = np.nan
    place = rank * (len(values) - 1)
    low = int(np.floor(place))
    high = min(low + 1, len(values) - 1)
    weight = place - low
    return float(ordered[low] * (1.0 - weight) + ordered[high] * weight)


def _extrapolated(*, counter: bool, per_second: bool) -> OverRange:
    """rate, increase and delta: the window's change, extrapolated to its edges."""

    def function(
        series: Series, low: Indices, high: Indices, ends: Instants, length: int
    ) -> tuple[Floats, Flags]:
        present = high - low >= 2
        if not present.any():
            return np.zeros(len(ends)), present
        first = np.where(present, low, 0)
        last = np.where(present, high - 1, 1)
        values, times = series.values, series.times
        change = values[last] - values[first]
        if counter:
            reset = _resets(values)
            change = change + reset[last] - reset[first]
        sampled = (times[last] - times[first]) / 1000.0
        spacing = sampled / (last - first)
        to_start = (times[first] - (ends - length)) / 1000.0
        to_end = (ends - times[last]) / 1000.0
        if counter:  # a counter cannot have been negative
            zero = sampled * (values[first] / np.where(change == 0, np.inf, change))
            known = (change > 0) & (values[first] >= 0)
            to_start = np.where(known & (zero < to_start), zero, to_start)
        limit = spacing * 1.1
        covered = sampled + np.where(to_start < limit, to_start, spacing / 2)
        covered = covered + np.where(to_end < limit, to_end, spacing / 2)
        factor = covered / sampled
        return change * (factor / (length / 1000.0) if per_second else factor), present

    return function


def _resets(values: Floats) -> Floats:
    """What the counter had reached before each fall, summed up to each sample."""
    fell = np.where(np.diff(values) < 0, values[:-1], 0.0)
    return np.concatenate(([0.0], np.cumsum(fell)))


def _last_two(*, counter: bool, per_second: bool) -> OverRange:
    """irate and idelta."""

    def function(
        series: Series, low: Indices, high: Indices, ends: Instants, length: int
    ) -> tuple[Floats, Flags]:
        present = high - low >= 2
        if not present.any():
            return np.zeros(len(ends)), present
        last = np.where(present, high - 1, 1)
        change = series.values[last] - series.values[last - 1]
        if counter:
            change = np.where(change < 0, series.values[last], change)
        seconds = (series.times[last] - series.times[last - 1]) / 1000.0
        return change / seconds if per_second else change, present

    return function


def _folded(fold: Callable[[Floats], Any]) -> OverRange:
    """A function of the samples of a window, whatever their instants."""

    def function(
        series: Series, low: Indices, high: Indices, ends: Instants, length: int
    ) -> tuple[Floats, Flags]:
        present = high > low
        values = np.zeros(len(ends))
        for step in np.flatnonzero(present):
            values[step] = fold(series.values[low[step] : high[step]])
        return values, present

    return function


def quantile_over_time(rank: float) -> OverRange:
    return _folded(lambda values: _quantile(rank, values))


def _changes(values: Floats) -> int:
    both_nan = np.isnan(values[1:]) & np.isnan(values[:-1])
    return int(((np.diff(values) != 0) & ~both_nan).sum())


RANGE: dict[str, OverRange] = {
    "rate": _extrapolated(counter=True, per_second=True),
    "increase": _extrapolated(counter=True, per_second=False),
    "delta": _extrapolated(counter=False, per_second=False),
    "irate": _last_two(counter=True, per_second=True),
    "idelta": _last_two(counter=False, per_second=False),
    "avg_over_time": _folded(np.mean),
    "sum_over_time": _folded(np.sum),
    "min_over_time": _folded(np.fmin.reduce),
    "max_over_time": _folded(np.fmax.reduce),
    "count_over_time": _folded(len),
    "last_over_time": _folded(lambda values: values[-1]),
    "present_over_time": _folded(lambda values: 1.0),
    "stddev_over_time": _folded(np.std),
    "changes": _folded(_changes),
    "resets": _folded(lambda values: (np.diff(values) < 0).sum()),
}


def bucket_quantile(rank: Floats, bounds: Floats, counts: Floats, present: Flags) -> Floats:
    """histogram_quantile of cumulative buckets (rows in order of their bounds), per step.

    Buckets may be there at some steps and not at others.
    """
    out = np.full(counts.shape[1], np.nan)
    for pattern in np.unique(present, axis=1).T:
        columns = (present == pattern[:, None]).all(axis=0)
        if pattern.any():
            out[columns] = _bucket_quantile(
                rank[columns], bounds[pattern], counts[np.ix_(pattern, columns)]
            )
    return out


def _bucket_quantile(rank: Floats, bounds: Floats, counts: Floats) -> Floats:
    bounds, where = np.unique(bounds, return_inverse=True)
    coalesced = np.zeros((len(bounds), counts.shape[1]))
    np.add.at(coalesced, where, counts)
    if len(bounds) < 2 or not np.isposinf(bounds[-1]):
        return np.full(counts.shape[1], np.nan)
    counts = np.maximum.accumulate(coalesced)
    observations = counts[-1]
    wanted = rank * observations
    # The last bucket has no upper bound: its quantile is the bound below.
    index = np.minimum((counts[:-1] < wanted).sum(axis=0), len(bounds) - 1)
    columns = np.arange(counts.shape[1])
    below = np.where(index > 0, counts[index - 1, columns], 0.0)
    start = np.where(index > 0, bounds[index - 1], 0.0)
    inside = (wanted - below) / (counts[index, columns] - below)
    result = start + (np.where(np.isinf(bounds), 0.0, bounds)[index] - start) * inside
    result = np.where((index == 0) & (bounds[0] <= 0), bounds[0], result)
    result = np.where(index == len(bounds) - 1, bounds[-2], result)
    result = np.where(rank < 0, -np.inf, np.where(rank > 1, np.inf, result))
    return np.where((observations == 0) | np.isnan(observations) | np.isnan(rank), np.nan, result)
