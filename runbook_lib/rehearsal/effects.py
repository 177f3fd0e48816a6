"""Faults that change something when they are switched on, and how each is undone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .faults import Active
from .layout import git
from .world import write_atomically

if TYPE_CHECKING:
    from .network import RehearsalNetwork

Undo = Callable[[], None]
Effect = Callable[["RehearsalNetwork", Active], Undo]


def _edit(pattern: str, replacement: str, *, restart: bool) -> Effect:
    """Rewrite one place of the node's TOML; with ``restart`` the node runs on it."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        path = network.world.node_dir(active.cluster, active.node) / "config.toml"
        before = path.read_text()
        after, count = re.subn(pattern, replacement, before, count=1, flags=re.MULTILINE)
        if not count:
            raise ValueError(f"fault {active.name}: {active.node}: nothing to change in its file")
        return _replace(network, active, path, before, after, restart)

    return effect


def _replace(
    network: RehearsalNetwork, active: Active, path: Path, before: str, after: str, restart: bool
) -> Undo:
    def put(text: str) -> None:
        write_atomically(path, text)
        if restart:
            network.fleet.restart(active.node)

    put(after)
    # A run may have deployed another file meanwhile: that one stays.
    return lambda: put(before) if path.read_text() == after else None


def _node_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.fleet.stop(active.node)
    return lambda: network.bring_up(active.node)


def _stays_down(network: RehearsalNetwork, active: Active) -> Undo:
    return lambda: network.bring_up(active.node)


def _dirty_tree(network: RehearsalNetwork, active: Active) -> Undo:
    path = network.root / "checkout" / "local-change.patch"
    path.write_text("not committed\n")
    return path.unlink


def _other_commit(network: RehearsalNetwork, active: Active) -> Undo:
    checkout = network.root / "checkout"
    git(checkout, "checkout", "-q", "--detach", "HEAD~1")
    return lambda: (git(checkout, "checkout", "-q", "main"), None)[1]


def _forge_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.close_forge()
    return network.open_forge


EFFECTS: dict[str, Effect] = {
    "gate-flipped": _edit(r"^timetoke_rewards = \w+", "timetoke_rewards = true", restart=True),
    "channel-wrong": _edit(
        r'^release_channel = "\w+"', 'release_channel = "testnet"', restart=True
    ),
    "config-edited": _edit(r"^mempool_limit = \d+", "mempool_limit = 4096", restart=False),
    "extra-config-key": _edit(r"^(gossip_enabled = .*)$", r"\1\ngossip_fanout = 8", restart=False),
    "node-down": _node_down,
    "node-stays-down": _stays_down,
    "suite-dirty-tree": _dirty_tree,
    "suite-other-commit": _other_commit,
    "forge-down": _forge_down,
}
