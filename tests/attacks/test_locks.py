"""A lock is a file of the store's own; what takes its place, or another's fence, stops a change."""

import os
import re
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.changes.apply import Change, Step
from runbook_lib.commands import doctor
from runbook_lib.errors import LockHeld, StoreError
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.process import Ended
from runbook_lib.sources.tape import LiveTape

from ..conftest import PROVISION, recorded, text
from ..events import event
from ..messages import saying

TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, key: path.symlink_to(key),
    "second name": lambda path, key: os.link(key, path),
    "pipe": lambda path, key: os.mkfifo(path),
    "link to nothing": lambda path, key: path.symlink_to(key.with_name("made by us")),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_what_is_written_to_in_the_store_is_nobodys_own_file(
    tmp_path: Path, trap: Callable[[Path, Path], None]
) -> None:
    """Locks, logs and tapes: nothing is truncated or appended to, nothing waits on a pipe."""
    store, key = Store(tmp_path / "store"), tmp_path / "key"
    key.write_bytes(b"a key")
    folder = store.create(event("opened")).folder
    (folder / "log.jsonl").unlink()
    tape = LiveTape(folder / "tape")
    locks, log, asked = store.root / ".locks", folder / "log.jsonl", ("i", 1, "k", 1)
    writes: dict[Path, Callable[[], object]] = {
        locks / "main.lock": lambda: store.cluster_lock("main", "ada").__enter__(),
        locks / "release-v2.lock": lambda: store.release_lock("v2").__enter__(),
        log: lambda: Log(log).append(event("note", text="x")),
        folder / "tape" / "index.jsonl": lambda: recorded(tape, asked),
    }
    for path, write in writes.items():
        trap(path, key)
        with saying(
            StoreError, f"{path}: expected a file with one name, got a link or no regular file"
        ):
            write()
    assert key.read_bytes() == b"a key"
    assert not (tmp_path / "made by us").exists()


def test_no_folder_of_the_store_is_a_link(tmp_path: Path) -> None:
    """That of the locks, of a release, of an attempt: what is written there lies elsewhere."""
    store, elsewhere = Store(tmp_path / "store"), tmp_path / "elsewhere"
    folder = store.create(event("opened", stage="canary")).folder
    (store.root / ".locks").rename(elsewhere)
    (store.root / ".locks").symlink_to(elsewhere)
    (folder.parent / "0002").symlink_to(folder)
    with pytest.raises(StoreError) as locks, store.cluster_lock("main", "ada"):
        pass
    with pytest.raises(StoreError) as attempts:
        store.attempts("v1")

    assert str(locks.value) == f"{store.root}/.locks: expected a folder, got a link or a file"
    assert str(attempts.value) == "v1/canary: expected folders, got links: 0002"


@pytest.fixture
def ready(practice: Any) -> Any:
    """A stage before its first change."""
    practice.stage = practice.until(PROVISION)
    return practice


def two_nodes(practice: Any, happens: Callable[[Any], object] = id) -> tuple[str, list[str]]:
    """A change of two nodes, with something happening meanwhile: its card, and what was run."""
    ran: list[str] = []

    def apply(context: Any, applier: Any) -> Any:
        def run(lock: int, outputs: Path) -> Ended:
            ran.append(outputs.name)
            happens(practice)
            return Ended(0, b"", b"")

        done = [applier.step(Step(node, "restart", run)) for node in ("dev-1", "dev-2")]
        rows = [practice.row(Outcome.PASS)] if all(done) else applier.rows
        return context.conclude(rows, passed="made", empty="no step")

    change = Change(PROVISION, lambda context: [practice.row(Outcome.INCONCLUSIVE)], apply)
    return " ".join(text(practice.stage.change(change)).split()), ran


def removed(practice: Any) -> bytes:
    lock = practice.root / "store" / ".locks" / "development.lock"
    content = lock.read_bytes()
    lock.unlink()
    return bytes(content)


def replaced(practice: Any) -> None:
    content = removed(practice)
    (practice.root / "store" / ".locks" / "development.lock").write_bytes(content)


def taken_elsewhere(practice: Any) -> None:
    """A second run of the attempt, on a host where our lock does not hold."""
    body = {"cluster": "development", "owner": "bob, elsewhere"}
    Log(practice.folder() / "log.jsonl").append(event("lock", **body))


GONE = "lost: development.lock was removed or replaced"


@pytest.mark.parametrize(
    ("happens", "why"),
    [(removed, GONE), (replaced, GONE), (taken_elsewhere, "taken by bob, elsewhere")],
)
def test_a_lost_lock_stops_a_change_before_its_next_node(
    ready: Any, happens: Callable[[Any], object], why: str
) -> None:
    """The node that was begun is finished; each step names the fence that it was made under."""
    card, ran = two_nodes(ready, happens)

    assert ran == ["dev-1-restart-1"]
    assert f"development: lock: expected free, got {why}" in card
    assert ready.stage.verdict().items[3].outcome is Outcome.INCONCLUSIVE
    fences = {entry.fence for entry in ready.events("step")}
    assert fences == {ready.events("lock")[0].seq}


@pytest.mark.parametrize(("at_work", "free"), [(False, True), (True, False)])
def test_a_process_that_a_command_left_behind_is_named_and_keeps_no_lock(
    ready: Any, at_work: bool, free: bool
) -> None:
    """As a start script leaves a daemon; a command that is still at work keeps it."""
    steps = ready.folder() / "steps"
    with ready.stage._session.store.cluster_lock("development", "ada") as lock:
        hangs = ["sh", "-c", "read line", str(steps / "dev-1-restart-1") if at_work else "daemon"]
        left = subprocess.Popen(hangs, stdin=subprocess.PIPE, pass_fds=(lock.descriptor,))
        named = f"process {left.pid} ({' '.join(hangs)})"
        assert lock.give_back(steps) == named
    with (
        nullcontext() if free else pytest.raises(LockHeld, match=re.escape(named)),
        ready.stage._session.store.cluster_lock("development", "bob"),
    ):
        pass
    left.communicate()


@pytest.mark.parametrize(
    ("log", "runs"), [(["lock"], 0), (["lock", "unlock", "lock"], 0), (["lock", "unlock"], 2)]
)
def test_a_second_attempt_refuses_while_another_is_unfinished(
    ready: Any, log: list[str], runs: int
) -> None:
    """Killed, or at work where our lock does not hold: by its log, whatever the lock's file says."""
    other = Store(ready.root / "store").create(event("opened", release="v1.3.9"))
    for kind in log:
        owner = {"owner": "bob"} if kind == "lock" else {}
        other.log.append(event(kind, cluster="development", **owner))
    card, ran = two_nodes(ready)

    assert len(ran) == runs
    refused = f"got taken by {other.name}, which is open and unfinished; end it first:"
    assert (refused in card) == (runs == 0)


def test_a_log_that_cannot_be_read_is_no_proof_of_a_free_lock(ready: Any) -> None:
    """Whoever damages the log of the attempt at work must not open the way for another."""
    other = Store(ready.root / "store").create(event("opened", release="v1.3.9"))
    other.log.append(event("lock", cluster="development", owner="bob"))
    other.log.path.write_bytes(other.log.path.read_bytes() + b"{}\n")
    card, ran = two_nodes(ready)

    assert ran == []
    assert f"lock: expected free, got nobody knows whether it is: {other.name}: " in card


def test_doctor_tries_the_stores_locks_from_a_second_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held: PASS. Where our lock holds nobody back, two applies would run side by side: FAIL."""
    held = doctor._locks(Store(tmp_path))
    monkeypatch.setattr("runbook_lib.evidence.store.fcntl.flock", lambda *given: None)
    lax = doctor._locks(Store(tmp_path))

    said = "taken by both: two applies would run side by side"
    assert (held.outcome, held.observed) == (Outcome.PASS, "held against a second process")
    assert (lax.outcome, lax.observed) == (Outcome.FAIL, said)
