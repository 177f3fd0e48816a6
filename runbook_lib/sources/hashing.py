"""Many large files hashed on all cores: threads, as hashlib releases the interpreter's lock."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Literal, Protocol, TypeVar

from ..progress import progress

Algorithm = Literal["sha256", "blake2b"]
BUFFER = 1024 * 1024
WORTH_A_BAR = 256 * 1024 * 1024

T = TypeVar("T")
Advance = Callable[[float], None]


class Hash(Protocol):
    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def new_hash(algorithm: Algorithm) -> Hash:
    """The chain's two: sha256, and blake2b of 32 bytes."""
    return hashlib.blake2b(digest_size=32) if algorithm == "blake2b" else hashlib.sha256()


def open_regular(path: Path, *, follow: bool = True) -> FileIO:
    """A regular file, unbuffered, ``follow`` a link or not. Raises OSError.

    Judged by what was opened: its name may be another file's meanwhile, a pipe would never end.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def hash_file(
    path: Path, algorithm: Algorithm, advance: Advance, *, follow: bool = True
) -> tuple[str, int]:
    """``ALGORITHM:HEX`` and size of what was read, in constant memory. Raises OSError."""
    hashed, size = new_hash(algorithm), 0
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    with open_regular(path, follow=follow) as file:
        while read := file.readinto(buffer):
            hashed.update(view[:read])
            size += read
            advance(read)
    return f"{algorithm}:{hashed.hexdigest()}", size


def on_all_cores(
    work: Callable[[Path, Advance], T], paths: Sequence[Path], *, live: bool
) -> list[T]:
    """``work`` over every path in the order given, with a bar when there is much to read."""
    total = sum(map(_size, paths)) if live else 0
    lock = Lock()
    with progress(
        "reading files", total / 1e6, unit="MB", live=live and total > WORTH_A_BAR
    ) as bar:

        def advance(read: float) -> None:
            with lock:
                bar(read / 1e6)

        pool = ThreadPoolExecutor(os.cpu_count() or 1)
        try:
            return list(pool.map(lambda path: work(path, advance), paths))
        finally:
            pool.shutdown(cancel_futures=True)


def _size(path: Path) -> int:
    try:
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0
