"""The part of Prometheus' HTTP API that runbooks use, over series held in memory.

Of each answer what is asked for; shapes, status codes and error texts are Prometheus' own. Instants
are wall time. An expression beyond the subset that ``promql`` evaluates is answered 422.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..arrays import Instants
from ..chain.world import World
from . import promql
from .history import History
from .rules import Alert, Rule
from .tsdb import format_value

MAX_POINTS = 11_000
Form = Mapping[str, list[str]]


class BadData(ValueError):
    """A parameter that is missing or unreadable: answered 400."""


class EmbeddedPrometheus:
    """The API over ``history``: whoever asks has what passed until then scraped and evaluated."""

    def __init__(self, world: World, alertmanager: str) -> None:
        self.world, self.alertmanager = world, alertmanager
        self.history: History

    def firing(self) -> list[Alert]:
        with self.history.lock:
            self.history.scrape()
            return [alert for alert in self.history.engine.active.values() if alert.firing]

    def app(self) -> Starlette:
        reads: dict[str, Callable[[Form], Any]] = {
            "query": self._query,
            "query_range": self._query_range,
            "rules": self._rules,
            "alertmanagers": self._alertmanagers,
        }
        routes = [
            Route(f"/api/v1/{path}", self._answer(read), methods=["GET", "POST"])
            for path, read in reads.items()
        ]
        return Starlette(routes=[*routes, Route("/-/ready", ready)])

    def _answer(self, read: Callable[[Form], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            form = parse_qs(request.url.query) | parse_qs((await request.body()).decode())
            try:
                with self.history.lock:
                    self.history.scrape()
                    return JSONResponse({"status": "success", "data": read(form)})
            except (BadData, promql.BadQuery) as error:
                return _refused(400, "bad_data", error)
            except promql.Unsupported as error:
                return _refused(422, "execution", error)

        return endpoint

    def _query(self, form: Form) -> Any:
        query = _one(form, "query")
        at = _ms(form, "time") if "time" in form else round(time.time() * 1000)
        result = [
            {"metric": row.labels, "value": _point(at, row.values[0])}
            for row in promql.evaluate(self.history.store, query, np.array([at]))
            if row.present[0]
        ]
        return {"resultType": "vector", "result": result}

    def _query_range(self, form: Form) -> Any:
        start, end, step = (_ms(form, name) for name in ("start", "end", "step"))
        if end < start:
            raise BadData('invalid parameter "end": end timestamp must not be before start time')
        if step <= 0:
            raise BadData('invalid parameter "step": zero or negative resolution is not accepted')
        if (end - start) // step > MAX_POINTS:
            raise BadData("exceeded maximum resolution of 11,000 points per timeseries")
        steps: Instants = np.arange(start, end + 1, step)
        found = promql.evaluate(self.history.store, _one(form, "query"), steps)
        result = [
            {
                "metric": labels,
                "values": list(map(_point, steps[present].tolist(), values[present].tolist())),
            }
            for labels, values, present in found
            if present.any()
        ]
        return {"resultType": "matrix", "result": result}

    def _rules(self, form: Form) -> Any:
        groups: dict[tuple[str, str], list[Rule]] = {}
        for rule in self.history.engine.rules:
            groups.setdefault((rule.file, rule.group), []).append(rule)
        evaluated = _rfc3339(self.history.last)
        return {
            "groups": [
                {
                    "name": group,
                    "rules": [self._rule(rule, evaluated) for rule in rules],
                    "interval": rules[0].interval_s,
                }
                for (_, group), rules in groups.items()
            ]
        }

    def _rule(self, rule: Rule, evaluated: str) -> Any:
        error = self.history.engine.errors.get(self.history.engine.rules.index(rule), "")
        health = "err" if error else "ok"
        if "rule-never-evaluated" in self.world.faults and rule.name != "Watchdog":
            health, evaluated = "unknown", "0001-01-01T00:00:00Z"
        active = [alert for alert in self.history.engine.active.values() if alert.rule is rule]
        alerts = [
            {
                "labels": alert.labels,
                "annotations": alert.annotations(),
                "state": "firing" if alert.firing else "pending",
                "activeAt": _rfc3339(alert.since),
            }
            for alert in active
        ]
        firing = any(alert.firing for alert in active)
        return {
            "name": rule.name,
            "query": rule.expr,
            "labels": dict(rule.labels),
            "health": health,
            **({"lastError": error} if error else {}),
            "lastEvaluation": evaluated,
            "state": "firing" if firing else "pending" if active else "inactive",
            "duration": rule.wait_s,
            "annotations": dict(rule.annotations),
            "alerts": alerts,
            "type": "alerting",
        }

    def _alertmanagers(self, form: Form) -> Any:
        if "alertmanagers-unlisted" in self.world.faults:
            raise HTTPException(404)
        elsewhere = "alertmanager-not-in-prometheus" in self.world.faults
        url = "http://127.0.0.1:9" if elsewhere else self.alertmanager
        active = [{"url": f"{url}/api/v2/alerts"}]
        return {"activeAlertmanagers": active, "droppedAlertmanagers": []}


async def ready(request: Request) -> Response:
    return PlainTextResponse("OK")


def _refused(status: int, kind: str, error: Exception) -> Response:
    document = {"status": "error", "errorType": kind, "error": str(error)}
    return JSONResponse(document, status_code=status)


def _one(form: Form, name: str) -> str:
    if not form.get(name):
        raise BadData(f'invalid parameter "{name}": missing')
    return form[name][0]


def _ms(form: Form, name: str) -> int:
    text = _one(form, name)
    try:
        return round(float(text) * 1000)
    except (ValueError, OverflowError):
        raise BadData(f'invalid parameter "{name}": cannot parse "{text}"') from None


def _point(at: int, value: float) -> list[Any]:
    return [at / 1000, format_value(value)]


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")
