"""A subset of PromQL over numpy, for a rehearsal without a Prometheus: what its runbooks and rules ask.

An expression is evaluated at all steps at once: a vector is a matrix of series by steps with a mask
of what is present. The semantics are those of Prometheus 2 (5 min lookback, windows closed on both
sides, its extrapolation of rates). What is not supported raises ``Unsupported``: an answer is
either Prometheus' own or none.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import promql_parser as pql

from ..arrays import Flags, Floats, Indices, Instants
from .tsdb import Matches, Series, Store

LOOKBACK_MS = 300_000
_NAME = "__name__"
Row = tuple[dict[str, str], Floats, Flags]
# (series, first and past-the-end sample per step, window ends, window length in ms)
OverRange = Callable[[Series, Indices, Indices, Instants, int], tuple[Floats, Flags]]


class BadQuery(ValueError):
    """The text is no PromQL."""


class Unsupported(ValueError):
    """PromQL this evaluator does not know, or operands that do not match."""


@dataclass
class Vector:
    """Rows are series, columns are steps; a value counts only where ``present``."""

    labels: list[dict[str, str]]
    values: Floats
    present: Flags

    def rows(self) -> Iterable[Row]:
        return zip(self.labels, self.values, self.present, strict=True)

    def computed(self, values: Floats) -> Vector:
        """These series with other values; what is computed has no metric name."""
        labels = [{k: v for k, v in row.items() if k != _NAME} for row in self.labels]
        return _merged(Vector(labels, values, self.present))

    @classmethod
    def of(cls, rows: list[Row], steps: int) -> Vector:
        shape = (len(rows), steps)
        return cls(
            [labels for labels, _, _ in rows],
            np.array([values for _, values, _ in rows], dtype=float).reshape(shape),
            np.array([present for _, _, present in rows], dtype=bool).reshape(shape),
        )


Value = Vector | Floats  # a scalar is an array of one value per step


def parse(query: str) -> Any:
    try:
        return pql.parse(query)
    except ValueError as error:
        raise BadQuery(f"parse error: {error}") from None


def evaluate(store: Store, query: str, steps: Instants) -> Value:
    """The value of ``query`` at each step (ms). Raises BadQuery or Unsupported."""
    with np.errstate(all="ignore"):
        return _Evaluation(store, steps).value(parse(query))


def _reached(found: list[Series], ends: Instants, length: int) -> list[Series]:
    """Of each series the samples that windows of ``length`` (ms) before the ends can hold."""
    first, last = int(ends.min()) - length, int(ends.max())
    return [series.between(first, last) for series in found]


class _Evaluation:
    def __init__(self, store: Store, steps: Instants) -> None:
        self.store = store
        self.steps = steps

    def value(self, expr: Any) -> Value:
        match expr:
            case pql.NumberLiteral():
                return np.full(len(self.steps), expr.val)
            case pql.ParenExpr():
                return self.value(expr.expr)
            case pql.UnaryExpr():
                value = self.value(expr.expr)
                return value.computed(-value.values) if isinstance(value, Vector) else -value
            case pql.VectorSelector():
                return self._instant(expr)[0]
            case pql.AggregateExpr():
                return self._aggregate(expr)
            case pql.BinaryExpr():
                return self._binary(expr)
            case pql.Call():
                return self._call(expr)
        raise Unsupported(f"{type(expr).__name__} is not supported: {expr}")

    def vector(self, expr: Any) -> Vector:
        value = self.value(expr)
        if isinstance(value, Vector):
            return value
        raise Unsupported(f"expected an instant vector, got a scalar: {expr}")

    def scalar(self, expr: Any) -> Floats:
        value = self.value(expr)
        if isinstance(value, Vector):
            raise Unsupported(f"expected a scalar, got an instant vector: {expr}")
        return value

    def _instant(self, selector: Any) -> tuple[Vector, Floats]:
        """The newest sample of the last five minutes per step, and its instant in ms."""
        at = self.steps - _ms(selector.offset)
        found = _reached(select(self.store, selector), at, LOOKBACK_MS)
        shape = (len(found), len(at))
        values, present, times = np.zeros(shape), np.zeros(shape, dtype=bool), np.zeros(shape)
        for row, series in enumerate(found):
            if not len(series.times):
                continue
            index = np.searchsorted(series.times, at, side="right") - 1
            known = np.maximum(index, 0)
            times[row] = series.times[known]
            values[row] = series.values[known]
            fresh = (index >= 0) & (at - series.times[known] <= LOOKBACK_MS)
            present[row] = fresh & ~series.is_stale()[known]
        return Vector([dict(series.labels) for series in found], values, present), times

    def _call(self, call: Any) -> Value:
        name = call.func.name
        if name in RANGE:
            return self._over_range(RANGE[name], call.args[0])
        match name:
            case "time":
                return self.steps / 1000.0
            case "timestamp":
                return self._timestamp(call.args[0])
            case "vector":
                value = self.scalar(call.args[0])[None, :]
                return Vector([{}], value, np.ones(value.shape, dtype=bool))
            case "clamp_min" | "clamp_max":
                vector, limit = self.vector(call.args[0]), self.scalar(call.args[1])
                clamp = np.maximum if name == "clamp_min" else np.minimum
                return vector.computed(clamp(vector.values, limit))
            case "floor":
                vector = self.vector(call.args[0])
                return vector.computed(np.floor(vector.values))
            case "absent":
                return self._absent(call.args[0])
            case "histogram_quantile":
                return self._histogram_quantile(*call.args)
        raise Unsupported(f"function {name}() is not supported")

    def _over_range(self, function: OverRange, selector: Any) -> Vector:
        if not isinstance(selector, pql.MatrixSelector):
            raise Unsupported(f"only plain range selectors are supported, got: {selector}")
        lookup, length = selector.vector_selector, _ms(selector.range)
        ends = self.steps - _ms(lookup.offset)
        found = [each.samples() for each in _reached(select(self.store, lookup), ends, length)]
        values = np.zeros((len(found), len(ends)))
        present = np.zeros(values.shape, dtype=bool)
        for row, series in enumerate(found):
            low = np.searchsorted(series.times, ends - length, side="left")
            high = np.searchsorted(series.times, ends, side="right")
            values[row], present[row] = function(series, low, high, ends, length)
        vector = Vector([dict(series.labels) for series in found], values, present)
        return vector.computed(vector.values)

    def _timestamp(self, expr: Any) -> Vector:
        if isinstance(expr, pql.VectorSelector):
            vector, times = self._instant(expr)
        else:
            vector = self.vector(expr)
            times = np.broadcast_to(self.steps.astype(float), vector.values.shape)
        return vector.computed(times / 1000.0)

    def _absent(self, expr: Any) -> Vector:
        present = ~_any(self.vector(expr).present)
        labels = {}
        if isinstance(expr, pql.VectorSelector):
            equal = [m for m in expr.matchers.matchers if m.op == pql.MatchOp.Equal]
            labels = {m.name: m.value for m in equal if m.name != _NAME}
        return Vector([labels], np.ones((1, len(self.steps))), present[None, :])

    def _histogram_quantile(self, rank: Any, buckets: Any) -> Vector:
        ranks, vector = self.scalar(rank), self.vector(buckets)
        rows = [row for row, labels in enumerate(vector.labels) if _bound(labels) is not None]
        groups = _grouped([vector.labels[row] for row in rows], without=("le", _NAME))
        out = []
        for labels, members in groups:
            chosen = [rows[member] for member in members]
            bounds = np.array([_bound(vector.labels[row]) for row in chosen], dtype=float)
            order = np.argsort(bounds, kind="stable")
            index = np.array(chosen)[order]
            present = vector.present[index]
            values = _bucket_quantiles(ranks, bounds[order], vector.values[index], present)
            out.append((labels, values, _any(present)))
        return Vector.of(out, len(self.steps))

    def _aggregate(self, expr: Any) -> Vector:
        operation = str(expr.op)
        vector = self.vector(expr.expr)
        modifier = expr.modifier
        if operation not in AGGREGATE:
            raise Unsupported(f"aggregation {operation} is not supported")
        if modifier is not None and modifier.type != pql.AggModifierType.By:
            raise Unsupported("aggregation without labels is not supported")
        groups = _grouped(vector.labels, by=() if modifier is None else modifier.labels)
        out = []
        for labels, members in groups:
            values, present = vector.values[members], vector.present[members]
            out.append((labels, AGGREGATE[operation](values, present), _any(present)))
        return Vector.of(out, len(self.steps))

    def _binary(self, expr: Any) -> Value:
        operation, modifier = str(expr.op), expr.modifier
        left, right = self.value(expr.lhs), self.value(expr.rhs)
        if isinstance(left, Vector) and isinstance(right, Vector):
            if operation in ("and", "or", "unless"):
                return _combined(operation, left, right, modifier)
            return _matched(operation, left, right, modifier)
        returns_bool = modifier is not None and modifier.return_bool
        if not isinstance(left, Vector) and not isinstance(right, Vector):
            return _operated(operation, left, right)
        vector = left if isinstance(left, Vector) else right
        assert isinstance(vector, Vector)
        operands = [side.values if isinstance(side, Vector) else side for side in (left, right)]
        result = _operated(operation, operands[0], operands[1])
        if operation in COMPARISONS and not returns_bool:
            return Vector(vector.labels, vector.values, vector.present & (result != 0))
        return vector.computed(result)


def _ms(span: timedelta | None) -> int:
    return 0 if span is None else round(span.total_seconds() * 1000)


def _any(present: Flags) -> Flags:
    """Per step: whether any series is there."""
    return np.asarray(present.any(axis=0))


def select(store: Store, selector: Any) -> list[Series]:
    """The series a selector names, with all their samples."""
    if selector.at is not None:
        raise Unsupported("the @ modifier is not supported")
    if selector.matchers.or_matchers:
        raise Unsupported("alternatives between matchers are not supported")
    name: str | None = selector.name
    tests: dict[str, list[Matches]] = {}
    for matcher in selector.matchers.matchers:
        if matcher.name == _NAME and matcher.op == pql.MatchOp.Equal:
            name = matcher.value
        else:
            tests.setdefault(matcher.name, []).append(_test(matcher))
    return store.select(name, tests)


def _test(matcher: Any) -> Matches:
    value = str(matcher.value)
    if matcher.op == pql.MatchOp.Equal:
        return lambda text: text == value
    if matcher.op == pql.MatchOp.NotEqual:
        return lambda text: text != value
    pattern = re.compile(value)
    if matcher.op == pql.MatchOp.Re:
        return lambda text: pattern.fullmatch(text) is not None
    return lambda text: pattern.fullmatch(text) is None


def _bound(labels: dict[str, str]) -> float | None:
    try:
        return float(labels["le"])
    except (KeyError, ValueError):
        return None


def _grouped(
    rows: list[dict[str, str]], *, by: Iterable[str] | None = None, without: Iterable[str] = ()
) -> list[tuple[dict[str, str], list[int]]]:
    """Rows that agree on the kept labels, in order of first appearance."""
    groups: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for index, labels in enumerate(rows):
        if by is not None:
            kept = {name: labels[name] for name in by if labels.get(name)}
        else:
            kept = {name: value for name, value in labels.items() if name not in without}
        groups.setdefault(tuple(sorted(kept.items())), []).append(index)
    return [(dict(key), members) for key, members in groups.items()]


# --- operators between vectors: which series meet, and what labels come out ----------------------


def _combined(operation: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    """and, or, unless."""
    key = _signature(modifier)
    if operation == "or":
        left, right = right, left  # what is left over of the right side is added
    other: dict[object, Flags] = {}
    for labels, _, present in right.rows():
        other[key(labels)] = other.get(key(labels), np.zeros_like(present)) | present
    nothing = np.zeros(left.values.shape[1], dtype=bool)
    seen = np.array([other.get(key(labels), nothing) for labels in left.labels], dtype=bool)
    seen = seen.reshape(left.present.shape)
    kept = left.present & (seen if operation == "and" else ~seen)
    if operation != "or":
        return Vector(left.labels, left.values, kept)
    return _merged(
        Vector(
            right.labels + left.labels,
            np.concatenate((right.values, left.values)),
            np.concatenate((right.present, kept)),
        )
    )


def _matched(operation: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    """Arithmetic and comparison of one with one. Raises Unsupported where several series meet."""
    key = _signature(modifier)
    if modifier is not None and str(modifier.card).rpartition(".")[2] != "OneToOne":
        raise Unsupported("matching of many with one is not supported")
    if modifier is not None and {modifier.fill_values.lhs, modifier.fill_values.rhs} != {None}:
        raise Unsupported("fill modifiers are not supported")
    singles: dict[object, Row] = {}
    for row in right.rows():
        known = singles.get(key(row[0]))
        singles[key(row[0])] = row if known is None else (row[0], *_overlaid(known, row))
    filters = operation in COMPARISONS and not (modifier and modifier.return_bool)
    out = []
    for labels, values, present in left.rows():
        if key(labels) in singles:
            _, other, available = singles[key(labels)]
            result, both = _operated(operation, values, other), present & available
            if filters:
                result, both = values, both & (result != 0)
            out.append((_joined(labels, modifier, keeps_name=filters), result, both))
    return _merged(Vector.of(out, left.values.shape[1]))


def _signature(modifier: Any) -> Callable[[dict[str, str]], object]:
    matching = None if modifier is None else modifier.matching
    if matching is not None and str(matching.type).endswith("Include"):
        names = tuple(matching.labels)
        return lambda labels: tuple(labels.get(name, "") for name in names)
    ignored = {_NAME, *(matching.labels if matching is not None else ())}
    return lambda labels: frozenset((k, v) for k, v in labels.items() if k not in ignored)


def _joined(labels: dict[str, str], modifier: Any, *, keeps_name: bool) -> dict[str, str]:
    """Labels of a result of vector matching."""
    labels = {k: v for k, v in labels.items() if keeps_name or k != _NAME}
    matching = None if modifier is None else modifier.matching
    if matching is None:
        return labels
    includes = str(matching.type).endswith("Include")
    return {k: v for k, v in labels.items() if (k in matching.labels) == includes}


def _overlaid(first: Row, second: Row) -> tuple[Floats, Flags]:
    if (first[2] & second[2]).any():
        raise Unsupported(f"several series match where one may: {first[0]} and {second[0]}")
    return np.where(first[2], first[1], second[1]), first[2] | second[2]


def _merged(vector: Vector) -> Vector:
    """Rows of the same labels made one; at the same step there may be only one of them."""
    rows: dict[tuple[tuple[str, str], ...], Row] = {}
    for row in vector.rows():
        key = tuple(sorted(row[0].items()))
        rows[key] = (row[0], *_overlaid(rows[key], row)) if key in rows else row
    if len(rows) == len(vector.labels):
        return vector
    labels, values, present = zip(*rows.values(), strict=True)
    return Vector(list(labels), np.array(values), np.array(present))


# --- functions, aggregations and operators over arrays -------------------------------------------

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


def _operated(operation: str, left: Floats, right: Floats) -> Floats:
    """Arithmetic, or 1 and 0 for a comparison."""
    function = _ARITHMETIC.get(operation) or COMPARISONS[operation]
    return np.asarray(function(left, right), dtype=np.float64)


def _sum(values: Floats, present: Flags) -> Floats:
    return np.asarray(np.where(present, values, 0.0).sum(axis=0))


def _count(values: Floats, present: Flags) -> Floats:
    return np.asarray(present.sum(axis=0), dtype=np.float64)


def _average(values: Floats, present: Flags) -> Floats:
    return _sum(values, present) / np.maximum(_count(values, present), 1.0)


AGGREGATE: dict[str, Callable[[Floats, Flags], Floats]] = {
    "sum": _sum,
    "count": _count,
    "avg": _average,
    "group": lambda values, present: np.ones(values.shape[1]),
    # NaN is ignored unless there is nothing else.
    "min": lambda values, present: np.fmin.reduce(np.where(present, values, np.nan)),
    "max": lambda values, present: np.fmax.reduce(np.where(present, values, np.nan)),
}


def _extrapolated(*, per_second: bool) -> OverRange:
    """rate and increase: what a counter gained in the window, extrapolated to its edges."""

    def function(
        series: Series, low: Indices, high: Indices, ends: Instants, length: int
    ) -> tuple[Floats, Flags]:
        present = high - low >= 2
        if not present.any():
            return np.zeros(len(ends)), present
        first = np.where(present, low, 0)
        last = np.where(present, high - 1, 1)
        values, times = series.values, series.times
        # What it had reached before each fall, summed up to each sample, is gained as well.
        fell = np.where(np.diff(values) < 0, values[:-1], 0.0)
        reset = np.concatenate(([0.0], np.cumsum(fell)))
        change = values[last] - values[first] + reset[last] - reset[first]
        sampled = (times[last] - times[first]) / 1000.0
        spacing = sampled / (last - first)
        to_start = (times[first] - (ends - length)) / 1000.0
        to_end = (ends - times[last]) / 1000.0
        # A counter cannot have been negative.
        zero = sampled * (values[first] / np.where(change == 0, np.inf, change))
        known = (change > 0) & (values[first] >= 0)
        to_start = np.where(known & (zero < to_start), zero, to_start)
        limit = spacing * 1.1
        covered = sampled + np.where(to_start < limit, to_start, spacing / 2)
        covered = covered + np.where(to_end < limit, to_end, spacing / 2)
        factor = covered / sampled
        return change * (factor / (length / 1000.0) if per_second else factor), present

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


RANGE: dict[str, OverRange] = {
    "rate": _extrapolated(per_second=True),
    "increase": _extrapolated(per_second=False),
    "max_over_time": _folded(np.fmax.reduce),
    "count_over_time": _folded(len),
    "present_over_time": _folded(lambda values: 1.0),
    "resets": _folded(lambda values: (np.diff(values) < 0).sum()),
}


def _bucket_quantiles(rank: Floats, bounds: Floats, counts: Floats, present: Flags) -> Floats:
    """histogram_quantile of cumulative buckets (rows in order of their bounds), per step.

    Buckets may be there at some steps and not at others.
    """
    out = np.full(counts.shape[1], np.nan)
    for pattern in np.unique(present, axis=1).T:
        columns = (present == pattern[:, None]).all(axis=0)
        if pattern.any():
            out[columns] = _one_quantile(
                rank[columns], bounds[pattern], counts[np.ix_(pattern, columns)]
            )
    return out


def _one_quantile(rank: Floats, bounds: Floats, counts: Floats) -> Floats:
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
