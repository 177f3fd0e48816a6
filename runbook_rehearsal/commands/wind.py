"""Wind the rehearsal's clock forward: ``python -S -E wind.py ROOT SECONDS``.

A watch does it a hundred times, so that it imports nothing but the socket.
"""

from __future__ import annotations

import sys
from socket import AF_INET, SOCK_STREAM, socket

PATIENCE_S = 120


def wind(root: str, seconds: str) -> int:
    """Exit code; what the network answered goes to stdout, a refusal to stderr."""
    body = f'{{"seconds": "{seconds}"}}'
    head = f"POST /fast-forward HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        with open(f"{root}/control") as file:  # noqa: PTH123 - pathlib takes longer than the rest
            host, _, port = file.read().strip().removeprefix("http://").partition(":")
        connection = socket(AF_INET, SOCK_STREAM)
        connection.settimeout(PATIENCE_S)
        connection.connect((host, int(port)))
        connection.sendall((head + body).encode())
        answered = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        connection.close()
    except OSError as error:
        sys.stderr.write(f"rehearsal network: expected the clock wound forward, got {error}\n")
        return 1
    top, _, text = answered.partition("\r\n\r\n")
    refused = " 200 " not in top.split("\r\n", 1)[0]
    (sys.stderr if refused else sys.stdout).write(text + "\n")
    return int(refused)


if __name__ == "__main__":
    sys.exit(wind(*sys.argv[1:]))
