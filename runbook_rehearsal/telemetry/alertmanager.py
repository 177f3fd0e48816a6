"""The part of Alertmanager's v2 API that runbooks use: alerts and their receivers, and silences.

It notifies nobody and inhibits nothing. Of each answer what is asked for, in Alertmanager's shapes;
instants are wall time.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..chain.world import World
from .embedded import ready
from .tsdb import matcher

_now, _parsed = partial(datetime.now, UTC), datetime.fromisoformat
RESOLVE_TIMEOUT = timedelta(minutes=5)
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"(.*)"')
Json = dict[str, Any]


def default_config(pager: str) -> Json:
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


class EmbeddedAlertmanager:
    """Posted alerts (by fingerprint, as they are shown), what ``firing`` posts, and silences."""

    def __init__(self, world: World, firing: Callable[[], list[Json]]) -> None:
        self._world, self._firing = world, firing
        self._config = world.root / "alertmanager" / "alertmanager.yml"
        self._posted: dict[str, Json] = {}
        self.silences: dict[str, Json] = {}

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
                Route("/-/reload", ready, methods=["POST"]),  # the file is read anew each time
                Route("/-/ready", ready),
            ]
        )

    def _shown(self, alert: Json) -> Json:
        labels = alert["labels"]
        silenced = [
            key
            for key, silence in self.silences.items()
            if _state(silence) == "active"
            and all(_silences(m, labels) for m in silence["matchers"])
        ]
        receivers = _routed(yaml.safe_load(self._config.read_text())["route"], labels)
        state = "suppressed" if silenced else "active"
        faulty = "watchdog-stale" in self._world.faults
        late = timedelta(hours=faulty and labels.get("alertname") == "Watchdog")
        return {
            **alert,
            "updatedAt": _text(_parsed(alert["updatedAt"]) - late),
            "receivers": [{"name": name} for name in dict.fromkeys(receivers)],
            "status": {"inhibitedBy": [], "silencedBy": silenced, "state": state},
        }

    async def _status(self, request: Request) -> Response:
        return JSONResponse({"config": {"original": self._config.read_text()}})

    async def _get_alerts(self, request: Request) -> Response:
        now = _now()
        self._posted = {k: a for k, a in self._posted.items() if _parsed(a["endsAt"]) > now}
        alerts = self._posted | dict(map(_taken, self._firing()))
        return JSONResponse([self._shown(alert) for _, alert in sorted(alerts.items())])

    async def _post_alerts(self, request: Request) -> Response:
        try:
            self._posted |= dict(map(_taken, json.loads(await request.body())))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return JSONResponse(str(error), status_code=400)
        return Response(status_code=200)

    async def _get_silences(self, request: Request) -> Response:
        found = self.silences.values()
        return JSONResponse([{**each, "status": {"state": _state(each)}} for each in found])

    async def _post_silence(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            silence = {key: body[key] for key in ("comment", "createdBy", "matchers")}
            silence |= {key: _text(_parsed(body[key])) for key in ("startsAt", "endsAt")}
        except (ValueError, KeyError, TypeError) as error:
            return JSONResponse({"code": 400, "message": str(error)}, status_code=400)
        key = str(uuid.uuid4())
        self.silences[key] = {**silence, "id": key, "updatedAt": _text(_now())}
        return JSONResponse({"silenceID": key})

    async def _delete_silence(self, request: Request) -> Response:
        silence = self.silences.get(request.path_params["id"])
        if silence is None:
            return Response(status_code=404)
        silence["endsAt"] = silence["updatedAt"] = _text(_now())
        return Response(status_code=200)


def _taken(alert: Json) -> tuple[str, Json]:
    """The fingerprint of a posted alert, and how it is shown. Raises ValueError without labels."""
    labels, now = {key: value for key, value in alert.get("labels", {}).items() if value}, _now()
    if not labels:
        raise ValueError("at least one label pair required")
    key = hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16]
    ends = _parsed(alert["endsAt"]) if alert.get("endsAt") else now + RESOLVE_TIMEOUT
    return key, {"endsAt": _text(ends), "updatedAt": _text(now), "labels": labels}


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _state(silence: Mapping[str, Any]) -> str:
    if _parsed(silence["endsAt"]) <= _now():
        return "expired"
    return "pending" if _parsed(silence["startsAt"]) > _now() else "active"


def _silences(m: Json, labels: Mapping[str, str]) -> bool:
    test = matcher(m["value"], regex=m["isRegex"], equal=m.get("isEqual", True))
    return test(labels.get(m["name"], ""))


def _matches(text: re.Match[str], labels: Mapping[str, str]) -> bool:
    name, how, value = text.groups()
    return matcher(value, regex="~" in how, equal="!" not in how)(labels.get(name, ""))


def _routed(route: Mapping[str, Any], labels: Mapping[str, str], above: str = "") -> Iterator[str]:
    """Receivers of an alert: the first child that matches, and on while it says continue."""
    receiver, taken = route.get("receiver", above), False
    for child in route.get("routes", ()):
        found = map(_MATCHER.fullmatch, child.get("matchers", ()))
        if all(m is not None and _matches(m, labels) for m in found):
            yield from _routed(child, labels, receiver)
            taken = True
            if not child.get("continue"):
                return
    if not taken:
        yield receiver
