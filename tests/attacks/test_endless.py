"""Servers that answer without end, a byte at a time, or much too much: given up."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from runbook_lib import reach
from runbook_lib.errors import SourceError
from runbook_lib.sources import http as module
from runbook_lib.sources.http import Answer, Budget, Request
from runbook_lib.sources.prometheus import Prometheus
from runbook_lib.sources.redact import Redactor

from ..sources.conftest import World, serve  # noqa: F401 - a fixture

SOON = reach.Reached(timeout_s=0.2)
GIVEN_UP = Answer(failure="GivenUp", text="no answer in 0.8 s; not asked again")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "tape", Redactor())


def slowly(handler: BaseHTTPRequestHandler) -> None:
    """Not even a status line is ever whole."""
    try:
        for _ in range(40):
            handler.wfile.write(b"H")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        return


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    slowly(handler)


def silence(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def busy(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.15)
    handler.send_error(503)


@pytest.mark.parametrize("reply", [drip, slowly, silence, busy])
def test_a_source_has_one_budget_of_time_for_all_questions_of_an_item(
    serve: Callable[..., str],  # noqa: F811
    world: World,
    reply: Callable[[BaseHTTPRequestHandler], None],
) -> None:
    """However many questions, retries and threads; after a wait it has its time again, and replays."""
    bad, scope = serve(reply), world.scope(None)
    requests = [Request("GET", f"{bad}/{n}", SOON) for n in range(3)]
    lived = [scope.http(requests) for _ in range(8)]
    lived += [scope.lane("a").http(requests)]
    assert lived[3:] == [[GIVEN_UP] * 3] * 6
    good = serve(lambda handler: handler.send_response(200) or handler.end_headers())
    assert scope.http([Request("GET", good)])[0].status == 200
    scope.renew()
    assert GIVEN_UP not in scope.http([Request("GET", f"{bad}/again", SOON)], retries=1)

    replay = world.replay()
    assert [replay.http(requests) for _ in range(8)] == lived[:-1]
    world.close()


def test_answers_in_time_cost_nothing_and_a_wait_counts_once() -> None:
    """A slow source that answers is asked as often as need be."""
    budget = Budget()
    for begun, until in ((5.0, 1.0), (0.0, 2.0), (1.0, 2.0), (1.5, 3.0), (9.0, 9.5)):
        budget.spend(begun, until)

    assert budget.waited == 3.5


@pytest.mark.parametrize("ask", ["instant", "rules", "alertmanagers"])
def test_a_body_without_end_is_cut_at_its_kinds_limit(world: World, ask: str) -> None:
    """A small one for what holds no series."""

    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"status":"success","data":{'
        while True:
            sent += 1
            yield b" " * 1024 * 1024

    scope = world.scope(lambda request: httpx.Response(200, content=endless()))
    prometheus = Prometheus(scope, reach.Endpoint(url="http://p"))
    what = "up" if ask == "instant" else ask
    with pytest.raises(SourceError) as caught:
        getattr(prometheus, ask)(*(["up", scope.now()] if ask == "instant" else []))
    limit = "expected an answer, got TooLarge: more than 16777216 bytes"
    assert str(caught.value) == f"prometheus: {what}: {limit}"
    assert sent == 16
    world.close()


def test_all_answers_of_a_source_at_once_have_a_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them below their own; the next questions begin anew."""
    monkeypatch.setattr(module, "MAX_OF_ALL", 2_500)
    scope = world.scope(lambda request: httpx.Response(200, content=b"x" * 1000))
    for _ in range(2):
        answers = scope.http([Request("GET", f"http://a/{n}") for n in range(4)])
        failed = [answer for answer in answers if answer.failure]
        assert failed == [Answer(failure="TooLarge", text="more than 2500 bytes in all")] * 2
    world.close()
