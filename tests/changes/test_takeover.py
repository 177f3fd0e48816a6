"""How long a recovery waits for the cluster's lock, and which commands it ends meanwhile."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook_lib import stage
from runbook_lib.changes import takeover
from runbook_lib.changes.apply import Change
from runbook_lib.context import Context
from runbook_lib.errors import LockHeld
from runbook_lib.evidence.events import LockReleased, LockTaken, Status, TakenOver
from runbook_lib.evidence.store import Store

SAID = Status(text="waiting for the lock of alice")


@pytest.fixture
def recovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One that waits a minute for the lock; ``slept`` is its clock, a second a look."""
    made = SimpleNamespace(slept=0, said=list[Any](), each=lambda: None, store=Store(tmp_path))

    def sleep(seconds: float) -> None:
        assert seconds < 1, "a lock that was freed is noticed at once"
        made.slept += 1
        made.each()

    def append(event: Any) -> Any:
        made.said.append(event)
        return SimpleNamespace(seq=len(made.said))

    time = SimpleNamespace(monotonic=lambda: float(made.slept), sleep=sleep)
    monkeypatch.setattr(takeover, "time", time)
    opened = SimpleNamespace(undoes=SimpleNamespace(name="v1/canary/0001"))
    made.context = SimpleNamespace(
        cluster_name="main",
        params=SimpleNamespace(takeover_minutes=1.0),
        scope=SimpleNamespace(live=True),
        store=made.store,
        folder=tmp_path / "v1" / "canary_recovery" / "0002",
        opened=opened,
        log=SimpleNamespace(append=append),
    )
    return made


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[[int, str, bool], int]]:
    """Starts a command that hangs with the lock, as a run of that attempt left it; its id."""
    begun = []

    def start(lock: int, attempt: str, lives: bool) -> int:
        stem, hangs = f"{tmp_path}/v1/{attempt}/steps/main-1", "echo $$; read line"
        argv = ["/bin/sh", "-c", hangs, stem]
        if lives:
            argv = ["/bin/sh", "-c", f"/bin/sh -c '{hangs}' \"$STEM\"; true"]
        given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": {"STEM": stem}}
        begun.append(subprocess.Popen(argv, start_new_session=True, pass_fds=(lock,), **given))
        return int(begun[-1].stdout.readline())

    yield start
    for one in begun:
        one.communicate()


def wait(recovery: Any) -> None:
    change = cast(Change, SimpleNamespace(exclusive=True))
    with stage.cluster_lock(cast(Context, recovery.context), "bob", change, waits=True):
        pass


def test_what_hangs_is_ended_after_the_patience_and_a_run_that_hangs_is_named(
    recovery: Any, command: Callable[[int, str, bool], int]
) -> None:
    """The undone apply's command, and a killed recovery's own; a live recovery's goes on."""
    with recovery.store.cluster_lock("main", "alice") as lock:
        ended = [
            command(lock.descriptor, "canary/0001", False),
            command(lock.descriptor, "canary_recovery/0001", False),
        ]
        command(lock.descriptor, "canary_recovery/0002", True)
        with pytest.raises(LockHeld, match="held by alice"):
            wait(recovery)

    assert recovery.said == [
        SAID,
        TakenOver(holder="alice", ended=tuple(ended), waited_s=61),
    ]
    assert recovery.slept == 61 + 11


def test_a_lock_that_is_freed_in_time_is_taken_and_nothing_ended(recovery: Any) -> None:
    held = recovery.store.cluster_lock("main", "alice")
    held.__enter__()
    recovery.each = lambda: held.__exit__(None, None, None) if recovery.slept == 3 else None

    wait(recovery)

    lock = [LockTaken(cluster="main", owner="bob"), LockReleased(cluster="main")]
    assert (recovery.slept, recovery.said) == (3, [SAID, *lock])
