"""Taking the cluster's lock over from a command that was left behind, for a recovery."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

from ..context import Context
from ..errors import LockHeld
from ..evidence.events import Status, TakenOver
from ..evidence.store import begun_in, holders, lock_file

POLL_S = 0.2
GRACE_S = 10.0
"""How long a lock may stay held once the commands that held it are ended."""


def wait_for_lock(context: Context, name: str, owner: str) -> None:
    """Until the lock is free, or cannot be had. Says once who holds it."""
    begun, ended, said = time.monotonic(), 0.0, ""
    patience = context.params.takeover_minutes * 60
    while True:
        try:
            with context.store.cluster_lock(name, owner):
                return
        except LockHeld as held:
            now = time.monotonic()
            holder = str(held).partition("held by ")[2].partition(" since ")[0]
            if holder != said:
                said = holder
                context.log.append(Status(text=f"waiting for the lock of {holder}"))
            if ended and now - ended > GRACE_S:
                raise
            if not ended and now - begun > patience:
                ended, undoes = now, context.opened.undoes
                undone = context.store.root / undoes.name if undoes else None
                lock = context.store.root / lock_file(name)
                pids = end_left_behind(lock, undone, context.folder.parent)
                waited = round(now - begun)
                context.log.append(TakenOver(holder=holder, ended=tuple(pids), waited_s=waited))
        time.sleep(POLL_S)


def end_left_behind(lock: Path, undone: Path | None, own: Path) -> list[int]:
    """End the commands that hold a lock: all of the undone apply, and those of this stage's
    recoveries whose run is gone; their ids. A live one goes on: it holds the lock, too.
    """
    found, ended = holders(lock), []
    for pid, words in found.items():
        with suppress(OSError, psutil.Error):
            orphaned = psutil.Process(pid).ppid() not in found
            if (undone and begun_in(undone, words)) or (orphaned and begun_in(own, words)):
                os.killpg(pid, signal.SIGKILL)
                ended.append(pid)
    return ended
