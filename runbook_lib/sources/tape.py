"""The tape: everything from outside passes here, is recorded, and can be answered from the record.

A live tape performs a request, takes the secrets out, writes body and entry, and only then hands
the answer on, so that what was judged is what was recorded. A replayed tape answers from the
entries and never goes outside. An entry's key is the request, the item, the try, and the how
many-th use of that request in that try; paths below the store and the project are written as
``{store}`` and ``{project}``, so that a replay elsewhere asks the same questions.

    <attempt>/tape/index.jsonl      one entry a line, appended under a lock
    <attempt>/tape/<ab>/<hex>       bodies by their sha256
"""

from __future__ import annotations

import asyncio
import copy
import fcntl
import json
import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import Path
from threading import get_ident
from typing import IO, Any, Protocol
from urllib.parse import urlencode

import stamina

from ..canonical import canonical, digest, digest_bytes, digest_file
from ..errors import RecordDamaged, SourceError, TapeMiss
from ..params import PROJECT
from ..site import Clock
from . import process
from .hashing import Advance, Algorithm, hash_file, on_all_cores
from .http import FAILURES, Answer, Failure, Http, Loop, Purpose, Request
from .process import Ended
from .redact import Redactor

MAX_FILE = 64 * 1024 * 1024
RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
RETRIES = 3
LONGEST_WAIT_S = 20.0

# Each retry is on the tape; on stderr it would stand in a notebook's output.
logging.getLogger("stamina").addHandler(logging.NullHandler())

Meta = dict[str, Any]
Slot = tuple[str, int, str, int]
"""(item, try, key, how many-th use of the key in that try)"""


@dataclass(frozen=True)
class Entry:
    """One recorded answer. ``meta`` is small and readable; ``body`` the digest of the rest."""

    item: str
    number: int
    n: int
    key: str
    purpose: Purpose
    at: str
    ms: int
    meta: Meta
    body: str

    @property
    def slot(self) -> Slot:
        return (self.item, self.number, self.key, self.n)


@dataclass(frozen=True)
class Asked:
    """When a question went out, and whether it reads, changes or notifies."""

    purpose: Purpose
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class FileDigest:
    """``ALGORITHM:HEX`` of a file, and how many bytes it has."""

    digest: str
    size: int


def read_entries(folder: Path) -> list[Entry]:
    """The entries of a tape folder; an unfinished last line is none. Raises RecordDamaged."""
    try:
        text = (folder / "index.jsonl").read_bytes()
    except FileNotFoundError:
        return []
    entries = []
    for number, line in enumerate(text.split(b"\n")[:-1], start=1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise RecordDamaged(
                f"{folder.name}/index.jsonl: line {number}: expected a tape entry, got: {error}"
            ) from error
    return entries


def read_body(folder: Path, name: str) -> bytes:
    """A recorded body. Raises RecordDamaged when it is missing or not what its name says."""
    text = name.removeprefix("sha256:")
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise RecordDamaged(f"tape: expected a sha256 digest, got {name!r}")
    try:
        data = (folder / text[:2] / text).read_bytes()
    except OSError as error:
        raise RecordDamaged(f"tape: {name}: expected its body, got none") from error
    if digest_bytes(data) != name:
        raise RecordDamaged(f"tape: {name}: expected that content, got {digest_bytes(data)}")
    return data


class Tape(Protocol):
    """Where a scope's answers come from: ``recall`` gives None when the world must be asked."""

    live: bool

    def number(self, item: str, number: int) -> int: ...

    def holds(self, slot: Slot) -> bool: ...

    def recall(self, slot: Slot) -> tuple[Entry, bytes] | None: ...

    def record(self, slot: Slot, asked: Asked, meta: Meta, body: bytes) -> tuple[Entry, bytes]: ...

    def sync(self) -> None: ...


class LiveTape:
    """Records what the world answers. Safe for several processes appending to one attempt."""

    live = True

    def __init__(self, folder: Path, redactor: Redactor) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._redactor = folder, redactor
        self._index = folder / "index.jsonl"
        self._written: set[Path] = set()

    def number(self, item: str, number: int) -> int:
        return number

    def holds(self, slot: Slot) -> bool:
        return False

    def recall(self, slot: Slot) -> tuple[Entry, bytes] | None:
        return None

    def record(self, slot: Slot, asked: Asked, meta: Meta, body: bytes) -> tuple[Entry, bytes]:
        body = self._redactor.clean(body)
        item, number, key, n = slot
        entry = Entry(
            item=item,
            number=number,
            n=n,
            key=self._redactor.clean_text(key),
            purpose=asked.purpose,
            at=asked.at.isoformat(timespec="milliseconds"),
            ms=round((time.monotonic() - asked.clock) * 1000),
            meta=json.loads(self._redactor.clean(json.dumps(meta).encode())),
            body=self._store(body),
        )
        self._append(canonical(vars(entry)) + b"\n")
        return entry, body

    def _store(self, body: bytes) -> str:
        name = digest_bytes(body)
        text = name.removeprefix("sha256:")
        path = self._folder / text[:2] / text
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            scratch = path.with_name(f".{text}.{os.getpid()}.{get_ident()}")
            scratch.write_bytes(body)
            scratch.rename(path)
            self._written.add(path)
        return name

    def _append(self, line: bytes) -> None:
        with self._index.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _drop_unfinished_line(file)
            file.write(line)

    def sync(self) -> None:
        """Make everything recorded so far survive a power cut; called before a result is."""
        for path in (*self._written, self._index):
            with suppress(FileNotFoundError), path.open("rb") as file:
                os.fsync(file.fileno())
        self._written.clear()


def _drop_unfinished_line(file: IO[bytes]) -> None:
    """What a power cut left of an entry; the next one must not become part of it."""
    end = file.seek(0, os.SEEK_END)
    while end:
        file.seek(end - 1)
        if file.read(1) == b"\n":
            break
        end -= 1
    file.truncate(end)


class ReplayTape:
    """Answers from recorded entries. ``judged`` maps an item to the last try that has a result."""

    live = False

    def __init__(self, folder: Path, judged: dict[str, int]) -> None:
        self._folder, self._judged = folder, judged
        self._entries = {entry.slot: entry for entry in read_entries(folder)}

    def number(self, item: str, number: int) -> int:
        return self._judged.get(item, number)

    def holds(self, slot: Slot) -> bool:
        return slot in self._entries

    def recall(self, slot: Slot) -> tuple[Entry, bytes] | None:
        entry = self._entries.get(slot)
        if entry is None:
            item, number, key, n = slot
            raise TapeMiss(
                f"{item}: replay: expected a recorded answer to {key} (try {number}, use {n}), got"
                " none; it was recorded by another version, or this run asks something else"
            )
        return entry, read_body(self._folder, entry.body)

    def record(self, slot: Slot, asked: Asked, meta: Meta, body: bytes) -> tuple[Entry, bytes]:
        raise TapeMiss(f"{slot[0]}: replay: expected to record nothing, got {slot[2]}")

    def sync(self) -> None:
        """Nothing was written."""


class Outside:
    """What a live scope performs requests with. ``http`` may be given a transport by tests."""

    def __init__(self, redactor: Redactor, http: Http | None = None) -> None:
        self.redactor, self.loop = redactor, Loop()
        self.http = http or Http(redactor)

    def close(self) -> None:
        """Give back sockets and thread; what is asked later opens them again."""
        self.loop.run(self.http.close())
        self.loop.close()


class Scope:
    """One try of one item. All it learns of the world comes through here.

    ``aliases`` are (path, name) pairs written as ``{name}`` in keys; ``clock`` says where the time
    comes from.
    """

    def __init__(
        self,
        tape: Tape,
        outside: Outside,
        item: str,
        number: int,
        *,
        clock: Clock | None = None,
        aliases: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.item, self.tape, self.outside = item, tape, outside
        self.number = tape.number(item, number)
        self._clock = clock or Clock()
        self._aliases = sorted([*aliases, (str(PROJECT), "project")], key=lambda a: -len(a[0]))
        self._uses: Counter[str] = Counter()
        self._entries: list[Entry] = []
        self._now: datetime | None = None
        self.offset = timedelta()
        self._lane = ""

    def lane(self, name: str) -> Scope:
        """The same try for one thread of several: its questions are told apart by ``name``."""
        made = copy.copy(self)
        made._lane, made._uses = f" in {name}", Counter()
        return made

    @property
    def live(self) -> bool:
        return self.tape.live

    @property
    def inputs(self) -> str:
        """The digest of every answer used so far, whatever order they came in."""
        return digest(sorted(([e.key, e.n, e.meta, e.body] for e in self._entries), key=canonical))

    # --- the clock ------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The instant this try judges at: one reading, however often it is asked."""
        if self._now is None:
            self._now = self.reread()
        return self._now

    def renew(self) -> datetime:
        """After a wait: judge at the instant it is now."""
        self._now = self.reread()
        return self._now

    def reread(self) -> datetime:
        """A fresh reading of the clock, for deadlines and journals."""

        def ask() -> tuple[Meta, bytes]:
            instant, offset = read_clock(self._clock)
            return {"utc": instant.isoformat(timespec="milliseconds"), "offset_s": offset}, b""

        meta, _ = self._ask("CLOCK", "read", ask)
        self.offset = timedelta(seconds=meta["offset_s"])
        return datetime.fromisoformat(meta["utc"])

    def sleep(self, seconds: float) -> None:
        """Wait; in replay the time has already passed."""
        if self.live:
            time.sleep(seconds)

    # --- files ----------------------------------------------------------------------------------

    def read(self, path: Path, *, limit: int = MAX_FILE, follow: bool = True) -> bytes:
        """A file's content, of at most ``limit`` bytes; ``follow`` a link or not. Raises SourceError."""

        def ask() -> tuple[Meta, bytes]:
            try:
                return _read(path, limit, follow)
            except OSError as error:
                return {"error": f"expected a readable file, got: {error.strerror}"}, b""

        meta, body = self._ask(f"READ {self._alias(str(path))}", "read", ask)
        if "error" in meta:
            raise SourceError(self._alias(str(path)), meta["error"])
        return body

    def listing(self, path: Path) -> list[str]:
        """The names in a folder, sorted; of no folder, none."""

        def ask() -> tuple[Meta, bytes]:
            names = sorted(os.listdir(path)) if path.is_dir() else []
            return {}, canonical(names)

        _, body = self._ask(f"LIST {self._alias(str(path))}", "read", ask)
        return list(json.loads(body))

    def file_digest(self, path: Path) -> str:
        """``sha256:HEX`` of a file of any size; only the digest is recorded. Raises SourceError."""

        def ask() -> tuple[Meta, bytes]:
            try:
                return {"digest": digest_file(path), "bytes": path.stat().st_size}, b""
            except OSError as error:
                return {"error": f"expected a readable file, got: {error.strerror}"}, b""

        meta, _ = self._ask(f"DIGEST {self._alias(str(path))}", "read", ask)
        if "error" in meta:
            raise SourceError(self._alias(str(path)), meta["error"])
        return str(meta["digest"])

    def file_digests(
        self, paths: Sequence[Path], algorithm: Algorithm = "sha256"
    ) -> list[FileDigest | SourceError]:
        """Digest and size of many files, on all cores; what could not be read is its error.

        Only digests are recorded, one entry a file. A path must not be given twice.
        """
        if len(set(paths)) != len(paths):
            raise ValueError("identical concurrent questions cannot be told apart on the tape")

        def one(path: Path, advance: Advance) -> FileDigest | SourceError:
            def ask() -> tuple[Meta, bytes]:
                try:
                    digest, size = hash_file(path, algorithm, advance)
                    return {"digest": digest, "bytes": size}, b""
                except (OSError, ValueError) as error:
                    said = getattr(error, "strerror", None) or error
                    return {"error": f"expected a readable file, got: {said}"}, b""

            meta, _ = self._ask(f"DIGEST {algorithm} {self._alias(str(path))}", "read", ask)
            if "error" in meta:
                return SourceError(self._alias(str(path)), meta["error"])
            return FileDigest(meta["digest"], meta["bytes"])

        return on_all_cores(one, paths, live=self.live)

    # --- commands -------------------------------------------------------------------------------

    def run(
        self,
        argv: list[str],
        *,
        timeout_s: float,
        purpose: Purpose = "read",
        stdin: bytes = b"",
        lock: int | None = None,
        outputs: Path | None = None,
        private: bool = False,
    ) -> Ended:
        """Run a command of the site. A changing one needs the cluster's ``lock``.

        Of our own folders it is told by name, it may say the path back: that is written as in keys.
        ``private``: stdout may hold secrets that belong there (a node's TOML). Its digest goes on
        the tape, and live its raw bytes come along, for memory only; a replay has none.
        """
        raw: list[bytes] = []

        def ask() -> tuple[Meta, bytes]:
            ended = process.run(argv, timeout_s=timeout_s, stdin=stdin, lock=lock, outputs=outputs)
            raw.append(ended.stdout)
            if outputs is not None:
                self.clean_files(outputs)
            # Redacted one by one: the split between the two must still be right on the tape.
            out, err = (
                self._named(self.outside.redactor.clean(said), argv)
                for said in (ended.stdout, ended.stderr)
            )
            meta: Meta = {"code": ended.code, "problem": ended.problem, "out": len(out)}
            return meta | ({"digest": digest_bytes(ended.stdout)} if private else {}), out + err

        shown = [self._alias(word) for word in argv]
        key = f"RUN {json.dumps(shown)}" + (f" < {digest_bytes(stdin)}" if stdin else "")
        meta, body = self._ask(key, purpose, ask)
        split = meta["out"]
        kept = raw[0] if private and raw else None
        digest = meta.get("digest", "")
        return Ended(meta["code"], body[:split], body[split:], meta["problem"], digest, kept)

    def clean_files(self, stem: Path) -> None:
        """Take the secrets out of what an ended command left in ``<stem>.out`` and ``.err``."""
        for suffix in (".out", ".err"):
            path = stem.with_name(stem.name + suffix)
            if path.exists() and (text := path.read_bytes()) != self.outside.redactor.clean(text):
                path.write_bytes(self.outside.redactor.clean(text))

    def derive(self, what: str, compute: Callable[[], str]) -> str:
        """A value computed from what may not be recorded; a replay has only the value."""
        meta, _ = self._ask(f"DERIVE {what}", "read", lambda: ({"value": compute()}, b""))
        return str(meta["value"])

    def notice(self, what: str, look: Callable[[], str]) -> str:
        """What ``look`` saw of our own store, on the tape only when it saw something."""
        slot = self._claim(f"NOTICE {what}")
        if self.live:
            seen = look()
            found = self.tape.record(slot, Asked("read"), {"value": seen}, b"") if seen else None
        else:
            found = self.tape.recall(slot) if self.tape.holds(slot) else None
        if found is None:
            return ""
        self._entries.append(found[0])
        return str(found[0].meta["value"])

    # --- HTTP -----------------------------------------------------------------------------------

    def http(
        self, requests: Sequence[Request], *, retries: int = RETRIES
    ) -> list[Answer | Failure]:
        """Answers in the order asked, concurrently. Reads are retried; each retry is an entry.

        Identical requests must not be asked in one call: their answers could change places.
        """
        keys = [self._request_key(request) for request in requests]
        if len(set(keys)) != len(keys):
            raise ValueError("identical concurrent requests cannot be told apart on the tape")

        async def all_of_them() -> list[Answer | Failure]:
            work = (self._with_retries(r, k, retries) for r, k in zip(requests, keys, strict=True))
            return list(await asyncio.gather(*work))

        return self.outside.loop.run(all_of_them())

    async def _with_retries(self, request: Request, key: str, retries: int) -> Answer | Failure:
        async def once() -> Answer | Failure:
            slot, asked = self._claim(key), Asked(request.purpose)
            found = self.tape.recall(slot)
            if found is None:
                meta, body = _to_meta(await self.outside.http.send(request))
                found = self.tape.record(slot, asked, meta, body)
            self._entries.append(found[0])
            return _from_entry(*found)

        if request.purpose != "read":
            return await once()
        last: Answer | Failure | None = None
        with suppress(_Again):
            async for attempt in stamina.retry_context(
                on=self._backoff,
                attempts=retries,
                timeout=None,
                wait_initial=0.2 if self.live else 0.0,
                wait_jitter=0.0,
            ):
                with attempt:
                    last = await once()
                    if _worth_retrying(last):
                        raise _Again(last)
        assert last is not None
        return last

    def _backoff(self, error: Exception) -> bool | float:
        if not isinstance(error, _Again):
            return False
        wait = _retry_after(error.last)
        if wait is not None and wait > LONGEST_WAIT_S:
            return False
        if not self.live:
            return 0.0
        return True if wait is None else wait

    def _request_key(self, request: Request) -> str:
        query = "?" + urlencode(sorted(request.params)) if request.params else ""
        body = f" {digest_bytes(request.body)}" if request.body else ""
        return f"{request.method} {request.url}{query}{body}"

    # --- the machinery --------------------------------------------------------------------------

    def _claim(self, key: str) -> Slot:
        key += self._lane
        self._uses[key] += 1
        return (self.item, self.number, key, self._uses[key])

    def _ask(
        self, key: str, purpose: Purpose, ask: Callable[[], tuple[Meta, bytes]]
    ) -> tuple[Meta, bytes]:
        slot, asked = self._claim(key), Asked(purpose)
        found = self.tape.recall(slot)
        if found is None:
            found = self.tape.record(slot, asked, *ask())
        self._entries.append(found[0])
        return found[0].meta, found[1]

    def _named(self, said: bytes, argv: list[str]) -> bytes:
        """What a command said, with the folders that its words gave away under their names."""
        for path, name in self._aliases:
            if any(path in word for word in argv):
                said = said.replace(path.encode(), f"{{{name}}}".encode())
        return said

    def _alias(self, text: str) -> str:
        for path, name in self._aliases:
            text = text.replace(path, "{" + name + "}")
        return text


class _Again(Exception):
    def __init__(self, last: Answer | Failure) -> None:
        self.last = last


def _worth_retrying(got: Answer | Failure) -> bool:
    if isinstance(got, Failure):
        return got.kind != "TooLarge"
    return got.status in RETRIED_STATUS


def _retry_after(got: Answer | Failure) -> float | None:
    text = got.headers.get("retry-after", "") if isinstance(got, Answer) else ""
    return float(text) if text.isdigit() else None


def _to_meta(got: Answer | Failure) -> tuple[Meta, bytes]:
    if isinstance(got, Failure):
        return {"failure": got.kind, "text": got.text}, b""
    return {"status": got.status, "headers": got.headers}, got.body


def _from_entry(entry: Entry, body: bytes) -> Answer | Failure:
    meta = entry.meta
    if "failure" in meta:
        if meta["failure"] not in FAILURES:
            raise RecordDamaged(f"tape: expected a known failure, got {meta['failure']!r}")
        return Failure(meta["failure"], meta["text"])
    return Answer(int(meta["status"]), body, dict(meta["headers"]))


def _read(path: Path, limit: int, follow: bool) -> tuple[Meta, bytes]:
    # Judged by what was opened: a name may be given to another file meanwhile, a pipe would block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return {"error": "expected a readable file, got: not a regular file"}, b""
        if found.st_size > limit:
            return {"error": f"expected at most {limit} bytes, got {found.st_size}"}, b""
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return {}, file.read(limit)
    finally:
        os.close(descriptor)


def read_clock(clock: Clock) -> tuple[datetime, float]:
    """The instant now and how many seconds it runs ahead of UTC. Raises SourceError."""
    offset = 0.0
    if clock.source == "offset-file":
        try:
            offset = json.loads((PROJECT / clock.path).read_bytes())["offset_s"]
            if isinstance(offset, bool) or not isfinite(offset):
                raise ValueError(offset)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(
                "clock", f"{clock.path}: expected {{offset_s: SECONDS}}, got: {error!r}"
            ) from error
    return datetime.now(UTC) + timedelta(seconds=offset), offset


def mutations(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that changed the world."""
    return [entry for entry in entries if entry.purpose == "change"]
