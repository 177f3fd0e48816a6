"""Files put in place in one step, and lasting. Cheap to import."""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import get_ident


def replace_file(path: Path, data: bytes | str, mode: int = 0o644, *, lasting: bool = True) -> None:
    """Write a file: a reader has the old content or the new one, never a part.

    ``lasting``: so does who comes after a power cut; the rename itself may be lost, not the content.
    Raises OSError.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if lasting:
                file.flush()
                os.fsync(descriptor)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def is_left_of(name: str, target: str) -> bool:
    """Whether a file is what a killed ``replace_file`` of ``target`` left beside it."""
    return re.fullmatch(rf"\.{re.escape(target)}\.\d+\.\d+", name) is not None


def sync_names(folder: Path) -> None:
    """What lies in a folder by now is there after a power cut, too. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
