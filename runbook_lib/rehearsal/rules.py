"""Alerting and recording rules: the rehearsal's own, and their evaluation over a stretch of time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser as pql
import yaml

from .promql import Value, Vector, evaluate
from .tsdb import Flags, Instants, Store, format_value

_P = "rpp_runtime_consensus"


def _page(name: str, expr: str, wait: str, summary: str, severity: str = "critical") -> Any:
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity, "team": "consensus"},
        "annotations": {"summary": summary},
    }


def _mean(name: str) -> str:
    rate = "sum by (cluster) (rate({}_{}[5m]))"
    return f"{rate.format(name, 'sum')} / {rate.format(name, 'count')}"


DEFAULT_RULES = {
    "groups": [
        {
            "name": "watchdog",
            "rules": [
                {
                    "alert": "Watchdog",
                    "expr": "vector(1)",
                    "labels": {"severity": "none"},
                    "annotations": {"summary": "Always fires: the proof that alerts work"},
                }
            ],
        },
        {
            "name": "rehearsal",
            "rules": [
                _page(
                    "ConsensusLivenessStall",
                    "sum by (cluster) (increase(rpp_runtime_chain_block_height_count[2m])) <= 0",
                    "1m",
                    "No block was committed for two minutes",
                ),
                _page(
                    "ConsensusRoundSlow",
                    f"{_mean(f'{_P}_round_duration_milliseconds')} > 800",
                    "5m",
                    "Consensus rounds take more than 800 ms on average",
                ),
                _page(
                    "ConsensusVRFParticipationLow",
                    f"{_mean('rpp_crypto_vrf_selection_participation_rate')} < 0.66",
                    "5m",
                    "Less than 66 % of the VRF pool takes part",
                ),
                _page(
                    "ConsensusQuorumVerificationFailure",
                    'sum by (cluster) (increase(consensus_quorum_verifications_total{result="failure"}[2m])) > 0',
                    "0s",
                    "A consensus certificate was rejected",
                    "page",
                ),
                _page(
                    "ProofCacheQueueSaturation",
                    f"{_mean('rpp_runtime_proof_cache_queue_depth')} > 25",
                    "5m",
                    "More than 25 jobs wait for a proof on average",
                ),
                _page(
                    "TimetokeReplayStalled",
                    'max by (cluster) (timetoke_replay_stalled{threshold="critical"}) > 0',
                    "1m",
                    "Timetoke replay has stood still for half an hour",
                ),
                _page("NodeDown", "up == 0", "2m", "A node cannot be scraped", "warning"),
            ],
        },
    ]
}


@dataclass(frozen=True)
class Rule:
    """A rule as a file declares it; ``alert`` is false for a recording rule."""

    file: str
    group: str
    interval_s: float
    name: str
    expr: str
    alert: bool
    wait_s: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass
class Alert:
    """An active alert; ``since`` in ms of wall time."""

    rule: Rule
    labels: dict[str, str]
    since: int
    value: float
    firing: bool

    def annotations(self) -> dict[str, str]:
        return {k: _filled(v, self.labels, self.value) for k, v in self.rule.annotations.items()}


def load(folder: Path) -> list[Rule]:
    """The rules of all files of a folder, in order. Raises ValueError naming the file."""
    rules: list[Rule] = []
    for path in sorted(folder.glob("*.y*ml")):
        try:
            document = yaml.safe_load(path.read_text())
            rules.extend(_read(path, document))
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected Prometheus rule groups, got {error}") from error
    return rules


def _read(path: Path, document: Any) -> Iterator[Rule]:
    for group in document["groups"]:
        for rule in group["rules"]:
            yield Rule(
                file=str(path),
                group=group["name"],
                interval_s=_seconds(group.get("interval", "5s")),
                name=rule.get("alert") or rule["record"],
                expr=str(rule["expr"]).strip(),
                alert="alert" in rule,
                wait_s=_seconds(rule.get("for", "0s")),
                labels=rule.get("labels") or {},
                annotations=rule.get("annotations") or {},
            )


def _seconds(text: str) -> float:
    return 0.0 if text in ("0", "0s") else float(pql.parse_duration(text).total_seconds())


def check(rules: list[Rule]) -> None:
    """Raises ValueError naming the first rule that cannot be evaluated here."""
    for rule in rules:
        try:
            evaluate(Store(), rule.expr, np.array([0]))
        except ValueError as error:
            raise ValueError(f"{rule.file}: rule {rule.name}: {error}") from error


@dataclass
class RuleEngine:
    """Evaluates rules at instants in order, carrying over which alerts are active."""

    rules: list[Rule]
    active: dict[tuple[int, tuple[tuple[str, str], ...]], Alert] = field(default_factory=dict)

    def run(self, store: Store, steps: Instants) -> None:
        """Add to ``store`` what Prometheus would: recorded series, ALERTS, ALERTS_FOR_STATE."""
        if not len(steps):
            return
        before, self.active = self.active, {}
        for number, rule in enumerate(self.rules):
            vector = _as_vector(evaluate(store, rule.expr, steps))
            for found, values, present in vector.rows():
                if not rule.alert:
                    labels = {**found, **rule.labels, "__name__": rule.name}
                    store.append_while(labels, steps, values, present)
                    continue
                labels = _alert_labels(rule, found, float(values[-1]))
                key = (number, tuple(sorted(labels.items())))
                since = _since(steps, present, before.pop(key, None))
                firing = present & (steps - since >= rule.wait_s * 1000)
                _record(store, labels, steps, since, present, firing)
                if present[-1]:
                    alert = Alert(rule, labels, int(since[-1]), float(values[-1]), bool(firing[-1]))
                    self.active[key] = alert
        for ended in before.values():
            _record(store, ended.labels, steps, steps, _never(steps), _never(steps))


def _never(steps: Instants) -> Flags:
    return np.zeros(len(steps), dtype=bool)


def _as_vector(value: Value) -> Vector:
    if isinstance(value, Vector):
        return value
    return Vector([{}], value[None, :], np.ones((1, len(value)), dtype=bool))


def _alert_labels(rule: Rule, labels: dict[str, str], value: float) -> dict[str, str]:
    own = {name: _filled(text, labels, value) for name, text in rule.labels.items()}
    kept = {name: text for name, text in labels.items() if name != "__name__"}
    return {**kept, **own, "alertname": rule.name}


def _filled(text: str, labels: Mapping[str, str], value: float) -> str:
    """The two templates that rules of this project use: a label, and the value."""
    text = re.sub(r"{{\s*\$labels\.(\w+)\s*}}", lambda m: labels.get(m[1], ""), text)
    return re.sub(r"{{\s*\$value\s*}}", format_value(value), text)


def _since(steps: Instants, present: Flags, carried: Alert | None) -> Instants:
    """Per step: since when the alert has been active without a break."""
    begins = present & ~np.concatenate(([carried is not None], present[:-1]))
    starts = np.where(begins, steps, 0)
    if carried is not None:
        starts[0] = carried.since
    return np.asarray(np.maximum.accumulate(starts))


def _record(
    store: Store,
    labels: dict[str, str],
    steps: Instants,
    since: Instants,
    present: Flags,
    firing: Flags,
) -> None:
    ones = np.ones(len(steps))
    for state, there in (("pending", present & ~firing), ("firing", firing)):
        named = {**labels, "__name__": "ALERTS", "alertstate": state}
        store.append_while(named, steps, ones, there)
    named = {**labels, "__name__": "ALERTS_FOR_STATE"}
    store.append_while(named, steps, (since // 1000).astype(float), present)
