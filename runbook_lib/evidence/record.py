"""The record of an attempt: append-only, hash-chained, one fsync an entry, readable after kill -9.

Each line is the canonical JSON of an entry; its hash is the sha256 of that line, and every entry
holds the hash of the one before. A last line without its newline was never finished: it is no
entry, and the next append keeps its bytes in an entry of kind ``torn``.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..canonical import canonical, digest_bytes
from ..errors import RecordDamaged, SourceError, StoreError
from ..files import naming, open_own
from ..sources import local

if TYPE_CHECKING:
    from ..sources.scope import Scope
    from .store import Store

GENESIS = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Entry:
    """One line. ``at`` is the machine's clock; instants that are judged stand in ``body``."""

    seq: int
    prev: str
    at: str
    kind: str
    body: dict[str, Any]
    hash: str


def parse(text: bytes, where: str, after: Sequence[Entry] = ()) -> tuple[list[Entry], bytes]:
    """Entries of a record's bytes, chain checked, and the unfinished rest. Raises RecordDamaged.

    ``after`` are those that stand before these bytes.
    """
    *lines, rest = text.split(b"\n")
    entries: list[Entry] = []
    prev = after[-1].hash if after else GENESIS
    for seq, line in enumerate(lines, start=len(after)):
        entry = _entry(line, f"{where}: line {seq + 1}")
        if entry.seq != seq or entry.prev != prev:
            raise RecordDamaged(
                f"{where}: line {seq + 1}: expected entry {seq} after {prev}, got {entry.seq!r}"
                f" after {entry.prev}; the record was altered"
            )
        entries.append(entry)
        prev = entry.hash
    return entries, rest


def _entry(line: bytes, where: str) -> Entry:
    """One line of a record. Raises RecordDamaged."""
    try:
        value = json.loads(line)
        about = {key: value[key] for key in ("seq", "prev", "at", "kind", "body")}
        entry = Entry(**about, hash=digest_bytes(line))
        if not isinstance(entry.kind, str) or not isinstance(entry.body, dict):
            raise TypeError("its kind is no text or its body no object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordDamaged(f"{where}: expected an entry, got: {error!r}") from error
    return entry


def recorded(scope: Scope, store: Store, attempt: str, *kinds: str) -> list[Entry]:
    """The first entry and those of ``kinds`` (without any, all) of an attempt's record, by the tape.

    The tape keeps what is asked for, and not a growing log whole each time somebody looks into it.
    Raises SourceError, RecordDamaged.
    """

    def taken() -> bytes:
        record = store.record(attempt)
        try:
            lines = local.recorded(record.path).split(b"\n")
        except OSError as error:
            raise SourceError(attempt, f"expected a record, got: {error.strerror}") from error
        both = zip(record.entries(), lines, strict=False)
        return b"\n".join(x for e, x in both if not kinds or e.seq == 0 or e.kind in kinds)

    asked = " ".join(["LOG", *kinds, "OF"])
    text = scope.extract(asked, store.root / attempt / "record.jsonl", taken)
    return [_entry(line, attempt) for line in text.split(b"\n") if line]


def attempts_in(
    scope: Scope, store: Store, folder: str, *kinds: str
) -> Iterator[tuple[str, list[Entry]]]:
    """(name, record) of each attempt in RELEASE/STAGE, oldest first, each read when it is asked for.

    Raises SourceError, RecordDamaged.
    """
    release, stage = folder.split("/")
    for number in store.numbers(release, stage, scope):
        yield (name := f"{folder}/{number:04d}"), recorded(scope, store, name, *kinds)


class Record:
    """The record file of one attempt. Several processes may append; each re-reads the head."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: list[Entry] = []
        self._size, self._read = 0, sha256()  # of the lines that are entries
        self._seen = 0, 0, 0  # the file that was read last
        self._mutex = threading.RLock()  # nodes are taken back several at a time

    def entries(self) -> list[Entry]:
        """Every entry so far, the chain checked. Raises RecordDamaged."""
        with self._mutex:
            try:
                if (seen := _version(self.path.lstat())) != self._seen:
                    self._catch_up(local.recorded(self.path))
                    self._seen = seen
            except FileNotFoundError:
                return []
            except OSError as error:
                raise RecordDamaged(f"{self.path}: expected a record, got: {error}") from error
            return list(self._entries)

    def _catch_up(self, text: bytes) -> None:
        """Parse what was appended; the whole when what we know is no longer its beginning."""
        known = self._entries, self._size
        if sha256(text[: self._size]).digest() != self._read.digest():
            known, self._read = ([], 0), sha256()
        new, rest = parse(text[known[1] :], self.path.name, known[0])
        self._entries, self._size = [*known[0], *new], len(text) - len(rest)
        self._read.update(text[known[1] : self._size])

    @property
    def head(self) -> str:
        entries = self.entries()
        return entries[-1].hash if entries else GENESIS

    def append(self, kind: str, body: dict[str, Any]) -> Entry:
        """Add an entry and wait until it is on disk."""
        entry = self.append_if(kind, lambda entries: body)
        assert entry is not None
        return entry

    def append_if(
        self, kind: str, make: Callable[[list[Entry]], dict[str, Any] | None]
    ) -> Entry | None:
        """Add what ``make`` says of the entries so far; None for nothing to add.

        Both happen under the record's lock: of several processes that would add the same, one does.
        """
        with self._locked() as descriptor:
            self._keep_torn(descriptor)
            body = make(list(self._entries))
            if body is None:
                return None
            entry = self._write(descriptor, kind, body)
            os.fsync(descriptor)
        return entry

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with self._mutex:
            try:
                descriptor = open_own(self.path)
            except FileNotFoundError as error:
                raise StoreError(
                    f"{self.path}: expected the attempt's folder, got none; bring the store back, or"
                    " take the nodes back by recover.sh of the attempt's recovery kit"
                ) from error
            try:
                with naming(self.path):
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                    yield descriptor
            finally:
                os.close(descriptor)

    def _keep_torn(self, descriptor: int) -> None:
        self.entries()
        rest = os.pread(descriptor, os.fstat(descriptor).st_size - self._size, self._size)
        if rest:
            os.ftruncate(descriptor, self._size)
            self._write(descriptor, "torn", {"text": rest.decode("utf-8", "replace")})

    def _write(self, descriptor: int, kind: str, body: dict[str, Any]) -> Entry:
        seq, prev = len(self._entries), self._entries[-1].hash if self._entries else GENESIS
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = canonical({"seq": seq, "prev": prev, "at": at, "kind": kind, "body": body})
        data = line + b"\n"
        if os.pwrite(descriptor, data, self._size) != len(data):
            raise StoreError(
                f"{self.path.name}: expected room for an entry of {len(data)} bytes, got less;"
                " the disk is full"
            )
        # What later readers get is what stands in the file, not the caller's object.
        entry = Entry(seq, prev, at, kind, json.loads(line)["body"], digest_bytes(line))
        self._entries.append(entry)
        self._size += len(data)
        self._read.update(data)
        self._seen = _version(os.fstat(descriptor))
        return entry


def _version(of: os.stat_result) -> tuple[int, int, int]:
    """Of a file whose content is the same as long as this is."""
    return of.st_ino, of.st_size, of.st_mtime_ns
