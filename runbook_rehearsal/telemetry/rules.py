"""Alert rules, read from files and evaluated over a stretch of time.

``failures`` runs unit tests of them where promtool is missing: input series and queries with the
samples they must give.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser as pql
import yaml

from ..arrays import Flags, Instants
from .promql import Unsupported, evaluate
from .tsdb import STALE, Key, Labels, Store, format_value, key_of

OWN_RULES = Path(__file__).with_name("rules.yaml")
_TEST_FILE = {"rule_files", "evaluation_interval", "tests"}
_TEST = {"name", "interval", "input_series", "promql_expr_test"}
_RUN = re.compile(r"(?P<start>\d+)(?:(?P<step>[+-]\d+)?x(?P<times>\d+))?")
SHIPPED_RULES = Path(__file__).resolve().parents[2] / "params" / "rules" / "rollout.yaml"


@dataclass(frozen=True)
class Rule:
    file: str
    group: str
    interval_s: float
    name: str
    expr: str
    wait_s: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
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
    return [rule for path in sorted(folder.glob("*.y*ml")) for rule in read(path)]


def read(path: Path) -> list[Rule]:
    """The rules of a file, in order. Raises ValueError naming it."""
    try:
        return [
            Rule(
                file=str(path),
                group=group["name"],
                interval_s=_seconds(group.get("interval", "5s")),
                name=rule["alert"],
                expr=str(rule["expr"]).strip(),
                wait_s=_seconds(rule.get("for", "0s")),
                labels=rule.get("labels") or {},
                annotations=rule.get("annotations") or {},
            )
            for group in yaml.safe_load(path.read_text())["groups"]
            for rule in group["rules"]
        ]
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected Prometheus rule groups, got {error}") from error


def _seconds(text: str) -> float:
    return 0.0 if text in ("0", "0s") else float(pql.parse_duration(text).total_seconds())


def check(rules: list[Rule]) -> None:
    for rule in rules:
        try:
            evaluate(Store(), rule.expr, np.array([0]))
        except ValueError as error:
            raise ValueError(f"{rule.file}: rule {rule.name}: {error}") from error


@dataclass
class RuleEngine:
    """Evaluates rules at instants in order, carrying over which alerts are active; ``errors`` says
    why a rule (by its number) could not be evaluated the last time."""

    rules: list[Rule]
    errors: dict[int, str] = field(default_factory=dict)
    active: dict[tuple[int, Key], Alert] = field(default_factory=dict)

    def run(self, store: Store, steps: Instants) -> None:
        """Add to ``store`` what Prometheus would: ALERTS and ALERTS_FOR_STATE."""
        before, self.active = self.active, {}
        self.errors = {}
        for number, rule in enumerate(self.rules):
            try:
                vector = evaluate(store, rule.expr, steps)
            except Unsupported as error:  # operands that do not match: the other rules go on
                self.errors[number] = str(error)
                continue
            for found, values, present in vector:
                labels = _alert_labels(rule, found, float(values[-1]))
                key = (number, key_of(labels))
                since = _since(steps, present, before.pop(key, None))
                firing = present & (steps - since >= rule.wait_s * 1000)
                _record(store, labels, steps, since, present, firing)
                if present[-1]:
                    alert = Alert(rule, labels, int(since[-1]), float(values[-1]), bool(firing[-1]))
                    self.active[key] = alert
        never = np.zeros(len(steps), dtype=bool)
        for ended in before.values():
            _record(store, ended.labels, steps, steps, never, never)


def _alert_labels(rule: Rule, labels: dict[str, str], value: float) -> dict[str, str]:
    own = {name: _filled(text, labels, value) for name, text in rule.labels.items()}
    kept = {name: text for name, text in labels.items() if name != "__name__"}
    return {**kept, **own, "alertname": rule.name}


def _filled(text: str, labels: Mapping[str, str], value: float) -> str:
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
    store: Store, labels: Labels, steps: Instants, since: Instants, present: Flags, firing: Flags
) -> None:
    ones = np.ones(len(steps))
    for state, there in (("pending", present & ~firing), ("firing", firing)):
        named = {**labels, "__name__": "ALERTS", "alertstate": state}
        store.append_while(named, steps, ones, there)
    named = {**labels, "__name__": "ALERTS_FOR_STATE"}
    store.append_while(named, steps, (since // 1000).astype(float), present)


# --- unit tests without promtool ----------------------------------------------------------------


def failures(path: Path) -> list[str]:
    """What each query gave in place of what it must. Raises what reading raises."""
    document = _known(yaml.safe_load(path.read_text()), _TEST_FILE)
    rules = [rule for name in document["rule_files"] for rule in read(path.parent / name)]
    interval = _ms(document.get("evaluation_interval", "1m"))
    return [
        line
        for test in document["tests"]
        for line in _failures(_known(test, _TEST), rules, interval)
    ]


def _failures(test: dict[str, Any], rules: list[Rule], interval: int) -> Iterator[str]:
    store, queries = Store(), test["promql_expr_test"]
    for series in test["input_series"]:
        values = np.array(list(_values(series["values"])))
        times: Instants = np.arange(len(values), dtype=np.int64) * _ms(test["interval"])
        there = ~np.isnan(values) | (values.view(np.uint64) == STALE.view(np.uint64))
        store.append(_series_labels(series["series"]), times[there], values[there])
    engine = RuleEngine(rules)
    until = max(_ms(query["eval_time"]) for query in queries)
    engine.run(store, np.arange(0, until + 1, interval))
    yield from (f"{rules[number].name}: {error}" for number, error in engine.errors.items())
    for query in queries:
        found = evaluate(store, query["expr"], np.array([_ms(query["eval_time"])]))
        got = {key_of(row.labels): float(row.values[0]) for row in found if row.present[0]}
        wanted = {
            key_of(_series_labels(sample["labels"])): float(sample["value"])
            for sample in query["exp_samples"]
        }
        if got != wanted:
            told = f"expr: {query['expr']}, time: {query['eval_time']}"
            yield f"{told},\n        exp: {wanted or 'nil'}\n        got: {got or 'nil'}"


def _values(text: str) -> Iterator[float]:
    """promtool's notation: ``_x3 0+2x5 7 stale``."""
    for word in text.split():
        if word == "stale":
            yield float(STALE)
        elif found := re.fullmatch(r"_(?:x(\d+))?", word):
            yield from [np.nan] * int(found[1] or 1)
        elif found := _RUN.fullmatch(word):
            start, step = int(found["start"]), int(found["step"] or 0)
            yield from (float(start + step * n) for n in range(int(found["times"] or 0) + 1))
        else:
            raise ValueError(f"expected a value such as 0+1x5, got {word!r}")


def _series_labels(text: str) -> dict[str, str]:
    if text == "{}":
        return {}
    selector: Any = pql.parse(text)
    labels = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
    return labels | ({"__name__": selector.name} if selector.name else {})


def _known(table: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    if unknown := sorted(set(table) - keys):
        raise ValueError(f"expected {', '.join(sorted(keys))}, got {unknown[0]}")
    return table


def _ms(text: str) -> int:
    return round(_seconds(text) * 1000)
