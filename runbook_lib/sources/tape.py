"""The tape: everything from outside passes here, is recorded, and can be answered again.

A live tape performs a request, takes the secrets out, writes body and entry, and only then hands
the answer on, so that what was judged is what was recorded. A replayed tape answers from the
entries and never goes outside. An entry's key is the request, the item, the run, and the how
many-th use of that request in that run.

    <attempt>/tape/index.jsonl      one entry a line, appended under a lock
    <attempt>/tape/<ab>/<hex>       bodies by their sha256
"""

import fcntl
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ..canonical import canonical, digest, digest_bytes
from ..errors import LogDamaged, TapeMiss
from ..files import naming, open_own, place, replace_file
from .http import FAILURES, Http, Purpose, Transport
from .local import MAX_RECORD, Folder, hash_file, recorded, require_size
from .redact import Redactor

Slot = tuple[str, int, str, int]
"""(item, run, key, how many-th use of the key in that run)"""


@dataclass(frozen=True)
class Entry:
    """One recorded answer. ``meta`` is small and readable; ``body`` the digest of the rest."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    item: str
    number: int
    n: int
    key: str
    purpose: Purpose
    at: str
    meta: dict[str, Any]
    body: str

    @property
    def slot(self) -> Slot:
        return (self.item, self.number, self.key, self.n)


def inputs_of(entries: Iterable[Entry]) -> str:
    """The digest of the answers that one run used, whatever order they came in."""
    used = sorted(entries, key=lambda one: (one.key, one.n))
    return digest([[one.key, one.n, one.meta, one.body] for one in used])


_ENTRY = TypeAdapter(Entry)


class Answer(BaseModel):
    """The small and readable part of an answer. What is set of it is an entry's ``meta``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sent(Answer):
    """What came back to a request. Where nothing did, ``failure`` is the error's name."""

    status: int = Field(default=0, ge=0, le=999)
    headers: dict[str, str] = {}
    failure: Literal["", *FAILURES] = ""  # type: ignore[valid-type] # known when it runs
    text: str = ""


class Ran(Answer):
    """How a command ended; ``out`` bytes of the body are its stdout, whose digest was asked for."""

    code: int | None
    problem: str
    out: int = Field(ge=0)
    digest: str = ""


class Read(Answer):
    """What was read is the body; ``error`` says why a file could not be, ``damaged`` why not used."""

    error: str = ""
    damaged: str = ""


class Hashed(Read):
    """The digest of a file."""

    digest: str = ""
    bytes: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one(self) -> "Hashed":
        if bool(self.digest) == bool(self.error):
            raise ValueError("expected either a digest or an error")
        return self


class Clocked(Answer):
    """A reading of the clock (ISO 8601), and how many seconds it runs ahead of UTC."""

    utc: str
    offset_s: float = Field(allow_inf_nan=False)


class Told(Answer):
    """A value that was computed."""

    value: str


A = TypeVar("A", bound=Answer)
Ask = Callable[[], tuple[Answer, bytes]]
"""Asks the world: the small part of what it answers, and the rest."""


def answer_of(entry: Entry, model: type[A]) -> A:
    """What was answered, as ``model``. Raises LogDamaged for an entry that is no such answer."""
    try:
        return model.model_validate(entry.meta)
    except ValidationError as error:
        wrong = "; ".join(f"{one['loc']}: {one['msg']}" for one in error.errors())
        raise LogDamaged(
            f"tape: {entry.key}: expected an answer to it, got: {wrong}"[:300]
        ) from error


def read_entries(folder: Folder) -> list[Entry]:
    """The entries of a tape folder; an unfinished last line is none. Raises LogDamaged."""
    try:
        text = recorded(folder / "index.jsonl")
    except FileNotFoundError:
        return []
    entries = []
    for number, line in enumerate(text.split(b"\n")[:-1], start=1):
        try:
            entries.append(_ENTRY.validate_json(line))
        except ValidationError as error:
            where = f"{folder.name}/index.jsonl: line {number}"
            wrong = "; ".join(f"{one['loc']}: {one['msg']}" for one in error.errors())
            raise LogDamaged(f"{where}: expected a tape entry, got: {wrong}"[:300]) from error
    return entries


def read_body(folder: Folder, name: str) -> bytes:
    """A recorded body. Raises LogDamaged when it is missing or not what its name says."""
    path = folder / _body_name(name)
    try:
        data = recorded(path)
    except OSError as error:
        raise LogDamaged(f"tape: {name}: expected its body, got none") from error
    _require(name, digest_bytes(data))
    return data


def check_body(folder: Path, name: str, hashed: Mapping[str, str] | None = None) -> None:
    """The same, of any size in constant memory, for whoever needs none of it.

    ``hashed``: digests that are known already, by path in the folder.
    """
    at = _body_name(name)
    try:
        require_size(folder / at, (folder / at).lstat().st_size, MAX_RECORD)
        known = (hashed or {}).get(at)
        found = known or hash_file(folder / at, follow=False).digest
    except OSError as error:
        raise LogDamaged(f"tape: {name}: expected its body, got none") from error
    _require(name, found)


def _body_name(name: str) -> str:
    text = name.removeprefix("sha256:")
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise LogDamaged(f"tape: expected a sha256 digest, got {name!r}")
    return f"{text[:2]}/{text}"


def _require(name: str, found: str) -> None:
    if found != name:
        raise LogDamaged(f"tape: {name}: expected that content, got {found}")


class Tape(ABC):
    """Where answers come from: the world, which is recorded, or a recording of it.

    It holds the client and what keeps secrets out: of the environment's variables ``secrets``.
    """

    def __init__(self, secrets: Iterable[str] = (), transport: Transport | None = None) -> None:
        self.redactor = Redactor(secrets)
        self.http = Http(self.redactor, transport)
        self._written: set[Path] = set()

    def number(self, item: str, number: int) -> int:
        """The run whose answers are given for one of that number."""
        return number

    @abstractmethod
    def answer(self, slot: Slot, ask: Ask, purpose: Purpose, at: datetime) -> tuple[Entry, bytes]:
        """What ``ask`` gets of the world, at that instant, or what it got when it was recorded."""

    def sync(self) -> None:
        """Make everything recorded so far survive a power cut; called before a result is."""
        for path in self._written:
            with suppress(FileNotFoundError), naming(path), path.open("rb") as file:
                os.fsync(file.fileno())
        self._written.clear()

    def close(self) -> None:
        """Give back sockets and thread; what is asked later opens them."""
        self.http.close()


class ReplayTape(Tape):
    """Answers from recorded entries. ``judged`` maps an item to the last run that has a result."""

    def __init__(self, folder: Folder, judged: Mapping[str, int]) -> None:
        super().__init__()
        self._folder, self._judged = folder, judged
        self._entries = {entry.slot: entry for entry in read_entries(folder)}

    def number(self, item: str, number: int) -> int:
        return self._judged.get(item, number)

    def answer(self, slot: Slot, ask: Ask, purpose: Purpose, at: datetime) -> tuple[Entry, bytes]:
        """Raises TapeMiss, LogDamaged."""
        entry = self._entries.get(slot)
        if entry is None:
            item, number, key, n = slot
            raise TapeMiss(
                f"{item}: replay: expected a recorded answer to {key} (run {number}, use {n}), got"
                " none; it was recorded by another version, or this run asks something else"
            )
        return entry, read_body(self._folder, entry.body)


class LiveTape(Tape):
    """Records what the world answers. Safe for several processes appending to one attempt."""

    def __init__(
        self, folder: Path, secrets: Iterable[str] = (), transport: Transport | None = None
    ) -> None:
        super().__init__(secrets, transport)
        self._folder = folder
        self._index = place(folder.parent, f"{folder.name}/index.jsonl")

    def answer(self, slot: Slot, ask: Ask, purpose: Purpose, at: datetime) -> tuple[Entry, bytes]:
        """The answer as it was written: without its secrets."""
        answer, body = ask()
        body = self.redactor.clean(body)
        name = digest_bytes(body)
        path = place(self._folder, _body_name(name))
        if not path.exists():
            replace_file(path, body, lasting=False)
            self._written.add(path)
        item, number, key, n = slot
        meta = self.redactor.clean_value(answer.model_dump(exclude_unset=True))
        entry = Entry(
            item=item,
            number=number,
            n=n,
            key=self.redactor.clean_text(key),
            purpose=purpose,
            at=at.isoformat(timespec="milliseconds"),
            meta=meta,
            body=name,
        )
        descriptor = open_own(self._index, os.O_RDWR | os.O_APPEND)
        with naming(self._index), os.fdopen(descriptor, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _drop_unfinished_line(file)
            file.write(canonical(vars(entry)) + b"\n")
        self._written.add(self._index)
        return entry, body


def _drop_unfinished_line(file: IO[bytes]) -> None:
    """What a power cut left of an entry; the next one must not become part of it."""
    end = file.seek(0, os.SEEK_END)
    while end:
        file.seek(end - 1)
        if file.read(1) == b"\n":
            break
        end -= 1
    file.truncate(end)
