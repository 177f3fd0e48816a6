"""Faults that change something when they are switched on, and how each is undone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .faults import Active
from .files import write_atomically
from .layout import git

if TYPE_CHECKING:
    from .network import RehearsalNetwork

Undo = Callable[[], None]
Effect = Callable[["RehearsalNetwork", Active], Undo]


def _edit(pattern: str, replacement: str, *, restart: bool) -> Effect:
    """Rewrite one place of the node's TOML; with ``restart`` the node runs on it."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        path = network.world.node_dir(active.cluster, active.node) / "config.toml"
        before = path.read_text()
        after = re.sub(pattern, replacement, before, count=1, flags=re.MULTILINE)

        def put(text: str) -> None:
            write_atomically(path, text)
            if restart:
                network.fleet.restart(active.node)

        def undo() -> None:
            if path.read_text() == after:  # a file deployed meanwhile stays
                put(before)

        put(after)
        return undo

    return effect


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

    def back() -> None:
        git(checkout, "checkout", "-q", "main")

    return back


def _forge_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.close_forge()
    return network.open_forge


def _prometheus_down(network: RehearsalNetwork, active: Active) -> Undo:
    servers = network.telemetry
    if servers is None:
        return lambda: None
    servers.down("prometheus")
    return lambda: servers.up("prometheus")


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
    "prometheus-down": _prometheus_down,
}
