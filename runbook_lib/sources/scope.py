"""What a try may ask of the world: the clock, files, commands, HTTP. All of it by the tape.

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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import Path
from urllib.parse import urlencode

from ..canonical import canonical, digest_bytes
from ..errors import LogDamaged, SourceError, TapeMiss, tried
from ..files import replace_file
from ..reach import Clock, Command
from ..strict import PROJECT
from . import local, process
from .http import FAILURES, Answer, Budget, Http, Purpose, Request, with_retries
from .local import MAX_FILE, Algorithm, FileDigest
from .process import Ended
from .redact import Redactor
from .tape import Asked, Entry, LiveTape, Meta, ReplayTape, Slot, Tape, inputs_of

RETRIES = 3


class Scope:
    """One try of one item. All it learns of the world comes through here.

    ``aliases`` are (path, name) pairs written as ``{name}`` in keys; ``clock`` says where the time
    comes from.
    """

    def __init__(
        self,
        tape: Tape,
        outside: Http,
        item: str,
        number: int,
        *,
        clock: Clock | None = None,
        aliases: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.item, self.tape, self.outside = item, tape, outside
        self.number = tape.number(item, number) if isinstance(tape, ReplayTape) else number
        self._clock = clock or Clock()
        self._aliases = sorted([*aliases, (str(PROJECT), "project")], key=lambda a: -len(a[0]))
        self._uses: Counter[str] = Counter()
        self._entries: list[Entry] = []
        self._now: datetime | None = None
        self.offset = timedelta()
        self._lane = ""
        self._budgets: dict[str, Budget] = {}

    def lane(self, name: str) -> Scope:
        """The same try for one thread of several: its questions are told apart by ``name``."""
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
        """The instant this try judges at: one reading, however often it is asked."""
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

        def ask() -> tuple[Meta, bytes]:
            instant, offset = read_clock(self._clock)
            return {"utc": instant.isoformat(timespec="milliseconds"), "offset_s": offset}, b""

        meta, _ = self._ask("CLOCK", Asked("read"), ask)
        self.offset = timedelta(seconds=meta["offset_s"])
        return datetime.fromisoformat(meta["utc"])

    def sleep(self, seconds: float) -> None:
        """Wait; in replay the time has already passed."""
        self._budgets.clear()  # who did not answer has had time to recover
        if self.live:
            time.sleep(seconds)

    # --- files ----------------------------------------------------------------------------------

    def read(self, path: Path, *, limit: int = MAX_FILE, follow: bool = True) -> bytes:
        """A file's content, of at most ``limit`` bytes; ``follow`` a link or not. Raises SourceError."""

        def ask() -> bytes:
            return local.recorded(path, limit, follow=follow and not self._ours(path))

        return self._of_file("READ", path, ask)[1]

    def extract(self, what: str, path: Path, taken: Callable[[], bytes]) -> bytes:
        """What ``taken`` takes out of a file of ours, which is all that is kept of it.

        Raises SourceError, and LogDamaged where ``taken`` does.
        """

        def ask() -> Meta | bytes:
            try:
                self._ours(path)
                return taken()
            except LogDamaged as error:
                return {"damaged": str(error)}

        meta, body = self._of_file(what, path, ask)
        if "damaged" in meta:
            raise LogDamaged(str(meta["damaged"]))
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
        asked = self._of_file("LIST", path, lambda: canonical(local.names(path)))
        return list(json.loads(asked[1]))

    def file_digest(self, path: Path) -> str:
        """``sha256:HEX`` of a file of any size; only the digest is recorded. Raises SourceError."""
        return self._digest("DIGEST", path, "sha256").digest

    def member_digest(self, path: Path, member: str) -> str:
        """``sha256:HEX`` of one file inside a tar archive. Raises SourceError."""

        def ask() -> Meta:
            return {"digest": local.member_digest(path, member)}

        return str(self._of_file(f"MEMBER {member} OF", path, ask)[0]["digest"])

    def file_digests(
        self, paths: Sequence[Path], algorithm: Algorithm = "sha256"
    ) -> list[FileDigest | SourceError]:
        """Digest and size of many files, on all cores; what could not be read is its error.

        Only digests are recorded, one entry a file. A path must not be given twice.
        """
        if len(set(paths)) != len(paths):
            raise ValueError("identical concurrent questions cannot be told apart on the tape")

        def one(path: Path) -> FileDigest | SourceError:
            return tried(self._digest, f"DIGEST {algorithm}", path, algorithm)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib releases the interpreter's lock
            return list(pool.map(one, paths))

    def _digest(self, question: str, path: Path, algorithm: Algorithm) -> FileDigest:
        def ask() -> Meta:
            digest, size = local.hash_file(path, algorithm)
            return {"digest": digest, "bytes": size}

        meta, _ = self._of_file(question, path, ask)
        return FileDigest(meta["digest"], meta["bytes"])

    def _of_file(
        self, question: str, path: Path, ask: Callable[[], Meta | bytes]
    ) -> tuple[Meta, bytes]:
        """Where a file could not be read, that is the answer on the tape."""
        name = self._alias(str(path))

        def asked() -> tuple[Meta, bytes]:
            try:
                got = ask()
            except (OSError, ValueError, LogDamaged, SourceError) as error:
                got = {"error": local.unreadable(error)}
            return (got, b"") if isinstance(got, dict) else ({}, got)

        meta, body = self._ask(f"{question} {name}", Asked("read"), asked)
        if "error" in meta:
            raise SourceError(name, meta["error"])
        return meta, body

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

        def ask() -> tuple[Meta, bytes]:
            ended = process.run(argv, timeout_s=limit, env=command.env, lock=lock, outputs=outputs)
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

        key = f"RUN {json.dumps([self._alias(word) for word in argv])}"
        meta, body = self._ask(key, Asked(purpose), ask)
        split = meta["out"]
        kept = raw[0] if private and raw else None
        digest = meta.get("digest", "")
        return Ended(meta["code"], body[:split], body[split:], meta["problem"], digest, kept)

    def clean_files(self, stem: Path) -> None:
        """Take the secrets out of what an ended command left in ``<stem>.out`` and ``.err``."""
        for suffix in (".out", ".err"):
            path = stem.with_name(stem.name + suffix)
            try:
                text = local.recorded(path)
            except OSError:  # none, or a link to what is not ours
                continue
            if text != self.outside.redactor.clean(text):
                replace_file(path, self.outside.redactor.clean(text))

    def derive(self, what: str, compute: Callable[[], str]) -> str:
        """A value computed from what may not be recorded; a replay has only the value."""
        meta, _ = self._ask(f"DERIVE {what}", Asked("read"), lambda: ({"value": compute()}, b""))
        return str(meta["value"])

    def notice(self, what: str, look: Callable[[], str]) -> str:
        """What ``look`` saw of our own store, on the tape only when it saw something."""
        key, seen = f"NOTICE {what}", look() if self.live else ""
        if self.live and not seen:
            self._claim(key)
            return ""
        with suppress(TapeMiss):
            return str(self._ask(key, Asked("read"), lambda: ({"value": seen}, b""))[0]["value"])
        return ""

    # --- HTTP -----------------------------------------------------------------------------------

    def http(self, requests: Sequence[Request], *, retries: int = RETRIES) -> list[Answer]:
        """Answers in the order asked, concurrently. Reads are retried; each retry is an entry.

        Identical requests must not be asked in one call: their answers could change places.
        """
        for budget in self._budgets.values():
            budget.received = 0
        keys = [self._request_key(request) for request in requests]
        if len(set(keys)) != len(keys):
            raise ValueError("identical concurrent requests cannot be told apart on the tape")

        async def all_of_them() -> list[Answer]:
            work = (self._asked(r, k, retries) for r, k in zip(requests, keys, strict=True))
            return list(await asyncio.gather(*work))

        return self.outside.run(all_of_them())

    async def _asked(self, request: Request, key: str, retries: int) -> Answer:

        async def once() -> Answer:
            asked, sent = Asked(request.purpose), Answer()
            if self.live:
                budget = self._budgets.setdefault(request.source, Budget())
                sent = await self.outside.send(request, budget)
            meta, body = self._ask(key, asked, sent.kept)
            if (failure := meta.get("failure")) and failure not in FAILURES:
                raise LogDamaged(f"tape: expected a known failure, got {failure!r}")
            return Answer(**meta, body=body)

        attempts = retries if request.purpose == "read" else 1
        return await with_retries(once, attempts, live=self.live)

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
        self, key: str, asked: Asked, ask: Callable[[], tuple[Meta, bytes]]
    ) -> tuple[Meta, bytes]:
        slot = self._claim(key)
        if isinstance(self.tape, LiveTape):
            entry, body = self.tape.record(slot, asked, *ask())
        else:
            entry, body = self.tape.recall(slot)
        self._entries.append(entry)
        return entry.meta, body

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
    secrets: frozenset[str] = frozenset(),
    *,
    clock: Clock | None = None,
    tape: Path | None = None,
    http: Http | None = None,
) -> Iterator[Scope]:
    """A live scope of its own; without ``tape`` its recording goes away: nothing of it is evidence.

    ``secrets`` are names of environment variables whose values are kept out of the recording.
    """
    redactor = Redactor(secrets)
    with ExitStack() as stack:
        if tape is None:
            tape = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runbook-")))
        outside = stack.enter_context(closing(http or Http(redactor)))
        yield Scope(LiveTape(tape, redactor), outside, item, 1, clock=clock)


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
