"""Prometheus' HTTP API: instant and range queries, rules, Alertmanagers.

Under a rehearsal's clock the store lives in wall time: instants are translated by the clock's
offset on the way out and back, here, so that the tape holds what was really asked. Instants inside
an expression (``@``, ``time()``, a bare ``timestamp()``) are not; ``newest`` is what to ask.

Rules have no past.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import urlencode

from httpx import Request, Response
from pydantic import AwareDatetime, BeforeValidator, Field, JsonValue

from ..errors import Answers, SourceError
from . import wire
from .http import MAX_BODY, MAX_SERIES, make_request
from .wire import Wire

if TYPE_CHECKING:
    from .matrix import Series

MAX_POINTS = 11_000
NEVER = datetime(1, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|Inf)|NaN")


@dataclass(frozen=True)
class Sample:
    """One value of an instant answer; NaN and Inf are kept."""

    labels: dict[str, str]
    value: float
    at: datetime


Vector = tuple[Sample, ...]
"""An instant answer."""


def _number(value: object) -> object:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    raise ValueError("expected a number as text")


_Number = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(_number)]


def _milliseconds(text: Any) -> int:
    import promql_parser

    if text in ("0", "0s", "0m"):
        return 0
    try:
        span: timedelta = promql_parser.parse_duration(text)
        return round(span / timedelta(milliseconds=1))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"expected a duration such as 5m or 1h30m, got {text!r}") from error


Duration = Annotated[int, BeforeValidator(_milliseconds)]
"""In milliseconds."""


class _Sample(Wire):
    metric: dict[str, str]
    value: tuple[Annotated[float, Field(ge=0, lt=1e11)], _Number] | None = None
    histogram: JsonValue = None


class _Samples(Wire):
    resultType: Literal["vector"]
    result: list[_Sample]


D = TypeVar("D")


class _Answer(Wire, Generic[D]):
    status: Literal["success"]
    data: D
    warnings: list[str] = []


class ActiveAlert(Wire):
    """An alert a rule holds now; pending ones wait for their ``for``."""

    labels: dict[str, str]
    annotations: dict[str, str]
    state: Literal["pending", "firing"]
    active_at: Annotated[AwareDatetime, Field(validation_alias="activeAt")]


class Rule(Wire):
    """A loaded rule, evaluated each ``interval_s``; ``duration_s`` is its ``for``."""

    name: str
    kind: Annotated[Literal["alerting", "recording"], Field(validation_alias="type")]
    query: str
    health: Literal["ok", "err", "unknown"]
    last_error: Annotated[str, Field(validation_alias="lastError")] = ""
    last_evaluation: Annotated[AwareDatetime, Field(validation_alias="lastEvaluation")]
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    state: Literal["inactive", "pending", "firing"] | None = None
    duration_s: Annotated[float, Field(validation_alias="duration")] = 0.0
    alerts: list[ActiveAlert] = []
    interval_s: float = 0.0

    @property
    def is_evaluated(self) -> bool:
        """Whether ``state`` means anything: evaluated at least once, the last time without error.

        Before, Prometheus says ``inactive``, which looks like "no alert".
        """
        return self.health == "ok" and self.last_evaluation > NEVER


class _Group(Wire):
    interval: float = 60.0
    rules: list[Rule]


class _Groups(Wire):
    groups: list[_Group]


class _Alertmanager(Wire):
    url: str


class _Alertmanagers(Wire):
    active: Annotated[list[_Alertmanager], Field(validation_alias="activeAlertmanagers")]


class Prometheus(wire.Service):
    """One Prometheus-compatible endpoint. Every method raises SourceError."""

    def instant(self, expr: str, at: datetime) -> Vector:
        """The value of ``expr`` at an instant, which looks up to five minutes back."""
        return self.instants([expr], at)[expr]

    def instants(self, exprs: Iterable[str], at: datetime) -> Answers[str, Vector]:
        """As ``instant``, many at once. An answer that leaves something out is none."""
        offset, asked = self._offset(), list(dict.fromkeys(exprs))
        time = _decimal(_to_ms(at - offset))
        answers = self._scope.http([self._query("query", query=expr, time=time) for expr in asked])
        got = dict(zip(asked, answers, strict=True))
        return Answers(lambda expr: _vector(f"prometheus: {expr}", got[expr], offset), asked)

    def range(
        self, expr: str, start: datetime, end: datetime, step: timedelta
    ) -> tuple[Series, ...]:
        """``expr`` at start, start + step, ... up to end; windows over 11,000 points are split."""
        from . import matrix

        offset = self._offset()
        shift, step_ms = offset // _MS, step // _MS
        first, last = _to_ms(start) - shift, _to_ms(end) - shift
        if step_ms <= 0 or last < first:
            raise ValueError(f"expected end after start and a step, got {start}, {end}, {step}")
        requests = [
            self._query(
                "query_range", query=expr, start=_decimal(begin),
                end=_decimal(min(last, begin + (MAX_POINTS - 1) * step_ms)), step=_decimal(step_ms),
            )
            for begin in range(first, last + 1, MAX_POINTS * step_ms)
        ]  # fmt: skip
        source = f"prometheus: {expr}"
        bodies = [wire.content(source, answer) for answer in self._scope.http(requests)]
        return matrix.parse(source, bodies, shift)

    def newest(self, selectors: Iterable[str], at: datetime) -> Answers[str, Vector]:
        """When the newest sample of each series of ``selectors`` was taken, in seconds since 1970.

        Only of plain selectors: the timestamp of an expression is the
        instant of asking, which is always fresh. Raises ValueError for anything else.
        """
        import promql_parser

        asked = {}
        for selector in selectors:
            is_plain = isinstance(promql_parser.parse(selector), promql_parser.VectorSelector)
            if not is_plain:
                raise ValueError(f"expected a plain selector, got {selector}")
            asked[selector] = f"timestamp({selector})"
        answers = self.instants(asked.values(), at)
        seconds = self._offset().total_seconds()

        def newest(selector: str) -> Vector:
            got = answers[asked[selector]]
            return tuple(replace(each, value=each.value + seconds) for each in got)

        return Answers(newest, asked)

    def unmatched(self, selectors: Iterable[str], at: datetime) -> list[str]:
        """Those that no series has matched for a week. Raises SourceError."""
        asked = {f"count(present_over_time({each}[7d]))": each for each in selectors}
        return [asked[one] for one, got in self.instants(asked, at).items() if not got]

    def rules(self) -> list[Rule]:
        """Every loaded rule and the alerts it holds now."""
        body = wire.ask(self._scope, "prometheus: rules", self._get("api/v1/rules"))
        groups = wire.decode("prometheus: rules", body, _Answer[_Groups]).data.groups
        offset = self._offset()
        return [
            _translated(rule, group.interval, offset) for group in groups for rule in group.rules
        ]

    def alertmanagers(self) -> list[str] | None:
        """URLs of the Alertmanagers that alerts are sent to; None of a server that keeps no list."""
        [answer] = self._scope.http([self._get("api/v1/alertmanagers")])
        if answer.status_code == 404:
            return None
        source = "prometheus: alertmanagers"
        found = wire.decode(source, wire.content(source, answer), _Answer[_Alertmanagers])
        return [alertmanager.url for alertmanager in found.data.active]

    # --- the machinery --------------------------------------------------------------------------

    def _offset(self) -> timedelta:
        self._scope.now()
        # Queries are asked in milliseconds: a finer offset would put samples off the grid.
        return self._scope.offset // _MS * _MS

    def _query(self, kind: str, **form: str) -> Request:
        # A form: expressions outgrow what proxies take as a URL.
        return make_request(
            "POST",
            f"{self._settings.url}/api/v1/{kind}",
            self._settings,
            body=urlencode(form).encode(),
            headers=(("content-type", "application/x-www-form-urlencoded"),),
            max_bytes=MAX_SERIES if kind == "query_range" else MAX_BODY,
        )


def _vector(source: str, got: Response, offset: timedelta) -> Vector:
    answer = wire.decode(source, wire.content(source, got), _Answer[_Samples])
    if answer.warnings:
        raise SourceError(source, f"expected all of it, got {answer.warnings[0]}")
    samples = []
    for each in answer.data.result:
        if each.histogram is not None:
            raise SourceError(source, "expected float samples, got a native histogram")
        if each.value is None:
            raise SourceError(source, "expected a value, got none")
        seconds, value = each.value
        samples.append(Sample(each.metric, value, datetime.fromtimestamp(seconds, UTC) + offset))
    return tuple(samples)


def _to_ms(instant: datetime) -> int:
    return (instant - datetime.fromtimestamp(0, UTC)) // _MS


def _decimal(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000:03d}"


def _translated(rule: Rule, interval: float, offset: timedelta) -> Rule:
    """A rule of a group in the clock's time."""
    alerts = [a.model_copy(update={"active_at": a.active_at + offset}) for a in rule.alerts]
    # Go's zero time says "never"; in another time zone it would say something else.
    last = rule.last_evaluation + offset if rule.last_evaluation > NEVER else rule.last_evaluation
    update = {"alerts": alerts, "last_evaluation": last, "interval_s": interval}
    return rule.model_copy(update=update)
