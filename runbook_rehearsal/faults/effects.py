"""Faults that change something when they are switched on, and how each is undone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import yaml

from ..chain.templates import NO_EXPORT
from ..files import unpack, write_atomically
from ..layout import git, write_data
from ..people.operators import OPERATOR_FAULTS
from ..people.words import Verb, forged_file
from .asset_effects import ASSET_EFFECTS, Effect, Undo
from .board import Active
from .past_effects import PAST_EFFECTS
from .telemetry_effects import TELEMETRY_EFFECTS

if TYPE_CHECKING:
    from ..network import RehearsalNetwork


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


def _write(name: str, change: Callable[[str], str]) -> Effect:
    """Rewrite a file below the network's root."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        path = network.root / name
        before = path.read_text()
        write_atomically(path, change(before))
        return lambda: write_atomically(path, before)

    return effect


def _without_dry_run(text: str) -> str:
    site = yaml.safe_load(text)
    del site["commands"]["dry_run"]
    return yaml.safe_dump(site, sort_keys=False)


def _turned_off(text: str) -> str:
    """From the testnet stage on a base gate is off again."""
    head, name, tail = text.partition('name = "testnet"')
    return head + name + tail.replace("reconstruction = true", "reconstruction = false")


def _rewards_early(text: str) -> str:
    """The testnet stage turns on what is the canaries' alone."""
    head, name, tail = text.partition('name = "testnet"')
    return head + name + tail.replace("timetoke_rewards = false", "timetoke_rewards = true", 1)


def _node_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.fleet.stop(active.node)
    return lambda: network.bring_up(active.node)


def _stays_down(network: RehearsalNetwork, active: Active) -> Undo:
    return lambda: network.bring_up(active.node)


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


def _store_gone(network: RehearsalNetwork, active: Active) -> Undo:
    """Nothing is lost for ever: it comes back as it was."""
    store, aside = network.root / "store", network.root / "store.gone"
    store.rename(aside)

    def back() -> None:
        if not store.exists():
            aside.rename(store)

    return back


def _kit_tampered(network: RehearsalNetwork, active: Active) -> Undo:
    """The node's file in every kit says something else."""
    found = {
        path: path.read_bytes() for path in network.root.glob(f"kits/*/targets*/{active.node}.toml")
    }
    for path, data in found.items():
        path.write_bytes(data + b"# edited\n")

    def undo() -> None:
        for path, data in found.items():
            path.write_bytes(data)

    return undo


def _dirty_tree(network: RehearsalNetwork, active: Active) -> Undo:
    """At once, or by the suite itself when it runs."""
    path = network.root / "checkout" / "local-change.patch"
    if active.name == "tree-dirty":
        path.write_text("not committed\n")
    return lambda: path.unlink(missing_ok=True)


def _other_commit(network: RehearsalNetwork, active: Active) -> Undo:
    checkout = network.root / "checkout"
    if active.name == "tree-other-commit":
        git(checkout, "checkout", "-q", "--detach", "main~1")

    def back() -> None:
        git(checkout, "checkout", "-q", "main")

    return back


def _forged(verb: Verb) -> Effect:
    """The file is put there when operators speak; nobody else may trip over it later."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        return lambda: forged_file(network, verb, active.node).unlink(missing_ok=True)

    return effect


def _forge_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.close_forge()
    return network.open_forge


def _bad_release(network: RehearsalNetwork, active: Active) -> Undo:
    from .bad_releases import bad_release  # cryptography: only when wanted

    return bad_release(network, active)


def _previous_missing(network: RehearsalNetwork, active: Active) -> Undo:
    folder = network.release.previous_artifact.parent
    aside = network.root / f"{folder.name}.gone"
    folder.rename(aside)

    def back() -> None:
        aside.rename(folder)

    return back


def _log_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.signed.close_log()
    return network.signed.open_log


def _grafana_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.close_grafana()
    return network.open_grafana


def _another_binary(network: RehearsalNetwork, active: Active) -> Undo:
    path = network.world.node_dir(active.cluster, active.node) / "running.json"
    before = path.read_text()
    build = json.loads(before)
    write_atomically(path, json.dumps({**build, "digest": "sha256:" + "0" * 64}) + "\n")
    return lambda: write_atomically(path, before)


def _previous_build(network: RehearsalNetwork, active: Active) -> Undo:
    path = network.world.node_dir(active.cluster, active.node) / "bin" / "rpp-node"
    before = path.read_bytes()

    def put(binary: bytes) -> None:
        write_atomically(path, binary, 0o755)
        network.fleet.restart(active.node)

    put(unpack(network.release.previous_artifact))
    return lambda: put(before)


BAD_RELEASES = (
    "artifact-tampered", "artifact-wrong-identity", "artifact-wrong-issuer",
    "artifact-other-commit", "signature-tampered", "signature-missing", "manifest-wrong-digest",
    "manifest-line-missing", "manifest-missing", "manifest-unsigned", "provenance-other-subject",
    "provenance-missing", "provenance-unsigned", "sbom-invalid", "sbom-other-artifact",
    "sbom-missing", "sbom-unsigned",
)  # fmt: skip


def _think_better(network: RehearsalNetwork, active: Active) -> Undo:
    return network.operators.again


EFFECTS: dict[str, Effect] = {
    **dict.fromkeys(OPERATOR_FAULTS, _think_better),
    **ASSET_EFFECTS,
    **TELEMETRY_EFFECTS,
    **PAST_EFFECTS,
    **dict.fromkeys(BAD_RELEASES, _bad_release),
    "log-down": _log_down,
    "previous-artifact-missing": _previous_missing,
    "node-cut-off": _node_down,
    "tree-dirty": _dirty_tree,
    "tree-other-commit": _other_commit,
    "gate-flipped": _edit(r"^timetoke_rewards = \w+", "timetoke_rewards = true", restart=True),
    "channel-wrong": _edit(
        r'^release_channel = "\w+"', 'release_channel = "testnet"', restart=True
    ),
    "config-edited": _edit(r"^mempool_limit = \d+", "mempool_limit = 4096", restart=False),
    "extra-config-key": _edit(r"^(gossip_enabled = .*)$", r"\1\ngossip_fanout = 8", restart=False),
    "candidate-missing": _previous_build,
    "store-gone": _store_gone,
    "kit-target-tampered": _kit_tampered,
    "candidate-dry-run-fails": _edit(r"^mempool_limit = \d+", "mempool_limit = 0", restart=False),
    "misplaced-scalar": _edit(
        r"^(mempool_limit = .*\n)((?:.*\n)*?\[rollout\]\n)", r"\2\1", restart=False
    ),
    "bundle-not-monotonic": _write("bundle/mainnet.toml", _turned_off),
    "bundle-rewards-early": _write("bundle/mainnet.toml", _rewards_early),
    "worm-contradiction": _write("bundle/mainnet.toml", lambda text: text + "\n" + NO_EXPORT),
    "no-dry-run": _write("site.yaml", _without_dry_run),
    "binary-changed": _another_binary,
    "gate-reversed": _edit(
        r"^malachite_consensus = \w+", "malachite_consensus = false", restart=True
    ),
    "node-down": _node_down,
    "wal-corrupt": _wal_corrupt,
    "node-will-not-start": _stays_down,
    "node-half-stopped": _stays_down,
    "node-stays-down": _stays_down,
    "suite-dirty-tree": _dirty_tree,
    "suite-other-commit": _other_commit,
    "ack-forged": _forged("acknowledge"),
    "signoff-forged": _forged("sign-off"),
    "forge-down": _forge_down,
    "grafana-down": _grafana_down,
}
