"""Samples in memory, looked up as Prometheus looks them up."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..arrays import Flags, Floats, Instants

Labels = Mapping[str, str]
Key = tuple[tuple[str, str], ...]
STALE = np.array([0x7FF0000000000002], dtype=np.uint64).view(np.float64)[0]
"""The value that ends a series (Prometheus' staleness marker): a NaN of its own."""
ROUNDING = 1e-9
_NAMES = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
KEPT_MS = 3 * 86_400_000  # by default no runbook looks back longer
Matches = Callable[[str], bool]


def key_of(labels: Labels) -> Key:
    return tuple(sorted(labels.items()))


def matcher(text: str, *, regex: bool, equal: bool) -> Matches:
    """The test of a label's value. Raises re.error."""
    pattern = re.compile(text if regex else re.escape(text))
    return lambda value: (pattern.fullmatch(value) is not None) is equal


@dataclass
class Series:
    """One series: labels (``__name__`` included), sample instants (ms, ascending) and values."""

    labels: dict[str, str]
    times: Instants
    values: Floats

    def is_stale(self) -> Flags:
        flags: Flags = self.values.view(np.uint64) == STALE.view(np.uint64)
        return flags

    def samples(self) -> Series:
        kept = ~self.is_stale()
        return self if kept.all() else Series(self.labels, self.times[kept], self.values[kept])

    def between(self, first: int, last: int) -> Series:
        low = self.times.searchsorted(first, side="left")
        high = self.times.searchsorted(last, side="right")
        return Series(self.labels, self.times[low:high], self.values[low:high])

    def extend(self, times: Instants, values: Floats) -> None:
        """Append what is newer, and drop what is older than ``KEPT_MS``."""
        new, last = times > self.times[-1], self.values[-1]
        with np.errstate(invalid="ignore"):
            # A sum that falls by a rounding error alone would read as a restart.
            level = (values < last) & (values > last * (1 - ROUNDING))
        times = np.concatenate((self.times, times[new]))
        first = times.searchsorted(times[-1] - KEPT_MS)
        values = np.concatenate((self.values, np.where(level, last, values)[new]))
        self.times, self.values = times[first:], values[first:]


class Store:
    """Series by labels. Appending an instant twice keeps the first sample, as Prometheus does."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[Key, Series]] = {}

    def append(self, labels: Labels, times: Instants, values: Floats) -> None:
        if len(times):
            family, key = self._by_name.setdefault(labels["__name__"], {}), key_of(labels)
            if key in family:
                family[key].extend(times, values)
            else:
                family[key] = Series(dict(labels), times, values)

    def append_while(self, labels: Labels, times: Instants, values: Floats, there: Flags) -> None:
        """Add the samples that are ``there``; each time the series ends, a staleness marker."""
        if there.all():
            self.append(labels, times, values)
            return
        known = self._by_name.get(labels["__name__"], {}).get(key_of(labels))
        open_before = known is not None and not known.is_stale()[-1]
        ends = ~there & np.concatenate(([open_before], there[:-1]))
        kept = there | ends
        self.append(labels, times[kept], np.where(ends, STALE, values)[kept])

    def copy(self) -> Store:
        """The same samples; arrays are replaced, never changed, so they are shared."""
        made = Store()
        for name, family in self._by_name.items():
            made._by_name[name] = {key: replace(series) for key, series in family.items()}
        return made

    def move(self, ms: int, told: Collection[str]) -> None:
        """Every sample by ``ms``; in series named ``told`` the values as well, in seconds."""
        for series in self:
            series.times = series.times + ms
            if series.labels["__name__"] in told:
                series.values = series.values.copy()
                series.values[~series.is_stale()] += ms / 1000.0

    def select(self, name: str | None, matchers: Mapping[str, list[Matches]]) -> list[Series]:
        """Series of that metric name (all names when None) that satisfy every matcher; a label that
        a series lacks reads as the empty string."""
        return [
            series
            for each in ([name] if name else self._by_name)
            for series in self._by_name.get(each, {}).values()
            if all(
                test(series.labels.get(label, ""))
                for label, tests in matchers.items()
                for test in tests
            )
        ]

    def __iter__(self) -> Iterator[Series]:
        return iter(self.select(None, {}))


def format_value(value: float) -> str:
    text = repr(float(value))
    if "e" not in text:
        return _NAMES.get(text, text.removesuffix(".0"))
    if value and not 1e-6 <= abs(value) < 1e21:
        return re.sub(r"e([+-])0?(\d)$", r"e\g<1>0\2", text)
    return np.format_float_positional(value, trim="-")
