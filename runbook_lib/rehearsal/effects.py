"""Faults that change something when they are switched on, and how each is undone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from .asset_effects import ASSET_EFFECTS, Effect, Undo
from .faults import Active
from .files import write_atomically
from .layout import git
from .templates import NO_EXPORT

if TYPE_CHECKING:
    from .network import RehearsalNetwork


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


def _node_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.fleet.stop(active.node)
    return lambda: network.bring_up(active.node)


def _stays_down(network: RehearsalNetwork, active: Active) -> Undo:
    return lambda: network.bring_up(active.node)


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


def _forge_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.close_forge()
    return network.open_forge


def _bad_release(network: RehearsalNetwork, active: Active) -> Undo:
    from .bad_releases import bad_release  # cryptography: only when wanted

    return bad_release(network, active)


def _log_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.signed.close_log()
    return network.signed.open_log


def _prometheus_down(network: RehearsalNetwork, active: Active) -> Undo:
    servers = network.telemetry
    if servers is None:
        return lambda: None
    servers.down("prometheus")
    return lambda: servers.up("prometheus")


def _rules(mutate: Callable[[dict[str, Any]], bool]) -> Effect:
    """Load the shipped rules mutated; those for which ``mutate`` is false are left out."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        servers, path = network.telemetry, network.root / "prometheus" / "rules" / "rollout.yaml"
        if servers is None:
            return lambda: None
        before = path.read_text()

        def put(text: str) -> None:
            path.write_text(text)
            servers.relay()

        groups = yaml.safe_load(before)["groups"]
        for group in groups:
            group["rules"] = [rule for rule in group["rules"] if mutate(rule)]
        put(yaml.safe_dump({"groups": groups}, sort_keys=False))
        return lambda: put(before)

    return effect


def _replaced(key: str, old: str, new: str) -> Effect:
    """Rules with one thing replaced in ``key``: ``severity``, or the expression."""

    def mutate(rule: dict[str, Any]) -> bool:
        place = rule if key == "expr" else rule["labels"]
        place[key] = place[key].replace(old, new)
        return True

    return _rules(mutate)


def _previous_build(network: RehearsalNetwork, active: Active) -> Undo:
    path = network.world.node_dir(active.cluster, active.node) / "bin" / "rpp-node"
    before = path.read_bytes()

    def put(binary: bytes) -> None:
        write_atomically(path, binary, 0o755)
        network.fleet.restart(active.node)

    put((network.root / "artifacts" / "previous" / "rpp-node").read_bytes())
    return lambda: put(before)


BAD_RELEASES = (
    "artifact-tampered", "artifact-wrong-identity", "artifact-wrong-issuer",
    "artifact-other-commit", "signature-tampered", "signature-missing", "manifest-wrong-digest",
    "manifest-line-missing", "manifest-missing", "manifest-unsigned", "provenance-other-subject",
    "provenance-missing", "provenance-unsigned", "sbom-invalid", "sbom-other-artifact",
    "sbom-missing", "sbom-unsigned",
)  # fmt: skip
EFFECTS: dict[str, Effect] = {
    **ASSET_EFFECTS,
    **dict.fromkeys(BAD_RELEASES, _bad_release),
    "log-down": _log_down,
    "tree-dirty": _dirty_tree,
    "tree-other-commit": _other_commit,
    "gate-flipped": _edit(r"^timetoke_rewards = \w+", "timetoke_rewards = true", restart=True),
    "channel-wrong": _edit(
        r'^release_channel = "\w+"', 'release_channel = "testnet"', restart=True
    ),
    "config-edited": _edit(r"^mempool_limit = \d+", "mempool_limit = 4096", restart=False),
    "extra-config-key": _edit(r"^(gossip_enabled = .*)$", r"\1\ngossip_fanout = 8", restart=False),
    "candidate-missing": _previous_build,
    "candidate-dry-run-fails": _edit(r"^mempool_limit = \d+", "mempool_limit = 0", restart=False),
    "alert-never-fires": _replaced("expr", "== 0", "== -1"),
    "alert-without-guard": _rules(lambda rule: "Absent" not in rule["alert"]),
    "alert-not-paging": _replaced("severity", "critical", "warning"),
    # Several series meet several: Prometheus loads the rule, and fails to evaluate it.
    "alert-unhealthy": _replaced("expr", "== 0", "== 0 and on () up * on (cluster) up"),
    "alerts-not-loaded": _rules(lambda rule: False),
    "misplaced-scalar": _edit(
        r"^(mempool_limit = .*\n)((?:.*\n)*?\[rollout\]\n)", r"\2\1", restart=False
    ),
    "bundle-not-monotonic": _write("bundle/mainnet.toml", _turned_off),
    "worm-contradiction": _write("bundle/mainnet.toml", lambda text: text + "\n" + NO_EXPORT),
    "no-dry-run": _write("site.yaml", _without_dry_run),
    "node-down": _node_down,
    "node-stays-down": _stays_down,
    "suite-dirty-tree": _dirty_tree,
    "suite-other-commit": _other_commit,
    "forge-down": _forge_down,
    "prometheus-down": _prometheus_down,
}
