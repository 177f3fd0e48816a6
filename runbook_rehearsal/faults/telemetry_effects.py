"""Faults of the telemetry servers: one is down, has other rules, routes, silences."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from .asset_effects import Change, Effect, Undo, in_yaml, rewriting
from .table import Active

if TYPE_CHECKING:
    from ..network import RehearsalNetwork

OWN_RULES = "prometheus/rules/rehearsal.yaml"


def _server_down(name: str) -> Effect:
    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        if (servers := network.telemetry) is None:
            return int
        servers.down(name)
        return partial(servers.up, name)

    return effect


def _relay(network: RehearsalNetwork, active: Active) -> None:
    network.relay()


_STAGING = {"receiver": "dashboard", "matchers": ['namespace="staging"']}
_PAGE = 'max by (cluster) (up{cluster="CLUSTER"}) > 0'
_BROKEN = "up * on (cluster) up"  # several series meet several: loaded, never evaluated


def _added(expr: str, alert: str = "RehearsedPage", severity: str = "page") -> Change:
    rule = (
        f"      - alert: {alert}\n"
        f"        expr: {expr}\n"
        f"        labels: {{severity: {severity}, team: consensus}}\n"
    )
    return lambda text: text + rule


_without_watchdog = rewriting(
    OWN_RULES, partial(re.compile(r"  - name: watchdog\n(?:    .*\n)+").sub, ""), _relay
)


def _routing(change: Callable[[Any], object]) -> Effect:
    """Alertmanager's configuration with other sections, read again."""

    def reload(network: RehearsalNetwork, active: Active) -> None:
        if network.telemetry is not None:
            url = f"{network.telemetry.urls['alertmanager']}/-/reload"
            httpx.post(url, timeout=10, trust_env=False).raise_for_status()

    return rewriting("alertmanager/alertmanager.yml", in_yaml(change), reload)


def _rules_below(network: RehearsalNetwork, active: Active) -> Undo:
    """A folder of rules that the server does not read."""
    path = network.root / "prometheus/rules/more/extra.rules"
    path.parent.mkdir(parents=True)
    path.write_text("groups: [{name: more, rules: [{alert: More, expr: up == 0}]}]\n")
    return partial(shutil.rmtree, path.parent)


def _muted(document: dict[str, Any]) -> None:
    noon = [{"times": [{"start_time": "11:00", "end_time": "13:00"}]}]
    document["route"]["routes"][0]["mute_time_intervals"] = ["lunch"]
    document["time_intervals"] = [{"name": "lunch", "time_intervals": noon}]


def _inhibited(document: dict[str, Any]) -> None:
    watchdog, critical = ['alertname="Watchdog"'], ['severity="critical"']
    document["inhibit_rules"] = [{"source_matchers": watchdog, "target_matchers": critical}]


def _silence(**matchers: str) -> Effect:
    """Of a label each, by default of every page of the cluster."""

    def effect(network: RehearsalNetwork, active: Active) -> Undo:
        if network.telemetry is None:
            return int
        api, now = network.telemetry.urls["alertmanager"] + "/api/v2", datetime.now(UTC)
        texts = matchers or {"severity": "page|critical", "cluster": active.cluster}
        silence = {
            "comment": "works on the racks",
            "createdBy": "somebody",
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=2)).isoformat(),
            "matchers": [{"name": k, "value": v, "isRegex": True} for k, v in texts.items()],
        }
        posted = httpx.post(f"{api}/silences", json=silence, timeout=10, trust_env=False)
        key = posted.raise_for_status().json()["silenceID"]
        return partial(httpx.delete, f"{api}/silence/{key}", timeout=10, trust_env=False)

    return effect


def _rules(mutate: Callable[[dict[str, Any]], bool]) -> Effect:
    """Load the shipped rules mutated; those for which ``mutate`` is false are left out."""

    def change(document: Any) -> None:
        for group in document["groups"]:
            group["rules"] = [rule for rule in group["rules"] if mutate(rule)]

    return rewriting("prometheus/rules/rollout.yaml", in_yaml(change), _relay)


def _replaced(key: str, old: str, new: str) -> Effect:
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
    "watchdog-missing-in-window": _without_watchdog,
    "silence-during-soak": _silence(),
    "silence-during-epochs": _silence(),
    "prometheus-down": _server_down("prometheus"),
    "alertmanager-down": _server_down("alertmanager"),
    "rule-not-loaded": rewriting(OWN_RULES, _added(_PAGE)),
    "paging-alert-firing": rewriting(OWN_RULES, _added(_PAGE), _relay),
    "rule-unhealthy": rewriting(OWN_RULES, _added(_BROKEN), _relay),
    "watchdog-missing": _without_watchdog,
    "route-to-nowhere": _routing(lambda found: found["route"].update(routes=[])),
    "receiver-without-notifier": _routing(
        lambda found: [one.pop("webhook_configs", None) for one in found["receivers"]]
    ),
    "mute-interval": _routing(_muted),
    "inhibited-by-watchdog": _routing(_inhibited),
    "silence-on-paging": _silence(),
    "silence-elsewhere": _silence(alertname="DiskFull", node="dev-9"),
    "rule-cannot-fire": rewriting(OWN_RULES, _added("rpp_node_gone_total > 0"), _relay),
    "rule-of-same-name": rewriting(
        OWN_RULES, _added("up < 0", "ConsensusLivenessStall", "'{{ $labels.severity }}'"), _relay
    ),
    "rules-below-unread": _rules_below,
    "route-by-series-label": _routing(lambda found: found["route"]["routes"].insert(0, _STAGING)),
}
