"""Samples in memory, looked up as Prometheus looks them up."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..arrays import Flags, Floats, Instants

Labels = Mapping[str, str]
STALE = np.array([0x7FF0000000000002], dtype=np.uint64).view(np.float64)[0]
"""The value that ends a series (Prometheus' staleness marker): a NaN of its own."""
_STALE_BITS = STALE.view(np.uint64)
ROUNDING = 1e-9
KEPT_MS = 3 * 86_400_000  # by default no runbook looks back longer
Matches = Callable[[str], bool]


@dataclass
class Series:
    """One series: labels (``__name__`` included), sample instants (ms, ascending) and values."""

    labels: dict[str, str]
    times: Instants
    values: Floats

    def is_stale(self) -> Flags:
        flags: Flags = self.values.view(np.uint64) == _STALE_BITS
        return flags

    def samples(self) -> Series:
        """The series without its staleness markers."""
        kept = ~self.is_stale()
        return self if kept.all() else Series(self.labels, self.times[kept], self.values[kept])

    def between(self, first: int, last: int) -> Series:
        """Its samples from ``first`` to ``last``, both included."""
        low = self.times.searchsorted(first, side="left")
        high = self.times.searchsorted(last, side="right")
        return Series(self.labels, self.times[low:high], self.values[low:high])


class _Growing:
    """A series with room for more, so that samples can come one by one; its clock is the store's.

    Half the bytes do for instants, counted from its oldest, and for values that lose nothing by it.
    """

    def __init__(self, labels: Labels, times: Instants, values: Floats) -> None:
        self.labels, self.size, self._begin = dict(labels), len(times), times[0]
        self._times = (times - self._begin).astype(np.int32)
        self._values = values.astype(_held_as(values))

    @property
    def times(self) -> Instants:
        times: Instants = self._begin + self._times[: self.size]
        return times

    @property
    def newest(self) -> int:
        return int(self._begin) + int(self._times[self.size - 1])

    @property
    def values(self) -> Floats:
        return self._values[: self.size].astype(float, copy=False)

    @property
    def has_ended(self) -> bool:
        """Whether its newest sample is a staleness marker."""
        newest = self._values[self.size - 1 : self.size].astype(float)
        return bool(newest.view(np.uint64)[0] == _STALE_BITS)

    def extend(self, times: Instants, values: Floats) -> None:
        """Append what is newer."""
        newest, last = self.newest, float(self._values[self.size - 1])
        if times[0] <= newest:
            new = times > newest
            times, values = times[new], values[new]
        with np.errstate(invalid="ignore"):
            fell = values < last
        if fell.any():  # a sum that falls by a rounding error alone would read as a restart
            values = np.where(fell & (values > last * (1 - ROUNDING)), last, values)
        end = self.size + len(times)
        if end > len(self._times):
            old = int(self.times.searchsorted(times[-1] - KEPT_MS))
            end -= old
            for name in ("_times", "_values"):
                held = getattr(self, name)  # in place, if there is room
                room = held if end <= len(held) else np.empty(end + end // 8, held.dtype)
                room[: self.size - old] = held[old : self.size]
                setattr(self, name, room)
            self.size -= old
            oldest = self._times[0] if self.size else times[0] - self._begin
            self._times[: self.size] -= oldest
            self._begin = self._begin + oldest
        wide = np.promote_types(self._values.dtype, _held_as(values))
        with np.errstate(invalid="ignore"):  # the room behind the samples holds anything
            self._values = self._values.astype(wide, copy=False)
        self._times[self.size : end], self._values[self.size : end] = times - self._begin, values
        self.size = end


def _held_as(values: Floats) -> str:
    """A type of half the bytes where not a bit is lost by it, as with what is counted."""
    with np.errstate(all="ignore"):
        same = values.astype("f4").astype(float).view(np.uint64) == values.view(np.uint64)
    return "f4" if same.all() else "f8"


class Store:
    """Series by labels. Appending an instant twice keeps the first sample, as Prometheus does."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[tuple[tuple[str, str], ...], _Growing]] = {}
        self._moved = 0  # ms; what was moved keeps its instants, and is read off by as much

    def append(self, labels: Labels, times: Instants, values: Floats) -> None:
        """Add samples (ms, ascending)."""
        if len(times):
            family = self._by_name.setdefault(labels["__name__"], {})
            key = tuple(sorted(labels.items()))
            if key in family:
                family[key].extend(times - self._moved, values)
            else:
                family[key] = _Growing(labels, times - self._moved, values)

    def append_while(self, labels: Labels, times: Instants, values: Floats, there: Flags) -> None:
        """Add the samples that are ``there``; each time the series ends, a staleness marker."""
        if there.all():
            self.append(labels, times, values)
            return
        known = self._by_name.get(labels["__name__"], {}).get(tuple(sorted(labels.items())))
        open_before = known is not None and not known.has_ended
        ends = ~there & np.concatenate(([open_before], there[:-1]))
        kept = there | ends
        self.append(labels, times[kept], np.where(ends, STALE, values)[kept])

    def move(self, ms: int, told: Collection[str]) -> None:
        """Every sample by ``ms``; in series named ``told`` the values as well, in seconds."""
        self._moved += ms
        for name in told:
            family = self._by_name.get(name, {})
            for key, series in family.items():
                values = series.values
                values[~self._read(series).is_stale()] += ms / 1000.0
                family[key] = _Growing(series.labels, series.times, values)

    def _read(self, series: _Growing) -> Series:
        return Series(series.labels, series.times + self._moved, series.values)

    def select(self, name: str | None, matchers: Mapping[str, list[Matches]]) -> list[Series]:
        """Series of that metric name (all names when None) that satisfy every matcher.

        A label a series does not have reads as the empty string.
        """
        names = [name] if name else list(self._by_name)
        return [
            self._read(series)
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
            yield from map(self._read, family.values())

    @property
    def last(self) -> int:
        """Instant of the newest sample, ms; 0 when there is none."""
        newest = (s.newest for family in self._by_name.values() for s in family.values())
        return int(max(newest, default=-self._moved)) + self._moved


def format_value(value: float) -> str:
    """A sample's value as Prometheus prints it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value and not 1e-6 <= abs(value) < 1e21:
        return re.sub(r"e([+-])0?(\d)$", r"e\g<1>0\2", repr(value))
    return np.format_float_positional(value, trim="-")
