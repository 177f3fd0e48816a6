"""canary.ready.alerts-active: rewards that stop and witness gossip that falls silent page somebody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..canonical import digest_bytes
from ..context import Context, judges
from ..errors import SourceError
from ..files import replace_file
from ..metrics.alerting import QUIET_AT, STOPS, VANISHES, Labels, about, unit_test
from ..metrics.catalogue import Catalogue, parse_catalogue, selected
from ..outcomes import CheckResult, Row, Value, check_row, unknown_row
from ..playbook import NOW_SOURCE_LAG
from ..sources.prometheus import Rule
from ..strict import project_path

TOPICS = {"reward_distribution": "reward distribution", "witness_gossip": "witness gossip"}
SHIPPED = "params/rules/rollout.yaml"
CATALOGUE = "params/metrics.yaml"


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
