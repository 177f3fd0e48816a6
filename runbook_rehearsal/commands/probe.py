"""From the network of the nodes: whether a telemetry backend answers."""

from __future__ import annotations

import sys
import time

from .site import TYPE_CHECKING, Site, exchange, fail, show

if TYPE_CHECKING:
    from typing import Any


def probe(site: Site, backend: str) -> None:
    """Whether a backend's readiness page answers, and how fast (ms)."""
    site.hang_while("probe-hangs")
    if site.is_on("probe-broken"):
        fail("bastion: permission denied (publickey)", 255)
    if site.is_on("probe-garbage"):
        sys.stdout.write("<html><body>502 Bad Gateway</body></html>\n")
        return
    url = site.network["backends"].get(backend)
    if url is None:
        fail(f"probe: expected one of {sorted(site.network['backends'])}, got {backend!r}")
    answer: dict[str, Any] = {"backend": backend, "reachable": False, "status": None}
    answer["latency_ms"] = None
    start = time.perf_counter()
    try:
        if site.is_on("backend-unreachable"):
            raise ConnectionRefusedError(111, "Connection refused")
        address, _, prefix = url.removeprefix("http://").partition("/")
        path = f"/{prefix}/-/ready" if prefix else "/-/ready"
        status, _ = exchange(address, f"GET {path} HTTP/1.0\r\n", timeout=3)
        latency = round((time.perf_counter() - start) * 1000, 3)
        answer |= {"reachable": status == 200, "status": status, "latency_ms": latency}
    except OSError as error:
        answer["error"] = str(error)
    show(answer)
