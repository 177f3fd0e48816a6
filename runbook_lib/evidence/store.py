"""The store: one directory that all operators reach. Nothing in it is ever overwritten.

    <store>/<release>/<stage>/<0001>/    one attempt: record.jsonl, tape/, the notebook, ...
    <store>/.baselines/<cluster>/        pinned baselines, by digest
    <store>/.locks/                      one lock file a cluster, one a release

Where a release stands is computed from the attempts, not kept in a second ledger.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..errors import LockHeld, RecordDamaged, StoreError
from ..files import replace_file
from ..playbook import PREFLIGHT, RECOVERY, REPORT, STAGES
from .record import Record
from .seal import heads

ADOPTED = ".adopted"
RUNBOOKS = (
    PREFLIGHT,
    *(name for pair in zip(STAGES, RECOVERY, strict=True) for name in pair),
    REPORT,
)
"""The runbooks of a release, in the order in which attempts are listed."""


@dataclass(frozen=True)
class Attempt:
    """One try to carry a release through one stage: a directory and its record."""

    release: str
    stage: str
    number: int
    folder: Path
    record: Record

    @property
    def name(self) -> str:
        return f"{self.release}/{self.stage}/{self.number:04d}"


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root

    # --- attempts -------------------------------------------------------------------------------

    def attempts(self, release: str, stage: str | None = None) -> list[Attempt]:
        """Attempts of a release in order of stage and number. Raises StoreError for a gap."""
        found = []
        for name in [stage] if stage else RUNBOOKS:
            numbers = self._numbers(release, name)
            if numbers != list(range(1, len(numbers) + 1)):
                raise StoreError(
                    f"{release}/{name}: expected attempts 1 to {len(numbers)} without a gap, got"
                    f" {numbers}; an attempt was removed from the store: restore it"
                )
            found += [self._attempt(release, name, number) for number in numbers]
        return found

    def attempt(self, release: str, stage: str, number: int) -> Attempt:
        """An attempt that exists. Raises StoreError, naming those that do."""
        known = [attempt.number for attempt in self.attempts(release, stage)]
        if number not in known:
            raise StoreError(
                f"{release}/{stage}: attempt: expected one of {known or 'none yet'}, got {number}"
            )
        return self._attempt(release, stage, number)

    def create(
        self, release: str, stage: str, opened: dict[str, Any], *, whatever: bool = False
    ) -> Attempt:
        """A new attempt whose record opens with ``opened`` and the heads of all earlier ones.

        ``whatever`` is wrong with those: it is then named in ``damage``, and nothing is required.
        """
        with self.release_lock(release):
            if whatever:
                earlier, damage = self.readable(release)
                opened = {**opened, "damage": damage}
            else:
                earlier = self.attempts(release)
                self.check_heads(earlier)
            held = {a.name: heads(a.folder, a.record.entries())[-1] for a in earlier}
            number = max(self._numbers(release, stage), default=0) + 1
            return self._create(release, stage, number, {**opened, "heads": held})

    def readable(self, release: str, stage: str | None = None) -> tuple[list[Attempt], list[str]]:
        """The attempts that can be read, and what is wrong with the others. Raises nothing."""
        found, problems = [], []
        for name in [stage] if stage else RUNBOOKS:
            try:
                self.attempts(release, name)
            except StoreError as error:
                problems.append(str(error))
            for number in self._numbers(release, name):
                attempt = self._attempt(release, name, number)
                try:
                    self.opened(attempt)
                    found.append(attempt)
                except (StoreError, OSError) as error:
                    problems.append(f"{attempt.name}: {error}")
        try:
            self.check_heads(found)
        except (StoreError, OSError) as error:
            problems.append(str(error))
        return found, problems

    def _numbers(self, release: str, stage: str) -> list[int]:
        folder = self.root / release / stage
        return sorted(int(p.name) for p in folder.glob("[0-9]*") if p.name.isdigit())

    def recreate(self, release: str, stage: str, number: int, opened: dict[str, Any]) -> Attempt:
        """An attempt under its own number in a store of a replay, where there is no other."""
        return self._create(release, stage, number, {**opened, "heads": {}})

    def _create(self, release: str, stage: str, number: int, opened: dict[str, Any]) -> Attempt:
        folder = self.root / release / stage / f"{number:04d}"
        # Complete or not there at all: a crash leaves no attempt without its first entry.
        scratch = folder.with_name(f".new-{uuid4().hex}")
        scratch.mkdir(parents=True)
        Record(scratch / "record.jsonl").append("opened", {**opened, "attempt": number})
        scratch.rename(folder)
        return self._attempt(release, stage, number)

    def check_heads(self, attempts: list[Attempt]) -> None:
        """Every head an attempt opened on lies in that attempt's chain. Raises StoreError."""
        chains = {a.name: heads(a.folder, a.record.entries()) for a in attempts}
        for attempt in attempts:
            opened = self.opened(attempt)
            for name, head in opened["heads"].items():
                if name not in chains:
                    raise StoreError(
                        f"{attempt.name}: expected the earlier attempt {name} in the store, got none;"
                        " it was removed: restore it"
                    )
                if head not in chains[name]:
                    raise RecordDamaged(
                        f"{name}: expected its record to hold {head}, got another history;"
                        " the record was replaced: restore it"
                    )

    @staticmethod
    def opened(attempt: Attempt) -> dict[str, Any]:
        """What the attempt was opened with. Raises RecordDamaged."""
        entries = attempt.record.entries()
        if not entries or entries[0].kind != "opened":
            raise RecordDamaged(f"{attempt.name}: expected an opening entry, got none")
        return entries[0].body

    def records(self) -> list[Path]:
        """Every record file of the store: all releases, stages, attempts and adoptions."""
        return sorted(self.root.glob("*/*/[0-9]*/record.jsonl"))

    def adopt(self, cluster: str, opened: dict[str, Any]) -> Attempt:
        """The record of a state taken over as it is."""
        with self.release_lock(ADOPTED):
            folder = self.root / ADOPTED / cluster
            number = 1 + len(list(folder.glob("[0-9]*")))
            return self._create(ADOPTED, cluster, number, {**opened, "heads": {}})

    def _attempt(self, release: str, stage: str, number: int) -> Attempt:
        folder = self.root / release / stage / f"{number:04d}"
        return Attempt(release, stage, number, folder, Record(folder / "record.jsonl"))

    # --- locks ----------------------------------------------------------------------------------

    @contextmanager
    def release_lock(self, release: str) -> Iterator[None]:
        with self._lock_file(f"release-{release}").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def cluster_lock(self, cluster: str, owner: str) -> Iterator[int]:
        """The descriptor of the cluster's lock, to be inherited by every changing command.

        It is free only when the run and its commands are gone. Raises LockHeld, naming the owner.
        """
        path = self._lock_file(cluster)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockHeld(_held(cluster, os.pread(descriptor, 4096, 0))) from None
            since = datetime.now(UTC).isoformat(timespec="seconds")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"owner": owner, "since": since}).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _lock_file(self, name: str) -> Path:
        folder = self.root / ".locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.root.name}: store: expected a writable directory, got: {error.strerror}"
            ) from error
        return folder / f"{name}.lock"

    # --- baselines ------------------------------------------------------------------------------

    def pin(self, cluster: str, digest: str, source: Path) -> Path:
        """Keep a baseline file under its digest; the same digest is the same file."""
        target = self.pinned(cluster, digest, source.suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            replace_file(target, source.read_bytes())
        return target

    def pinned(self, cluster: str, digest: str, suffix: str) -> Path:
        """Where the baseline of a digest is kept."""
        return self.root / ".baselines" / cluster / (digest.removeprefix("sha256:") + suffix)


def _held(cluster: str, text: bytes) -> str:
    try:
        note = json.loads(text)
        since = datetime.fromisoformat(note["since"])
        age = datetime.now(UTC) - since
        who = f"{note['owner']} since {since:%Y-%m-%d %H:%M:%S} UTC ({age // timedelta(minutes=1)} min ago)"
    except (ValueError, KeyError, TypeError):
        who = "somebody unknown"
    return (
        f"{cluster}: lock: expected it free, got held by {who};"
        " a run or one of its commands is still at work: wait for it, or recover"
    )
