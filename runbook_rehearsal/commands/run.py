"""One command of the site: ``python -S -E run.py ROOT VERB ...``, carried out by the network.

A stage runs hundreds of them, so that it imports nothing but the socket.
"""

from __future__ import annotations

import sys
from posix import getcwd
from socket import create_connection

PATIENCE_S = 120


def run(root: str, *words: str) -> int:
    """Exit code; what the command prints goes to stdout, what it complains of to stderr."""
    body = "\0".join((getcwd(), *words)).encode()
    head = f"POST / HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        with open(f"{root}/control") as file:  # noqa: PTH123 - pathlib takes longer than the rest
            host, _, port = file.read().strip().removeprefix("http://").partition(":")
        with create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            connection.sendall(head.encode() + body)
            answered = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        code, printed, complaint = answered.partition("\r\n\r\n")[2].split("\0")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"rehearsal network: expected an answer, got {error}; is it running?\n")
        return 1
    sys.stdout.write(printed)
    sys.stderr.write(complaint)
    return int(code)


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
