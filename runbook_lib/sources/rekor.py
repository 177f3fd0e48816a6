"""Looking a signature up in a Rekor log (API v1): ``POST /api/v1/log/entries/retrieve``.

The answer is only a hint; who asked verifies the entry against the trusted root.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..errors import SourceError
from ..reach import Endpoint
from . import wire
from .http import Answer, Failure, Http, Loop, Request
from .redact import Redactor
from .signatures import Find

PATH = "/api/v1/log/entries/retrieve"
MAX_ANSWER = 4 * 1024 * 1024


def finder(send: Callable[[Request], Answer | Failure], at: Endpoint | None = None) -> Find:
    """A lookup in the log ``at`` or, without, the trusted root's own.

    A log that did not answer is not asked again.
    """
    silent: list[SourceError] = []

    def find(log: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        if silent:
            raise silent[0]
        try:
            asked = _request(at or Endpoint(url=log), entry)
            return _parse(asked.url.removesuffix(PATH), send(asked))
        except SourceError as error:
            silent.append(error)
            raise
        except ValueError as error:
            problem = f"expected the http(s) URL of a log, got {log!r}"
            raise SourceError(log, problem) from error

    return find


def live(request: Request) -> Answer | Failure:
    """One request, no retry, the connection closed after it."""
    loop, http = Loop(), Http(Redactor())
    try:
        answer = loop.run(http.send(request))
        loop.run(http.close())
    finally:
        loop.close()
    return answer


def _request(log: Endpoint, entry: dict[str, Any]) -> Request:
    """The question for the one entry that holds this digest, signature and certificate."""
    body = json.dumps({"entries": [entry]}).encode()
    headers = (("content-type", "application/json"), ("accept", "application/json"))
    url = log.url + PATH
    return wire.request(log, "POST", url, body=body, headers=headers, max_bytes=MAX_ANSWER)


def _parse(log: str, answer: Answer | Failure) -> dict[str, Any] | None:
    """The first entry by its UUID; None when the log has none. Raises SourceError."""
    if isinstance(answer, Failure):
        raise SourceError(log, f"expected the log's answer, got {answer.kind}: {answer.text}")
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise SourceError(log, f"expected the log's answer, got HTTP {answer.status}")
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise SourceError(log, f"expected JSON, got: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise SourceError(log, "expected a list of entries, got another shape")
    return found[0] if found else None
