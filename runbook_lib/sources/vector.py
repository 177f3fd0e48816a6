"""Prometheus' answer to an instant query: samples, and what makes it partial."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue

from ..errors import SourceError
from . import wire
from .wire import Wire

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|Inf)|NaN")


def _number(value: object) -> object:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    raise ValueError("expected a number as text")


Seconds = Annotated[float, Field(ge=0, lt=1e11)]


class _Sample(Wire):
    metric: dict[str, str]
    value: tuple[Seconds, Annotated[float, BeforeValidator(_number)]] | None = None
    histogram: JsonValue = None


class _Data(Wire):
    resultType: Literal["vector"]
    result: list[_Sample]


class _Answer(Wire):
    status: Literal["success"]
    data: _Data
    warnings: list[str] = []
    infos: list[str] = []


@dataclass(frozen=True)
class Sample:
    """One value of an instant answer; NaN and Inf are kept."""

    labels: dict[str, str]
    value: float
    at: datetime


@dataclass(frozen=True)
class Vector:
    """An instant answer. With ``warnings`` it is partial: what is missing may be anything."""

    samples: tuple[Sample, ...]
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()

    @property
    def partial(self) -> bool:
        return bool(self.warnings)


def parse(source: str, body: bytes, offset: timedelta) -> Vector:
    """The answer to an instant query, its instants ``offset`` later. Raises SourceError."""
    found = wire.decode(source, body, _Answer)
    samples = []
    for sample in found.data.result:
        if sample.histogram is not None:
            raise SourceError(source, "expected float samples, got a native histogram")
        if sample.value is None:
            raise SourceError(source, "expected a value, got none")
        seconds, value = sample.value
        samples.append(Sample(sample.metric, value, datetime.fromtimestamp(seconds, UTC) + offset))
    return Vector(tuple(samples), tuple(found.warnings), tuple(found.infos))
