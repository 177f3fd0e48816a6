"""Servers that answer without end, a byte at a time, or much too much: given up, and at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from runbook_lib import reach
from runbook_lib.errors import SourceError
from runbook_lib.sources import http as module
from runbook_lib.sources.http import Budget, Failure, Request
from runbook_lib.sources.prometheus import Prometheus

from ..sources.conftest import World, serve  # noqa: F401 - a fixture

Serve = Callable[[Callable[[BaseHTTPRequestHandler], None]], str]
GIVEN_UP = Failure("GivenUp", "no answer in 0.8 s; not asked again")


@pytest.fixture
def world(tmp_path: Path) -> World:
    from runbook_lib.sources.redact import Redactor

    return World(tmp_path / "tape", Redactor())


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    slowly(handler, b"{")


def headers_drip(handler: BaseHTTPRequestHandler) -> None:
    slowly(handler, b"H")


def silence(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def busy(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.15)
    handler.send_error(503)


def slowly(handler: BaseHTTPRequestHandler, byte: bytes) -> None:
    for _ in range(40):
        try:
            handler.wfile.write(byte)
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)


@pytest.mark.parametrize("reply", [drip, headers_drip, silence, busy])
def test_a_source_has_one_budget_of_time_for_all_questions_of_an_item(
    serve: Serve,  # noqa: F811
    world: World,
    reply: Callable[[BaseHTTPRequestHandler], None],
) -> None:
    """However many questions and retries; another source is asked all the same."""
    bad, good = (
        serve(reply),
        serve(lambda handler: handler.send_response(200) or handler.end_headers()),
    )
    scope = world.scope(None)
    begun = time.monotonic()
    for number in range(8):
        requests = [Request("GET", f"{bad}/{number}/{n}", timeout_s=0.2) for n in range(3)]
        answers = scope.http(requests)
    assert time.monotonic() - begun < 5
    assert answers == [GIVEN_UP] * 3
    [answer] = scope.http([Request("GET", good)])
    assert not isinstance(answer, Failure)

    [last] = scope.lane("a").http([Request("GET", f"{bad}/lane", timeout_s=0.2)])
    assert last == GIVEN_UP
    scope.renew()  # after a wait it has its time again
    again = scope.http([Request("GET", f"{bad}/again", timeout_s=0.2)], retries=1)
    assert again != [GIVEN_UP]
    world.close()


def test_what_was_given_up_is_so_in_replay(serve: Serve, world: World) -> None:  # noqa: F811
    """The same failures, without the wait."""
    url = serve(drip)
    requests = [Request("GET", url, timeout_s=0.2)]
    lived = [world.scope(None).http(requests), world.scope(None, number=2).http(requests)]
    begun = time.monotonic()

    assert world.replay().http(requests) == lived[0] == [GIVEN_UP]
    assert time.monotonic() - begun < 0.5
    world.close()


def test_answers_in_time_cost_nothing_and_a_wait_counts_once() -> None:
    """A slow source that answers is asked as often as need be."""
    budget = Budget()
    for begun, until in ((5.0, 1.0), (0.0, 2.0), (1.0, 2.0), (1.5, 3.0), (9.0, 9.5)):
        budget.spend(begun, until)

    assert budget.waited == 3.5
    assert budget.left(1.0) == 0.5


ENDLESS = b'{"status":"success","data":{"resultType":"vector","result":['


@pytest.mark.parametrize(
    ("ask", "problem"),
    [
        (lambda p, at: p.instant("up", at), "prometheus: up: expected an answer, got TooLarge: more than 16777216 bytes"),
        (lambda p, at: p.rules(), "prometheus: rules: expected an answer, got TooLarge: more than 16777216 bytes"),
        (lambda p, at: p.alertmanagers(), "prometheus: alertmanagers: expected an answer, got TooLarge: more than 16777216 bytes"),
    ],
)  # fmt: skip
def test_a_body_without_end_is_cut_at_its_kinds_limit(
    world: World, ask: Callable[..., object], problem: str
) -> None:
    """Small for what holds no series."""

    async def endless() -> object:
        yield ENDLESS
        while True:
            yield b" " * 1024 * 1024

    scope = world.scope(lambda request: httpx.Response(200, content=endless()))
    with pytest.raises(SourceError) as caught:
        ask(Prometheus(scope, reach.Endpoint(url="http://p")), scope.now())
    assert str(caught.value) == problem
    world.close()


def test_all_answers_of_a_source_at_once_have_a_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them below their own; the next questions begin anew."""
    monkeypatch.setattr(module, "MAX_OF_ALL", 2_500)
    scope = world.scope(lambda request: httpx.Response(200, content=b"x" * 1000))
    for _ in range(2):
        answers = scope.http([Request("GET", f"http://a/{n}") for n in range(4)])
        failed = [answer for answer in answers if isinstance(answer, Failure)]
        assert failed == [Failure("TooLarge", "more than 2500 bytes in all")] * 2
    world.close()
