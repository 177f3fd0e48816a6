"""A subset of PromQL over numpy: what checks, dashboards and rules ask of a practice network.

An expression is evaluated at all steps at once: a vector is a list of rows, each a series' labels,
its values per step and where it has any; a scalar is an array of one value per step. The semantics
are those of Prometheus 2 (5 min lookback, windows closed on both sides, its extrapolation of
rates). What is not supported raises ``Unsupported``: an answer is either Prometheus' own or none.
"""

import operator
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import promql_parser as pql

from ..arrays import Flags, Floats, Indices, Instants
from .tsdb import Key, Matches, Series, Store, key_of, matcher

LOOKBACK_MS = 300_000
_NAME = "__name__"
_parsed = cache(pql.parse)
# (series, first and past-the-end sample per step, window ends, window length in ms)
OverRange = Callable[[Series, Indices, Indices, Instants, int], tuple[Floats, Flags]]


class BadQuery(ValueError):
    """The text is no PromQL."""


class Unsupported(ValueError):
    """PromQL this evaluator does not know, or operands that do not match."""


class Row(NamedTuple):
    """A series per step; a value counts only where it is ``present``."""

    labels: dict[str, str]
    values: Floats
    present: Flags


Vector = list[Row]
Value = Vector | Floats


def evaluate(store: Store, query: str, steps: Instants) -> Vector:
    """The value of ``query`` at each step (ms). Raises BadQuery or Unsupported."""
    try:
        parsed = _parsed(query)
    except ValueError as error:
        raise BadQuery(f"parse error: {error}") from None
    with np.errstate(all="ignore"):
        return _Evaluation(store, steps).vector(parsed)


class _Evaluation:
    def __init__(self, store: Store, steps: Instants) -> None:
        self.store, self.steps = store, steps

    def value(self, expr: Any) -> Value:
        match expr:
            case pql.NumberLiteral():
                return np.full(len(self.steps), expr.val)
            case pql.ParenExpr():
                return self.value(expr.expr)
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
        if isinstance(value, list):
            return value
        raise Unsupported(f"expected an instant vector, got a scalar: {expr}")

    def scalar(self, expr: Any) -> Floats:
        value = self.value(expr)
        assert not isinstance(value, list)  # the parser has seen to it
        return value

    def _reached(self, selector: Any, length: int) -> tuple[Instants, list[Series]]:
        """Window ends, and of each series the samples in windows of ``length`` (ms) before them."""
        ends = self.steps - _ms(selector.offset)
        first, last = int(ends.min()) - length, int(ends.max())
        return ends, [series.between(first, last) for series in select(self.store, selector)]

    def _instant(self, selector: Any) -> tuple[Vector, list[Floats]]:
        """The newest sample of the last five minutes per step, and its instant in ms."""
        at, found = self._reached(selector, LOOKBACK_MS)
        rows, instants = [], []
        for series in found:
            if not len(series.times):
                continue
            index = np.searchsorted(series.times, at, side="right") - 1
            known = np.maximum(index, 0)
            times = series.times[known]
            fresh = (index >= 0) & (at - times <= LOOKBACK_MS) & ~series.is_stale()[known]
            rows.append(Row(dict(series.labels), series.values[known], fresh))
            instants.append(times.astype(float))
        return rows, instants

    def _call(self, call: Any) -> Value:
        name, (first, *others) = call.func.name, call.args or [None]
        if name in RANGE:
            return self._over_range(RANGE[name], first)
        match name:
            case "time":
                return self.steps / 1000.0
            case "timestamp" if isinstance(first, pql.VectorSelector):
                vector, instants = self._instant(first)
                return _computed(vector, [times / 1000.0 for times in instants])
            case "vector":
                return [Row({}, self.scalar(first), np.ones(len(self.steps), dtype=bool))]
            case "clamp_min" | "clamp_max":
                vector, limit = self.vector(first), self.scalar(others[0])
                clamp = np.maximum if name == "clamp_min" else np.minimum
                return _computed(vector, [clamp(row.values, limit) for row in vector])
            case "floor":
                vector = self.vector(first)
                return _computed(vector, [np.floor(row.values) for row in vector])
            case "absent":
                return self._absent(first)
            case "histogram_quantile":
                return self._histogram_quantile(self.scalar(first), self.vector(others[0]))
        raise Unsupported(f"function {name}() is not supported")

    def _over_range(self, function: OverRange, selector: Any) -> Vector:
        if not isinstance(selector, pql.MatrixSelector):
            raise Unsupported(f"only plain range selectors are supported, got: {selector}")
        length = _ms(selector.range)
        ends, found = self._reached(selector.vector_selector, length)
        rows = []
        for series in (each.samples() for each in found):
            low = np.searchsorted(series.times, ends - length, side="left")
            high = np.searchsorted(series.times, ends, side="right")
            rows.append(Row(series.labels, *function(series, low, high, ends, length)))
        return _computed(rows, [row.values for row in rows])

    def _absent(self, expr: Any) -> Vector:
        nothing = np.zeros(len(self.steps), dtype=bool)
        there = np.any([nothing, *(row.present for row in self.vector(expr))], axis=0)
        labels = {}
        if isinstance(expr, pql.VectorSelector):
            equal = [m for m in expr.matchers.matchers if m.op == pql.MatchOp.Equal]
            labels = {m.name: m.value for m in equal if m.name != _NAME}
        return [Row(labels, np.ones(len(self.steps)), ~there)]

    def _histogram_quantile(self, rank: Floats, buckets: Vector) -> Vector:
        groups = _grouped(buckets, lambda labels: _without(labels, "le", _NAME))
        return [Row(dict(key), *_quantile(rank, rows)) for key, rows in groups.items()]

    def _aggregate(self, expr: Any) -> Vector:
        operation, modifier, by = str(expr.op), expr.modifier, list[str]()
        vector = self.vector(expr.expr)
        if operation not in AGGREGATE:
            raise Unsupported(f"aggregation {operation} is not supported")
        if modifier is not None:
            by = modifier.labels
            if modifier.type != pql.AggModifierType.By:
                raise Unsupported("aggregation without labels is not supported")
        out = []
        for key, rows in _grouped(vector, lambda labels: _only(labels, by)).items():
            values, present = (np.array([row[part] for row in rows]) for part in (1, 2))
            there = np.asarray(present.any(axis=0))
            out.append(Row(dict(key), AGGREGATE[operation](values, present), there))
        return out

    def _binary(self, expr: Any) -> Value:
        operation, modifier = str(expr.op), expr.modifier
        left, right = self.value(expr.lhs), self.value(expr.rhs)
        if isinstance(left, list) and isinstance(right, list):
            if operation in ("and", "or", "unless"):
                return _combined(operation, left, right, _signature(modifier))
            return _matched(operation, left, right, modifier)
        if not isinstance(left, list) and not isinstance(right, list):
            return _operated(operation, left, right)
        vector = left if isinstance(left, list) else right
        assert isinstance(vector, list)
        results = []
        for row in vector:
            sides = [row.values if isinstance(side, list) else side for side in (left, right)]
            results.append(_operated(operation, *sides))
        if _filters(operation, modifier):
            return [
                Row(row.labels, row.values, row.present & (result != 0))
                for row, result in zip(vector, results, strict=True)
            ]
        return _computed(vector, results)


def _ms(span: timedelta | None) -> int:
    return 0 if span is None else round(span.total_seconds() * 1000)


def select(store: Store, selector: Any) -> list[Series]:
    """The series a selector names, with all their samples."""
    if selector.at is not None:
        raise Unsupported("the @ modifier is not supported")
    if selector.matchers.or_matchers:
        raise Unsupported("alternatives between matchers are not supported")
    tests: dict[str, list[Matches]] = {}
    for each in selector.matchers.matchers:
        operation = str(each.op).rpartition(".")[2]
        test = matcher(each.value, regex="Re" in operation, equal="Not" not in operation)
        tests.setdefault(each.name, []).append(test)
    return store.select(selector.name, tests)


# --- labels: which series meet, and what labels come out -----------------------------------------


def _only(labels: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    return {name: labels[name] for name in names if labels.get(name)}


def _without(labels: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name not in names}


def _grouped(
    vector: Vector, keep: Callable[[dict[str, str]], dict[str, str]]
) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in vector:
        groups.setdefault(key_of(keep(row.labels)), []).append(row)
    return groups


def _one_each(vector: Vector, keep: Callable[[dict[str, str]], dict[str, str]]) -> dict[Key, Row]:
    """Rows of the same kept labels made one; at the same step there may be only one of them."""
    found = {}
    for key, rows in _grouped(vector, keep).items():
        labels, values, present = rows[0]
        for row in rows[1:]:
            if (present & row.present).any():
                raise Unsupported(f"several series match where one may: {labels} and {row.labels}")
            values, present = np.where(present, values, row.values), present | row.present
        found[key] = Row(labels, values, present)
    return found


def _computed(vector: Vector, values: Iterable[Floats]) -> Vector:
    """These series with other values; what is computed has no metric name."""
    rows = [
        Row(_without(row.labels, _NAME), each, row.present)
        for row, each in zip(vector, values, strict=True)
    ]
    return list(_one_each(rows, dict).values())


def _signature(modifier: Any) -> Callable[[dict[str, str]], dict[str, str]]:
    matching = None if modifier is None else modifier.matching
    if matching is None:
        return lambda labels: _without(labels, _NAME)
    if str(matching.type).endswith("Include"):
        return lambda labels: _only(labels, matching.labels)
    raise Unsupported("matching that ignores labels is not supported")


def _combined(
    operation: str, left: Vector, right: Vector, keep: Callable[[dict[str, str]], dict[str, str]]
) -> Vector:
    if operation == "or":
        left, right = right, left  # what is left over of the right side is added
    other = {
        key: np.logical_or.reduce([row.present for row in rows])
        for key, rows in _grouped(right, keep).items()
    }
    kept = []
    for row in left:
        met = other.get(key_of(keep(row.labels)), np.zeros_like(row.present))
        there = row.present & (met if operation == "and" else ~met)
        kept.append(Row(row.labels, row.values, there))
    return list(_one_each(right + kept, dict).values()) if operation == "or" else kept


def _matched(operation: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    """Arithmetic and comparison of one with one. Raises Unsupported where several series meet."""
    if modifier is not None and str(modifier.card).rpartition(".")[2] != "OneToOne":
        raise Unsupported("matching of many with one is not supported")
    if modifier is not None and {modifier.fill_values.lhs, modifier.fill_values.rhs} != {None}:
        raise Unsupported("fill modifiers are not supported")
    keep, filters = _signature(modifier), _filters(operation, modifier)
    singles, out = _one_each(right, keep), []
    for row in left:
        if (other := singles.get(key_of(keep(row.labels)))) is None:
            continue
        result, both = _operated(operation, row.values, other.values), row.present & other.present
        if filters:
            result, both = row.values, both & (result != 0)
        whole = filters and modifier.matching is None if modifier is not None else filters
        out.append(Row(row.labels if whole else keep(row.labels), result, both))
    return list(_one_each(out, dict).values())


# --- functions, aggregations and operators over arrays -------------------------------------------

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt,
    ">=": operator.ge, "<=": operator.le,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": np.true_divide,
}  # fmt: skip


def _filters(operation: str, modifier: Any) -> bool:
    return operation in COMPARISONS and not (modifier and modifier.return_bool)


def _operated(operation: str, left: Floats, right: Floats) -> Floats:
    function = _ARITHMETIC.get(operation) or COMPARISONS.get(operation)
    if function is None:
        raise Unsupported(f"operator {operation} is not supported")
    return np.asarray(function(left, right), dtype=np.float64)


def _sum(values: Floats, present: Flags) -> Floats:
    return np.asarray(np.where(present, values, 0.0).sum(axis=0))


def _count(values: Floats, present: Flags) -> Floats:
    return np.asarray(present.sum(axis=0), dtype=np.float64)


AGGREGATE: dict[str, Callable[[Floats, Flags], Floats]] = {
    "sum": _sum,
    "count": _count,
    "avg": lambda values, there: _sum(values, there) / np.maximum(_count(values, there), 1.0),
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


def _quantile(rank: Floats, rows: Vector) -> tuple[Floats, Flags]:
    """histogram_quantile of the cumulative buckets of one histogram, per step."""
    rows = sorted(rows, key=lambda row: float(row.labels.get("le", "nan")))
    bounds = np.array([0.0, *(float(row.labels.get("le", "nan")) for row in rows)])
    counts = np.maximum.accumulate([np.zeros(len(rank)), *(row.values for row in rows)])
    present = rows[0].present
    if not (np.diff(bounds) > 0).all() or not np.isposinf(bounds[-1]) or len(rows) < 2:
        raise Unsupported(f"expected buckets with bounds from 0 to +Inf, got {bounds[1:]}")
    if any((row.present != present).any() for row in rows) or not ((rank > 0) & (rank < 1)).all():
        raise Unsupported("histogram_quantile(): expected a quantile in (0, 1) of whole histograms")
    wanted, columns = rank * counts[-1], np.arange(len(rank))
    # The last bucket has no upper bound: its quantile is the bound below.
    index = np.minimum((counts[1:-1] < wanted).sum(axis=0), len(rows) - 1)
    below, start = counts[index, columns], bounds[index]
    inside = (wanted - below) / (counts[index + 1, columns] - below)
    result = start + (np.where(np.isinf(bounds), 0.0, bounds)[index + 1] - start) * inside
    result = np.where(index == len(rows) - 1, bounds[-2], result)
    return np.where(counts[-1] > 0, result, np.nan), present
