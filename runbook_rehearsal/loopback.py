"""Many HTTP listeners on loopback in one background thread.

Each listener has its own address and its own ASGI application, and can be closed alone, with its
connections, as when a process dies. uvicorn's protocol class does the HTTP; its ``Server`` is not
used, because it cannot add or close a single socket while it runs.
"""

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Coroutine, MutableMapping
from functools import partial
from typing import Any, TypeVar, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Coroutine[Any, Any, None]]
Address = tuple[str, int]
T = TypeVar("T")


class Loopback:
    """Listeners by address. ``start`` and ``stop`` from any thread; all methods are thread-safe."""

    def __init__(self) -> None:
        self._apps: dict[Address, App] = {}
        self._servers: dict[Address, asyncio.Server] = {}
        self._state = ServerState()
        self._config = uvicorn.Config(
            self._dispatch,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            http="h11",
            ws="none",
            timeout_keep_alive=600,  # Prometheus asks again on one of remote read for five minutes
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="rehearsal-http", daemon=True)

    def start(self) -> None:
        self._config.load()
        self._thread.start()

    def stop(self) -> None:
        """Close every listener and connection, end the thread. Nothing listens afterwards."""
        if not self._thread.is_alive():
            self._loop.close()
            return
        for address in list(self._servers):
            self.close(address)
        self.call(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def listen(self, app: App, host: str = "127.0.0.1", port: int = 0) -> Address:
        """Serve ``app``; port 0 picks a free one. Raises OSError when the address is not free."""
        listener = bind(host, port)
        address: Address = listener.getsockname()[:2]
        self._apps[address] = app
        self.call(self._listen(address, listener))
        return address

    def close(self, address: Address) -> None:
        """Refuse connections from now on and drop those that are open."""
        if address in self._servers:
            self.call(self._close(address))

    def listens(self, address: Address) -> bool:
        return address in self._servers

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def break_off(
        self, scope: Scope, send: Any, status: int, headers: Any, body: bytes
    ) -> None:
        """Answer with the beginning of a body, and hang up."""
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await self.hang_up(scope)

    async def hang_up(self, scope: Scope) -> None:
        for connection in self._connections():
            if connection.client == tuple(scope["client"]):
                connection.transport.close()
        await asyncio.sleep(0.01)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _dispatch(self, scope: Scope, receive: Any, send: Any) -> None:
        await self._apps[cast(Address, tuple(scope["server"]))](scope, receive, send)

    async def _listen(self, address: Address, listener: socket.socket) -> None:
        made = partial(H11Protocol, self._config, self._state, {})
        self._servers[address] = await self._loop.create_server(made, sock=listener, backlog=512)

    async def _close(self, address: Address) -> None:
        server = self._servers.pop(address)
        for listener in server.sockets:
            self._loop.remove_reader(listener.fileno())
        for _ in range(3):  # what was accepted just now must become a connection to be dropped
            await asyncio.sleep(0)
        server.close()
        for connection in self._connections():
            if connection.server == address:
                connection.transport.abort()

    def _connections(self) -> list[H11Protocol]:
        return [c for c in self._state.connections if isinstance(c, H11Protocol)]

    async def _finish(self) -> None:
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=5)


class Listener:
    """One application at one address, where it can be stopped and started again."""

    def __init__(self, loopback: Loopback, app: App) -> None:
        self._loopback, self._app = loopback, app
        self._address: Address = ("127.0.0.1", 0)
        self.start()

    @property
    def url(self) -> str:
        return f"http://{self._address[0]}:{self._address[1]}"

    def start(self) -> None:
        if not self._loopback.listens(self._address):
            self._address = self._loopback.listen(self._app, *self._address)

    def stop(self) -> None:
        self._loopback.close(self._address)


def bind(host: str, port: int) -> socket.socket:
    # With the protocol given, asyncio sets TCP_NODELAY: without it an answer takes 40 ms more.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def free_addresses(groups: list[list[str]]) -> list[list[Address]]:
    """A free address per host, all on one port; 127.0.0.1 with a port each where 127/8 is not all
    loopback. The sockets are closed again, so a listener may still find its address taken."""
    for _ in range(20):
        held: list[socket.socket] = []
        try:
            port = 0
            for host in (host for group in groups for host in group):
                held.append(bind(host, port))
                port = held[0].getsockname()[1]
            return [[(host, port) for host in group] for group in groups]
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                break
        finally:
            for listener in held:
                listener.close()
    flat = [bind("127.0.0.1", 0) for group in groups for _ in group]
    addresses = iter([listener.getsockname()[:2] for listener in flat])
    for listener in flat:
        listener.close()
    return [[next(addresses) for _ in group] for group in groups]
