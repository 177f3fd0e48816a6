"""Samples in memory, looked up as Prometheus looks them up; written out for promtool."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TextIO

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Instants = npt.NDArray[np.int64]
Labels = Mapping[str, str]
Matches = Callable[[str], bool]


@dataclass
class Series:
    """One series: labels (``__name__`` included), sample instants (ms, ascending) and values."""

    labels: dict[str, str]
    times: Instants
    values: Floats

    def extend(self, times: Instants, values: Floats) -> None:
        new = times > self.times[-1] if len(self.times) else np.ones(len(times), dtype=bool)
        if new.any():
            self.times = np.concatenate((self.times, times[new]))
            self.values = np.concatenate((self.values, values[new]))


class Store:
    """Series by labels. Appending an instant twice keeps the first sample, as Prometheus does."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[tuple[tuple[str, str], ...], Series]] = {}

    def append(self, labels: Labels, times: Instants, values: Floats) -> None:
        if not len(times):
            return
        family = self._by_name.setdefault(labels["__name__"], {})
        key = tuple(sorted(labels.items()))
        if key in family:
            family[key].extend(times, values)
        else:
            family[key] = Series(dict(labels), times, values)

    def select(self, name: str | None, matchers: Mapping[str, list[Matches]]) -> list[Series]:
        """Series of that metric name (all names when None) that satisfy every matcher.

        A label a series does not have reads as the empty string.
        """
        names = [name] if name else list(self._by_name)
        return [
            series
            for each in names
            for series in self._by_name.get(each, {}).values()
            if all(
                test(series.labels.get(label, ""))
                for label, tests in matchers.items()
                for test in tests
            )
        ]

    def __iter__(self) -> Iterator[Series]:
        for family in self._by_name.values():
            yield from family.values()

    @property
    def last(self) -> int:
        """Instant of the newest sample, ms; 0 when there is none."""
        return max((int(series.times[-1]) for series in self), default=0)


def format_value(value: float) -> str:
    """A sample's value as Prometheus prints it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value and not 1e-6 <= abs(value) < 1e21:
        return re.sub(r"e([+-])0?(\d)$", r"e\g<1>0\2", repr(value))
    return np.format_float_positional(value, trim="-")


def format_labels(labels: Labels) -> str:
    """``{a="b",...}`` without the metric name; quotes, backslashes and newlines escaped."""
    pairs = [
        '{}="{}"'.format(key, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for key, value in sorted(labels.items())
        if key != "__name__"
    ]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def write_openmetrics(store: Store, file: TextIO) -> int:
    """All samples as OpenMetrics text with timestamps in seconds; returns how many there are."""
    seconds: dict[bytes, list[str]] = {}
    count = 0
    for series in store:
        head = series.labels["__name__"] + format_labels(series.labels) + " "
        key = series.times.tobytes()
        if key not in seconds:
            seconds[key] = [f" {t // 1000}.{t % 1000:03d}\n" for t in series.times.tolist()]
        lines = zip(series.values.tolist(), seconds[key], strict=True)
        file.write("".join([f"{head}{value}{stamp}" for value, stamp in lines]))
        count += len(series.times)
    file.write("# EOF\n")
    return count
