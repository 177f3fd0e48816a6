"""The part of Prometheus' HTTP API that runbooks use, over series held in memory.

Shapes, status codes and error texts are Prometheus' own; an expression beyond the subset that
``promql`` evaluates is answered 422, never guessed at. Here every instant is wall time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import promql_parser as pql
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..arrays import Instants
from . import promql
from .history import History
from .recorder import JOB
from .rules import Alert, Rule
from .tsdb import Series, format_value

MAX_POINTS = 11_000
SCRAPE_MS = 5000
VERSION = "2.42.0-embedded"
Form = Mapping[str, list[str]]


class BadData(ValueError):
    """A parameter that is missing or unreadable: answered 400."""


class EmbeddedPrometheus:
    """Series, rules and their state; ``advance`` scrapes and evaluates what time has passed."""

    def __init__(self, history: History, alertmanager: str) -> None:
        self.history, self.alertmanager = history, alertmanager
        self.recorder, self.engine = history.recorder, history.engine
        self.store = history.store

    def advance(self) -> None:
        """Scrape and evaluate each few seconds since the last time, up to now."""
        self.history.scrape(SCRAPE_MS)

    def firing(self) -> list[Alert]:
        with self.history.lock:
            return [alert for alert in self.engine.active.values() if alert.firing]

    def app(self) -> Starlette:
        queries: dict[str, Callable[[Form], Any]] = {
            "query": self._query,
            "query_range": self._query_range,
        }
        reads: dict[str, Callable[[Form], Any]] = {
            "rules": self._rules,
            "alerts": lambda form: {"alerts": [_alert(a) for a in self.engine.active.values()]},
            "targets": self._targets,
            "alertmanagers": self._alertmanagers,
            "status/buildinfo": lambda form: {"version": VERSION, "revision": "", "branch": ""},
        }
        routes = [
            Route(f"/api/v1/{path}", self._answer(read), methods=["GET", "POST"])
            for path, read in queries.items()
        ]
        routes += [Route(f"/api/v1/{path}", self._answer(read)) for path, read in reads.items()]
        routes += [Route(f"/-/{word}", _word(word)) for word in ("ready", "healthy")]
        return Starlette(routes=routes)

    def _answer(self, read: Callable[[Form], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            form = parse_qs(request.url.query)
            form |= parse_qs((await request.body()).decode())
            return self._guarded(lambda: read(form))

        return endpoint

    def _guarded(self, read: Callable[[], Any]) -> Response:
        try:
            with self.history.lock:
                self.advance()
                return JSONResponse({"status": "success", "data": read()})
        except (BadData, promql.BadQuery) as error:
            return _refused(400, "bad_data", error)
        except promql.Unsupported as error:
            return _refused(422, "execution", error)

    def _query(self, form: Form) -> Any:
        query = _one(form, "query")
        at = _instant(form, "time") if "time" in form else self._now()
        parsed = promql.parse(query)
        if isinstance(parsed, pql.MatrixSelector):
            found = promql.window(self.store, parsed, at)
            return {"resultType": "matrix", "result": [_raw(series) for series in found]}
        value = promql.evaluate(self.store, query, np.array([at]))
        if not isinstance(value, promql.Vector):
            return {"resultType": "scalar", "result": _point(at, value[0])}
        result = [
            {"metric": labels, "value": _point(at, values[0])}
            for labels, values, present in value.rows()
            if present[0]
        ]
        return {"resultType": "vector", "result": result}

    def _query_range(self, form: Form) -> Any:
        start, end = _instant(form, "start"), _instant(form, "end")
        if end < start:
            raise BadData('invalid parameter "end": end timestamp must not be before start time')
        step = _duration(form, "step")
        if (end - start) // step > MAX_POINTS:
            raise BadData(
                "exceeded maximum resolution of 11,000 points per timeseries. "
                "Try decreasing the query resolution (?step=XX)"
            )
        steps: Instants = np.arange(start, end + 1, step)
        value = promql.evaluate(self.store, _one(form, "query"), steps)
        if not isinstance(value, promql.Vector):
            value = promql.Vector([{}], value[None, :], np.ones((1, len(steps)), dtype=bool))
        result = [
            _raw(Series(labels, steps[present], values[present]))
            for labels, values, present in value.rows()
            if present.any()
        ]
        return {"resultType": "matrix", "result": result}

    def _rules(self, form: Form) -> Any:
        groups: dict[tuple[str, str], list[Rule]] = {}
        for rule in self.engine.rules:
            groups.setdefault((rule.file, rule.group), []).append(rule)
        evaluated = _rfc3339(self.history.last)
        root = self.recorder.world.root
        return {
            "groups": [
                {
                    "name": group,
                    "file": str(Path(file).relative_to(root)),
                    "rules": [self._rule(rule, evaluated) for rule in rules],
                    "interval": rules[0].interval_s,
                    "limit": 0,
                    "evaluationTime": 0.001,
                    "lastEvaluation": evaluated,
                }
                for (file, group), rules in groups.items()
            ]
        }

    def _rule(self, rule: Rule, evaluated: str) -> Any:
        error = self.engine.errors.get(self.engine.rules.index(rule), "")
        health = "err" if error else "ok"
        if self._faulty("rule-never-evaluated") and rule.name != "Watchdog":
            health, evaluated = "unknown", "0001-01-01T00:00:00Z"
        shown = {
            "name": rule.name,
            "query": rule.expr,
            "labels": dict(rule.labels),
            "health": health,
            **({"lastError": error} if error else {}),
            "evaluationTime": 0.001,
            "lastEvaluation": evaluated,
        }
        if not rule.alert:
            return {**shown, "type": "recording"}
        active = [alert for alert in self.engine.active.values() if alert.rule is rule]
        firing = any(alert.firing for alert in active)
        return {
            **shown,
            "state": "firing" if firing else "pending" if active else "inactive",
            "duration": rule.wait_s,
            "annotations": dict(rule.annotations),
            "alerts": [_alert(alert) for alert in active],
            "type": "alerting",
        }

    def _targets(self, form: Form) -> Any:
        now = self.recorder.world.clock.now()
        return {
            "activeTargets": [
                {
                    "discoveredLabels": {**node.labels, "__address__": node.name},
                    "labels": node.labels,
                    "scrapePool": JOB,
                    "scrapeUrl": f"http://{node.name}/metrics",
                    "globalUrl": f"http://{node.name}/metrics",
                    "lastError": "" if up else "server returned HTTP status 503",
                    "lastScrape": _rfc3339(self.history.last),
                    "lastScrapeDuration": 0.001,
                    "health": "up" if up else "down",
                    "scrapeInterval": "5s",
                    "scrapeTimeout": "5s",
                }
                for node in self.recorder.nodes(now, now)
                for up in node.up(np.array([now])).tolist()
            ],
            "droppedTargets": [],
        }

    def _alertmanagers(self, form: Form) -> Any:
        elsewhere = self._faulty("alertmanager-not-in-prometheus")
        url = "http://127.0.0.1:9" if elsewhere else self.alertmanager
        active = [{"url": f"{url}/api/v2/alerts"}]
        return {"activeAlertmanagers": active, "droppedAlertmanagers": []}

    def _faulty(self, name: str) -> bool:
        return any((self.recorder.world.root / "faults").glob(f"{name}.*"))

    def _now(self) -> int:
        clock = self.recorder.world.clock
        return round(clock.to_wall(clock.now()) * 1000)


def _word(word: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(f"Prometheus Server is {word.capitalize()}.\n")

    return endpoint


def _refused(status: int, kind: str, error: Exception) -> Response:
    document = {"status": "error", "errorType": kind, "error": str(error)}
    return JSONResponse(document, status_code=status)


def _one(form: Form, name: str) -> str:
    if not form.get(name):
        raise BadData(f'invalid parameter "{name}": missing')
    return form[name][0]


def _instant(form: Form, name: str) -> int:
    """A timestamp in ms from unix seconds or RFC 3339."""
    text = _one(form, name)
    try:
        return round(float(text) * 1000)
    except (ValueError, OverflowError):
        pass
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        wanted = f'cannot parse "{text}" to a valid timestamp'
        raise BadData(f'invalid parameter "{name}": {wanted}') from None


def _duration(form: Form, name: str) -> int:
    """A positive duration in ms from seconds or PromQL's notation."""
    text = _one(form, name)
    try:
        found = round(float(text) * 1000)
    except (ValueError, OverflowError):
        try:
            found = round(pql.parse_duration(text).total_seconds() * 1000)
        except ValueError:
            wanted = f'cannot parse "{text}" to a valid duration'
            raise BadData(f'invalid parameter "{name}": {wanted}') from None
    if found <= 0:
        raise BadData(
            f'invalid parameter "{name}": zero or negative query resolution step widths are not '
            "accepted. Try a positive integer"
        )
    return found


def _point(at: int, value: float) -> list[Any]:
    return [at / 1000, format_value(value)]


def _raw(series: Series) -> Any:
    points = zip(series.times.tolist(), series.values.tolist(), strict=True)
    return {"metric": series.labels, "values": [_point(at, value) for at, value in points]}


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def _alert(alert: Alert) -> Any:
    return {
        "labels": alert.labels,
        "annotations": alert.annotations(),
        "state": "firing" if alert.firing else "pending",
        "activeAt": _rfc3339(alert.since),
        "value": format_value(alert.value),
    }
