"""A lock is a file of the store's own, held against everybody; what takes its place stops a change."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import doctor
from runbook_lib.changes.apply import Change, Step
from runbook_lib.errors import StoreError
from runbook_lib.evidence.record import Record
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.process import Ended
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.tape import Asked, LiveTape

from ..conftest import CI, DRIFT, PROVISION, REACHABLE, text

SECRET = b"a key of the next operator's"
ALONE = "expected a file with one name, got a link or no regular file"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "store" / ".locks").mkdir(parents=True)
    return Store(tmp_path / "store")


def symbolic(path: Path, key: Path) -> None:
    path.symlink_to(key)


def hard(path: Path, key: Path) -> None:
    os.link(key, path)


def pipe(path: Path, key: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path, key: Path) -> None:
    path.symlink_to(key.with_name("made-by-us"))


Trap = Callable[[Path, Path], None]
traps = pytest.mark.parametrize("trap", [symbolic, hard, pipe, dangling])


@traps
def test_a_lock_that_is_somebodys_own_file_is_not_opened(store: Store, trap: Trap) -> None:
    """The cluster's and the release's: nothing is truncated, nothing waits on a pipe."""
    for name in ("main.lock", "release-v1.lock"):
        trap(store.root / ".locks" / name, store.root.parent / "key")
    with pytest.raises(StoreError) as cluster, store.cluster_lock("main", "ada"):
        pass
    with pytest.raises(StoreError) as release, store.release_lock("v1"):
        pass

    assert str(cluster.value) == f"{store.root}/.locks/main.lock: {ALONE}"
    assert str(release.value) == f"{store.root}/.locks/release-v1.lock: {ALONE}"
    assert (store.root.parent / "key").read_bytes() == SECRET
    assert not (store.root.parent / "made-by-us").exists()


@traps
def test_a_record_or_tape_that_is_somebodys_own_file_is_not_appended_to(
    store: Store, trap: Trap
) -> None:
    """Whatever is opened for writing in the store."""
    folder = store.create("v1", "development", {}).folder
    (folder / "record.jsonl").unlink()
    (folder / "tape").mkdir()
    for name in ("record.jsonl", "tape/index.jsonl"):
        trap(folder / name, store.root.parent / "key")
    with pytest.raises(StoreError, match=f"record.jsonl: {ALONE}$"):
        Record(folder / "record.jsonl")._locked().__enter__()
    with pytest.raises(StoreError, match=f"index.jsonl: {ALONE}$"):
        LiveTape(folder / "tape", Redactor()).record(("i", 1, "k", 1), Asked("read"), {}, b"")

    assert (store.root.parent / "key").read_bytes() == SECRET


def test_the_folder_of_the_locks_is_no_link(store: Store, tmp_path: Path) -> None:
    """Nor is that of a release, a stage or an attempt: what is written there lies elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (store.root / ".locks").rmdir()
    for name in (".locks", "v2"):
        (store.root / name).symlink_to(elsewhere)
    with pytest.raises(StoreError) as caught, store.cluster_lock("main", "ada"):
        pass
    with pytest.raises(StoreError) as release:
        store.attempts("v2", "canary")

    assert str(caught.value) == f"{store.root}/.locks: expected a folder, got a link or a file"
    assert str(release.value) == "v2/canary: expected folders, got links: v2"
    assert list(elsewhere.iterdir()) == []


@pytest.fixture
def ready(practice: Any) -> Any:
    """A stage before its first change, and its lock's path."""
    practice.stage = practice.open()
    for item in (DRIFT, CI, REACHABLE):
        practice.item(practice.stage, item)
    practice.lock = practice.root / "store" / ".locks" / "development.lock"
    return practice


def two_nodes(practice: Any, between: Callable[[], None]) -> tuple[Any, list[str]]:
    """A change of two nodes' steps, with something happening after the first; what was run."""
    ran: list[str] = []

    def apply(context: Any, applier: Any) -> Any:
        for node in ("dev-1", "dev-2"):

            def run(lock: int, outputs: Path, node: str = node) -> Ended:
                ran.append(node)
                between()
                return Ended(0, b"", b"")

            if applier.step(Step(node, "restart", run)):
                applier.rows.append(practice.row(Outcome.PASS))
        return context.conclude(applier.rows, passed="made", empty="no step")

    change = Change(PROVISION, lambda context: [practice.row(Outcome.INCONCLUSIVE)], apply)
    return practice.stage.change(change), ran


def removed(practice: Any) -> None:
    practice.lock.unlink()


def made_again(practice: Any) -> None:
    """The same name and content, another file."""
    content = practice.lock.read_bytes()
    practice.lock.unlink()
    practice.lock.write_bytes(content)


def fenced_off(practice: Any) -> None:
    """A second run of the attempt on a host where our lock does not hold."""
    body = {"cluster": "development", "owner": "bob on another host"}
    Record(practice.folder() / "record.jsonl").append("lock", body)


GONE = "lost: development.lock was removed or replaced"


@pytest.mark.parametrize(
    ("happens", "why"),
    [(removed, GONE), (made_again, GONE), (fenced_off, "taken by bob on another host")],
)
def test_a_lost_lock_stops_a_change_before_its_next_node(
    ready: Any, happens: Callable[[Any], None], why: str
) -> None:
    """The node that was begun is finished; the next is not touched."""
    card, ran = two_nodes(ready, lambda: happens(ready))

    assert ran == ["dev-1"]
    assert f"lock: expected free, got {why}" in text(card)
    assert ready.stage.verdict().items[3].outcome is Outcome.INCONCLUSIVE
    taken = [entry.seq for entry in ready.entries("lock")]
    assert {entry.body["fence"] for entry in ready.entries("step")} == {taken[0]}


def other(practice: Any, *kinds: str) -> str:
    """Another attempt of the cluster whose log holds that of its lock."""
    made = Store(practice.root / "store").create("v1.3.9", "development", {"mode": "apply"})
    for kind in kinds:
        made.record.append(kind, {"cluster": "development", "owner": "bob"})
    return made.name


@pytest.mark.parametrize("kinds", [("lock",), ("lock", "unlock", "lock"), ("lock", "step")])
def test_a_second_attempt_waits_for_one_that_is_unfinished(
    ready: Any, kinds: tuple[str, ...]
) -> None:
    """Killed, or at work where our locks do not hold: continue it or take it back."""
    name = other(ready, *kinds)
    card, ran = two_nodes(ready, lambda: None)

    assert ran == []
    assert (
        f"taken by {name}, which is open and unfinished; end it first: runbook run development"
        in (" ".join(text(card).split()))
    )
    assert "--continue or runbook recover development" in " ".join(text(card).split())


def test_an_attempt_that_gave_the_lock_back_is_no_hindrance(ready: Any) -> None:
    """Nor is its own lock, left by a run that was killed."""
    other(ready, "lock", "unlock")
    body = {"cluster": "development", "owner": "alice, killed"}
    Record(ready.folder() / "record.jsonl").append("lock", body)
    _, ran = two_nodes(ready, lambda: None)

    assert ran == ["dev-1", "dev-2"]
    assert [e.kind for e in ready.entries() if e.kind in ("lock", "unlock")] == [
        "lock",
        "lock",
        "unlock",
    ]


def test_a_lock_removed_while_it_is_held_lets_a_second_process_in_but_not_on(store: Store) -> None:
    """The second takes another file; the first knows that it lost its own."""
    take = "import sys; from pathlib import Path; from runbook_lib.evidence.store import Store\n"
    take += "with Store(Path(sys.argv[1])).cluster_lock('main', 'bob') as lock: print(lock.lost())"
    argv = [sys.executable, "-c", take, str(store.root)]
    with store.cluster_lock("main", "ada") as lock:
        assert lock.lost() == ""
        lock.path.unlink()
        second = subprocess.run(argv, capture_output=True, text=True, check=True)

        assert second.stdout == "\n"
        assert lock.lost() == "lost: main.lock was removed or replaced"


def test_doctor_tries_the_stores_locks_from_a_second_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held: PASS. Where our lock holds nobody back, two applies would run side by side: FAIL."""
    what = (doctor._locks(store).outcome, doctor._locks(store).observed)
    monkeypatch.setattr("runbook_lib.evidence.store.fcntl.flock", lambda *given: None)
    lax = doctor._locks(store)

    assert what == (Outcome.PASS, "held against a second process")
    assert (lax.outcome, lax.observed) == (
        Outcome.FAIL,
        "taken by both: two applies would run side by side; keep the store elsewhere",
    )
