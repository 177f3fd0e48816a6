"""Prometheus' remote read and remote write (1.0): a real one asks us for the history.

So nothing is copied when the clock runs ahead. Messages are protobuf in snappy's block format.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from ..arrays import Instants
from .history import History
from .tsdb import Matches, Series, matcher

HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
_WRITES = {**HEADERS, "X-Prometheus-Remote-Write-Version": "0.1.0"}
# Sample {double value = 1; int64 timestamp = 2}: a timestamp of this century in ms is a varint of
# six bytes, so every sample takes the same 18 bytes.
_SAMPLE = np.dtype(
    [("field", "u1"), ("length", "u1"), ("v", "u1"), ("value", "<f8"), ("t", "u1"), ("ms", "u1", 6)]
)


def push(found: Iterable[Series], url: str) -> None:
    """Send series, whole, to the Prometheus at ``url``. Raises httpx.HTTPError when it is refused."""
    body = _packed(b"".join(map(_time_series, found)))
    answer = httpx.post(
        f"{url}/api/v1/write", content=body, headers=_WRITES, trust_env=False, timeout=60
    )
    answer.raise_for_status()


def read(history: History, body: bytes) -> bytes:
    """The answer to a ReadRequest: for each query the samples of its series in its time range."""
    size, _ = _varint_at(body, 0)
    message = pa.decompress(body, size, codec="snappy", asbytes=True)
    with history.lock:
        history.scrape()
        results = [
            b"".join(_time_series(series) for series in _asked(history, query))
            for number, query in _fields(message)
            if number == 1
        ]
    return _packed(b"".join(map(_field, results)))


def _asked(history: History, query: bytes) -> Iterator[Series]:
    """Query {start = 1; end = 2; repeated LabelMatcher {type = 1; name = 2; value = 3} = 3}, of
    type EQ, NEQ, RE or NRE."""
    first, last, tests = 0, 0, dict[str, list[Matches]]()
    for number, value in _fields(query):
        if number == 1:
            first = int(value)
        elif number == 2:
            last = int(value)
        elif number == 3:
            parts = dict(_fields(value))
            kind, label, text = parts.get(1, 0), parts[2].decode(), parts.get(3, b"").decode()
            test = matcher(text, regex=kind > 1, equal=kind % 2 == 0)
            tests.setdefault(label, []).append(test)
    for series in history.store.select(None, tests):
        part = series.between(first, last)
        if len(part.times):
            yield part


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(message):
        key, at = _varint_at(message, at)
        value, at = _varint_at(message, at)
        if key & 7 == 2:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            yield key >> 3, value


def _varint_at(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while message[at] & 128:
        value |= (message[at] & 127) << shift
        shift, at = shift + 7, at + 1
    return value | message[at] << shift, at + 1


def _packed(message: bytes) -> bytes:
    packed: bytes = pa.compress(message, codec="snappy", asbytes=True)
    return packed


def _time_series(series: Series) -> bytes:
    labels = b"".join(
        _field(_field(name.encode()) + _field(value.encode(), 2))
        for name, value in sorted(series.labels.items())
    )
    samples = np.empty(len(series.times), _SAMPLE)
    samples["field"], samples["length"] = 0x12, 16
    samples["v"], samples["value"] = 0x09, series.values
    samples["t"], samples["ms"] = 0x10, _varints(series.times)
    return _field(labels + samples.tobytes())


def _field(data: bytes, number: int = 1) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varints(times: Instants) -> np.typing.NDArray[np.uint8]:
    shifts = np.arange(0, 42, 7)
    groups = (times[:, None] >> shifts) & 127
    groups[:, :-1] |= 128
    return groups.astype(np.uint8)
