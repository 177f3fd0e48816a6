"""Which questions are asked again, and that each time is on the tape."""

from __future__ import annotations

import httpx
import pytest

from runbook_lib.sources.http import Answer, Failure, Request
from runbook_lib.sources.tape import read_entries

from ..conftest import mutations
from .conftest import World

PING = Request("GET", "http://node/ping")


@pytest.mark.usefixtures("no_waiting")
def test_each_retry_is_an_entry(world: World) -> None:
    answers = iter([503, 500, 200])
    live = world.scope(lambda _: httpx.Response(next(answers), text="x"))
    [answer] = live.http([PING])
    assert isinstance(answer, Answer)
    assert answer.status == 200
    entries = read_entries(world.folder)
    assert [(entry.n, entry.meta["status"]) for entry in entries] == [(1, 503), (2, 500), (3, 200)]
    assert world.replay().http([PING]) == [answer]


def test_a_long_retry_after_is_not_waited_for(world: World) -> None:
    live = world.scope(lambda _: httpx.Response(429, headers={"retry-after": "3600"}))
    [answer] = live.http([PING])
    assert answer == Answer(429, b"", {"retry-after": "3600"})
    assert len(world.asked) == 1
    assert world.replay().http([PING]) == [answer]


def test_a_short_retry_after_is_obeyed(world: World) -> None:
    answers = iter([(429, {"retry-after": "0"}), (200, {})])

    def answer(_: httpx.Request) -> httpx.Response:
        status, headers = next(answers)
        return httpx.Response(status, headers=headers)

    assert world.scope(answer).http([PING]) == [Answer(200, b"", {})]


@pytest.mark.usefixtures("no_waiting")
def test_a_change_is_never_asked_twice(world: World) -> None:
    """A change whose answer was lost may have happened: only reads are retried."""
    request = Request("POST", "http://node/change", purpose="change")
    world.scope(lambda _: httpx.Response(503)).http([request])
    assert [entry.purpose for entry in read_entries(world.folder)] == ["change"]
    assert [entry.key for entry in mutations(read_entries(world.folder))] == [
        "POST http://node/change"
    ]


@pytest.mark.usefixtures("no_waiting")
def test_a_failure_is_recorded_by_its_kind(world: World) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert world.scope(refuse).http([PING]) == [Failure("ConnectError", "refused")]
    assert world.replay().http([PING]) == [Failure("ConnectError", "refused")]
    assert len(world.asked) == 3
