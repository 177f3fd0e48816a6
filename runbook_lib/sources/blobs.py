"""Where the blobs of an image lie: in a folder, or in a tar archive of which nothing is extracted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import SourceError
from ..markup import visible
from .hashing import open_regular
from .tarfiles import CHUNK, REGULAR, members

MAX_BLOBS = 10_000
DOCUMENTS = frozenset({"index.json", "manifest.json"})


class Slice:
    """``size`` bytes of an open file."""

    def __init__(self, file: IO[bytes], at: int, size: int) -> None:
        self._file, self._left, self.size = file, size, size
        file.seek(at)

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left, CHUNK))
        self._left -= len(data)
        return data

    def skip(self, size: int, /) -> None:
        if size > self._left:
            raise SourceError("archive", "expected a well-formed tar archive, got: it breaks off")
        self._file.seek(size, 1)
        self._left -= size


class Folder:
    """An OCI layout as it lies unpacked."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, name: str) -> bool:
        return (self._root / name).is_file()

    @contextmanager
    def open(self, name: str) -> Iterator[Slice]:
        with open_regular(self._root / name) as file:
            yield Slice(file, 0, file.seek(0, 2))


class Archive:
    """A tar archive of blobs, found by where they stand in it."""

    def __init__(self, file: IO[bytes], places: dict[str, tuple[int, int]]) -> None:
        self._file, self._places = file, places

    @classmethod
    def of(cls, file: IO[bytes], size: int) -> Archive | None:
        """None when the file is no image archive. Raises SourceError for a damaged one."""
        places: dict[str, tuple[int, int]] = {}
        stream = Slice(file, 0, size)
        try:
            for member in members(stream):
                if member.kind != REGULAR:
                    continue
                if member.sparse:
                    raise SourceError("archive", "expected plain files, got a sparse one")
                if member.name in places or len(places) >= MAX_BLOBS:
                    raise SourceError("archive", "expected every name once, and fewer of them")
                places[member.name] = (file.tell(), member.size)
        except SourceError:
            if any(name.startswith("blobs/") or name in DOCUMENTS for name in places):
                raise
            return None  # something else, or another kind of archive
        return cls(file, places) if DOCUMENTS & places.keys() else None

    def has(self, name: str) -> bool:
        return name in self._places

    @contextmanager
    def open(self, name: str) -> Iterator[Slice]:
        if name not in self._places:
            raise SourceError("image", f"expected {visible(name, 100)}, got none")
        yield Slice(self._file, *self._places[name])
