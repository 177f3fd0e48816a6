"""The faults that are on.

``NAME@STAGE`` breaks the cluster of that stage; a fault of one node picks a default node, or the
one given as ``NAME@STAGE/NODE``. What is on is mirrored to files, which the commands look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..chain.world import STAGE_CLUSTERS, Event, World
from .table import FAULTS

_NODES = {"development": "dev-2", "testnet": "test-2", "canary": "main-1", "mainnet": "main-3"}


@dataclass(frozen=True)
class Active:
    """A fault that is on; ``node`` is the one it concerns."""

    name: str
    stage: str
    cluster: str
    node: str


class FaultBoard:
    """The faults that are on; faults of the chain and its telemetry become events."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._active: dict[str, Active] = {}
        self._save()

    def __iter__(self) -> Iterator[Active]:
        return iter(tuple(self._active.values()))

    def switch_on(self, text: str) -> Active:
        """Raises ValueError for an unknown fault, stage or node, and for one that is on."""
        active = parse(text, self._world)
        if active.name in self._active:
            raise ValueError(f"fault {text!r}: expected one that is off; clear it first")
        self._active[active.name] = active
        self._record("fault-on", active)
        return active

    def switch_off(self, name: str) -> Active | None:
        active = self._active.pop(name, None)
        if active is not None:
            self._record("fault-off", active)
        return active

    def is_on(self, name: str, cluster: str = "", node: str = "") -> bool:
        """Whether it is on, for this cluster and this node when they are given."""
        active = self._active.get(name)
        if active is None or (cluster and active.cluster != cluster):
            return False
        return not node or active.node == node

    def _record(self, kind: Literal["fault-on", "fault-off"], active: Active) -> None:
        if FAULTS[active.name].layer in ("chain", "telemetry"):
            now = self._world.clock.now()
            node = active.node if FAULTS[active.name].node else ""
            self._world.append(Event(now, active.cluster, node, kind, {"name": active.name}))
        self._save()

    def _save(self) -> None:
        """The faults as files ``NAME.NODE``: a shell script must be able to look."""
        folder = self._world.root / "faults"
        folder.mkdir(exist_ok=True)
        wanted = {f"{active.name}.{active.node}" for active in self._active.values()}
        there = {path.name for path in folder.iterdir()}
        for name in there - wanted:
            (folder / name).unlink()
        for name in wanted - there:
            (folder / name).touch()


def parse(text: str, world: World) -> Active:
    """``NAME@STAGE`` or ``NAME@STAGE/NODE``. Raises ValueError saying what would be known."""
    name, _, place = text.partition("@")
    stage, _, node = place.partition("/")
    if name not in FAULTS:
        raise ValueError(f"fault {text!r}: expected one of {', '.join(FAULTS)}, got {name!r}")
    if stage not in STAGE_CLUSTERS:
        raise ValueError(f"fault {text!r}: expected NAME@{'|'.join(STAGE_CLUSTERS)}, got {stage!r}")
    cluster = STAGE_CLUSTERS[stage]
    names = [spec.name for spec in world.clusters[cluster].nodes]
    theirs = names[-1] if FAULTS[name].layer == "operator" else _NODES[stage]
    usual = FAULTS[name].node or theirs
    node = node or (usual if usual in names else names[0])
    if node not in names:
        raise ValueError(f"fault {text!r}: expected one of {', '.join(names)}, got {node!r}")
    return Active(name, stage, cluster, node)
