"""Grafana's HTTP API: its health, and dashboards by uid."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from .. import reach
from ..errors import SourceError
from . import wire
from .dashboards import Dashboard, Values, read_answer
from .scope import Scope
from .wire import Wire


class _Health(Wire):
    database: str
    version: str = ""


class Grafana:
    """One Grafana. Every method raises SourceError."""

    def __init__(self, scope: Scope, settings: reach.Endpoint) -> None:
        self._scope, self._settings = scope, settings

    def health(self) -> str:
        """Its version, when it says that its database is well."""
        url = f"{self._settings.url}/api/health"
        answer = self._scope.http([wire.request(self._settings, "GET", url)])[0]
        found = wire.decode("grafana: health", wire.content("grafana: health", answer), _Health)
        if found.database != "ok":
            raise SourceError("grafana: health", f"expected database ok, got {found.database!r}")
        return found.version or "version unknown"

    def dashboards(self, uids: Iterable[str], given: Values) -> dict[str, Dashboard | SourceError]:
        """Dashboards by uid, at once; what failed holds its error."""
        asked = list(uids)
        url = f"{self._settings.url}/api/dashboards/uid/"
        requests = [wire.request(self._settings, "GET", url + quote(uid, safe="")) for uid in asked]
        found: dict[str, Dashboard | SourceError] = {}
        for uid, answer in zip(asked, self._scope.http(requests), strict=True):
            source = f"grafana: {uid}"
            try:
                body = wire.content(source, answer)
                found[uid] = read_answer(body, source, given)
            except SourceError as error:
                found[uid] = error
        return found
