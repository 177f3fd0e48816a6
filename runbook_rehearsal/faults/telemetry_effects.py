"""Faults of the telemetry servers: one is down, has other rules, routes, silences."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from ..files import kept, write_atomically
from .asset_effects import Effect, Undo
from .table import Active

if TYPE_CHECKING:
    from ..network import RehearsalNetwork
    from ..telemetry.servers import TelemetryServers

Change = Callable[[str, str], str]
"""Another text of a file, for a cluster."""


def _with_telemetry(effect: Callable[[TelemetryServers, Active], Undo]) -> Effect:
    """Without telemetry there is nothing to break."""

    def made(network: RehearsalNetwork, active: Active) -> Undo:
        servers = network.telemetry
        return effect(servers, active) if servers is not None else lambda: None

    return made


def _server_down(name: str) -> Effect:
    def effect(servers: TelemetryServers, active: Active) -> Undo:
        servers.down(name)
        return lambda: servers.up(name)

    return _with_telemetry(effect)


def _rewritten(name: str, change: Change, told: Callable[[TelemetryServers], object]) -> Effect:
    """Rewrite a file of the servers; they hear of it by ``told``."""

    def effect(servers: TelemetryServers, active: Active) -> Undo:
        path = servers.world.root / name
        put_back = kept(path)

        def undo() -> None:
            put_back()
            told(servers)

        write_atomically(path, change(path.read_text(), active.cluster))
        told(servers)
        return undo

    return _with_telemetry(effect)


def _own_rules(change: Change, *, loaded: bool = True) -> Effect:
    """Rewrite the rule file; unless ``loaded`` the server does not hear of it."""
    told = _relay if loaded else id
    return _rewritten("prometheus/rules/rehearsal.yaml", change, told)


def _relay(servers: TelemetryServers) -> None:
    servers.relay()


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

    def changed(text: str, cluster: str) -> str:
        document = yaml.safe_load(text)
        change(document)
        return str(yaml.safe_dump(document, sort_keys=False))

    def reload(servers: TelemetryServers) -> None:
        url = f"{servers.urls['alertmanager']}/-/reload"
        httpx.post(url, timeout=10, trust_env=False).raise_for_status()

    return _rewritten("alertmanager/alertmanager.yml", changed, reload)


def _no_routes(document: dict[str, Any]) -> None:
    document["route"]["routes"] = []


def _no_notifier(document: dict[str, Any]) -> None:
    document["receivers"] = [{"name": receiver["name"]} for receiver in document["receivers"]]


def _muted(document: dict[str, Any]) -> None:
    noon = [{"times": [{"start_time": "11:00", "end_time": "13:00"}]}]
    document["time_intervals"] = [{"name": "lunch", "time_intervals": noon}]
    document["route"]["routes"][0]["mute_time_intervals"] = ["lunch"]


def _inhibited(document: dict[str, Any]) -> None:
    sides = {
        "source_matchers": ['alertname="Watchdog"'],
        "target_matchers": ['severity="critical"'],
    }
    document["inhibit_rules"] = [sides]


@_with_telemetry
def _silence(servers: TelemetryServers, active: Active) -> Undo:
    api, now = servers.urls["alertmanager"] + "/api/v2", datetime.now(UTC)
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

    def changed(text: str, cluster: str) -> str:
        groups = yaml.safe_load(text)["groups"]
        for group in groups:
            group["rules"] = [rule for rule in group["rules"] if mutate(rule)]
        return str(yaml.safe_dump({"groups": groups}, sort_keys=False))

    return _rewritten("prometheus/rules/rollout.yaml", changed, _relay)


def _replaced(key: str, old: str, new: str) -> Effect:
    """Rules with one thing replaced in ``key``: ``severity``, or the expression."""

    def mutate(rule: dict[str, Any]) -> bool:
        place = rule if key == "expr" else rule["labels"]
        place[key] = place[key].replace(old, new)
        return True

    return _rules(mutate)


TELEMETRY_EFFECTS: dict[str, Effect] = {
    "alert-never-fires": _replaced("expr", "== 0", "== -1"),
    "alert-without-guard": _rules(lambda rule: "Absent" not in rule["alert"]),
    "alert-not-paging": _replaced("severity", "critical", "warning"),
    # Several series meet several: Prometheus loads the rule, and fails to evaluate it.
    "alert-unhealthy": _replaced("expr", "== 0", "== 0 and on () up * on (cluster) up"),
    "alerts-not-loaded": _rules(lambda rule: False),
    "watchdog-missing-in-window": _own_rules(_without_watchdog),
    "silence-during-soak": _silence,
    "silence-during-epochs": _silence,
    "prometheus-down": _server_down("prometheus"),
    "alertmanager-down": _server_down("alertmanager"),
    "rule-not-loaded": _own_rules(_added(_PAGE), loaded=False),
    "paging-alert-firing": _own_rules(_added(_PAGE)),
    "rule-unhealthy": _own_rules(_added(_BROKEN)),
    "watchdog-missing": _own_rules(_without_watchdog),
    "route-to-nowhere": _routing(_no_routes),
    "receiver-without-notifier": _routing(_no_notifier),
    "mute-interval": _routing(_muted),
    "inhibited-by-watchdog": _routing(_inhibited),
    "silence-on-paging": _silence,
}
