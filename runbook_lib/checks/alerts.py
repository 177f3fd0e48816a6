"""canary.ready.alerts-active: rewards that stop and witness gossip that falls silent page somebody."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from ..canonical import digest_bytes
from ..context import Context, judges
from ..errors import SourceError
from ..files import replace_file
from ..metrics.catalogue import Catalogue, parse_catalogue, selected
from ..outcomes import CheckResult, Row, Value, check_row, unknown_row
from ..playbook import NOW_SOURCE_LAG
from ..sources import patterns
from ..sources.prometheus import Rule
from ..strict import project_path

TOPICS = {"reward_distribution": "reward distribution", "witness_gossip": "witness gossip"}
SHIPPED = "params/rules/rollout.yaml"
CATALOGUE = "params/metrics.yaml"
STOPS, VANISHES = "stops", "vanishes"
_AFTER = {STOPS: "1080x120", VANISHES: "stale"}
"""What becomes of a counter that has reached 1080: it stands still, or its series ends."""
NODES = 3
QUIET_AT, FIRES_AT = "2h30m", "4h30m"
Labels = Mapping[str, str]


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "alerts of each topic are loaded, healthy and would fire", " and ".join(TOPICS.values())


@dataclass(frozen=True)
class Loaded:
    """An alert that is loaded, with the series that make it one of a topic."""

    rule: Rule
    series: list[Labels]

    @property
    def name(self) -> str:
        return f"{self.rule.name} ({self.rule.labels.get('severity', 'no severity')})"


@judges("canary.ready.alerts-active")
def alerts_active(context: Context) -> CheckResult:
    """Per topic: a healthy paging alert that fires when traffic stops, and a guard for its series.

    "Would fire" is shown, not assumed: promtool runs each alert, as it is loaded, over series that
    are at work and then stop, or vanish (both exist only once their gate is on, so that an alert on
    values alone would be silent then). Whether what fires reaches a receiver is
    preflight.observability's to say. Playbook: canary, readiness, 3.
    """
    context.require_now("alert rules")
    catalogue = parse_catalogue(context.scope.read(project_path(CATALOGUE)), CATALOGUE)
    rules = [rule for rule in context.prometheus.rules() if rule.kind == "alerting"]
    rows = [row for topic in TOPICS for row in _topic(context, topic, catalogue, rules)]
    return context.conclude(
        rows,
        passed="reward distribution and witness gossip have paging alerts that fire, and guards",
        empty="no topics",
    )


def _topic(context: Context, topic: str, catalogue: Catalogue, rules: Iterable[Rule]) -> list[Row]:
    subject, wanted = TOPICS[topic], _selectors(catalogue, topic)
    loaded = [
        Loaded(rule, series)
        for rule in rules
        if (series := about(rule.query, wanted, context.matchers))
    ]
    if not loaded:
        names = ", ".join(dict.fromkeys(str(selector) for selector in wanted))
        problem = f"none asks for {names}; load {SHIPPED} into Prometheus"
        return [unknown_row(subject, "alerts", "one loaded", problem)]
    rows = [_health(context, subject, each) for each in loaded]
    healthy = [each for each, row in zip(loaded, rows, strict=True) if row.outcome == "PASS"]
    pages = {*context.params.paging_severities, *context.site.telemetry.paging_severities}
    paging = [each for each in healthy if each.rule.labels.get("severity") in pages]
    others = [each for each in healthy if each not in paging]
    if healthy and not paging:
        severities = " or ".join(sorted(pages))
        found = ", ".join(each.name for each in healthy)
        rows.append(check_row(subject, "alert that pages", severities, found, ok=False))
    else:
        rows.append(_proof(context, subject, STOPS, paging))
    rows.append(_proof(context, subject, VANISHES, [*paging, *others]))
    return rows


def _selectors(catalogue: Catalogue, topic: str) -> list[Any]:
    candidates = [query for metric in catalogue.of_topic(topic) for query in metric.queries]
    return [selector for query in candidates for selector in selected(query)]


def _health(context: Context, subject: str, loaded: Loaded) -> Row:
    """Whether Prometheus evaluates the alert, and did so lately."""
    rule, what, healthy = loaded.rule, f"{loaded.name} evaluated", "without error, lately"
    if rule.health == "err":
        return check_row(subject, what, healthy, rule.last_error[:300] or "an error", ok=False)
    if not rule.is_evaluated:
        return unknown_row(subject, what, healthy, "never yet")
    age = context.now - rule.last_evaluation
    if age > NOW_SOURCE_LAG:
        return unknown_row(subject, what, healthy, f"{age.total_seconds():.0f} s ago")
    return check_row(subject, what, healthy, "healthy", ok=True)


def _proof(context: Context, subject: str, scenario: str, candidates: list[Loaded]) -> Row:
    """The first alert that promtool shows to fire when the topic's series stop, or vanish."""
    what = f"alert when it {scenario}" + (" (absent guard)" if scenario == VANISHES else "")
    fires = "quiet before, then firing"
    if not candidates:
        return unknown_row(subject, what, fires, "no healthy alert to test")
    unproven, disproven = [], []
    for loaded in candidates:
        try:
            verdict = context.commands.test_rules(_written(context, loaded, scenario))
        except SourceError as error:
            unproven.append(f"{loaded.name}: {error.problem}")
            continue
        if verdict.ok:
            return check_row(subject, what, fires, f"{loaded.name} fires", ok=True)
        early = f"time: {QUIET_AT}" in verdict.text
        disproven.append(f"{loaded.name} {'fires before' if early else 'does not fire'}")
    if unproven:
        return unknown_row(subject, what, fires, "; ".join(unproven)[:300])
    return check_row(subject, what, fires, "; ".join(disproven)[:300], ok=False)


def _written(context: Context, loaded: Loaded, scenario: str) -> Path:
    """The alert's test in the attempt, named by its digest, so that a replay asks the same."""
    node_label = context.site.telemetry.node_label
    rules, tests = unit_test(loaded.rule, loaded.series, scenario, node_label)
    name = digest_bytes(rules + tests).removeprefix("sha256:")[:16]
    folder = context.folder / "alerts"
    folder.mkdir(exist_ok=True)
    replace_file(folder / f"{name}.rules.yaml", rules)
    path = folder / f"{name}.test.yaml"
    replace_file(path, tests.replace(b"{rules}", f"{name}.rules.yaml".encode()))
    return path


# --- which alerts are about a topic, and a test that shows whether one fires ---------------------


def about(query: str, wanted: Iterable[Any], cluster: Labels) -> list[Labels]:
    """Label sets, ``__name__`` included, of series that an alert and a topic have in common.

    An alert is about a topic when it selects a series that one of the topic's selectors, ``wanted``,
    selects too, and narrows it at least as that one does; ``cluster`` has the labels that pick the
    cluster. Of another topic or cluster, or of an expression that does not parse: none.
    """
    try:
        selectors = selected(query)
    except ValueError:
        return []
    found: list[Labels] = []
    for selector, topic in product(selectors, wanted):
        own, theirs = selector.matchers.matchers, topic.matchers.matchers
        if selector.name == topic.name and {m.name for m in theirs} <= {m.name for m in own}:
            labels = _series([*own, *theirs], cluster)
            if labels is not None and (made := {"__name__": selector.name, **labels}) not in found:
                found.append(made)
    return found


def _series(own: Sequence[Any], cluster: Labels) -> Labels | None:
    """Labels that all matchers accept; None where there are none, or none that is easily found."""
    labels = dict(cluster)
    for name in dict.fromkeys(each.name for each in own):
        these = [each for each in own if each.name == name]
        named = [v for m in these for v in _literals(m)]
        candidates = [cluster[name]] if name in cluster else [*named, "x"]
        value = next((v for v in candidates if all(_accepts(m, v) for m in these)), None)
        if value is None:
            return None
        labels[name] = value
    return labels


def _literals(matcher: Any) -> list[str]:
    """Values that a positive matcher names, or that its simple pattern suggests."""
    if _operator(matcher) == "Equal":
        return [matcher.value]
    parts = matcher.value.split("|") if _operator(matcher) == "Re" else []
    return [re.sub(r"\.[*+]", "x", part) for part in parts]


def _accepts(matcher: Any, value: str) -> bool:
    operator = _operator(matcher)
    if operator in ("Equal", "NotEqual"):
        return (matcher.value == value) is (operator == "Equal")
    try:
        return patterns.matches(str(matcher.value), value) is (operator == "Re")
    except ValueError:  # nothing is known of what it matches
        return False


def _operator(matcher: Any) -> str:
    return str(matcher.op).rpartition(".")[2]


def unit_test(
    rule: Rule, series: Sequence[Labels], scenario: str, node_label: str
) -> tuple[bytes, bytes]:
    """(rule file, unit tests) for promtool, the rule as it is loaded; the tests name ``{rules}``.

    They hold when the alert is quiet while ``series`` go on, and fires once each of them has
    stopped or vanished. Whatever else the alert asks for goes on all the time.
    """
    inputs: dict[str, str] = {}
    names = {labels["__name__"] for labels in series}
    beside = [s for s in selected(rule.query) if s.name and s.name not in names]
    for number in range(1, NODES + 1):
        node = {node_label: f"node-{number}"}
        for labels in series:
            inputs[_name({**node, **labels})] = f"_x60 0+12x90 {_AFTER[scenario]}"
        for other in beside:
            labels = _series(other.matchers.matchers, {}) or {}
            steady = "1x270" if other.name == "up" else "0+12x270"
            inputs[_name({**node, **labels, "__name__": other.name})] = steady
    fired = 'ALERTS{alertname="Subject",alertstate="firing"}'
    quiet = {"expr": f"count(count_over_time({fired}[80m]))", "eval_time": QUIET_AT}
    fires = {"expr": f"count(count_over_time({fired}[118m])) > bool 0", "eval_time": FIRES_AT}
    test = {
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in inputs.items()],
        "promql_expr_test": [
            {**quiet, "exp_samples": []},
            {**fires, "exp_samples": [{"labels": "{}", "value": 1}]},
        ],
    }
    loaded = {
        "alert": "Subject",
        "expr": rule.query,
        "for": f"{round(rule.duration_s * 1000)}ms",
        "labels": {name: text for name, text in rule.labels.items() if name != "alertname"},
    }
    rules = {"groups": [{"name": "subject", "interval": "1m", "rules": [loaded]}]}
    tests = {"rule_files": ["{rules}"], "evaluation_interval": "1m", "tests": [test]}
    return _yaml(rules), _yaml(tests)


def _name(labels: Labels) -> str:
    """A series as promtool's input names it."""
    inner = ",".join(f"{k}={json.dumps(v)}" for k, v in labels.items() if k != "__name__")
    return f"{labels['__name__']}{{{inner}}}"


def _yaml(document: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, width=1000).encode()
