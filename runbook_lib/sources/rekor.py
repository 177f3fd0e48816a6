"""Looking a signature up in a Rekor log (API v1): ``POST /api/v1/log/entries/retrieve``.

The answer is only a hint; who asked verifies the entry against the trusted root.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from .. import reach
from ..errors import SourceError
from . import wire
from .http import Answer, Failure, Http, Loop, Request
from .redact import Redactor
from .scope import Scope
from .signatures import Find

PATH = "/api/v1/log/entries/retrieve"
MAX_ANSWER = 4 * 1024 * 1024


def request(log: reach.Endpoint, entry: dict[str, Any]) -> Request:
    """The question for the one entry that holds this digest, signature and certificate."""
    body = json.dumps({"entries": [entry]}).encode()
    headers = (("content-type", "application/json"), ("accept", "application/json"))
    asked = wire.request(log, "POST", log.url + PATH, body=body, headers=headers)
    return replace(asked, max_bytes=MAX_ANSWER)


def parse(log: str, answer: Answer | Failure) -> dict[str, Any] | None:
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


def endpoint(log: str) -> reach.Endpoint:
    """A log of which only the address is known. Raises SourceError for one that is none."""
    try:
        return reach.Endpoint(url=log)
    except ValueError as error:
        raise SourceError(log, f"expected the http(s) URL of a log, got {log!r}") from error


def finder() -> Find:
    """A live lookup: one request, no retry, the connection closed after it."""

    def find(log: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        asked = request(endpoint(log), entry)
        loop, http = Loop(), Http(Redactor())
        try:
            answer = loop.run(http.send(asked))
            loop.run(http.close())
        finally:
            loop.close()
        return parse(log, answer)

    return find


def taped(scope: Scope, reach: reach.Endpoint | None) -> Find:
    """A lookup through the tape, in the log at ``reach`` or, without, the trusted root's own.

    A log that did not answer is not asked again in this try.
    """
    silent: list[SourceError] = []

    def find(log: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        if silent:
            raise silent[0]
        asked = request(reach or endpoint(log), entry)
        answer = scope.http([asked])[0]
        try:
            return parse(asked.url.removesuffix(PATH), answer)
        except SourceError as error:
            silent.append(error)
            raise

    return find
