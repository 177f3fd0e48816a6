"""Scopes whose world is a function, and small real servers on loopback."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from runbook_lib import reach, site
from runbook_lib.reach import Clock
from runbook_lib.sources.commands import SiteCommands
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.tape import LiveTape, ReplayTape, Tape

from .verifying import DATA

Handler = Callable[[httpx.Request], httpx.Response]


def nobody(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"expected no request, got {request.method} {request.url}")


@dataclass
class World:
    """Makes scopes on one tape folder; ``asked`` lists the requests that went out."""

    folder: Path
    secrets: frozenset[str] = frozenset()
    asked: list[httpx.Request] = field(default_factory=list)
    _tapes: list[Tape] = field(default_factory=list)

    def scope(
        self,
        handler: Handler | None = nobody,
        *,
        item: str = "item",
        number: int = 1,
        clock: Clock | None = None,
        aliases: tuple[tuple[str, str], ...] = (),
    ) -> Scope:
        """A live scope; without ``handler`` it asks the real world."""

        def answer(request: httpx.Request) -> httpx.Response:
            self.asked.append(request)
            assert handler is not None
            return handler(request)

        transport = httpx.MockTransport(answer) if handler is not None else None
        self._tapes.append(LiveTape(self.folder, self.secrets, transport))
        return Scope(self._tapes[-1], item, number, clock=clock, aliases=aliases)

    def replay(
        self, *, item: str = "item", judged: int = 1, aliases: tuple[tuple[str, str], ...] = ()
    ) -> Scope:
        """A scope that answers from what the live ones recorded, and asks nobody."""
        self._tapes.append(ReplayTape(self.folder, {item: judged}))
        return Scope(self._tapes[-1], item, 9, aliases=aliases)

    def close(self) -> None:
        for tape in self._tapes:
            tape.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "tape")
    yield made
    made.close()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries happen, without the pauses between them."""
    monkeypatch.setattr("runbook_lib.sources.http.FIRST_WAIT_S", 0.0)


def told(*answers: httpx.Response) -> list[tuple[int, bytes, str]]:
    """Status and body of answers, and why there is none of status 0."""
    return [
        (one.status_code, one.content, "" if one.status_code else one.reason_phrase)
        for one in answers
    ]


Reply = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], str]]:
    """Starts a real HTTP server whose GET and POST are the function given; returns its URL."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(reply: Reply) -> str:
        class Handling(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reply(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handling)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "rpp-node-x86_64.tar.gz"
    path.write_bytes(DATA)
    return path


PROGRAM = 'printf %s "$0"; printf %s "$1" >&2; exit "$2"'


def says(out: str = "", err: str = "", code: int = 0, *more: str) -> reach.Command:
    argv = ["sh", "-c", PROGRAM, out, err, str(code), *more]
    return reach.Command(argv=argv, timeout_s=60)


def commands(world: World, **named: Any) -> SiteCommands:
    return SiteCommands(world.scope(), site.Commands(**named))


@pytest.fixture
def forge_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_TOKEN", "token-of-forge")
