"""The network as it was at one instant, put back as often as wanted."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .chain.node_config import read_config
from .files import write_atomically

if TYPE_CHECKING:
    from .network import RehearsalNetwork

KEPT = (
    "prometheus", "alertmanager", "checkout", "network.json", "control", "keys",
    "clock.json",
)  # fmt: skip
"""What of the network's folder no run changes, or its servers hold open."""
SAME_S = 900.0
"""Of a clock that has moved by less nobody takes notice: the history is not laid again."""


def mirror(source: Path, target: Path, skip: tuple[str, ...] = ()) -> None:
    """Make ``target`` what ``source`` is; files of the same size and time are taken as equal."""
    target.mkdir(exist_ok=True)
    names = {entry.name: entry for entry in os.scandir(source) if entry.name not in skip}
    for entry in os.scandir(target):
        if entry.name not in names and entry.name not in skip:
            path = Path(entry.path)
            shutil.rmtree(path) if entry.is_dir(follow_symlinks=False) else path.unlink()
    for name, entry in names.items():
        there = target / name
        if entry.is_symlink():
            there.unlink(missing_ok=True)
            there.symlink_to(Path(entry.path).readlink())
        elif entry.is_dir():
            mirror(Path(entry.path), there)
        elif not there.exists() or not filecmp.cmp(entry.path, there):
            shutil.copy2(entry.path, there)
    shutil.copystat(source, target)


class Saved:
    """``restore`` puts back files, nodes, forge, people, faults and the clock."""

    def __init__(self, network: RehearsalNetwork, folder: Path) -> None:
        mirror(network.root, folder, KEPT)
        self._network, self._folder = network, folder
        self._now, self._offset = network.world.clock.now(), network.world.clock.offset
        self._events = tuple(network.world.events)
        self._forge, self._done = network.forge.save(), set(network.operators.done)
        self._restored = dict(network.fleet.restored)
        self._backed_up = dict(network.assets.backed_up)

    def restore(self) -> None:
        """The clock and the history are put back only when they were moved."""
        network, world = self._network, self._network.world
        for name in [active.name for active in network.faults]:
            network.clear(name)
        network.operators.forget()
        moved = abs(world.clock.now() - self._now) > SAME_S
        then, new = world.events[: len(self._events)], world.events[len(self._events) :]
        changed = then != [*self._events] or any(e.kind[:6] != "fault-" for e in new)
        others = self._others()
        for name in others:
            network.fleet.stop(name)
        mirror(self._folder, network.root, KEPT)
        for name in others:
            network.fleet.restart(name)
        network.fleet.stuck.clear()
        network.fleet.restored = dict(self._restored)
        network.assets.backed_up = dict(self._backed_up)
        self._forge()
        network.operators.done = set(self._done)
        network.rpc.refill()
        if network.telemetry is not None:
            network.telemetry.forget_silences()
        if moved or changed:
            world.events[:] = self._events
            # Samples lie on a grid of wall time: whole minutes keep them where they were.
            late = world.clock.now() - world.clock.offset + self._offset - self._now
            offset = {"offset_s": self._offset - late // 60.0 * 60.0}
            write_atomically(world.clock.path, json.dumps(offset))
            network.relay()
            network.settle()

    def _others(self) -> list[str]:
        found = []
        for spec in self._network.world.nodes():
            folder = self._folder / "clusters" / spec.cluster / spec.name
            running = self._network.fleet.running.get(spec.name)
            build = json.loads((folder / "running.json").read_text())["digest"]
            config = read_config(folder / "config.toml")
            if running is None or (running.build.digest, running.config) != (build, config):
                found.append(spec.name)
        return found
