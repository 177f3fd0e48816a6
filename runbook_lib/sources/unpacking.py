"""Streams of a layer: hashed as they pass, unpacked as they are read, never more than allowed."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from typing import IO, cast

from ..errors import SourceError
from .hashing import Advance
from .tarfiles import CHUNK, Readable


class Hashing:
    """A stream that is hashed as it passes, and never longer than ``limit``."""

    def __init__(self, source: Readable, limit: int, advance: Advance) -> None:
        self._source, self._left, self._advance = source, limit, advance
        self._hash = hashlib.sha256()
        self.read_so_far = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(min(size, CHUNK))
        self.read_so_far += len(data)
        if self.read_so_far > self._left:
            raise SourceError("image", f"expected at most {self._left} bytes unpacked, got more")
        self._hash.update(data)
        self._advance(len(data))
        return data

    def skip(self, size: int, /) -> None:
        while size:
            data = self.read(min(size, CHUNK))
            if not data:
                raise SourceError("image", "expected a whole layer, got: it breaks off")
            size -= len(data)

    def digest(self) -> str:
        """Of everything: what is left is read first."""
        while self.read(CHUNK):
            pass
        return "sha256:" + self._hash.hexdigest()


class Unpacked:
    """The content of a gzip stream. Raises SourceError for a damaged one."""

    def __init__(self, source: Readable) -> None:
        self._file = gzip.GzipFile(fileobj=cast(IO[bytes], source), mode="rb")

    def read(self, size: int, /) -> bytes:
        try:
            return bytes(self._file.read1(size))
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError("image", f"expected a whole gzip layer, got: {error}") from error

    def skip(self, size: int, /) -> None:
        raise NotImplementedError  # always read through a hash
