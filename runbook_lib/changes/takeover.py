"""Taking the cluster over from whoever changes it: wait for its lock, end a command that hangs.

The lock is free only when the run that holds it and that run's commands are gone. A run that is
undone stops before its next step; its command that does not end is ended once the patience for it
is used up. So is a recovery's own, of a run that is gone. A run that hangs itself is not ours to
end: it is named.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..context import Context
from ..errors import LockHeld
from ..sources.process import end_left_behind
from .apply import Change

POLL_S = 0.2
GRACE_S = 10.0
"""How long a lock may stay held once the commands that held it are ended."""


@contextmanager
def cluster_lock(context: Context, owner: str, change: Change, *, waits: bool) -> Iterator[int]:
    """The descriptor of the cluster's lock; of another one for a change that alters no node.

    A recovery ``waits`` for it. Raises LockHeld, naming the owner.
    """
    name = context.cluster_name if change.exclusive else f"{context.cluster_name}.words"
    if waits and context.scope.live and change.exclusive:
        _wait(context, name, owner)
    with context.store.cluster_lock(name, owner) as descriptor:
        yield descriptor


def _wait(context: Context, name: str, owner: str) -> None:
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
                context.record.append("status", {"text": f"waiting for the lock of {holder}"})
            if ended and now - ended > GRACE_S:
                raise
            if not ended and now - begun > patience:
                ended = now
                pids = [*end_left_behind(_of_undone(context)), *_end_own(context)]
                body = {"holder": holder, "ended": pids, "waited_s": round(now - begun)}
                context.record.append("takeover", body)
        time.sleep(POLL_S)


def _of_undone(context: Context) -> list[str]:
    """Path stems of the commands that the undone apply began."""
    undoes = context.journal[0].body.get("undoes") if context.journal else None
    return _stems(context.store.root / undoes["name"]) if undoes else []


def _end_own(context: Context) -> list[int]:
    """End what killed runs of this stage's recoveries left at work: a live run goes on with its own."""
    attempts = sorted(context.folder.parent.glob("[0-9]*"))
    return end_left_behind([stem for one in attempts for stem in _stems(one)], orphans=True)


def _stems(attempt: Path) -> list[str]:
    return sorted({str(path.with_suffix("")) for path in (attempt / "steps").glob("*.pid")})
