"""Files of this machine as answers: what can be kept of one, or why it cannot be read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..canonical import canonical
from ..errors import RecordDamaged
from .hashing import Advance, Algorithm, hash_file, open_regular

MAX_FILE = 64 * 1024 * 1024
MAX_RECORD = 1024**3
Kept = tuple[dict[str, Any], bytes]
"""What the tape keeps of an answer, and its body; why a file cannot be read is under ``error``."""


@dataclass(frozen=True)
class FileDigest:
    """``ALGORITHM:HEX`` of a file, and how many bytes it has."""

    digest: str
    size: int


def content(path: Path, limit: int, follow: bool) -> Kept:
    """The whole of a file of at most ``limit`` bytes."""
    try:
        with open_regular(path, follow=follow) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                return {"error": f"expected at most {limit} bytes, got {size}"}, b""
            return {}, b"".join(iter(lambda: file.read(limit), b""))[:limit]
    except OSError as error:
        return _unreadable(error)


def recorded(path: Path, limit: int = MAX_RECORD) -> bytes:
    """A file out of an attempt that may be hostile: no link, no pipe, not without end.

    Raises OSError, RecordDamaged.
    """
    with open_regular(path, follow=False) as file:
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise RecordDamaged(f"{path.name}: expected at most {limit} bytes, got {size}")
        return file.readall()


def names(path: Path) -> Kept:
    """The names in a folder, sorted, as JSON; of no folder, none."""
    return {}, canonical(sorted(os.listdir(path)) if path.is_dir() else [])


def hashed(path: Path, algorithm: Algorithm, advance: Advance) -> Kept:
    """Digest and size, telling how far it is."""
    try:
        digest, size = hash_file(path, algorithm, advance)
        return {"digest": digest, "bytes": size}, b""
    except (OSError, ValueError) as error:
        return _unreadable(error)


def _unreadable(error: OSError | ValueError) -> Kept:
    said = getattr(error, "strerror", None) or error
    return {"error": f"expected a readable file, got: {said}"}, b""
