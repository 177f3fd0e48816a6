"""What a run may ask of the world: the clock, files, commands, HTTP. All of it by the tape.

Paths below the store and the project are written as ``{store}`` and ``{project}`` in keys, so that
a replay elsewhere asks the same questions.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TypeVar

import httpx

from ..canonical import canonical, digest_bytes
from ..errors import Answers, LogDamaged, SourceError, TapeMiss
from ..files import replace_file
from ..reach import Clock, Command
from ..site import Site
from ..strict import PROJECT
from . import http, local, process
from .http import (
    ERRORS,
    KEPT_HEADERS,
    RETRIED_STATUS,
    Budget,
    Purpose,
    Transport,
    answered,
    key_of,
    read_body,
    retry_wait,
    source_of,
    terms_of,
)
from .local import MAX_FILE, Algorithm, FileDigest
from .process import Ended
from .tape import (
    A,
    Clocked,
    Entry,
    Hashed,
    LiveTape,
    Ran,
    Read,
    Sent,
    Slot,
    Tape,
    Told,
    answer_of,
    inputs_of,
)

RETRIES = 3
R = TypeVar("R", bound=Read)


class Scope(httpx.AsyncBaseTransport):
    """One run of one item. All it learns of the world comes through here.

    ``aliases`` are (path, name) pairs written as ``{name}`` in keys; ``clock`` says where the time
    comes from.
    """

    def __init__(
        self,
        tape: Tape,
        item: str,
        number: int,
        *,
        clock: Clock | None = None,
        aliases: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.item, self.tape = item, tape
        self.number = tape.number(item, number)
        self._clock = clock or Clock()
        self._aliases = sorted([*aliases, (str(PROJECT), "project")], key=lambda a: -len(a[0]))
        self._uses: Counter[str] = Counter()
        self._entries: list[Entry] = []
        self._now: datetime | None = None
        self.offset = timedelta()
        self._lane = ""
        self._budgets: dict[str, Budget] = {}

    def lane(self, name: str) -> Scope:
        """The same run for one thread of several: its questions are told apart by ``name``."""
        made = copy.copy(self)
        made._lane, made._uses = f" in {name}", Counter()
        return made

    @property
    def live(self) -> bool:
        return isinstance(self.tape, LiveTape)

    @property
    def inputs(self) -> str:
        """The digest of every answer used so far, whatever order they came in."""
        return inputs_of(self._entries)

    # --- the clock ------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The instant this run judges at: one reading, however often it is asked."""
        if self._now is None:
            self._now = self.reread()
        return self._now

    def renew(self) -> datetime:
        """After a wait: judge at the instant it is now."""
        self._budgets.clear()
        self._now = self.reread()
        return self._now

    def reread(self) -> datetime:
        """A fresh reading of the clock, for deadlines and journals."""

        def ask() -> tuple[Clocked, bytes]:
            instant, offset = read_clock(self._clock)
            return Clocked(utc=instant.isoformat(timespec="milliseconds"), offset_s=offset), b""

        clock, _ = self._ask("CLOCK", Clocked, ask)
        self.offset = timedelta(seconds=clock.offset_s)
        return datetime.fromisoformat(clock.utc)

    def sleep(self, seconds: float) -> None:
        """Wait; in replay the time has already passed."""
        self._budgets.clear()  # who did not answer has had time to recover
        if self.live:
            time.sleep(seconds)

    # --- files ----------------------------------------------------------------------------------

    def read(self, path: Path, *, limit: int = MAX_FILE, follow: bool = True) -> bytes:
        """A file's content, of at most ``limit`` bytes; ``follow`` a link or not. Raises SourceError."""

        def ask() -> tuple[Read, bytes]:
            return Read(), local.recorded(path, limit, follow=follow and not self._ours(path))

        return self._of_file("READ", path, Read, ask)[1]

    def extract(self, what: str, path: Path, taken: Callable[[], bytes]) -> bytes:
        """What ``taken`` takes out of a file of ours, which is all that is kept of it.

        Raises SourceError, and LogDamaged where ``taken`` does.
        """

        def ask() -> tuple[Read, bytes]:
            try:
                self._ours(path)
                return Read(), taken()
            except LogDamaged as error:
                return Read(damaged=str(error)), b""

        found, body = self._of_file(what, path, Read, ask)
        if found.damaged:
            raise LogDamaged(found.damaged)
        return body

    def _ours(self, path: Path) -> bool:
        """Whether a file is one of the store. Raises SourceError for a link that leads out of it."""
        roots = [Path(at) for at, name in self._aliases if name in ("attempt", "store")]
        ours = [root for root in roots if path.is_relative_to(root)]
        if not all(path.resolve().is_relative_to(root.resolve()) for root in ours):
            raise SourceError(str(path), "expected a file of the store, got one elsewhere")
        return bool(ours)

    def listing(self, path: Path) -> list[str]:
        """The names in a folder, sorted; of no folder, none."""
        found = self._of_file("LIST", path, Read, lambda: (Read(), canonical(local.names(path))))
        return list(json.loads(found[1]))

    def file_digest(self, path: Path) -> str:
        """``sha256:HEX`` of a file of any size; only the digest is recorded. Raises SourceError."""
        return self._digest("DIGEST", path, lambda: local.hash_file(path)).digest

    def member_digest(self, path: Path, member: str) -> str:
        """``sha256:HEX`` of one file inside a tar archive. Raises SourceError."""

        def ask() -> FileDigest:
            return FileDigest(local.member_digest(path, member), 0)

        return self._digest(f"MEMBER {member} OF", path, ask).digest

    def file_digests(
        self, paths: Sequence[Path], algorithm: Algorithm = "sha256"
    ) -> Answers[Path, FileDigest]:
        """Digest and size of many files, on all cores.

        Only digests are recorded, one entry a file. A path must not be given twice.
        """
        if len(set(paths)) != len(paths):
            raise ValueError("identical concurrent questions cannot be told apart on the tape")

        def one(path: Path) -> FileDigest:
            ask = partial(local.hash_file, path, algorithm)
            return self._digest(f"DIGEST {algorithm}", path, ask)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib releases the interpreter's lock
            return Answers(one, paths, pool.map)

    def _digest(self, question: str, path: Path, ask: Callable[[], FileDigest]) -> FileDigest:
        def asked() -> tuple[Hashed, bytes]:
            digest, size = ask()
            return Hashed(digest=digest, bytes=size), b""

        found, _ = self._of_file(question, path, Hashed, asked)
        return FileDigest(found.digest, found.bytes)

    def _of_file(
        self, question: str, path: Path, model: type[R], ask: Callable[[], tuple[R, bytes]]
    ) -> tuple[R, bytes]:
        """Where a file could not be read, that is the answer on the tape."""
        name = self._alias(str(path))

        def asked() -> tuple[R, bytes]:
            try:
                return ask()
            except (OSError, ValueError, LogDamaged, SourceError) as error:
                return model(error=local.unreadable(error)), b""

        found, body = self._ask(f"{question} {name}", model, asked)
        if found.error:
            raise SourceError(name, found.error)
        return found, body

    # --- commands -------------------------------------------------------------------------------

    def run(
        self,
        command: Command,
        *,
        purpose: Purpose = "read",
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
        argv, limit = command.argv, command.timeout_s

        def ask() -> tuple[Ran, bytes]:
            ended = process.run(argv, timeout_s=limit, env=command.env, lock=lock, outputs=outputs)
            raw.append(ended.stdout)
            if outputs is not None:
                self.clean_files(outputs)
            # Redacted one by one: the split between the two must still be right on the tape.
            out, err = (
                self._named(self.tape.redactor.clean(said), argv)
                for said in (ended.stdout, ended.stderr)
            )
            asked = {"digest": digest_bytes(ended.stdout)} if private else {}
            ran = Ran(code=ended.code, problem=ended.problem, out=len(out), **asked)
            return ran, out + err

        key = f"RUN {json.dumps([self._alias(word) for word in argv])}"
        ran, body = self._ask(key, Ran, ask, purpose)
        kept = raw[0] if private and raw else None
        return Ended(ran.code, body[: ran.out], body[ran.out :], ran.problem, ran.digest, kept)

    def clean_files(self, stem: Path) -> None:
        """Take the secrets out of what an ended command left in ``<stem>.out`` and ``.err``."""
        for suffix in (".out", ".err"):
            path = stem.with_name(stem.name + suffix)
            try:
                text = local.recorded(path)
            except OSError:  # none, or a link to what is not ours
                continue
            if text != self.tape.redactor.clean(text):
                replace_file(path, self.tape.redactor.clean(text))

    def derive(self, what: str, compute: Callable[[], str]) -> str:
        """A value computed from what may not be recorded; a replay has only the value."""
        told, _ = self._ask(f"DERIVE {what}", Told, lambda: (Told(value=compute()), b""))
        return told.value

    def notice(self, what: str, look: Callable[[], str]) -> str:
        """What ``look`` saw of our own store, on the tape only when it saw something."""
        key, seen = f"NOTICE {what}", look() if self.live else ""
        if self.live and not seen:
            self._claim(key)
            return ""
        with suppress(TapeMiss):
            return self._ask(key, Told, lambda: (Told(value=seen), b""))[0].value
        return ""

    # --- HTTP -----------------------------------------------------------------------------------

    def http(
        self, requests: Sequence[httpx.Request], *, retries: int = RETRIES
    ) -> list[httpx.Response]:
        """Answers in the order asked, concurrently. Reads are retried; each retry is an entry.

        Identical requests must not be asked in one call: their answers could change places.
        """
        for budget in self._budgets.values():
            budget.received = 0
        if len({key_of(request) for request in requests}) != len(requests):
            raise ValueError("identical concurrent requests cannot be told apart on the tape")
        asked, answers = dict(enumerate(requests)), dict[int, httpx.Response]()
        for attempt in range(retries):
            sent = dict[int, Future[httpx.Response]]()
            try:
                for n, request in asked.items():
                    work = self.handle_async_request(request)
                    sent[n] = asyncio.run_coroutine_threadsafe(work, self.tape.http.loop)
                answers |= {n: one.result() for n, one in sent.items()}
            except BaseException:
                for one in sent.values():
                    one.cancel()
                raise
            waits = {n: retry_wait(request, answers[n]) for n, request in asked.items()}
            asked = {n: requests[n] for n, wait in waits.items() if wait is not None}
            if not asked:
                break
            if self.live and attempt + 1 < retries:
                time.sleep(max(http.FIRST_WAIT_S * 2**attempt, *(waits[n] or 0.0 for n in asked)))
        return [answers[n] for n in range(len(requests))]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer as it is recorded: of a replay from the tape, else what came of sending it.

        Where nothing came back its status is 0, and the reason phrase says why.
        """
        terms, at = terms_of(request), datetime.now(UTC)
        sent, body = Sent(), b""
        if self.live:
            budget = self._budgets.setdefault(source_of(request), Budget())
            try:
                async with self.tape.http.turn(request, budget) as turn:
                    response = await turn.client.send(turn.request, stream=True)
                    try:
                        body = await read_body(response, terms.max_bytes, budget)
                    finally:
                        await response.aclose()
                    turn.answered = response.status_code not in RETRIED_STATUS
                kept = {
                    name: text for name, text in response.headers.items() if name in KEPT_HEADERS
                }
                sent = Sent(status=response.status_code, headers=kept)
            except ERRORS as error:
                kind, body = type(error).__name__, b""
                text = self.tape.redactor.clean_text(str(error) or kind)
                sent = Sent(failure=kind, text=text)
        got, body = self._ask(key_of(request), Sent, lambda: (sent, body), terms.purpose, at)
        if got.failure:
            why = f"{got.failure}: {got.text}".encode("ascii", "replace")
            return httpx.Response(0, extensions={"reason_phrase": why})
        return answered(got.status, got.headers, body)

    # --- the machinery --------------------------------------------------------------------------

    def _claim(self, key: str) -> Slot:
        key += self._lane
        self._uses[key] += 1
        return (self.item, self.number, key, self._uses[key])

    def _ask(
        self,
        key: str,
        model: type[A],
        ask: Callable[[], tuple[A, bytes]],
        purpose: Purpose = "read",
        at: datetime | None = None,
    ) -> tuple[A, bytes]:
        slot, at = self._claim(key), at or datetime.now(UTC)
        entry, body = self.tape.answer(slot, ask, purpose, at)
        self._entries.append(entry)
        return answer_of(entry, model), body

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


@contextmanager
def live_scope(
    item: str,
    site: Site | None = None,
    *,
    secrets: Iterable[str] = (),
    clock: Clock | None = None,
    tape: Path | None = None,
    transport: Transport | None = None,
) -> Iterator[Scope]:
    """A live scope of its own; without ``tape`` its recording goes away: nothing of it is evidence.

    Clock and names of ``secrets`` are the site's where one is given.
    """
    if site is not None:
        secrets, clock = site.secret_names(), site.clock
    with ExitStack() as stack:
        if tape is None:
            tape = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runbook-")))
        kept = stack.enter_context(closing(LiveTape(tape, secrets, transport)))
        yield Scope(kept, item, 1, clock=clock)


# --- The clock that a site names: UTC, or ahead of it by what a rehearsal's file says ---


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
