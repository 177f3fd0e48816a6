"""The part of Alertmanager's v2 API that runbooks use: alerts, routes, silences, receivers.

Grouping is one notification per alert, mute intervals are not there. Shapes are Alertmanager's own. Here every instant is wall time.
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
VERSION = "0.25.0-embedded"
_MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"?(.*?)"?\s*')


def default_config(pager: str) -> dict[str, Any]:
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
class _Alert:
    labels: dict[str, str]
    annotations: dict[str, str]
    starts: datetime
    ends: datetime
    updated: datetime
    generator: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.labels, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class EmbeddedAlertmanager:
    """Alerts and silences in memory; ``take_pages`` hands over what a webhook would be sent."""

    config: Path
    _alerts: dict[str, _Alert] = field(default_factory=dict)
    _silences: dict[str, dict[str, Any]] = field(default_factory=dict)
    _paged: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._started = _now()

    def post(self, alerts: list[dict[str, Any]]) -> None:
        """Take alerts in as POST /api/v2/alerts does. Raises ValueError for one without labels."""
        now = _now()
        for each in alerts:
            labels = {key: value for key, value in each.get("labels", {}).items() if value}
            if not labels:
                raise ValueError("at least one label pair required")
            starts = _parsed(each["startsAt"]) if each.get("startsAt") else now
            ends = _parsed(each["endsAt"]) if each.get("endsAt") else now + RESOLVE_TIMEOUT
            generator = each.get("generatorURL", "")
            alert = _Alert(labels, each.get("annotations", {}), starts, ends, now, generator)
            with self._lock:
                known = self._alerts.get(alert.fingerprint)
                if known is not None and known.ends > now:
                    alert.starts = min(known.starts, starts)
                self._alerts[alert.fingerprint] = alert

    def take_pages(self) -> list[tuple[str, dict[str, Any]]]:
        """(webhook, notification) for each alert that began or ended and was not yet sent."""
        pages = []
        with self._lock:
            hooks = {
                receiver["name"]: [hook["url"] for hook in receiver.get("webhook_configs", ())]
                for receiver in self._document()["receivers"]
            }
            for fingerprint, alert in list(self._alerts.items()):
                firing = alert.ends > _now()
                kept_back = self._silencers(alert.labels) or self._inhibitors(alert)
                if firing != (fingerprint in self._paged) and not kept_back:
                    (self._paged.add if firing else self._paged.discard)(fingerprint)
                    pages += [
                        (url, _page(name, alert, firing))
                        for name in self._receivers(alert.labels)
                        for url in hooks[name]
                    ]
                if not firing and fingerprint not in self._paged:
                    del self._alerts[fingerprint]
        return pages

    def app(self) -> Starlette:
        api = "/api/v2"
        return Starlette(
            routes=[
                Route(f"{api}/status", self._status),
                Route(f"{api}/alerts", self._get_alerts),
                Route(f"{api}/alerts", self._post_alerts, methods=["POST"]),
                Route(f"{api}/receivers", self._get_receivers),
                Route(f"{api}/silences", self._get_silences),
                Route(f"{api}/silences", self._post_silence, methods=["POST"]),
                Route(f"{api}/silence/{{id}}", self._delete_silence, methods=["DELETE"]),
                Route("/-/reload", _ok, methods=["POST"]),  # the file is read anew each time
                Route("/-/ready", _ok),
                Route("/-/healthy", _ok),
            ]
        )

    def _document(self) -> Any:
        return yaml.safe_load(self.config.read_text())

    def _receivers(self, labels: Mapping[str, str]) -> list[str]:
        return list(dict.fromkeys(_routed(self._document()["route"], labels)))

    def _silencers(self, labels: Mapping[str, str]) -> list[str]:
        return [
            key
            for key, silence in self._silences.items()
            if _state(silence) == "active" and _all_match(silence["matchers"], labels)
        ]

    def _shown(self, alert: _Alert) -> dict[str, Any]:
        silenced, inhibited = self._silencers(alert.labels), self._inhibitors(alert)
        return {
            "annotations": alert.annotations,
            "endsAt": _text(alert.ends),
            "fingerprint": alert.fingerprint,
            "receivers": [{"name": name} for name in self._receivers(alert.labels)],
            "startsAt": _text(alert.starts),
            "status": {
                "inhibitedBy": inhibited,
                "silencedBy": silenced,
                "state": "suppressed" if silenced or inhibited else "active",
            },
            "updatedAt": _text(alert.updated - self._late(alert)),
            "generatorURL": alert.generator,
            "labels": alert.labels,
        }

    def _late(self, alert: _Alert) -> timedelta:
        """How long the watchdog was not told of, with the fault that says so."""
        faulty = any((self.config.parents[1] / "faults").glob("watchdog-stale.*"))
        watchdog = alert.labels.get("alertname") == "Watchdog"
        return timedelta(hours=1) if faulty and watchdog else timedelta()

    def _inhibitors(self, alert: _Alert) -> list[str]:
        """Fingerprints of the alerts that keep this one back."""
        rules = self._document().get("inhibit_rules", ())
        return [
            other.fingerprint
            for rule in rules
            if _all_match([_matcher(t) for t in rule["target_matchers"]], alert.labels)
            for other in self._alerts.values()
            if other is not alert
            and other.ends > _now()
            and _all_match([_matcher(t) for t in rule["source_matchers"]], other.labels)
            and all(other.labels.get(k) == alert.labels.get(k) for k in rule.get("equal", ()))
        ]

    def _active(self, request: Request) -> list[dict[str, Any]]:
        matchers = [_matcher(text) for text in request.query_params.getlist("filter")]
        hidden = {
            state
            for state, name in (("active", "active"), ("suppressed", "silenced"))
            if request.query_params.get(name) == "false"
        }
        with self._lock:
            shown = [self._shown(a) for a in self._alerts.values() if a.ends > _now()]
        return [
            alert
            for alert in sorted(shown, key=lambda alert: str(alert["fingerprint"]))
            if alert["status"]["state"] not in hidden and _all_match(matchers, alert["labels"])
        ]

    async def _status(self, request: Request) -> Response:
        document = {
            "cluster": {"peers": [], "status": "disabled"},
            "config": {"original": self.config.read_text()},
            "uptime": _text(self._started),
            "versionInfo": {"version": VERSION, "revision": "", "branch": ""},
        }
        return JSONResponse(document)

    async def _get_alerts(self, request: Request) -> Response:
        return JSONResponse(self._active(request))

    async def _post_alerts(self, request: Request) -> Response:
        try:
            self.post(json.loads(await request.body()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return JSONResponse(str(error), status_code=400)
        return Response(status_code=200)

    async def _get_receivers(self, request: Request) -> Response:
        return JSONResponse([{"name": r["name"]} for r in self._document()["receivers"]])

    def forget_silences(self) -> None:
        self._silences.clear()

    async def _get_silences(self, request: Request) -> Response:
        return JSONResponse([_with_state(each) for each in self._silences.values()])

    async def _post_silence(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            silence = {
                "id": body.get("id") or str(uuid.uuid4()),
                "comment": body["comment"],
                "createdBy": body["createdBy"],
                "startsAt": _text(_parsed(body["startsAt"])),
                "endsAt": _text(_parsed(body["endsAt"])),
                "matchers": body["matchers"],
                "updatedAt": _text(_now()),
            }
        except (ValueError, KeyError, TypeError) as error:
            return JSONResponse({"code": 400, "message": str(error)}, status_code=400)
        with self._lock:
            self._silences[silence["id"]] = silence
        return JSONResponse({"silenceID": silence["id"]})

    async def _delete_silence(self, request: Request) -> Response:
        silence = self._silences.get(request.path_params["id"])
        if silence is None:
            return Response(status_code=404)
        silence["endsAt"] = silence["updatedAt"] = _text(_now())
        return Response(status_code=200)


def _page(receiver: str, alert: _Alert, firing: bool) -> dict[str, Any]:
    status = "firing" if firing else "resolved"
    shown = {"status": status, "labels": alert.labels, "annotations": alert.annotations}
    return {"version": "4", "receiver": receiver, "status": status, "alerts": [shown]}


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


def _with_state(silence: Mapping[str, Any]) -> dict[str, Any]:
    return {**silence, "status": {"state": _state(silence)}}


def _matcher(text: str) -> dict[str, Any]:
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise ValueError(f"bad matcher format: {text}")
    name, operation, value = found.groups()
    is_regex, is_equal = "~" in operation, "!" not in operation
    return {"name": name, "value": value, "isRegex": is_regex, "isEqual": is_equal}


def _all_match(matchers: list[dict[str, Any]], labels: Mapping[str, str]) -> bool:
    return all(
        _equal(labels.get(m["name"], ""), m["value"], m["isRegex"]) == m.get("isEqual", True)
        for m in matchers
    )


def _equal(text: str, value: str, is_regex: bool) -> bool:
    return re.fullmatch(value, text) is not None if is_regex else text == value


def _routed(
    route: Mapping[str, Any], labels: Mapping[str, str], default: str = ""
) -> Iterator[str]:
    """Receivers of an alert: the first child that matches, and on while it says continue."""
    receiver = route.get("receiver", default)
    taken = False
    for child in route.get("routes", ()):
        if _all_match([_matcher(text) for text in child.get("matchers", ())], labels):
            yield from _routed(child, labels, receiver)
            taken = True
            if not child.get("continue"):
                return
    if not taken:
        yield receiver
