"""Looking a signature up in a Rekor log (API v1): ``POST /api/v1/log/entries/retrieve``.

The answer is only a hint; who asked verifies the entry against the trusted root.
"""

import json
from collections.abc import Callable
from typing import Any

from httpx import Request, Response

from ..errors import SourceError, or_raise, tried
from ..reach import Endpoint
from . import wire
from .http import JSON, make_request
from .scope import live_scope
from .signatures import Find

PATH = "/api/v1/log/entries/retrieve"
MAX_ANSWER = 4 * 1024 * 1024


def finder(send: Callable[[Request], Response], at: Endpoint | None = None) -> Find:
    """A lookup in the log ``at`` or, without, the trusted root's own.

    A log that did not answer is not asked again.
    """
    silent: list[SourceError] = []

    def find(log: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        if silent:
            raise silent[0]
        try:
            place = at or Endpoint(url=log)
        except ValueError as error:
            problem = f"expected the http(s) URL of a log, got {log!r}"
            raise SourceError(log, problem) from error
        body = json.dumps({"entries": [entry]}).encode()
        headers = (*JSON, ("accept", "application/json"))
        url = place.url + PATH
        request = make_request("POST", url, place, body=body, headers=headers, max_bytes=MAX_ANSWER)
        found = tried(_first, place.url, send(request))
        if isinstance(found, SourceError):
            silent.append(found)
        return or_raise(found)

    return find


def live(request: Request) -> Response:
    """One request, no retry, the connection closed after it."""
    with live_scope("log") as scope:
        return scope.http([request], retries=1)[0]


def _first(log: str, answer: Response) -> dict[str, Any] | None:
    """The first entry by its UUID; None when the log has none. Raises SourceError."""
    if answer.status_code == 404:
        return None
    found = wire.decode(log, wire.content(log, answer), list[dict[str, Any]])
    return found[0] if found else None
