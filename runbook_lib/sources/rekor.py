"""Looking a signature up in a Rekor log (API v1): ``POST /api/v1/log/entries/retrieve``.

The answer is only a hint; who asked verifies the entry against the trusted root.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import SourceError
from .http import Failure, Http, Loop, Request
from .redact import Redactor
from .signatures import Find

PATH = "/api/v1/log/entries/retrieve"
MAX_ANSWER = 4 * 1024 * 1024


def request(log: str, entry: dict[str, Any]) -> Request:
    """The question for the one entry that holds this digest, signature and certificate."""
    return Request(
        "POST",
        log.rstrip("/") + PATH,
        body=json.dumps({"entries": [entry]}).encode(),
        headers=(("content-type", "application/json"), ("accept", "application/json")),
        max_bytes=MAX_ANSWER,
    )


def parse(log: str, status: int, body: bytes) -> dict[str, Any] | None:
    """The first entry by its UUID; None when the log has none. Raises SourceError."""
    if status == 404:
        return None
    if status != 200:
        raise SourceError(log, f"expected the log's answer, got HTTP {status}")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SourceError(log, f"expected JSON, got: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise SourceError(log, "expected a list of entries, got another shape")
    return found[0] if found else None


def finder() -> Find:
    """A live lookup: one request, no retry, the connection closed after it."""

    def find(log: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        loop, http = Loop(), Http(Redactor())
        try:
            answer = loop.run(http.send(request(log, entry)))
            loop.run(http.close())
        finally:
            loop.close()
        if isinstance(answer, Failure):
            raise SourceError(log, f"expected the log's answer, got {answer.kind}: {answer.text}")
        return parse(log, answer.status, answer.body)

    return find
