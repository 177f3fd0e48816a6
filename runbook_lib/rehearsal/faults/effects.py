"""Faults that change something when they are switched on, and how each is undone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from ..chain.templates import NO_EXPORT
from ..chain.world import Event, EventKind
from ..files import write_atomically
from ..layout import git, write_data
from ..people.operators import OPERATOR_FAULTS
from ..people.words import Verb, forged_file
from .asset_effects import ASSET_EFFECTS, Effect, Undo
from .board import Active

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


def _server_down(name: str) -> Effect:
    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        servers = network.telemetry
        if servers is None:
            return _nothing
        servers.down(name)
        return lambda: servers.up(name)

    return effect


def _grafana_down(network: RehearsalNetwork, active: Active) -> Undo:
    network.close_grafana()
    return network.open_grafana


def _nothing() -> None:
    """Without telemetry there is nothing to break."""


def _own_rules(change: Callable[[str, str], str], *, loaded: bool = True) -> Effect:
    """Rewrite the rule file, given the cluster; unless ``loaded`` the server does not hear of it."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        servers = network.telemetry
        if servers is None:
            return _nothing
        path = network.root / "prometheus" / "rules" / "rehearsal.yaml"
        before = path.read_text()

        def put(text: str) -> None:
            write_atomically(path, text)
            if loaded:
                servers.relay()

        put(change(before, active.cluster))
        return lambda: put(before)

    return effect


_PAGE = 'max by (cluster) (up{cluster="CLUSTER"}) > 0'
_BROKEN = "up * on (cluster) up"  # several series meet several: loaded, never evaluated


def _added(expr: str) -> Callable[[str, str], str]:
    """One more rule that pages."""

    def change(text: str, cluster: str) -> str:
        return text + (
            "      - alert: RehearsedPage\n"
            f"        expr: {expr.replace('CLUSTER', cluster)}\n"
            "        labels: {severity: page, team: consensus}\n"
        )

    return change


def _without_watchdog(text: str, cluster: str) -> str:
    return re.sub(r"  - name: watchdog\n(?:    .*\n)+", "", text)


def _routing(change: Callable[[dict[str, Any]], None]) -> Effect:
    """Rewrite Alertmanager's configuration and have it read again."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        servers = network.telemetry
        if servers is None:
            return _nothing
        path = network.root / "alertmanager" / "alertmanager.yml"
        before = path.read_text()

        def put(text: str) -> None:
            write_atomically(path, text)
            url = f"{servers.urls['alertmanager']}/-/reload"
            httpx.post(url, timeout=10, trust_env=False).raise_for_status()

        document = yaml.safe_load(before)
        change(document)
        put(yaml.safe_dump(document, sort_keys=False))
        return lambda: put(before)

    return effect


def _no_routes(document: dict[str, Any]) -> None:
    document["route"]["routes"] = []


def _no_notifier(document: dict[str, Any]) -> None:
    document["receivers"] = [{"name": receiver["name"]} for receiver in document["receivers"]]


def _muted(document: dict[str, Any]) -> None:
    noon = [{"times": [{"start_time": "11:00", "end_time": "13:00"}]}]
    document["time_intervals"] = [{"name": "lunch", "time_intervals": noon}]
    document["route"]["routes"][0]["mute_time_intervals"] = ["lunch"]


def _inhibited(document: dict[str, Any]) -> None:
    sides = {"source_matchers": ["alertname=Watchdog"], "target_matchers": ["severity=critical"]}
    document["inhibit_rules"] = [sides]


def _silence(network: RehearsalNetwork, active: Active) -> Undo:
    if network.telemetry is None:
        return _nothing
    api, now = network.telemetry.urls["alertmanager"] + "/api/v2", datetime.now(UTC)
    texts = {"severity": "page|critical", "cluster": active.cluster}
    silence = {
        "comment": "works on the racks",
        "createdBy": "somebody",
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=2)).isoformat(),
        "matchers": [{"name": k, "value": v, "isRegex": True} for k, v in texts.items()],
    }
    posted = httpx.post(f"{api}/silences", json=silence, timeout=10, trust_env=False)
    key = posted.raise_for_status().json()["silenceID"]

    def undo() -> None:
        httpx.delete(f"{api}/silence/{key}", timeout=10, trust_env=False).raise_for_status()

    return undo


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


def _before(network: RehearsalNetwork, events: list[Event]) -> Undo:
    """These events have happened already: the history is laid again with them, or without."""

    def relay() -> None:
        if network.telemetry is not None:
            network.telemetry.relay()

    def undo() -> None:
        for event in events:
            network.world.events.remove(event)
        relay()

    network.world.events.extend(events)
    relay()
    return undo


def _laid_anew(network: RehearsalNetwork, active: Active) -> Undo:
    """It is how Prometheus is configured: a real one starts anew with it, and without."""
    return _before(network, [])


def _once(name: str, begun_s: float, over_s: float) -> Effect:
    """Another fault was on for a while: from so many seconds ago until so many seconds ago."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        now, data = network.world.clock.now(), {"name": name}
        times: tuple[tuple[EventKind, float], ...]
        times = (("fault-on", begun_s), ("fault-off", over_s))
        return _before(
            network, [Event(now - ago, active.cluster, "", kind, data) for kind, ago in times]
        )

    return effect


def _since_restart(network: RehearsalNetwork, active: Active) -> Undo:
    """The fault has been on since the cluster's last restart, as if that had brought it."""
    ups = [e.at for e in network.world.events_of(active.cluster) if e.kind == "up"]
    event = Event(max(ups), active.cluster, "", "fault-on", {"name": active.name})
    return _before(network, [event])


def _restarted(nodes: int) -> Effect:
    """The last nodes of the cluster were down for four minutes, half an hour ago."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        now = network.world.clock.now()
        names = [spec.name for spec in network.world.clusters[active.cluster].nodes[-nodes:]]
        times: tuple[tuple[EventKind, float], ...] = (("down", 1800.0), ("up", 1560.0))
        return _before(
            network,
            [Event(now - ago, active.cluster, n, kind) for n in names for kind, ago in times],
        )

    return effect


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

    put(network.release.previous_artifact.read_bytes())
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
    "bundle-rewards-early": _write("bundle/mainnet.toml", _rewards_early),
    "worm-contradiction": _write("bundle/mainnet.toml", lambda text: text + "\n" + NO_EXPORT),
    "no-dry-run": _write("site.yaml", _without_dry_run),
    "page-during-soak": _once("consensus-slow", 3600.0, 1800.0),
    "telemetry-gap-during-soak": _once("metrics-gap", 3600.0, 1800.0),
    "watchdog-missing-in-window": _own_rules(_without_watchdog),
    "restart-during-soak": _restarted(1),
    "binary-changed": _another_binary,
    "silence-during-soak": _silence,
    "gossip-silent": _since_restart,
    "gossip-drops": _since_restart,
    "gossip-slow": _since_restart,
    "halted-once": _once("consensus-stall", 5400.0, 4200.0),
    "mass-restart": _restarted(2),
    "gap-during-epochs": _once("metrics-gap", 3600.0, 1800.0),
    "silence-during-epochs": _silence,
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
    "prometheus-down": _server_down("prometheus"),
    "alertmanager-down": _server_down("alertmanager"),
    "grafana-down": _grafana_down,
    "rule-not-loaded": _own_rules(_added(_PAGE), loaded=False),
    "paging-alert-firing": _own_rules(_added(_PAGE)),
    "rule-unhealthy": _own_rules(_added(_BROKEN)),
    "watchdog-missing": _own_rules(_without_watchdog),
    "route-to-nowhere": _routing(_no_routes),
    "receiver-without-notifier": _routing(_no_notifier),
    "mute-interval": _routing(_muted),
    "inhibited-by-watchdog": _routing(_inhibited),
    "silence-on-paging": _silence,
    "alertmanager-not-in-prometheus": _laid_anew,
    "rule-never-evaluated": _laid_anew,
}
