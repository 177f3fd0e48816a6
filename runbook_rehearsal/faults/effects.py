"""Faults that change something when they are switched on, and how each is undone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..chain.templates import NO_EXPORT
from ..chain.world import Event, EventKind
from ..files import unpack
from ..layout import git, spoil_checkout, write_data
from ..loopback import Listener
from ..people import OPERATOR_FAULTS, Verb, forged_file
from .asset_effects import ASSET_EFFECTS, Effect, Reload, Undo, in_yaml, rewriting
from .bad_releases import BREAKS, bad_release
from .table import Active
from .telemetry_effects import TELEMETRY_EFFECTS

if TYPE_CHECKING:
    from ..network import RehearsalNetwork


def _restart(network: RehearsalNetwork, active: Active) -> object:
    return network.fleet.restart(active.node)


def _edit(pattern: str, replacement: str, *reload: Reload) -> Effect:
    """Rewrite one place of the node's TOML."""
    edit = partial(re.compile(pattern, re.MULTILINE).sub, replacement, count=1)
    return rewriting("clusters/*/NODE/config.toml", edit, *reload)


def _since_testnet(old: str, new: str) -> Effect:
    def change(text: str) -> str:
        head, name, tail = text.partition('name = "testnet"')
        return head + name + tail.replace(old, new)

    return rewriting("bundle/mainnet.toml", change)


def _stays_down(network: RehearsalNetwork, active: Active) -> Undo:
    return partial(network.bring_up, active.node)


def _node_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.fleet.stop(active.node)
    return _stays_down(network, active)


def _wal_corrupt(network: RehearsalNetwork, active: Active) -> Undo:
    """Its log breaks off: the node went down, and cannot start again."""
    network.fleet.stop(active.node)
    folder = network.world.node_dir(active.cluster, active.node)
    wal = folder / "data" / "firewood.wal"
    wal.write_bytes(wal.read_bytes()[:-7])

    def undo() -> None:
        if active.node not in network.fleet.running:
            write_data(network.world, active.cluster, folder)
            network.bring_up(active.node)

    return undo


def _aside(place: Callable[[RehearsalNetwork], Path]) -> Effect:
    """A folder is gone; nothing is lost for ever: it comes back as it was."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        folder = place(network)
        aside = network.root / f"{folder.name}.gone"
        folder.rename(aside)

        def back() -> None:
            if not folder.exists():
                aside.rename(folder)

        return back

    return effect


def _checkout(network: RehearsalNetwork, active: Active) -> Undo:
    """At once, or by the suite that is run."""
    checkout = network.root / "checkout"
    if active.name.startswith("tree-"):
        spoil_checkout(network.root, active.name)
    return lambda: (git(checkout, "checkout", "-q", "main"), git(checkout, "clean", "-q", "-f"))


def _forged(verb: Verb) -> Effect:
    """The file is put there when operators speak; nobody else may trip over it later."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        return lambda: forged_file(network, verb, active.node).unlink(missing_ok=True)

    return effect


def _closed(listener: Callable[[RehearsalNetwork], Listener]) -> Effect:
    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        listener(network).stop()
        return listener(network).start

    return effect


def _limited_once(network: RehearsalNetwork, active: Active) -> Undo:
    network.forge.limited_once = True
    return partial(setattr, network.forge, "limited_once", False)


def _other_digest(running: str) -> str:
    return json.dumps({**json.loads(running), "digest": "sha256:" + "0" * 64}) + "\n"


def _previous_build(network: RehearsalNetwork, active: Active) -> Undo:
    binary = unpack(network.release.previous_artifact).decode()
    return rewriting("clusters/*/NODE/bin/rpp-node", lambda text: binary, _restart)(network, active)


# --- what has happened already when it is switched on: the history is laid again with it -----------


def _past(events: Callable[[RehearsalNetwork, str], list[Event]]) -> Effect:
    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        found = events(network, active.cluster)

        def undo() -> None:
            for event in found:
                network.world.events.remove(event)

        network.world.events.extend(found)
        network.relay()
        return undo

    return effect


def _once(name: str, begun_s: float, over_s: float) -> Effect:
    """Another fault was on for a while: from so many seconds ago until so many seconds ago."""

    def events(network: RehearsalNetwork, cluster: str) -> list[Event]:
        now, data = network.world.clock.now(), {"name": name}
        begun = Event(now - begun_s, cluster, "", "fault-on", data)
        return [begun, Event(now - over_s, cluster, "", "fault-off", data)]

    return _past(events)


def _since_restart(name: str) -> Effect:
    """The fault has been on since the cluster's last restart, as if that had brought it."""

    def events(network: RehearsalNetwork, cluster: str) -> list[Event]:
        last = max(e.at for e in network.world.events_of(cluster) if e.kind == "up")
        return [Event(last, cluster, "", "fault-on", {"name": name})]

    return _past(events)


def _restarted(nodes: int) -> Effect:
    """The last nodes of the cluster were down for four minutes, half an hour ago."""

    def events(network: RehearsalNetwork, cluster: str) -> list[Event]:
        now, nodes_ = network.world.clock.now(), network.world.clusters[cluster].nodes[-nodes:]
        kinds: tuple[tuple[EventKind, float], ...] = (("down", 1800.0), ("up", 1560.0))
        return [
            Event(now - ago, cluster, spec.name, kind) for spec in nodes_ for kind, ago in kinds
        ]

    return _past(events)


# It is how Prometheus is configured: a real one starts anew with it, and without.
_laid_anew = _past(lambda network, cluster: [])


EFFECTS: dict[str, Effect] = {
    **dict.fromkeys(OPERATOR_FAULTS, lambda network, active: network.operators.again),
    **ASSET_EFFECTS,
    **TELEMETRY_EFFECTS,
    "page-during-soak": _once("consensus-slow", 3600.0, 1800.0),
    "telemetry-gap-during-soak": _once("metrics-gap", 3600.0, 1800.0),
    "restart-during-soak": _restarted(1),
    **{name: _since_restart(name) for name in ("gossip-silent", "gossip-drops", "gossip-slow")},
    "halted-once": _once("consensus-stall", 5400.0, 4200.0),
    "mass-restart": _restarted(2),
    "gap-during-epochs": _once("metrics-gap", 3600.0, 1800.0),
    "alertmanager-not-in-prometheus": _laid_anew,
    "rule-never-evaluated": _laid_anew,
    **dict.fromkeys(BREAKS, bad_release),
    "log-down": _closed(lambda network: network.signed.listener),
    "previous-artifact-missing": _aside(lambda network: network.release.previous_artifact.parent),
    "node-cut-off": _node_down,
    **dict.fromkeys(
        ("tree-dirty", "tree-other-commit", "suite-dirty-tree", "suite-other-commit"), _checkout
    ),
    "gate-flipped": _edit(r"^timetoke_rewards = \w+", "timetoke_rewards = true", _restart),
    "channel-wrong": _edit(r'^release_channel = "\w+"', 'release_channel = "testnet"', _restart),
    "config-edited": _edit(r"^mempool_limit = \d+", "mempool_limit = 4096"),
    "extra-config-key": _edit(r"^(gossip_enabled = .*)$", r"\1\ngossip_fanout = 8"),
    "candidate-missing": _previous_build,
    "store-gone": _aside(lambda network: network.world.root / "store"),
    "kit-target-tampered": rewriting("kits/*/targets*/NODE.toml", lambda text: text + "# edited\n"),
    "candidate-dry-run-fails": _edit(r"^mempool_limit = \d+", "mempool_limit = 0"),
    "misplaced-scalar": _edit(r"^(mempool_limit = .*\n)((?:.*\n)*?\[rollout\]\n)", r"\2\1"),
    "bundle-not-monotonic": _since_testnet("reconstruction = true", "reconstruction = false"),
    "bundle-rewards-early": _since_testnet("timetoke_rewards = false", "timetoke_rewards = true"),
    "worm-contradiction": rewriting("bundle/mainnet.toml", lambda text: text + "\n" + NO_EXPORT),
    "no-dry-run": rewriting("site.yaml", in_yaml(lambda site: site["commands"].pop("dry_run"))),
    "binary-changed": rewriting("clusters/*/NODE/running.json", _other_digest),
    "gate-reversed": _edit(r"^malachite_consensus = \w+", "malachite_consensus = false", _restart),
    "node-down": _node_down,
    "wal-corrupt": _wal_corrupt,
    "node-will-not-start": _stays_down,
    "node-half-stopped": _stays_down,
    "node-stays-down": _stays_down,
    "ack-forged": _forged("acknowledge"),
    "signoff-forged": _forged("sign-off"),
    "rules-nowhere": rewriting(
        "site.yaml", in_yaml(lambda site: site["telemetry"].update(rules=["no/such/folder"]))
    ),
    "forge-limited-once": _limited_once,
    "forge-down": _closed(lambda network: network.listeners["forge"]),
    "grafana-down": _closed(lambda network: network.listeners["grafana"]),
}
