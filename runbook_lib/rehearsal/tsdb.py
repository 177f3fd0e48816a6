"""Samples in memory, looked up as Prometheus looks them up."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Instants = npt.NDArray[np.int64]  # ms
Labels = Mapping[str, str]
STALE = np.array([0x7FF0000000000002], dtype=np.uint64).view(np.float64)[0]
"""The value that ends a series (Prometheus' staleness marker): a NaN of its own."""
ROUNDING = 1e-9
Matches = Callable[[str], bool]


@dataclass
class Series:
    """One series: labels (``__name__`` included), sample instants (ms, ascending) and values."""

    labels: dict[str, str]
    times: Instants
    values: Floats
    _room: tuple[Instants, Floats] | None = field(default=None, init=False, repr=False)

    def is_stale(self) -> Flags:
        flags: Flags = self.values.view(np.uint64) == STALE.view(np.uint64)
        return flags

    def has_ended(self) -> bool:
        """Whether its newest sample is a staleness marker."""
        return bool(self.values[-1:].view(np.uint64) == STALE.view(np.uint64))

    def samples(self) -> Series:
        """The series without its staleness markers."""
        kept = ~self.is_stale()
        return self if kept.all() else Series(self.labels, self.times[kept], self.values[kept])

    def extend(self, times: Instants, values: Floats) -> None:
        """Append what is newer; room is kept for more, so that samples can come one by one."""
        new = times > self.times[-1] if len(self.times) else np.ones(len(times), dtype=bool)
        if len(self.times):  # a sum that falls by a rounding error alone would read as a restart
            last = self.values[-1]
            with np.errstate(invalid="ignore"):
                slipped = (values < last) & (values > last * (1 - ROUNDING))
            values = np.where(slipped, last, values)
        size, end = len(self.times), len(self.times) + int(new.sum())
        if self._room is None or end > len(self._room[0]):
            self._room = np.empty(2 * end, np.int64), np.empty(2 * end)
            self._room[0][:size], self._room[1][:size] = self.times, self.values
        for room, more in zip(self._room, (times, values), strict=True):
            room[size:end] = more[new]
        self.times, self.values = self._room[0][:end], self._room[1][:end]

    def between(self, first: int, last: int) -> Series:
        """Its samples from ``first`` to ``last``, both included."""
        low = self.times.searchsorted(first, side="left")
        high = self.times.searchsorted(last, side="right")
        return Series(self.labels, self.times[low:high], self.values[low:high])


class Store:
    """Series by labels. Appending an instant twice keeps the first sample, as Prometheus does."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[tuple[tuple[str, str], ...], Series]] = {}

    def append(self, labels: Labels, times: Instants, values: Floats) -> None:
        """Add samples (ms, ascending)."""
        if not len(times):
            return
        family = self._by_name.setdefault(labels["__name__"], {})
        key = tuple(sorted(labels.items()))
        if key in family:
            family[key].extend(times, values)
        else:
            family[key] = Series(dict(labels), times.copy(), values.copy())

    def append_while(self, labels: Labels, times: Instants, values: Floats, there: Flags) -> None:
        """Add the samples that are ``there``; each time the series ends, a staleness marker."""
        known = self._by_name.get(labels["__name__"], {}).get(tuple(sorted(labels.items())))
        open_before = known is not None and not known.has_ended()
        ends = ~there & np.concatenate(([open_before], there[:-1]))
        kept = there | ends
        self.append(labels, times[kept], np.where(ends, STALE, values)[kept])

    def move(self, ms: int, told: Collection[str]) -> None:
        """Every sample by ``ms``; in series named ``told`` the values as well, in seconds."""
        for series in self:
            series.times += ms
            if series.labels["__name__"] in told:
                series.values[~series.is_stale()] += ms / 1000.0

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
