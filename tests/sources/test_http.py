"""HTTP against real servers: time-outs, cut answers, limits, tokens, pace."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from runbook_lib.errors import ParameterError
from runbook_lib.sources.http import Answer, Failure, Http, Loop, Request, Tls
from runbook_lib.sources.redact import Redactor

Serve = Callable[[Callable[[BaseHTTPRequestHandler], None]], str]


def send(request: Request, http: Http | None = None) -> Answer | Failure:
    async def once() -> Answer | Failure:
        used = http or Http(Redactor())
        try:
            return await used.send(request)
        finally:
            await used.close()

    return asyncio.run(once())


def plain(handler: BaseHTTPRequestHandler, body: bytes = b"ok", **headers: str) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def test_an_answer_keeps_status_body_and_the_headers_we_judge_by(serve: Serve) -> None:
    url = serve(lambda handler: plain(handler, Link="<x>; rel=next", Set_Cookie="session=1"))
    assert send(Request("GET", url)) == Answer(200, b"ok", {"link": "<x>; rel=next"})


def test_no_request_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Its URL may be a secret, and papermill shows whatever a library logs."""
    with caplog.at_level(logging.INFO):
        assert isinstance(send(Request("GET", serve(plain))), Answer)

    assert caplog.records == []


def test_nobody_listening_is_a_connect_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert send(Request("GET", url)) == Failure("ConnectError", "All connection attempts failed")


def test_a_silent_server_is_a_read_timeout(serve: Serve) -> None:
    url = serve(lambda handler: time.sleep(0.5))
    assert send(Request("GET", url, timeout_s=0.1)) == Failure("ReadTimeout", "ReadTimeout")


def test_a_server_that_drips_is_not_waited_for(serve: Serve) -> None:
    """httpx limits each read only; the whole answer gets four time-outs."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b".")
            handler.wfile.flush()
            time.sleep(0.05)

    got = send(Request("GET", serve(drip), timeout_s=0.1))
    assert got == Failure("ReadTimeout", "not complete after 0.4 s")


def test_a_cut_answer_is_a_protocol_error(serve: Serve) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "10")
        handler.end_headers()
        handler.wfile.write(b"half")

    assert send(Request("GET", serve(cut))) == Failure(
        "RemoteProtocolError",
        "peer closed connection without sending complete message body"
        " (received 4 bytes, expected 10)",
    )


def test_an_answer_that_is_no_http_is_a_protocol_error(serve: Serve) -> None:
    url = serve(lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9\r\n") and None)
    got = send(Request("GET", url))
    assert isinstance(got, Failure)
    assert got.kind == "RemoteProtocolError"


def test_a_body_over_the_limit_is_not_read_to_its_end(serve: Serve) -> None:
    url = serve(lambda handler: plain(handler, b"x" * 1000))
    got = send(Request("GET", url, max_bytes=999))
    assert got == Failure("TooLarge", "more than 999 bytes")


def test_bodies_are_kept_decoded(serve: Serve) -> None:
    url = serve(lambda handler: plain(handler, gzip.compress(b"text"), Content_Encoding="gzip"))
    assert send(Request("GET", url)) == Answer(200, b"text", {})


@pytest.mark.parametrize("codings", ["gzip, gzip", "br", "zstd", "identity, gzip"])
def test_a_body_that_could_grow_without_bounds_is_not_decoded(serve: Serve, codings: str) -> None:
    """A kilobyte coded twice is a gigabyte before any limit is looked at."""
    bomb = gzip.compress(gzip.compress(bytes(1024**2)))
    url = serve(lambda handler: plain(handler, bomb, Content_Encoding=codings))
    expected = "expected a body coded once, by deflate or gzip or identity"
    assert send(Request("GET", url)) == Failure("DecodingError", f"{expected}, got {codings!r}")


def test_a_redirect_is_an_answer_and_not_followed(serve: Serve) -> None:
    """Elsewhere is another server, which would be handed our token."""

    def away(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:1/")
        handler.end_headers()

    assert send(Request("GET", serve(away))) == Answer(302, b"", {})


def test_a_url_that_is_none_is_a_failure() -> None:
    got = send(Request("GET", "http://host:port/"))
    assert got == Failure("UnsupportedProtocol", "Invalid port: 'port'")


def test_tokens_are_read_again_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["authorization"], request.headers["x-tenant"]))
        return httpx.Response(200)

    http = Http(Redactor(), httpx.MockTransport(note))
    request = Request("GET", "http://a/", bearer="TOKEN", secrets=(("x-tenant", "TENANT"),))
    monkeypatch.setenv("TENANT", "tenant-one")
    for token in ("first-token", "second-token"):
        monkeypatch.setenv("TOKEN", token)
        send(request, http)
    assert seen == [("Bearer first-token", "tenant-one"), ("Bearer second-token", "tenant-one")]


def test_an_unset_token_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKEN", raising=False)
    with pytest.raises(ParameterError) as caught:
        send(Request("GET", "http://a/", bearer="TOKEN"))
    assert str(caught.value) == ("environment: TOKEN: expected a secret, got nothing; export it")


def test_a_failures_text_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-t0ken")

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError(f"broke at {request.headers['authorization']}")

    http = Http(Redactor(["TOKEN"]), httpx.MockTransport(fail))
    got = send(Request("GET", "http://a/", bearer="TOKEN"), http)
    assert got == Failure("ReadError", "broke at Bearer [redacted]")


def test_unusable_certificates_are_the_users_mistake(tmp_path: Path) -> None:
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")
    with pytest.raises(ParameterError) as caught:
        send(Request("GET", "https://a/", tls=Tls(ca=str(bad))))
    assert str(caught.value).startswith(f"site: {bad}: expected readable PEM files, got: ")


def test_pace_is_kept_per_server_and_holds_up_no_other() -> None:
    http = Http(Redactor(), httpx.MockTransport(lambda _: httpx.Response(200)))

    async def ask() -> tuple[float, float]:
        begin = time.monotonic()

        async def one(server: str, number: int) -> float:
            url = f"http://gateway/{server}/{number}"
            await http.send(Request("GET", url, pace=(server, 600, 2)))
            return time.monotonic() - begin

        slow = await asyncio.gather(*(one("a", number) for number in range(4)))
        quick = await asyncio.gather(*(one("b", number) for number in range(2)))
        return max(slow), max(quick) - max(slow)

    slow, quick = asyncio.run(ask())
    assert slow >= 0.19
    assert quick < 0.1


def test_the_loop_runs_beside_a_running_one_and_can_be_closed() -> None:
    """A notebook's kernel has a loop of its own; ours is closed without loose ends."""
    loop = Loop()

    async def outer() -> int:
        async def inner() -> int:
            return 7

        return loop.run(inner())

    assert asyncio.run(outer()) == 7
    asyncio.run_coroutine_threadsafe(asyncio.sleep(60), loop._loop)  # type: ignore[arg-type]
    loop.close()
    loop.close()
