"""The digest of one file inside a release archive (.tar or .tar.gz), by the standard library's reader.

Nothing is extracted and no link is followed. The reader is given the archive forward only, in small
pieces, and no more of it than an honest one would unpack to; whatever else it is asked is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import tarfile
import zlib
from pathlib import Path
from typing import IO

from ..errors import SourceError
from .local import Kept, open_regular

PIECE = 64 * 1024
MAX_MEMBERS = 10_000
MAX_UNPACKED = 8 * 1024**3
MAX_RATIO = 200
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


def hashed(path: Path, member: str) -> Kept:
    """``sha256:HEX`` of the one plain file called ``member``, or why there is none."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            magic = file.read(2)
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if magic == b"\x1f\x8b" else file
            limit = min(MAX_UNPACKED, MAX_RATIO * size + PIECE)
            return {"digest": _digest(_Forward(stream, limit), member)}, b""
    except SourceError as error:
        problem = error.problem
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, OverflowError) as error:
        problem = f"expected {member} in a whole .tar or .tar.gz, got: {error}"
    return {"error": problem}, b""


class _Forward:
    """A stream as tarfile wants one. Raises SourceError for a step back or more than is allowed."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self._file, self._limit, self._at = file, limit, 0

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= PIECE:
            raise _refused(f"a header of {size} bytes")
        data = self._file.read(size)
        self._at += len(data)
        if self._at > self._limit:
            raise _refused(f"more than {self._limit} bytes unpacked")
        return data

    def seek(self, position: int) -> None:
        if position < self._at:
            raise _refused("an entry that begins before the last one ends")
        while self._at < position and self.read(min(PIECE, position - self._at)):
            pass


def _digest(stream: _Forward, wanted: str) -> str:
    found, wanted = "", posixpath.normpath(wanted)
    with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]
        for _ in range(MAX_MEMBERS):
            if (entry := archive.next()) is None:
                break
            archive.members.clear()  # it would keep every header
            name = posixpath.normpath(entry.name.lstrip("/"))
            if name == wanted:
                if found:
                    raise _refused(f"{wanted} twice")
                if entry.type not in _PLAIN or entry.issparse():
                    raise _refused(f"{wanted} as a link or special file")
                found = _content(stream, entry)
            elif f"{wanted}/".startswith(f"{name}/") and not entry.isdir():
                raise _refused(f"{wanted} below a link or file")
        else:
            raise _refused(f"more than {MAX_MEMBERS} entries")
    # The reader takes a damaged header for the end; another one may read on behind it.
    while data := stream.read(PIECE):
        if data.strip(b"\0"):
            raise _refused("content behind its end")
    if not found:
        raise _refused(f"none of that name: {wanted}")
    return found


def _content(stream: _Forward, entry: tarfile.TarInfo) -> str:
    content, left = hashlib.sha256(), entry.size
    while left > 0:
        if not (data := stream.read(min(PIECE, left))):
            raise _refused("it breaks off in a file")
        content.update(data)
        left -= len(data)
    return f"sha256:{content.hexdigest()}"


def _refused(what: str) -> SourceError:
    return SourceError("archive", f"expected the binary once in a well-formed archive, got: {what}")
