"""What the rehearsal stages for a rollback is kept young, but for what a fault broke."""

from __future__ import annotations

import json
from pathlib import Path

from ..conftest import Visitor


def bundle(visitor: Visitor, cluster: str) -> bytes:
    [folder] = visitor.site["clusters"][cluster]["rollback"]["snapshots"]
    [found] = Path(folder).iterdir()
    return (found / "bundle.json").read_bytes()


def test_a_backup_does_not_repair_what_a_fault_broke(visitor: Visitor) -> None:
    """Only clearing it does; the other clusters go on."""
    visitor.network.fault("snapshot-too-old@development")
    broken = bundle(visitor, "development")
    other = bundle(visitor, "testnet")
    visitor.network.fast_forward(3600)

    assert bundle(visitor, "development") == broken
    assert bundle(visitor, "testnet") != other
    visitor.network.clear("snapshot-too-old")
    healed = json.loads(bundle(visitor, "development"))
    assert abs(healed["created_at"] - visitor.network.world.clock.now()) < 60
