"""The part of Alertmanager's v2 API that runbooks use: alerts and their receivers, and silences.

It notifies nobody and inhibits nothing. Shapes are Alertmanager's own. Here every instant is wall time.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

RESOLVE_TIMEOUT = timedelta(minutes=5)
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"(.*)"')
Json = dict[str, Any]


def default_config(pager: str) -> Json:
    """Paging severities go to the webhook ``pager``; everything else to a dashboard."""
    return {
        "route": {
            "receiver": "dashboard",
            "group_by": ["alertname", "cluster"],
            "group_wait": "1s",
            "group_interval": "5s",
            "repeat_interval": "4h",
            "routes": [{"receiver": "pager", "matchers": ['severity=~"page|critical"']}],
        },
        "receivers": [
            {"name": "dashboard"},
            {"name": "pager", "webhook_configs": [{"url": pager, "send_resolved": True}]},
        ],
    }


@dataclass
class EmbeddedAlertmanager:
    """Alerts (by fingerprint, as they are shown) and silences in memory."""

    config: Path
    _alerts: dict[str, Json] = field(default_factory=dict)
    _silences: dict[str, Json] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def post(self, alerts: list[Json]) -> None:
        """Take alerts in as POST /api/v2/alerts does. Raises ValueError for one without labels."""
        now = _now()
        for each in alerts:
            labels = {key: value for key, value in each.get("labels", {}).items() if value}
            if not labels:
                raise ValueError("at least one label pair required")
            key = hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16]
            starts = _parsed(each["startsAt"]) if each.get("startsAt") else now
            ends = _parsed(each["endsAt"]) if each.get("endsAt") else now + RESOLVE_TIMEOUT
            with self._lock:
                known = self._alerts.get(key)
                if known is not None and _parsed(known["endsAt"]) > now:
                    starts = min(_parsed(known["startsAt"]), starts)
                self._alerts[key] = {
                    "annotations": each.get("annotations", {}),
                    "endsAt": _text(ends),
                    "fingerprint": key,
                    "startsAt": _text(starts),
                    "updatedAt": _text(now),
                    "generatorURL": each.get("generatorURL", ""),
                    "labels": labels,
                }

    def app(self) -> Starlette:
        api = "/api/v2"
        return Starlette(
            routes=[
                Route(f"{api}/status", self._status),
                Route(f"{api}/alerts", self._get_alerts),
                Route(f"{api}/alerts", self._post_alerts, methods=["POST"]),
                Route(f"{api}/silences", self._get_silences),
                Route(f"{api}/silences", self._post_silence, methods=["POST"]),
                Route(f"{api}/silence/{{id}}", self._delete_silence, methods=["DELETE"]),
                Route("/-/reload", _ok, methods=["POST"]),  # the file is read anew each time
                Route("/-/ready", _ok),
            ]
        )

    def _shown(self, alert: Json) -> Json:
        labels = alert["labels"]
        silenced = [
            key
            for key, silence in self._silences.items()
            if _state(silence) == "active" and _all_match(silence["matchers"], labels)
        ]
        receivers = _routed(yaml.safe_load(self.config.read_text())["route"], labels)
        state = "suppressed" if silenced else "active"
        faulty = any((self.config.parents[1] / "faults").glob("watchdog-stale.*"))
        late = timedelta(hours=faulty and labels.get("alertname") == "Watchdog")
        return {
            **alert,
            "updatedAt": _text(_parsed(alert["updatedAt"]) - late),
            "receivers": [{"name": name} for name in dict.fromkeys(receivers)],
            "status": {"inhibitedBy": [], "silencedBy": silenced, "state": state},
        }

    async def _status(self, request: Request) -> Response:
        document = {
            "cluster": {"peers": [], "status": "disabled"},
            "config": {"original": self.config.read_text()},
            "uptime": _text(_now()),
            "versionInfo": {"version": "0.25.0-embedded", "revision": "", "branch": ""},
        }
        return JSONResponse(document)

    async def _get_alerts(self, request: Request) -> Response:
        with self._lock:
            self._alerts = {k: a for k, a in self._alerts.items() if _parsed(a["endsAt"]) > _now()}
            return JSONResponse([self._shown(alert) for _, alert in sorted(self._alerts.items())])

    async def _post_alerts(self, request: Request) -> Response:
        try:
            self.post(json.loads(await request.body()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return JSONResponse(str(error), status_code=400)
        return Response(status_code=200)

    def forget_silences(self) -> None:
        self._silences.clear()

    async def _get_silences(self, request: Request) -> Response:
        found = self._silences.values()
        return JSONResponse([{**each, "status": {"state": _state(each)}} for each in found])

    async def _post_silence(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            silence = {key: body[key] for key in ("comment", "createdBy", "matchers")}
            silence |= {key: _text(_parsed(body[key])) for key in ("startsAt", "endsAt")}
        except (ValueError, KeyError, TypeError) as error:
            return JSONResponse({"code": 400, "message": str(error)}, status_code=400)
        key = str(uuid.uuid4())
        with self._lock:
            self._silences[key] = {**silence, "id": key, "updatedAt": _text(_now())}
        return JSONResponse({"silenceID": key})

    async def _delete_silence(self, request: Request) -> Response:
        silence = self._silences.get(request.path_params["id"])
        if silence is None:
            return Response(status_code=404)
        silence["endsAt"] = silence["updatedAt"] = _text(_now())
        return Response(status_code=200)


async def _ok(request: Request) -> Response:
    return PlainTextResponse("OK")


def _now() -> datetime:
    return datetime.now(UTC)


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _state(silence: Mapping[str, Any]) -> str:
    if _parsed(silence["endsAt"]) <= _now():
        return "expired"
    return "pending" if _parsed(silence["startsAt"]) > _now() else "active"


def _all_match(matchers: list[Json], labels: Mapping[str, str]) -> bool:
    def equal(text: str, value: str, is_regex: bool) -> bool:
        return re.fullmatch(value, text) is not None if is_regex else text == value

    return all(
        equal(labels.get(m["name"], ""), m["value"], m["isRegex"]) == m.get("isEqual", True)
        for m in matchers
    )


def _routed(route: Mapping[str, Any], labels: Mapping[str, str], above: str = "") -> Iterator[str]:
    """Receivers of an alert: the first child that matches, and on while it says continue."""
    receiver, taken = route.get("receiver", above), False
    for child in route.get("routes", ()):
        found = [_MATCHER.fullmatch(text) for text in child.get("matchers", ())]
        matchers = [
            {"name": m[1], "value": m[3], "isRegex": "~" in m[2], "isEqual": "!" not in m[2]}
            for m in found
            if m is not None
        ]
        if len(matchers) == len(found) and _all_match(matchers, labels):
            yield from _routed(child, labels, receiver)
            taken = True
            if not child.get("continue"):
                return
    if not taken:
        yield receiver
