"""Operators between two vectors: which series meet, and what labels come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import Flags, Floats
from . import promql_functions as functions

_NAME = "__name__"
Row = tuple[dict[str, str], Floats, Flags]


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
        return merged(Vector(labels, values, self.present))

    @classmethod
    def of(cls, rows: list[Row], steps: int) -> Vector:
        shape = (len(rows), steps)
        return cls(
            [labels for labels, _, _ in rows],
            np.array([values for _, values, _ in rows], dtype=float).reshape(shape),
            np.array([present for _, _, present in rows], dtype=bool).reshape(shape),
        )


def combined(operation: str, left: Vector, right: Vector, modifier: Any) -> Vector:
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
    return merged(
        Vector(
            right.labels + left.labels,
            np.concatenate((right.values, left.values)),
            np.concatenate((right.present, kept)),
        )
    )


def matched(operation: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    """Arithmetic and comparison. Raises Unsupported where several series meet one."""
    key = _signature(modifier)
    if modifier is not None and (modifier.fill_values.lhs, modifier.fill_values.rhs) != (
        None,
        None,
    ):
        raise Unsupported("fill modifiers are not supported")
    card = "OneToOne" if modifier is None else str(modifier.card).rpartition(".")[2]
    if card not in ("OneToOne", "ManyToOne", "OneToMany"):
        raise Unsupported(f"matching {card} is not supported")
    many, one = (right, left) if card == "OneToMany" else (left, right)
    singles: dict[object, Row] = {}
    for row in one.rows():
        known = singles.get(key(row[0]))
        singles[key(row[0])] = row if known is None else (row[0], *_overlaid(known, row))
    out = []
    for labels, values, present in many.rows():
        if key(labels) not in singles:
            continue
        partner, other, available = singles[key(labels)]
        both = present & available
        pair = (other, values) if card == "OneToMany" else (values, other)
        result = functions.binary(operation, *pair)
        if operation in functions.COMPARISONS and not (modifier and modifier.return_bool):
            result, both = pair[0], both & (result != 0)
        out.append((_joined(labels, partner, operation, modifier, card), result, both))
    return merged(Vector.of(out, left.values.shape[1]))


def _signature(modifier: Any) -> Callable[[dict[str, str]], object]:
    matching = None if modifier is None else modifier.matching
    if matching is not None and str(matching.type).endswith("Include"):
        names = tuple(matching.labels)
        return lambda labels: tuple(labels.get(name, "") for name in names)
    ignored = {_NAME, *(matching.labels if matching is not None else ())}
    return lambda labels: frozenset((k, v) for k, v in labels.items() if k not in ignored)


def _joined(
    many: dict[str, str], one: dict[str, str], operation: str, modifier: Any, card: str
) -> dict[str, str]:
    """Labels of a result of vector matching."""
    drops_name = operation not in functions.COMPARISONS or (modifier and modifier.return_bool)
    labels = {k: v for k, v in many.items() if not (drops_name and k == _NAME)}
    matching = None if modifier is None else modifier.matching
    if card == "OneToOne" and matching is not None:
        includes = str(matching.type).endswith("Include")
        labels = {k: v for k, v in labels.items() if (k in matching.labels) == includes}
    for name in (modifier.group_labels if modifier is not None else None) or ():
        labels.pop(name, None)
        if one.get(name):
            labels[name] = one[name]
    return labels


def _overlaid(first: Row, second: Row) -> tuple[Floats, Flags]:
    if (first[2] & second[2]).any():
        raise Unsupported(f"several series match where one may: {first[0]} and {second[0]}")
    return np.where(first[2], first[1], second[1]), first[2] | second[2]


def merged(vector: Vector) -> Vector:
    """Rows of the same labels made one; at the same step there may be only one of them."""
    rows: dict[tuple[tuple[str, str], ...], Row] = {}
    for row in vector.rows():
        key = tuple(sorted(row[0].items()))
        rows[key] = (row[0], *_overlaid(rows[key], row)) if key in rows else row
    if len(rows) == len(vector.labels):
        return vector
    labels, values, present = zip(*rows.values(), strict=True)
    return Vector(list(labels), np.array(values), np.array(present))
