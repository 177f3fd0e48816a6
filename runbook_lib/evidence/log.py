"""The log of an attempt: append-only, hash-chained, one fsync an event, readable after kill -9.

Each line is the canonical JSON of an event; its hash is the sha256 of that line, and every event
holds the hash of the one before. A last line without its newline was never finished: it is no
event, and the next append keeps its bytes in one of kind ``torn``.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from ..errors import LogDamaged, StoreError
from ..files import naming, open_own
from ..sources import local
from ..sources.wire import complaint
from .events import E, Event, Opened, Torn, read_line

GENESIS = "sha256:" + "0" * 64
Read = Callable[[bytes], Event]


def parse(
    text: bytes, where: str, after: Sequence[Event] = (), read: Read = read_line
) -> tuple[list[Event], bytes]:
    """Events of a log's bytes, chain checked, and the unfinished rest. Raises LogDamaged.

    ``after`` are those that stand before these bytes.
    """
    *lines, rest = text.split(b"\n")
    events: list[Event] = []
    prev = after[-1].hash if after else GENESIS
    for seq, line in enumerate(lines, start=len(after)):
        event = parse_line(line, f"{where}: line {seq + 1}", read)
        if event.seq != seq or event.prev != prev:
            raise LogDamaged(
                f"{where}: line {seq + 1}: expected event {seq} after {prev}, got {event.seq!r}"
                f" after {event.prev}; the log was altered"
            )
        events.append(event)
        prev = event.hash
    return events, rest


def parse_line(line: bytes, where: str, read: Read = read_line) -> Event:
    """One line of a log. Raises LogDamaged."""
    try:
        return read(line)
    except ValueError as error:
        said = complaint(error)
        if isinstance(error, ValidationError) and "expected_tags" in error.errors()[0].get(
            "ctx", {}
        ):
            said = f"kind {error.errors()[0]['ctx']['tag']!r}, unknown here"
        raise LogDamaged(f"{where}: expected an event, got: {said}") from error


def opened_by(events: Sequence[Event], where: str) -> Opened:
    """What an attempt was opened with, by its log. Raises LogDamaged for what is none."""
    if not events or not isinstance(events[0], Opened):
        raise LogDamaged(f"{where}: expected an opening event, got none")
    return events[0]


class Log:
    """The log file of one attempt, or of what ``read`` reads lines of.

    Several processes may append; each re-reads the head.
    """

    def __init__(self, path: Path, read: Read = read_line) -> None:
        self.path, self._line = path, read
        self.refuses: Callable[[Sequence[Event]], str] = lambda events: ""
        """Why nothing more is to be added, by the events so far: one writes at a time."""
        self._events: list[Event] = []
        self._size, self._read = 0, sha256()  # of the lines that are events
        self._seen = 0, 0, 0  # the file that was read last
        self._mutex = threading.RLock()  # nodes are taken back several at a time

    def events(self) -> list[Event]:
        """Every event so far, the chain checked. Raises LogDamaged."""
        with self._mutex:
            try:
                if (seen := _version(self.path.lstat())) != self._seen:
                    self._catch_up(local.recorded(self.path))
                    self._seen = seen
            except FileNotFoundError:
                return []
            except OSError as error:
                raise LogDamaged(f"{self.path}: expected a log, got: {error}") from error
            return list(self._events)

    def _catch_up(self, text: bytes) -> None:
        """Parse what was appended; the whole when what we know is no longer its beginning."""
        known = self._events, self._size
        if sha256(text[: self._size]).digest() != self._read.digest():
            known, self._read = ([], 0), sha256()
        new, rest = parse(text[known[1] :], self.path.name, known[0], self._line)
        self._events, self._size = [*known[0], *new], len(text) - len(rest)
        self._read.update(text[known[1] : self._size])

    @property
    def head(self) -> str:
        events = self.events()
        return events[-1].hash if events else GENESIS

    def append(self, event: E) -> E:
        """Add an event and wait until it is on disk; the event as it stands there."""
        made = self.append_if(lambda events: event)
        assert made is not None
        return made

    def append_if(self, make: Callable[[list[Event]], E | None]) -> E | None:
        """Add what ``make`` says of the events so far; None for nothing to add.

        Both happen under the log's lock: of several processes that would add the same, one does.
        """
        with self._locked() as descriptor:
            self._keep_torn(descriptor)
            if why := self.refuses(self._events):
                raise StoreError(why)
            event = make(list(self._events))
            if event is None:
                return None
            event = self._write(descriptor, event)
            os.fsync(descriptor)
        return event

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
        self.events()
        rest = os.pread(descriptor, os.fstat(descriptor).st_size - self._size, self._size)
        if rest:
            os.ftruncate(descriptor, self._size)
            self._write(descriptor, Torn(text=rest.decode("utf-8", "replace")))

    def _write(self, descriptor: int, event: E) -> E:
        place = {
            "seq": len(self._events),
            "prev": self._events[-1].hash if self._events else GENESIS,
            "written": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        line = event.model_copy(update=place).line()
        data = line + b"\n"
        if os.pwrite(descriptor, data, self._size) != len(data):
            raise StoreError(
                f"{self.path.name}: expected room for an event of {len(data)} bytes, got less;"
                " the disk is full"
            )
        # What later readers get is what stands in the file, not the caller's object.
        written = self._line(line)
        self._events.append(written)
        self._size += len(data)
        self._read.update(data)
        self._seen = _version(os.fstat(descriptor))
        return cast(E, written)


def _version(of: os.stat_result) -> tuple[int, int, int]:
    """Of a file whose content is the same as long as this is."""
    return of.st_ino, of.st_size, of.st_mtime_ns
