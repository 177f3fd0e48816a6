"""Canonical JSON (RFC 8785) and sha256 digests: the one spelling every digest is made of."""

import hashlib
import json
from pathlib import Path
from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """The canonical bytes of a JSON value. Raises ValueError for what JSON cannot hold."""
    return rfc8785.dumps(value)


def load_once(data: bytes, *, fold: bool = False) -> Any:
    """A JSON value in whose objects every key stands once; with ``fold`` whatever its case.

    Readers differ on which of two they take. Raises ValueError.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key.casefold() if fold else key for key, _ in pairs}) != len(pairs):
            raise ValueError("expected every key once, got one twice")
        return dict(pairs)

    def refuse(text: str) -> Any:
        raise ValueError(f"{text}, which is no JSON")

    try:
        return json.loads(data, object_pairs_hook=once, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


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
