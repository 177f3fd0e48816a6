"""The network as it was at one instant, put back as often as wanted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .chain.node_config import read_config
from .files import write_atomically

if TYPE_CHECKING:
    from .network import RehearsalNetwork

KEPT = ("prometheus", "alertmanager", "checkout", "network.json", "calls", "keys", "clock.json")
"""What of the network's folder no run changes, or its servers hold open."""


def mirror(source: Path, target: Path, skip: tuple[str, ...] = ()) -> None:
    """Make ``target`` what ``source`` is, but for what is skipped of both; writes what differs."""
    target.mkdir(exist_ok=True)
    wanted = {entry.name: _about(entry) for entry in os.scandir(source) if entry.name not in skip}
    for entry in os.scandir(target):
        if entry.name not in skip and _about(entry) != wanted.get(entry.name):
            (shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink)(entry)
    for name, about in wanted.items():
        if not about:
            mirror(source / name, target / name)
        elif not os.path.lexists(target / name):
            shutil.copy2(source / name, target / name, follow_symlinks=False)
    shutil.copystat(source, target)


def _about(entry: os.DirEntry[str]) -> tuple[int, ...]:
    found, folder = entry.stat(follow_symlinks=False), entry.is_dir(follow_symlinks=False)
    return () if folder else (found.st_mode, found.st_size, found.st_mtime_ns)


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
        network, world = self._network, self._network.world
        network.heal()
        network.operators.forget()
        others = [*self._others()]
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
        world.events[:] = self._events
        # Samples lie on a grid of wall time: whole minutes keep them where they were.
        late = world.clock.now() - world.clock.offset + self._offset - self._now
        offset = {"offset_s": self._offset - late // 60.0 * 60.0}
        write_atomically(world.clock.path, json.dumps(offset))
        if network.telemetry is not None:
            network.telemetry.back_to(self)
        network.settle()

    def _others(self) -> Iterator[str]:
        for spec in self._network.world.nodes():
            folder = self._folder / "clusters" / spec.cluster / spec.name
            running = self._network.fleet.running.get(spec.name)
            build = json.loads((folder / "running.json").read_text())["digest"]
            config = read_config(folder / "config.toml")
            if running is None or (running.build.digest, running.config) != (build, config):
                yield spec.name
