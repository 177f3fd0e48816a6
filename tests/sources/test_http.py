"""HTTP against real servers: time-outs, cut answers, limits, pace, and a log of signatures."""

import asyncio
import gzip
import json
import logging
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.reach import Reached
from runbook_lib.sources.http import Http, make_request
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.scope import live_scope
from runbook_lib.sources.signatures import finder

from ..messages import saying
from .conftest import World, told

Reply = Callable[[BaseHTTPRequestHandler], None]
Serve = Callable[[Reply], str]


def replying(*parts: bytes, status: int = 200, pause_s: float = 0, **headers: str) -> Reply:
    """A reply whose body is these parts, after pauses; its length as they have, unless said."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(sum(map(len, parts))), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for part in parts:
            time.sleep(pause_s)
            handler.wfile.write(part)

    return reply


# A kilobyte coded twice is a gigabyte before any limit is looked at.
BOMB = gzip.compress(gzip.compress(bytes(1024**2)))
CODED = "expected a body coded once, by deflate or gzip or identity, got"


@pytest.mark.parametrize(
    ("reply", "given", "got"),
    [
        (replying(b"ok", Link="<x>; rel=next", Set_Cookie="session=1"), {}, (200, b"ok", "")),
        (replying(gzip.compress(b"text"), Content_Encoding="gzip"), {}, (200, b"text", "")),
        # Elsewhere is another server, which would be handed our token.
        (replying(status=302, Location="http://127.0.0.1:1/"), {}, (302, b"", "")),
        (lambda handler: time.sleep(0.5), {"reach": Reached(timeout_s=0.1)}, "ReadTimeout: ReadTimeout"),
        # httpx limits each read only; the whole answer gets four time-outs.
        (replying(*[b"."] * 20, pause_s=0.05), {"reach": Reached(timeout_s=0.1)}, "ReadTimeout: not complete after 0.4 s"),
        (replying(b"half", Content_Length="10"), {}, ("RemoteProtocolError: peer closed connection without"
         " sending complete message body (received 4 bytes, expected 10)")),
        (replying(b"x" * 1000), {"max_bytes": 999}, "TooLarge: more than 999 bytes"),
        *((replying(BOMB, Content_Encoding=coding), {}, f"DecodingError: {CODED} {coding!r}")
          for coding in ("gzip, gzip", "br", "zstd", "identity, gzip")),
    ],
)  # fmt: skip
def test_a_server_answers_or_fails_and_no_request_is_logged(
    world: World, serve: Serve, caplog: Any, reply: Reply, given: dict[str, Any], got: object
) -> None:
    """Its URL may be a secret, and papermill shows whatever a library logs."""
    with caplog.at_level(logging.INFO):
        [answer] = world.scope(None).http([make_request("GET", serve(reply), **given)], retries=1)
    assert told(answer) == [got if isinstance(got, tuple) else (0, b"", got)]
    assert set(answer.headers) <= {"link", "content-length"}
    assert caplog.records == []


def test_what_is_no_http_server_is_a_failure(world: World, serve: Serve) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    ssh = serve(lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n") and None)
    requests = [make_request("GET", each) for each in (url, ssh)]
    refused, no_http = world.scope(None).http(requests, retries=1)
    assert told(refused) == [(0, b"", "ConnectError: All connection attempts failed")]
    assert no_http.reason_phrase.startswith("RemoteProtocolError: ")
    with saying(SourceError, "http://host:port/: expected a URL, got: Invalid port: 'port'"):
        make_request("GET", "http://host:port/")


def test_tokens_are_read_again_at_each_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["authorization"], request.headers["x-tenant"]))
        return httpx.Response(200)

    scope = world.scope(note)
    named = Reached(token_env="TOKEN", headers_env={"x-tenant": "TENANT"})
    request = make_request("GET", "http://a/", named)
    monkeypatch.setenv("TENANT", "tenant-one")
    for token in ("first-token", "second-token"):
        monkeypatch.setenv("TOKEN", token)
        scope.http([request])
    assert seen == [("Bearer first-token", "tenant-one"), ("Bearer second-token", "tenant-one")]


def test_unusable_certificates_are_the_users_mistake(world: World, tmp_path: Path) -> None:
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")
    request = make_request("GET", "https://a/", Reached(ca=str(bad)))
    with saying(ParameterError, f"site: {bad}: expected readable PEM files, got: ", whole=False):
        world.scope(None).http([request])


def test_pace_is_kept_per_server_and_holds_up_no_other(world: World) -> None:
    came: dict[str, float] = {}

    def note(request: httpx.Request) -> httpx.Response:
        came[request.url.path] = time.monotonic()
        return httpx.Response(200)

    asked = [("a", number) for number in range(4)] + [("b", number) for number in range(2)]
    begin, scope = time.monotonic(), world.scope(note)
    scope.http([make_request("GET", f"http://gateway/{s}/{n}", pace=(s, 600, 2)) for s, n in asked])
    slow = max(at for path, at in came.items() if path.startswith("/a"))
    quick = max(at for path, at in came.items() if path.startswith("/b"))
    assert slow - begin >= 0.19
    assert slow - quick > 0.05


def test_the_loop_runs_beside_a_running_one_and_can_be_closed() -> None:
    """A notebook's kernel has a loop of its own; ours is closed without loose ends."""
    http = Http(Redactor())

    async def outer() -> int:
        return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 7), http.loop).result()

    assert asyncio.run(outer()) == 7
    asyncio.run_coroutine_threadsafe(asyncio.sleep(60), http.loop)
    http.close()
    http.close()


# --- a log of signatures --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'[{"uuid": {"body": ""}}]', {"uuid": {"body": ""}}), (200, b"[]", None),
        (404, b'{"code": 404}', None), (500, b"", "expected status 200, got 500"),
        (200, b"<html>", "expected JSON, got: expected value at line 1 column 1"),
        (200, b"[" * 100_000, "expected JSON, got: recursion limit exceeded"),
        (200, b'{"uuid": {}}', "expected a valid array, got an object"),
        (200, b"[7]", "0: expected an object, got 7"),
        (200, b" " * 5_000_000, "expected an answer, got TooLarge: more than 4194304 bytes"),
        (0, b"", "expected an answer, got ConnectError"),
    ],
)  # fmt: skip
def test_a_log_has_an_entry_or_none_or_is_an_error(
    serve: Serve, status: int, body: bytes, found: Any
) -> None:
    asked: list[Any] = []

    def reply(handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["content-length"])
        asked.append((handler.path, json.loads(handler.rfile.read(length))))
        replying(body, status=status)(handler)

    url = serve(reply) if status else "http://127.0.0.1:9"
    with live_scope("log") as scope:
        find = finder(lambda asked: scope.http([asked])[0])
        if isinstance(found, str):
            with saying(SourceError, f"{url}: {found}", whole=False):
                find(url, {})
            return
        assert find(f"{url}/", {"kind": "hashedrekord"}) == found
    assert asked == [("/api/v1/log/entries/retrieve", {"entries": [{"kind": "hashedrekord"}]})]
