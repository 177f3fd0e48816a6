"""Which apply a recovery undoes when nobody says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runbook_lib.evidence.order import undone_by, what_to_undo
from runbook_lib.evidence.store import Store

RELEASE, STAGE = "v1.4.0", "canary"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def apply(store: Store, hour: int, *, begun: bool) -> None:
    opened = {"stage": STAGE, "mode": "apply", "source": "live", "operator": "ops"}
    opened["now"] = f"2026-01-31T{hour:02d}:00:00+00:00"
    record = store.create(RELEASE, STAGE, opened).record
    record.append("plan", {"digest": "sha256:" + "a" * 64, "approved_by": ["lead"]})
    if begun:
        record.append("step", {"node": "main-1", "step": "deliver", "phase": "intent"})


def recover(store: Store, hour: int, attempt: int) -> None:
    now = f"2026-01-31T{hour:02d}:00:00+00:00"
    opened: dict[str, Any] = {"stage": f"{STAGE}_recovery", "mode": "apply", "operator": "ops"}
    opened |= {"now": now, "params": {}, "undoes": {"attempt": attempt}}
    store.create(RELEASE, f"{STAGE}_recovery", opened)


def undoes(store: Store) -> int:
    found, why = what_to_undo(store, RELEASE, STAGE, "live")
    assert found is not None and why == ""
    return int(found["attempt"])


def test_it_is_the_newest_that_changed_anything(store: Store) -> None:
    """One that only has a plan has nothing to take back, unless there is no other."""
    apply(store, 1, begun=False)
    assert undoes(store) == 1
    apply(store, 2, begun=True)
    apply(store, 3, begun=False)
    assert undoes(store) == 2
    recover(store, 4, attempt=2)
    assert undoes(store) == 2  # that recovery goes on


def test_a_new_apply_is_the_one_to_stop_once_the_older_one_is_undone(store: Store) -> None:
    """It is about to begin: a recovery that undid the older one again would not stop it."""
    apply(store, 1, begun=True)
    recover(store, 2, attempt=1)
    apply(store, 3, begun=False)

    assert undoes(store) == 2
    recover(store, 4, attempt=2)
    assert undone_by(store, RELEASE, STAGE, 2) == f"{RELEASE}/{STAGE}_recovery/0002 by ops"
    assert undoes(store) == 2
