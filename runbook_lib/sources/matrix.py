"""A range answer of Prometheus, read by columns: no Python object per sample.

The samples of a series travel as ``"values":[[1764500000.123,"1.5"],...]``. Each such span is cut
out of the body; what is left is small and is parsed as JSON against a model, so that nothing but
spans can be skipped. A span is read by arithmetic on its bytes: quotes give the places of all
numbers, every byte between them is checked, times are added up digit by digit, and values are
converted by Arrow, exactly. Anything unexpected is an error, never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from ..errors import SourceError
from . import wire
from .wire import Wire

_START, _END = b'"values":[[', b"]]"
_QUOTE, _COMMA, _OPEN, _CLOSE, _POINT, _ZERO = b'",[].0'
SECOND_DIGITS = 10  # from 2001 to 2286
LARGE, THREADS = 4_000_000, 2  # bytes from which threads pay; more than two add little

Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Columns = tuple[Times, Values]
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Series:
    """Samples of one series: ``times`` in ms since 1970, strictly increasing, and ``values``."""

    labels: dict[str, str]
    times: Times
    values: Values


@dataclass(frozen=True)
class Matrix:
    """A range answer. With ``warnings`` it is partial: what is missing may be anything."""

    series: tuple[Series, ...]
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        return bool(self.warnings)


class _Series(Wire):
    metric: dict[str, str]
    values: int | None = None
    histograms: JsonValue = None


class _Data(Wire):
    resultType: Literal["matrix"]
    result: list[_Series]


class _Envelope(Wire):
    status: Literal["success"]
    data: _Data
    warnings: list[str] = []
    infos: list[str] = []


def parse(source: str, body: bytes) -> Matrix:
    """The series of a range answer. Raises SourceError for whatever is not one."""
    if _START not in body and b'"values"' in body:
        body = _compact(source, body)
    spans = list(_spans(source, body))
    envelope = wire.decode(source, _skeleton(body, spans), _Envelope)
    found = envelope.data.result
    for series in found:
        if series.histograms is not None:
            text = label_text(series.metric)
            raise SourceError(source, f"{text}: expected float samples, got a native histogram")
    if [series.values for series in found] != list(range(len(spans))):
        raise SourceError(source, "expected one list of samples per series, got another number")
    if len({label_text(series.metric) for series in found}) != len(found):
        raise SourceError(source, "expected every series once, got one twice")
    columns = zip(found, _columns(source, body, spans), strict=True)
    read = tuple(Series(each.metric, times, values) for each, (times, values) in columns)
    return Matrix(read, tuple(envelope.warnings), tuple(envelope.infos))


def merge(source: str, parts: Sequence[Matrix]) -> Matrix:
    """Answers about windows that follow each other, as one."""
    if len(parts) == 1:
        return parts[0]
    found: dict[str, list[Series]] = {}
    for part in parts:
        for series in part.series:
            found.setdefault(label_text(series.labels), []).append(series)
    joined = []
    for several in found.values():
        times = np.concatenate([series.times for series in several])
        _increasing(source, times)
        values = np.concatenate([series.values for series in several])
        joined.append(Series(several[0].labels, times, values))
    return Matrix(
        tuple(joined),
        tuple(dict.fromkeys(text for part in parts for text in part.warnings)),
        tuple(dict.fromkeys(text for part in parts for text in part.infos)),
    )


def shifted(found: Matrix, ms: int) -> Matrix:
    """The same samples ``ms`` later."""
    if not ms:
        return found
    moved = {id(series.times): series.times + ms for series in found.series}
    series = tuple(replace(each, times=moved[id(each.times)]) for each in found.series)
    return replace(found, series=series)


def label_text(labels: dict[str, str]) -> str:
    """Labels as PromQL writes them, sorted: ``{a="b",c="d"}``."""
    return "{" + ",".join(f"{name}={json.dumps(labels[name])}" for name in sorted(labels)) + "}"


def _compact(source: str, body: bytes) -> bytes:
    # A server that puts blanks between tokens is slow to read, not wrong.
    try:
        return json.dumps(json.loads(body), separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise SourceError(source, f"expected JSON, got: {error}") from error


def _spans(source: str, body: bytes) -> Iterator[tuple[int, int]]:
    """Where the samples of each series lie: from behind ``[[`` to ``]]``."""
    at = body.find(_START)
    while at >= 0:
        start = at + len(_START)
        end = body.find(_END, start)
        if end < 0:
            raise SourceError(source, "expected JSON, got a cut answer")
        yield start, end
        at = body.find(_START, end)


def _skeleton(body: bytes, spans: list[tuple[int, int]]) -> bytes:
    """The body with the number of the span in place of each list of samples."""
    pieces, at = [], 0
    for number, (start, end) in enumerate(spans):
        pieces += [body[at : start - 2], b"%d" % number]
        at = end + 2
    return b"".join([*pieces, body[at:]])


class _Clock:
    """Reads times. Most series have those of the one before: read once, kept once."""

    def __init__(self) -> None:
        self._texts: tuple[int, bytes] = (0, b"")
        self._times: Times = np.empty(0, np.int64)

    def read(self, source: str, text: Bytes, begins: Places, ends: Places) -> Times | None:
        """Decimal seconds in ``text[begins:ends]`` as ms; None when one is something else."""
        lengths = ends - begins
        length = int(lengths[0])
        if not (lengths == length).all():
            self._texts = (0, b"")
            return _increasing(source, _milliseconds(text, begins, lengths))
        view = np.ndarray((len(text) - length + 1,), f"S{length}", text, strides=(1,))
        texts = (length, view[begins].tobytes())
        if texts != self._texts:
            times = _increasing(source, _milliseconds(text, begins, lengths))
            if times is None:
                return None
            self._texts, self._times = texts, times
        return self._times


def _columns(source: str, body: bytes, spans: list[tuple[int, int]]) -> list[Columns]:
    """Times and values of each span; numpy and Arrow leave the interpreter free meanwhile."""

    def read(part: list[tuple[int, int]]) -> list[Columns]:
        clock = _Clock()
        return [_samples(source, body, start, end, clock) for start, end in part]

    if len(body) < LARGE:
        return read(spans)
    size = -(-len(spans) // THREADS)
    parts = [spans[at : at + size] for at in range(0, len(spans), size)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [columns for part in pool.map(read, parts) for columns in part]


def _samples(source: str, body: bytes, start: int, end: int, clock: _Clock) -> Columns:
    """The numbers in ``body[start:end]``, which reads ``T,"V"],[T,"V"],[T,"V"``."""
    text = np.frombuffer(body, np.uint8, end - start, start)
    quotes = np.flatnonzero(text == _QUOTE)
    opened, closed = quotes[0::2], quotes[1::2]
    if not len(opened) or len(opened) != len(closed) or closed[-1] != len(text) - 1:
        raise _unexpected(source, body[start:end])
    begins = np.concatenate(([0], closed[:-1] + 4))
    between = closed[:-1]
    if not (
        (begins < opened - 1).all()
        and (text[opened - 1] == _COMMA).all()
        and (text[between + 1] == _CLOSE).all()
        and (text[between + 2] == _COMMA).all()
        and (text[between + 3] == _OPEN).all()
    ):
        raise _unexpected(source, body[start:end])
    times = clock.read(source, text, begins, opened - 1)
    values = _floats(memoryview(body)[start:end], opened + 1, closed)
    if times is None or values is None:
        raise _unexpected(source, body[start:end])
    return times, values


def _milliseconds(text: Bytes, begins: Places, lengths: Places) -> Times | None:
    times = np.empty(len(begins), np.int64)
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        at = begins[chosen]
        decimals = int(length) - SECOND_DIGITS - 1
        if length < SECOND_DIGITS or decimals == 0 or decimals > 9:
            return None
        if decimals > 0 and not (text[at + SECOND_DIGITS] == _POINT).all():
            return None
        seconds = _digits(text, at, SECOND_DIGITS)
        fraction = _digits(text, at + SECOND_DIGITS + 1, max(decimals, 0))
        if seconds is None or fraction is None:
            return None
        shift = 10.0 ** (3 - max(decimals, 0))
        times[chosen] = seconds * 1000 + np.rint(fraction * shift).astype(np.int64)
    return times


def _digits(text: Bytes, at: Places, count: int) -> npt.NDArray[np.int64] | None:
    number = np.zeros(len(at), np.int64)
    for place in range(count):
        digit = text[at + place] - np.uint8(_ZERO)  # below "0" it wraps round to more than 9
        if (digit > 9).any():
            return None
        number = number * 10 + digit
    return number


def _floats(text: memoryview, begins: Places, ends: Places) -> Values | None:
    """The numbers in ``text[begins:ends]``, NaN and Inf as such; None when one is none."""
    import pyarrow as pa

    # Strings of which every second is a number, and the others what lies between.
    bounds = np.empty(2 * len(begins), np.int32)
    bounds[0::2], bounds[1::2] = begins, ends
    strings = pa.Array.from_buffers(
        pa.binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(text)]
    )
    numbers = strings.take(pa.array(np.arange(0, len(bounds) - 1, 2, dtype=np.int32)))
    try:
        values: Values = numbers.cast(pa.string()).cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return values


def _increasing(source: str, times: Times | None) -> Times | None:
    if times is not None and not (np.diff(times) > 0).all():
        raise SourceError(source, "expected times that increase, got one twice or out of order")
    return times


def _unexpected(source: str, span: bytes) -> SourceError:
    shown = span[:60].decode("utf-8", "replace")
    return SourceError(source, f'expected samples as [time, "value"], got [{shown}...')
