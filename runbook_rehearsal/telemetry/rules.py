"""Alerting and recording rules, read from files and evaluated over a stretch of time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser as pql
import yaml

from ..arrays import Flags, Instants
from .promql import Unsupported, Value, Vector, evaluate
from .tsdb import Store, format_value

OWN_RULES = Path(__file__).with_name("rules.yaml")
SHIPPED_RULES = Path(__file__).resolve().parents[2] / "params" / "rules" / "rollout.yaml"


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
        rules.extend(read(path))
    return rules


def read(path: Path) -> list[Rule]:
    """The rules of a file, in order. Raises ValueError naming it."""
    try:
        return list(_read(path, yaml.safe_load(path.read_text())))
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected Prometheus rule groups, got {error}") from error


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
    """Evaluates rules at instants in order, carrying over which alerts are active.

    ``errors`` says why a rule could not be evaluated the last time, by its place among the rules.
    """

    rules: list[Rule]
    errors: dict[int, str] = field(default_factory=dict)
    active: dict[tuple[int, tuple[tuple[str, str], ...]], Alert] = field(default_factory=dict)

    def run(self, store: Store, steps: Instants) -> None:
        """Add to ``store`` what Prometheus would: recorded series, ALERTS, ALERTS_FOR_STATE."""
        if not len(steps):
            return
        before, self.active = self.active, {}
        self.errors = {}
        for number, rule in enumerate(self.rules):
            try:
                vector = _as_vector(evaluate(store, rule.expr, steps))
            except Unsupported as error:  # operands that do not match: the other rules go on
                self.errors[number] = str(error)
                continue
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
