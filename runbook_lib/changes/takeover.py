"""Taking the cluster's lock over from a command that was left behind, for a recovery."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from ..context import Context
from ..errors import LockHeld, LogDamaged
from ..evidence.events import Status, TakenOver
from ..sources.local import recorded

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
                ended, pids, undoes = now, list[int](), context.opened.undoes
                if undoes:
                    pids += end_left_behind(_stems(context.store.root / undoes.name))
                # A live run of this stage's recoveries goes on with its own commands.
                own = [
                    stem
                    for each in sorted(context.folder.parent.iterdir())
                    for stem in _stems(each)
                ]
                pids += end_left_behind(own, orphans=True)
                waited = round(now - begun)
                context.log.append(TakenOver(holder=holder, ended=tuple(pids), waited_s=waited))
        time.sleep(POLL_S)


def _stems(attempt: Path) -> list[str]:
    return sorted({str(path.with_suffix("")) for path in (attempt / "steps").glob("*.pid")})


def end_left_behind(stems: Sequence[str], *, orphans: bool = False) -> list[int]:
    """End the changing commands with these path stems that are still at work here; their ids.

    A process counts only when its command line names the stem: an id may be another's by now.
    With ``orphans`` only those whose run is gone.
    """
    ended = []
    for stem in stems:
        with suppress(OSError, ValueError, LogDamaged, psutil.Error):
            pid, *run = map(int, recorded(Path(f"{stem}.pid"), 100).split())
            process = psutil.Process(pid)
            if orphans and (not run or process.ppid() == run[0]):
                continue
            if stem in process.cmdline():
                os.killpg(pid, signal.SIGKILL)
                ended.append(pid)
    return ended
