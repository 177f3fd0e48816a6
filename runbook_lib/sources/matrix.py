"""A range answer of Prometheus as columns: times in ms, values as floats.

Samples travel as ``"values":[[1764500000.123,"1.5"],...]``. Each such span is cut out of the body and
parsed by itself, one series at a time; what is left is small and is read against a model.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue
from pydantic_core import from_json

from ..errors import SourceError
from . import wire
from .wire import Wire

_SPAN = re.compile(rb'"values":\[\[([^]]*(?:\][^]]+)*)\]\]')
Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """Samples of one series: ``times`` in ms since 1970, strictly increasing, and ``values``."""

    labels: dict[str, str]
    times: Times
    values: Values


class _Series(Wire):
    metric: dict[str, str]
    values: int | None = None
    histograms: JsonValue = None


class _Data(Wire):
    resultType: Literal["matrix"]
    result: list[_Series]


class _Answer(Wire):
    status: Literal["success"]
    data: _Data
    warnings: list[str] = []


def parse(source: str, bodies: Sequence[bytes], shift_ms: int = 0) -> tuple[Series, ...]:
    """The series of answers about windows that follow each other, ``shift_ms`` later.

    Raises SourceError for whatever is not one, and for one that leaves something out.
    """
    parts: dict[str, list[Series]] = {}
    for body in bodies:
        spans = list(_SPAN.finditer(body))
        ends = [0, *(span.end() for span in spans)]
        left = [
            body[a : b.start()] + b'"values":%d' % n
            for n, (a, b) in enumerate(zip(ends, spans, strict=False))
        ]
        text = b"".join([*left, body[ends[-1] :]])
        if b'"values":[[' in text:
            raise SourceError(source, "expected JSON, got a cut answer")
        answer = wire.decode(source, text, _Answer, once=True)
        if answer.warnings:
            raise SourceError(source, f"expected all of it, got {answer.warnings[0]}")
        found = {label_text(series.metric): series for series in answer.data.result}
        if native := [text for text, series in found.items() if series.histograms is not None]:
            raise SourceError(source, f"{native[0]}: expected floats, got a native histogram")
        numbers = [series.values for series in answer.data.result]
        if numbers != [*range(len(spans))] or len(found) != len(spans):
            raise SourceError(source, "expected every series once with one list of samples")
        for (name, series), span in zip(found.items(), spans, strict=True):
            parts.setdefault(name, []).append(Series(series.metric, *_samples(source, span[1])))
    joined: list[Series] = []
    for several in parts.values():
        times = np.concatenate([each.times for each in several]) + shift_ms
        if not (np.diff(times) > 0).all():
            raise SourceError(source, "expected times that increase, got one twice or out of order")
        if joined and np.array_equal(times, joined[-1].times):
            times = joined[-1].times  # most series have those of the one before: kept once
        values = np.concatenate([each.values for each in several])
        joined.append(Series(several[0].labels, times, values))
    return tuple(joined)


def _samples(source: str, text: bytes) -> tuple[Times, Values]:
    """Times and values of ``T,"V"],[T,"V"``: marks where they must be, JSON numbers between."""
    marks, n = text.translate(None, b"0123456789+-.eE"), text.count(b',"')
    whole = text.count(b'"],[') == n - 1 and text.endswith(b'"')
    try:
        if not whole or marks.translate(None, b"NaInf") != b',""],[' * (n - 1) + b',""':
            raise ValueError
        numbers = text.translate(None, b'"[]')
        if b"I" in marks:
            numbers = numbers.replace(b"+Inf", b"Inf").replace(b"Inf", b"Infinity")
        found = np.array(from_json(b"[" + numbers + b"]"), np.float64)
        if not ((found[0::2] >= 1e9) & (found[0::2] < 1e10)).all():
            raise ValueError
        return np.rint(found[0::2] * 1000).astype(np.int64), found[1::2].copy()
    except ValueError as error:
        got = f"[[{text.decode('utf-8', 'replace')}]]"[:60]
        problem = f'expected samples as [[time, "value"], ...], got {got}...'
        raise SourceError(source, problem) from error


def label_text(labels: dict[str, str]) -> str:
    """Labels as PromQL writes them, sorted: ``{a="b",c="d"}``."""
    return "{" + ",".join(f"{name}={json.dumps(labels[name])}" for name in sorted(labels)) + "}"
