"""Listeners on loopback: opened, closed alone, all gone at the end."""

from __future__ import annotations

import errno
import socket
from typing import Any

import httpx
import pytest

from runbook_rehearsal import loopback as module
from runbook_rehearsal.loopback import Loopback, Scope, bind, free_addresses

from ..checks.conftest import loopback


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    body = str(scope["server"][1]).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


__all__ = ["loopback"]


def test_closing_drops_kept_connections_too(loopback: Loopback) -> None:
    """As when a process dies; the other listeners go on, and the address can be taken again."""
    closed, other = loopback.listen(hello), loopback.listen(hello)
    with httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{closed[1]}"
        assert client.get(url).status_code == 200
        loopback.close(closed)
        with pytest.raises(httpx.TransportError):
            client.get(url)
        assert client.get(f"http://127.0.0.1:{other[1]}").status_code == 200
        loopback.close(closed)
        assert loopback.listen(hello, *closed) == closed
        assert client.get(url).status_code == 200


def test_free_addresses_share_a_port() -> None:
    """One port on every host, in the order asked for."""
    groups = free_addresses([["127.1.1.1", "127.1.1.2"], ["127.1.2.1"]])

    assert [[host for host, _ in group] for group in groups] == [
        ["127.1.1.1", "127.1.1.2"],
        ["127.1.2.1"],
    ]
    assert len({port for group in groups for _, port in group}) == 1


def test_systems_without_127_8_get_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node its own port on 127.0.0.1."""

    def only_localhost(host: str, port: int) -> socket.socket:
        if host != "127.0.0.1":
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return bind(host, port)

    monkeypatch.setattr(module, "bind", only_localhost)
    groups = free_addresses([["127.1.1.1", "127.1.1.2"], ["127.1.2.1"]])

    assert [[host for host, _ in group] for group in groups] == [["127.0.0.1"] * 2, ["127.0.0.1"]]
    assert len({port for group in groups for _, port in group}) == 3
