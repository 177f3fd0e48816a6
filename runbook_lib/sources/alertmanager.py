"""Alertmanager's v2 API: what it holds and silences now, and a test alert for it.

A *now* source: it has no past.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from .. import reach
from . import wire
from .routes import Matcher
from .scope import Scope
from .wire import Wire


class _Receiver(Wire):
    name: str


class AlertState(Wire):
    """A suppressed alert says by which silences, or by which other alerts."""

    state: Literal["unprocessed", "active", "suppressed"]
    silenced_by: Annotated[list[str], Field(validation_alias="silencedBy")]
    inhibited_by: Annotated[list[str], Field(validation_alias="inhibitedBy")]


class Alert(Wire):
    """An alert and whom it goes to: the routing is already done."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: Annotated[AwareDatetime, Field(validation_alias="startsAt")]
    ends_at: Annotated[AwareDatetime, Field(validation_alias="endsAt")]
    updated_at: Annotated[AwareDatetime, Field(validation_alias="updatedAt")]
    status: AlertState
    receivers: list[_Receiver]


class SilenceState(Wire):
    state: Literal["expired", "active", "pending"]


class Silence(Wire):
    """A silence; while active it keeps matching alerts from anybody."""

    id: str
    status: SilenceState
    matchers: list[Matcher]
    starts_at: Annotated[AwareDatetime, Field(validation_alias="startsAt")]
    ends_at: Annotated[AwareDatetime, Field(validation_alias="endsAt")]
    created_by: Annotated[str, Field(validation_alias="createdBy")]
    comment: str


class _Version(Wire):
    version: str


class _Config(Wire):
    original: str


class Status(Wire):
    """Version and configuration, the latter with its credentials masked by the server."""

    version: Annotated[_Version, Field(validation_alias="versionInfo")]
    config: _Config


class Alertmanager:
    """One Alertmanager. Instants are in the clock's time; every method raises SourceError."""

    def __init__(self, scope: Scope, settings: reach.Endpoint) -> None:
        self._scope, self._settings = scope, settings

    def status(self) -> Status:
        """Whether it is there, and how it is configured."""
        return wire.decode("alertmanager: status", self._get("status"), Status)

    def alerts(self) -> list[Alert]:
        """All alerts it holds, silenced and inhibited ones too."""
        found = wire.decode_list("alertmanager: alerts", self._get("alerts"), Alert)
        return [
            alert.model_copy(
                update=self._times(alert) | {"updated_at": alert.updated_at + self._scope.offset}
            )
            for alert in found
        ]

    def silences(self) -> list[Silence]:
        """All silences it remembers, expired ones too."""
        found = wire.decode_list("alertmanager: silences", self._get("silences"), Silence)
        return [silence.model_copy(update=self._times(silence)) for silence in found]

    def post(
        self, labels: Mapping[str, str], annotations: Mapping[str, str], ends: datetime
    ) -> None:
        """Post an alert that begins now and is over at ``ends``: a notification, never a change."""
        starts = self._scope.now()
        alert = {
            "labels": dict(labels),
            "annotations": dict(annotations),
            "startsAt": (starts - self._scope.offset).isoformat(),
            "endsAt": (ends - self._scope.offset).isoformat(),
        }
        request = wire.request(
            self._settings,
            "POST",
            f"{self._settings.url}/api/v2/alerts",
            body=json.dumps([alert]).encode(),
            headers=(("content-type", "application/json"),),
            purpose="notify",
        )
        # It answers 200 with an empty body.
        wire.content("alertmanager: post", self._scope.http([request])[0])

    def _times(self, found: Alert | Silence) -> dict[str, AwareDatetime]:
        self._scope.now()
        offset: timedelta = self._scope.offset
        return {"starts_at": found.starts_at + offset, "ends_at": found.ends_at + offset}

    def _get(self, kind: str) -> bytes:
        request = wire.request(self._settings, "GET", f"{self._settings.url}/api/v2/{kind}")
        return wire.content(f"alertmanager: {kind}", self._scope.http([request])[0])
