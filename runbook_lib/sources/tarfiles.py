"""Tar archives walked as a stream: names, kinds and content, nothing extracted, memory bounded.

ustar, GNU long names and pax paths and sizes, as image builders write them. The standard library's
reader is not used: it takes whatever size a header claims into memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..errors import SourceError

BLOCK = 512
CHUNK = 1024 * 1024
MAX_HEADER = 1024 * 1024
MAX_NAME = 4096
MAX_MEMBERS = 2_000_000
REGULAR, HARD_LINK, SYMLINK, DIRECTORY = b"0", b"1", b"2", b"5"
_PAX = re.compile(rb"([0-9]{1,7}) ([^=\n]+)=")


class Readable(Protocol):
    """A stream; ``skip`` passes over bytes nobody needs."""

    def read(self, size: int, /) -> bytes: ...

    def skip(self, size: int, /) -> None: ...


@dataclass
class Member:
    """One entry; ``name`` has no leading slash or dot. ``content`` can be read once, at once."""

    name: str
    kind: bytes
    size: int
    sparse: bool
    _stream: Readable
    left: int = 0

    def content(self) -> Iterator[bytes]:
        """Its bytes by the megabyte. Raises SourceError where the archive breaks off."""
        while self.left:
            data = self._stream.read(min(CHUNK, self.left))
            if not data:
                raise _broken("it breaks off in a file")
            self.left -= len(data)
            yield data


def members(stream: Readable) -> Iterator[Member]:
    """Every entry in order. Raises SourceError for what is no tar archive, or a hostile one."""
    extra: dict[str, bytes] = {}
    for _ in range(MAX_MEMBERS):
        header = _exactly(stream, BLOCK)
        if header.count(0) == BLOCK:
            return
        kind, size = _checked(header)
        if kind in (b"x", b"g", b"L", b"K"):
            for key, value in _extension(kind, stream, size).items():
                if extra.setdefault(key, value) != value:
                    raise _broken("two headers disagree about an entry")
            continue
        if b"size" in extra.get("keys", b""):
            size = _decimal(extra["size"])
        name = extra.get("path") or _own_name(header)
        holds = size if kind not in (HARD_LINK, SYMLINK, DIRECTORY, b"3", b"4", b"6") else 0
        member = Member(_clean(name), kind, holds, "sparse" in extra, stream, holds)
        extra = {}
        yield member
        stream.skip(member.left + -holds % BLOCK)
    raise _broken(f"more than {MAX_MEMBERS} entries")


def _checked(header: bytes) -> tuple[bytes, int]:
    stored = _number(header[148:156])
    if stored != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        raise _broken("a header's checksum is wrong")
    kind = header[156:157]
    if kind == b"S":
        raise _broken("a sparse file of GNU's old kind")
    if kind == b"\0":  # how old archives mark a file; a folder ends with a slash
        kind = DIRECTORY if _own_name(header).endswith(b"/") else REGULAR
    return kind, _number(header[124:136])


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's binary form, of positive numbers
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:])
        if value >= 2**63:
            raise _broken("a number is out of range")
        return value
    text = field.split(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", text):
        raise _broken("a number is not octal")
    return int(text or b"0", 8)


def _own_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _extension(kind: bytes, stream: Readable, size: int) -> dict[str, bytes]:
    """What a header before an entry says of it: its path, its size, that it is sparse."""
    if size > MAX_HEADER:
        raise _broken(f"a header of {size} bytes, expected at most {MAX_HEADER}")
    data = _exactly(stream, size + -size % BLOCK)[:size]
    if kind == b"L":
        return {"path": data.split(b"\0")[0]}
    if kind == b"K":
        return {}
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        record = _PAX.match(data, at)
        end = at + int(record[1]) if record else 0
        if record is None or end <= record.end() or data[end - 1 : end] != b"\n":
            raise _broken("a pax header is malformed")
        key, value = record[2], data[record.end() : end - 1]
        if key == b"path":
            found["path"] = value
        elif key == b"size":
            found |= {"size": value, "keys": b"size"}
        elif key.startswith(b"GNU.sparse."):
            found["sparse"] = b""
        at = end
    if kind == b"g" and found:
        raise _broken("a global header renames files")
    return found


def _decimal(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise _broken("a pax size is no number")
    return int(text)


def _clean(name: bytes) -> str:
    """A name relative to the archive's root. Raises SourceError for one that leaves it."""
    if len(name) > MAX_NAME or b"\0" in name:
        raise _broken("a name is too long, or holds a zero byte")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _broken("an entry's name leaves its folder")
    return b"/".join(parts).decode("utf-8", "surrogateescape")


def _exactly(stream: Readable, size: int) -> bytes:
    parts = []
    while size:
        data = stream.read(size)
        if not data:
            raise _broken("it breaks off")
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def _broken(what: str) -> SourceError:
    return SourceError("archive", f"expected a well-formed tar archive, got: {what}")
