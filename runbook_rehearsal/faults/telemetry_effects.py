"""Faults of the telemetry servers: one is down, has other rules, routes, silences."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from ..files import rewritten
from .asset_effects import Effect, Undo
from .table import Active

if TYPE_CHECKING:
    from ..network import RehearsalNetwork
    from ..telemetry.servers import TelemetryServers

On = Callable[["TelemetryServers", Active], Undo]
Change = Callable[[str, str], str]
"""Another text of a file, for a cluster."""


def _with_telemetry(effect: On) -> Effect:
    def made(network: RehearsalNetwork, active: Active) -> Undo:
        servers = network.telemetry
        return effect(servers, active) if servers is not None else lambda: None

    return made


def _server_down(name: str) -> On:
    def effect(servers: TelemetryServers, active: Active) -> Undo:
        servers.down(name)
        return lambda: servers.up(name)

    return effect


def _rewritten(name: str, change: Change, told: Callable[[TelemetryServers], object]) -> On:
    """Rewrite a file of the servers; they hear of it by ``told``."""

    def effect(servers: TelemetryServers, active: Active) -> Undo:
        paths = [servers.world.root / name]
        put_back = rewritten(paths, lambda text: change(text, active.cluster))
        told(servers)
        return lambda: (put_back(), told(servers))

    return effect


def _own_rules(change: Change, *, loaded: bool = True) -> On:
    """Rewrite the rule file; unless ``loaded`` the server does not hear of it."""
    told = _relay if loaded else id
    return _rewritten("prometheus/rules/rehearsal.yaml", change, told)


_relay = methodcaller("relay")


_PAGE = 'max by (cluster) (up{cluster="CLUSTER"}) > 0'
_BROKEN = "up * on (cluster) up"  # several series meet several: loaded, never evaluated


def _added(expr: str) -> Callable[[str, str], str]:
    def change(text: str, cluster: str) -> str:
        return text + (
            "      - alert: RehearsedPage\n"
            f"        expr: {expr.replace('CLUSTER', cluster)}\n"
            "        labels: {severity: page, team: consensus}\n"
        )

    return change


def _without_watchdog(text: str, cluster: str) -> str:
    return re.sub(r"  - name: watchdog\n(?:    .*\n)+", "", text)


def _routing(change: Callable[[dict[str, Any]], dict[str, Any]]) -> On:
    """Alertmanager's configuration with other sections, read again."""

    def changed(text: str, cluster: str) -> str:
        document = yaml.safe_load(text)
        return str(yaml.safe_dump(document | change(document), sort_keys=False))

    def reload(servers: TelemetryServers) -> None:
        url = f"{servers.urls['alertmanager']}/-/reload"
        httpx.post(url, timeout=10, trust_env=False).raise_for_status()

    return _rewritten("alertmanager/alertmanager.yml", changed, reload)


def _muted(document: dict[str, Any]) -> dict[str, Any]:
    noon = [{"times": [{"start_time": "11:00", "end_time": "13:00"}]}]
    document["route"]["routes"][0]["mute_time_intervals"] = ["lunch"]
    return {"time_intervals": [{"name": "lunch", "time_intervals": noon}]}


def _inhibited(document: dict[str, Any]) -> dict[str, Any]:
    watchdog, critical = ['alertname="Watchdog"'], ['severity="critical"']
    return {"inhibit_rules": [{"source_matchers": watchdog, "target_matchers": critical}]}


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


def _rules(mutate: Callable[[dict[str, Any]], bool]) -> On:
    """Load the shipped rules mutated; those for which ``mutate`` is false are left out."""

    def changed(text: str, cluster: str) -> str:
        groups = yaml.safe_load(text)["groups"]
        for group in groups:
            group["rules"] = [rule for rule in group["rules"] if mutate(rule)]
        return str(yaml.safe_dump({"groups": groups}, sort_keys=False))

    return _rewritten("prometheus/rules/rollout.yaml", changed, _relay)


def _replaced(key: str, old: str, new: str) -> On:
    def mutate(rule: dict[str, Any]) -> bool:
        place = rule if key == "expr" else rule["labels"]
        place[key] = place[key].replace(old, new)
        return True

    return _rules(mutate)


_ON: dict[str, On] = {
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
    "route-to-nowhere": _routing(lambda document: {"route": document["route"] | {"routes": []}}),
    "receiver-without-notifier": _routing(
        lambda document: {"receivers": [{"name": one["name"]} for one in document["receivers"]]}
    ),
    "mute-interval": _routing(_muted),
    "inhibited-by-watchdog": _routing(_inhibited),
    "silence-on-paging": _silence,
}
TELEMETRY_EFFECTS = {name: _with_telemetry(effect) for name, effect in _ON.items()}
