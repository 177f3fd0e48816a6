"""The network's folder and its control API, as the commands see them from outside its process."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

TYPE_CHECKING = False  # importing typing for it costs as much as json
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def fail(message: str, code: int = 1) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


def show(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")


class Site:
    """``by`` is the operator who calls, of a node of theirs."""

    def __init__(self, root: str, by: str) -> None:
        self.root, self.by = Path(root), by
        self.network = json.loads((self.root / "network.json").read_text())

    def directory(self, node: str) -> Path:
        found = sorted(self.root.glob(f"clusters/*/{node}/config.toml"))
        if not found:
            fail(f"{node}: expected a node of this network, got an unknown name")
        return found[0].parent

    def require(self, node: str) -> None:
        """A node belongs to who runs it: an operator's refuses everybody else, and ours operators."""
        if self.is_on("node-cut-off", node):
            fail(f"ssh: connect to host {node} port 22: No route to host", 255)
        owner = self.network["operators"].get(node, "")
        if owner != self.by:
            fail(f"{node}: permission denied: it is run by {owner or 'us'}", 13)

    def is_on(self, fault: str, node: str = "") -> bool:
        """Whether it is on: for this node if given."""
        if node:
            return (self.root / "faults" / f"{fault}.{node}").exists()
        return any(name.startswith(f"{fault}.") for name in os.listdir(self.root / "faults"))

    def now(self) -> str:
        """The rehearsal's time, as text."""
        from datetime import UTC, datetime

        offset = json.loads((self.root / "clock.json").read_text())["offset_s"]
        return datetime.fromtimestamp(time.time() + offset, UTC).isoformat()

    def board(self, name: str, change: Callable[[Any], Any], empty: Any) -> Any:
        """Something the site remembers, after ``change``."""
        from runbook_rehearsal.files import write_atomically

        path = self.root / f"{name}.json"
        before = json.loads(path.read_text()) if path.exists() else empty
        after = change(before)
        if after != before:
            write_atomically(path, json.dumps(after))
        return after

    def hang_while(self, fault: str) -> None:
        # Not for ever: a stand-in must not outlive the network it belongs to.
        while (self.root / "network.json").exists() and self.is_on(fault):
            time.sleep(0.05)

    def ask(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        """POST to the control API; a refusal ends the command with its message and exit code."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.0\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(content)}\r\n"
        address = self.network["control"].removeprefix("http://")
        try:
            status, answered = exchange(address, head, content, timeout=120)
        except OSError as error:
            fail(f"rehearsal network: expected an answer at {path}, got {error}; is it running?")
        answer: dict[str, Any] = json.loads(answered)
        if status != 200:
            fail(str(answer["error"]), int(answer.get("exit_code", 1)))
        return answer


def exchange(address: str, head: str, content: bytes = b"", *, timeout: float) -> tuple[int, bytes]:
    """Status and body of an answer by HTTP/1.0. OSError.

    By hand: importing the standard client takes longer than everything else here.
    """
    import socket

    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        connection.sendall(f"{head}Host: {host}\r\n\r\n".encode() + content)
        answered = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, body = answered.partition(b"\r\n\r\n")
    try:
        return int(top.split()[1]), body
    except (IndexError, ValueError):
        raise OSError(f"no HTTP: {top[:40]!r}") from None
