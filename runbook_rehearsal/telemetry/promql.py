"""A subset of PromQL over numpy, for a rehearsal without a Prometheus.

An expression is evaluated at all steps at once: a vector is a matrix of series by steps with a mask
of what is present. The semantics are those of Prometheus 2 (5 min lookback, windows closed on both
sides, its extrapolation of rates). What is not supported raises ``Unsupported``: an answer is
either Prometheus' own or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import promql_parser as pql

from ..arrays import Flags, Floats, Instants
from . import promql_functions as functions
from . import promql_matching as matching
from .promql_matching import Unsupported, Vector
from .tsdb import Matches, Series, Store

__all__ = ["BadQuery", "Unsupported", "Value", "Vector", "evaluate", "parse", "select", "window"]

LOOKBACK_MS = 300_000
_NAME = "__name__"


class BadQuery(ValueError):
    """The text is no PromQL."""


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


def window(store: Store, selector: Any, at: int) -> list[Series]:
    """The raw samples of a range selector at one instant (ms)."""
    lookup = selector.vector_selector
    end = at - _ms(lookup.offset)
    found = []
    for series in _reached(select(store, lookup), np.array([end]), _ms(selector.range)):
        kept = series.samples()
        if len(kept.times):
            found.append(kept)
    return found


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
                return self._negated(self.value(expr.expr))
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

    def _negated(self, value: Value) -> Value:
        if isinstance(value, Vector):
            return value.computed(-value.values)
        return -value

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
        if name in functions.RANGE:
            return self._over_range(functions.RANGE[name], call.args[0])
        if name in functions.ELEMENTWISE:
            vector = self.vector(call.args[0])
            limits = [self.scalar(argument) for argument in call.args[1:]]
            if name == "clamp" and (limits[0] > limits[1]).any():
                raise Unsupported("clamp() with a minimum above the maximum is not supported")
            return vector.computed(functions.ELEMENTWISE[name](vector.values, *limits))
        match name:
            case "time":
                return self.steps / 1000.0
            case "timestamp":
                return self._timestamp(call.args[0])
            case "vector":
                value = self.scalar(call.args[0])[None, :]
                return Vector([{}], value, np.ones(value.shape, dtype=bool))
            case "scalar":
                vector = self.vector(call.args[0])
                alone = vector.present.sum(axis=0) == 1
                return np.where(
                    alone, np.where(vector.present, vector.values, 0).sum(axis=0), np.nan
                )
            case "absent":
                return self._absent(call.args[0])
            case "quantile_over_time":
                rank = self.scalar(call.args[0])
                return self._over_range(functions.quantile_over_time(float(rank[0])), call.args[1])
            case "histogram_quantile":
                return self._histogram_quantile(*call.args)
        raise Unsupported(f"function {name}() is not supported")

    def _over_range(self, function: functions.OverRange, selector: Any) -> Vector:
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
        keeps_name = function is functions.RANGE["last_over_time"]
        return vector if keeps_name else vector.computed(vector.values)

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
            values = functions.bucket_quantile(ranks, bounds[order], vector.values[index], present)
            out.append((labels, values, _any(present)))
        return Vector.of(out, len(self.steps))

    def _aggregate(self, expr: Any) -> Vector:
        operation = str(expr.op)
        vector = self.vector(expr.expr)
        if operation not in functions.AGGREGATE and operation != "quantile":
            raise Unsupported(f"aggregation {operation} is not supported")
        modifier = expr.modifier
        if modifier is None:
            groups = _grouped(vector.labels, by=())
        elif modifier.type == pql.AggModifierType.By:
            groups = _grouped(vector.labels, by=modifier.labels)
        else:
            groups = _grouped(vector.labels, without=(*modifier.labels, _NAME))
        out = []
        for labels, members in groups:
            values, present = vector.values[members], vector.present[members]
            if operation == "quantile":
                result = functions.quantile(self.scalar(expr.param), values, present)
            else:
                result = functions.AGGREGATE[operation](values, present)
            out.append((labels, result, _any(present)))
        return Vector.of(out, len(self.steps))

    def _binary(self, expr: Any) -> Value:
        operation, modifier = str(expr.op), expr.modifier
        left, right = self.value(expr.lhs), self.value(expr.rhs)
        if isinstance(left, Vector) and isinstance(right, Vector):
            if operation in ("and", "or", "unless"):
                return matching.combined(operation, left, right, modifier)
            return matching.matched(operation, left, right, modifier)
        returns_bool = modifier is not None and modifier.return_bool
        if not isinstance(left, Vector) and not isinstance(right, Vector):
            return functions.binary(operation, left, right)
        vector = left if isinstance(left, Vector) else right
        assert isinstance(vector, Vector)
        operands = [side.values if isinstance(side, Vector) else side for side in (left, right)]
        result = functions.binary(operation, operands[0], operands[1])
        if operation in functions.COMPARISONS and not returns_bool:
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
