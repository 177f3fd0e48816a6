"""Canonical JSON (RFC 8785) and sha256 digests: the one spelling every digest is made of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """The canonical bytes of a JSON value. Raises ValueError for what JSON cannot hold."""
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """``sha256:HEX`` of a JSON value's canonical bytes."""
    return digest_bytes(canonical(value))


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """``sha256:HEX`` of raw bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """``sha256:HEX`` of a file, read in constant memory."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
