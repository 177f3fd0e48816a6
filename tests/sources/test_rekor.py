"""A log is asked one question; what it answers is an entry, none, or an error of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from runbook_lib.errors import SourceError
from runbook_lib.sources.rekor import finder, live

Serve = Callable[[Callable[[BaseHTTPRequestHandler], None]], str]


def answering(
    status: int, body: bytes, asked: list[Any]
) -> Callable[[BaseHTTPRequestHandler], None]:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["content-length"])
        asked.append((handler.path, json.loads(handler.rfile.read(length))))
        handler.send_response(status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'[{"uuid": {"body": ""}}]', {"uuid": {"body": ""}}),
        (200, b"[]", None),
        (404, b'{"code": 404}', None),
    ],
)
def test_an_entry_or_none(serve: Serve, status: int, body: bytes, found: object) -> None:
    asked: list[Any] = []
    url = serve(answering(status, body, asked))

    assert finder(live)(f"{url}/", {"kind": "hashedrekord"}) == found
    assert asked == [("/api/v1/log/entries/retrieve", {"entries": [{"kind": "hashedrekord"}]})]


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (500, b"", "expected the log's answer, got HTTP 500"),
        (200, b"<html>", "expected JSON, got: Expecting value: line 1 column 1 (char 0)"),
        (200, b"[" * 100_000, "expected JSON, got: maximum recursion depth exceeded"),
        (200, b'{"uuid": {}}', "expected a list of entries, got another shape"),
        (200, b"[7]", "expected a list of entries, got another shape"),
        (200, b" " * 5_000_000, "expected the log's answer, got TooLarge: more than 4194304 bytes"),
    ],
)
def test_another_answer_is_an_error(serve: Serve, status: int, body: bytes, problem: str) -> None:
    url = serve(answering(status, body, []))
    with pytest.raises(SourceError) as caught:
        finder(live)(url, {})

    assert str(caught.value).startswith(f"{url}: {problem}")


def test_a_log_that_is_down_is_an_error() -> None:
    with pytest.raises(SourceError, match=r"expected the log's answer, got ConnectError"):
        finder(live)("http://127.0.0.1:9", {})
