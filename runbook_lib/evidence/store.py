"""The store: one directory that all operators reach. Nothing in it is ever overwritten.

    <store>/<release>/<stage>/<0001>/    one attempt: log.jsonl, tape/, the notebook, ...
    <store>/.baselines/<cluster>/        pinned baselines, by digest
    <store>/.locks/                      one lock file a cluster, one a release

Where a release stands is computed from the attempts, not kept in a second ledger.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from ..errors import LockHeld, LogDamaged, StoreError
from ..files import open_own, place, replace_file
from ..playbook import PREFLIGHT, RECOVERY, REPORT, STAGES
from ..strict import ATTEMPT
from ..wording import utc
from .events import Adopting, LockTaken, Opened, Opening, of
from .log import Log, opened_by

if TYPE_CHECKING:
    from ..sources.scope import Scope

ADOPTED, INCIDENTS = ".adopted", ".incidents"
WAY_BACK = "recovery"
"""The folder of an attempt in which its way back lies ready."""
RUNBOOKS = (
    PREFLIGHT,
    *(name for pair in zip(STAGES, RECOVERY, strict=True) for name in pair),
    REPORT,
)
"""The runbooks of a release, in the order in which attempts are listed."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to carry a release through one stage: a directory and its log."""

    release: str
    stage: str
    number: int
    folder: Path
    log: Log

    @property
    def name(self) -> str:
        return f"{self.release}/{self.stage}/{self.number:04d}"

    @property
    def opened(self) -> Opened:
        """What it was opened with. Raises LogDamaged."""
        return opened_by(self.log.events(), self.name)

    @property
    def heads(self) -> list[str]:
        """Every head that it ever had, the one it has now last. Raises LogDamaged."""
        from .seal import heads

        return heads(self.folder, self.log.events())

    @property
    def head(self) -> str:
        """That of its newest seal; of one whose seals cannot be read, and of none, its log's."""
        with suppress(LogDamaged):
            return self.heads[-1]
        return self.log.head


@dataclass(frozen=True)
class Lock:
    """A cluster's lock while it is held; ``fence`` is the event of a log by which it was taken."""

    descriptor: int
    path: Path
    fence: int = 0

    def lost(self, log: Log | None = None) -> str:
        """Why it is ours no more; empty while its file and the fence of the log are still ours."""
        for taken in reversed(of(log.events() if log else [], LockTaken)):
            if taken.seq == self.fence:
                break
            if taken.cluster == self.path.stem:
                return f"taken by {taken.owner}"
        with suppress(OSError):
            if os.path.samestat(self.path.lstat(), os.fstat(self.descriptor)):
                return ""
        return f"lost: {self.path.name} was removed or replaced"

    def give_back(self, folder: Path) -> str:
        """Unlock it although a command left a process behind that inherited it; which that is.

        It stays locked for a command with outputs in ``folder`` that is still at work.
        """
        found = holders(self.path)
        if not any(begun_in(folder, words) for words in found.values()):
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        return named(found)


def lock_file(cluster: str) -> str:
    """Where in the store a cluster's lock lies."""
    return f".locks/{cluster}.lock"


def holders(path: Path) -> dict[int, list[str]]:
    """The processes beside this one that have a file open: their commands by process id."""
    import psutil

    found, at = dict[int, list[str]](), str(path.resolve())
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.pid != os.getpid() and at in [file.path for file in one.open_files()]:
                found[one.pid] = one.cmdline()
    return found


def begun_in(folder: Path, words: list[str]) -> bool:
    """Whether a command was begun as a step whose outputs lie below a folder."""
    paths = (Path(word) for word in words)
    return any(path.parent.name == "steps" and path.is_relative_to(folder) for path in paths)


def named(found: Mapping[int, list[str]]) -> str:
    return ", ".join(f"process {pid} ({' '.join(words)})" for pid, words in found.items())


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._logs: dict[Path, Log] = {}  # of each only what was added is read again

    # --- attempts -------------------------------------------------------------------------------

    def attempts(self, release: str) -> list[Attempt]:
        """Attempts of a release in order of stage and number. Raises LogDamaged where one is
        missing, was replaced or cannot be read.
        """
        found, problems = self.readable(release)
        if problems:
            raise LogDamaged(problems[0])
        return found

    def readable(self, release: str, stage: str = "") -> tuple[list[Attempt], list[str]]:
        """The attempts that can be read, and what is wrong with the others. Raises nothing.

        Whether one is missing that others were opened on is told of a whole release only.
        """
        found, problems = list[Attempt](), list[str]()
        for runbook in [stage] if stage else RUNBOOKS:
            numbers = self.numbers(release, runbook)
            if linked := self._linked(release, runbook):
                problems.append(f"{release}/{runbook}: expected folders, got links: {linked}")
            elif numbers != list(range(1, len(numbers) + 1)):
                problems.append(
                    f"{release}/{runbook}: expected attempts 1 to {len(numbers)} without a gap, got"
                    f" {numbers}; an attempt was removed from the store: restore it"
                )
            for number in numbers:
                attempt = self._attempt(release, runbook, number)
                try:
                    opened_by(attempt.log.events(), "log")
                    found.append(attempt)
                except (StoreError, OSError) as error:
                    problems.append(f"{attempt.name}: {error}")
        return found, problems if stage else [*problems, *_lost(found)]

    def attempt(self, release: str, stage: str, number: int) -> Attempt:
        """An attempt that exists. Raises StoreError, naming those that do."""
        known = self.numbers(release, stage)
        if number not in known:
            raise StoreError(
                f"{release}/{stage}: attempt: expected one of {known or 'none yet'}, got {number}"
            )
        return self._attempt(release, stage, number)

    def named(self, name: str) -> Attempt:
        """The attempt of a name that a log holds. Raises StoreError for what is none."""
        if not ATTEMPT.fullmatch(name):
            raise StoreError(f"expected RELEASE/STAGE/NUMBER, got {name!r}")
        release, stage, number = name.split("/")
        return self._attempt(release, stage, int(number))

    def log(self, name: str) -> Log:
        """The log of an attempt or adoption, whether it is there or not."""
        path = self.root / name / "log.jsonl"
        return self._logs.setdefault(path, Log(path))

    def create(self, opened: Opened, *, whatever: bool = False) -> Attempt:
        """A new attempt whose log opens with ``opened`` and the heads of all earlier ones.

        ``whatever`` is wrong with those: it is then named in ``damage``, and nothing is required.
        """
        release, stage = opened.release, opened.stage
        with self.release_lock(release):
            earlier, damage = self.readable(release)
            if damage and not whatever:
                raise LogDamaged(damage[0])
            held = {attempt.name: attempt.head for attempt in earlier}
            number = max(self.numbers(release, stage), default=0) + 1
            update = {"heads": held, "damage": tuple(damage)}
            return self._create(release, stage, number, opened.model_copy(update=update))

    def recreate(self, opened: Opened) -> Attempt:
        """An attempt under its own number in a store of a replay, where there is no other."""
        fresh = opened.model_copy(update={"heads": {}})
        return self._create(opened.release, opened.stage, opened.attempt, fresh)

    def adopt(self, opened: Adopting) -> Attempt:
        """The log of a state taken over as it is."""
        with self.release_lock(ADOPTED):
            number = 1 + max(self.numbers(ADOPTED, opened.cluster), default=0)
            return self._create(ADOPTED, opened.cluster, number, opened)

    def _create(self, release: str, stage: str, number: int, opened: Opening) -> Attempt:
        # Complete or not there at all: a crash leaves no attempt without its first event.
        log = self._place(f"{release}/{stage}/.new-{uuid4().hex}/log.jsonl")
        Log(log).append(opened.model_copy(update={"attempt": number}))
        made = self._attempt(release, stage, number)
        log.parent.rename(made.folder)
        return made

    def _attempt(self, release: str, stage: str, number: int) -> Attempt:
        name = f"{release}/{stage}/{number:04d}"
        return Attempt(release, stage, number, self.root / name, self.log(name))

    # --- what there is, with a scope by its tape: nothing else lists the store ------------------

    def numbers(self, release: str, stage: str, scope: Scope | None = None) -> list[int]:
        """Of the attempts at a stage, or of the adoptions of a cluster."""
        names = self.names(f"{release}/{stage}", scope)
        return sorted(int(name) for name in names if re.fullmatch(r"[0-9]{4,9}", name))

    def everything(self, scope: Scope | None = None) -> Iterator[str]:
        """RELEASE/STAGE/NUMBER of every attempt and adoption, listed as it is asked for."""
        for release in self.names("", scope):
            if release.startswith(".") and release != ADOPTED:
                continue
            for stage in self.names(release, scope):
                for number in self.numbers(release, stage, scope):
                    yield f"{release}/{stage}/{number:04d}"

    def names(self, folder: str, scope: Scope | None = None) -> list[str]:
        """What lies in one of its folders, sorted."""
        path = self.root / folder
        return scope.listing(path) if scope else sorted(p.name for p in path.glob("*"))

    def _linked(self, release: str, stage: str) -> str:
        """A link where a folder of attempts should be: what is written there lies elsewhere."""
        folder = self.root / release / stage
        found = [p.name for p in (folder.parent, folder, *folder.glob("[0-9]*")) if p.is_symlink()]
        return ", ".join(found)

    # --- locks ----------------------------------------------------------------------------------

    @contextmanager
    def release_lock(self, release: str) -> Iterator[None]:
        with self._opened(f".locks/release-{release}.lock") as (descriptor, _):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextmanager
    def cluster_lock(self, cluster: str, owner: str) -> Iterator[Lock]:
        """The cluster's lock; its descriptor is to be inherited by every changing command.

        It is free only when the run and its commands are gone. Raises LockHeld, naming the owner.
        """
        with self._opened(lock_file(cluster)) as (descriptor, path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                by = os.pread(descriptor, 4096, 0).decode("utf-8", "replace")
                here = named(holders(path))
                raise LockHeld(
                    f"{cluster}: lock: expected it free, got held by {by or 'somebody unknown'};"
                    " a run or one of its commands is still at work: wait for it, or recover"
                    + (f"; on this host: {here}" if here else "")
                ) from None
            lock = Lock(descriptor, path)
            if lost := lock.lost():
                here = named(holders(path))
                raise LockHeld(f"{cluster}: lock: expected it free, got {lost}; try again")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{owner} since {utc(datetime.now(UTC))}".encode(), 0)
            yield lock

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, Path]]:
        path = self._place(name)
        descriptor = open_own(path)
        try:
            yield descriptor, path
        finally:
            os.close(descriptor)

    def _place(self, name: str) -> Path:
        """A file of the store, its folders made for the group. Raises StoreError."""
        if not self.root.exists():
            self.root.parent.mkdir(parents=True, exist_ok=True)
            place(self.root.parent, f"{self.root.name}/{name}")
        return place(self.root, name)

    # --- baselines ------------------------------------------------------------------------------

    def pin(self, cluster: str, digest: str, source: Path) -> Path:
        """Keep a baseline file under its digest; the same digest is the same file."""
        target = self.pinned(cluster, digest, source.suffix)
        self._place(target.relative_to(self.root).as_posix())
        if not target.exists():
            replace_file(target, source.read_bytes())
        return target

    def pinned(self, cluster: str, digest: str, suffix: str) -> Path:
        """Where the baseline of a digest is kept."""
        return self.root / ".baselines" / cluster / (digest.removeprefix("sha256:") + suffix)


def _lost(attempts: list[Attempt]) -> list[str]:
    """What is missing or was replaced: each head an attempt was opened on lies in the other's chain."""
    problems, chains = list[str](), dict[str, list[str]]()
    for attempt in attempts:
        try:
            chains[attempt.name] = attempt.heads
        except (StoreError, OSError) as error:
            problems.append(f"{attempt.name}: {error}")
    known = {attempt.name for attempt in attempts}
    for attempt in attempts:
        for name, head in attempt.opened.heads.items():
            if name not in known:
                problems.append(
                    f"{attempt.name}: expected the earlier attempt {name} in the store, got none;"
                    " it was removed: restore it"
                )
            elif head not in chains.get(name, [head]):
                problems.append(
                    f"{name}: expected its log to hold {head}, got another history;"
                    " the log was replaced: restore it"
                )
    return problems
