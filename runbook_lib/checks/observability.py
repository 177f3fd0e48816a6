"""preflight.observability: dashboards are green, rules are evaluated, a page would arrive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .. import playbook
from ..context import Context, judges
from ..errors import SourceError
from ..metrics.catalogue import parse_catalogue
from ..outcomes import CheckResult, Row, Value, check_row, unknown_row
from ..sources import rulefiles
from ..sources.prometheus import Rule
from ..strict import project_path
from . import dashboards, routing

CATALOGUE = "params/metrics.yaml"
LATE_S = 60.0  # an evaluation may be late by this and two of its intervals


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "every panel is green; a page would reach somebody", "0 red, 0 silent, 0 paging alerts"


@judges("preflight.observability")
def observability(context: Context) -> CheckResult:
    """Dashboards green, rules loaded and quiet while the watchdog fires, routing armed.

    Playbook: common preflight, 3. The metrics are judged at ``as_of``; rules, alerts and routes
    have no past.
    """
    catalogue = parse_catalogue(context.scope.read(project_path(CATALOGUE)), CATALOGUE)
    rows = dashboards.judge(context, catalogue)
    panels = len({row.subject for row in rows}) - len(context.site.dashboards.topics)
    rules: list[Rule] = []
    severities = _paging_severities(context)
    try:
        context.require_now("rules and alerts")
        rules = context.prometheus.rules()
        rows += _shipped(context, rules)
        rows += _firing(context, rules, severities)
        rows.append(_linked(context))
    except SourceError as error:
        rows.append(context.unreadable("rules and alerts", "an answer", error))
    try:
        rows += routing.judge(context, [r for r in rules if _pages(r, severities)], severities)
    except SourceError as error:
        rows.append(context.unreadable("alert routing", "an answer", error))
    return context.conclude(
        rows,
        passed=f"{panels} panels green, {len(rules)} rules loaded, a page would arrive",
        empty="no dashboards, rules or routes",
        data={"rules": len(rules), "severities": list(severities)},
    )


def _paging_severities(context: Context) -> list[str]:
    """What parameters, site and playbook call paging: each may only widen it."""
    own = {*context.params.paging_severities, *context.site.telemetry.paging_severities}
    return sorted(own | playbook.PAGING_SEVERITIES)


def _pages(rule: Rule, severities: Sequence[str]) -> bool:
    severity = rule.labels.get("severity", "")
    return rule.kind == "alerting" and (severity in severities or "{{" in severity)


# --- rules that the site ships ------------------------------------------------------------------


def _shipped(context: Context, loaded: Sequence[Rule]) -> list[Row]:
    """A row per rule that is not loaded, healthy and evaluated, and one per file that is well."""
    paths = context.site.telemetry.rules
    if not paths:
        return [unknown_row("rules", "shipped by the site", "named", "none; set telemetry.rules")]
    rows: list[Row] = []
    for path in (file for name in paths for file in _files(context, name)):
        shown = path.name
        found = rulefiles.read_rules(context.scope.read(path), shown)
        if found.refused or not found.rules:
            problem = str(next((f for f in found.findings if f.refuses), "no rules"))
            rows.append(unknown_row(shown, "rule file", "rules that load", problem))
            continue
        bad = [row for rule in found.rules if (row := _rule(context, shown, rule, loaded))]
        text = f"{len(found.rules)} rules loaded, healthy, evaluated"
        rows += bad or [check_row(shown, "rules", text, text, ok=True)]
    return rows or [unknown_row("rules", "shipped by the site", "at least one file", "none")]


def _files(context: Context, name: str) -> list[Path]:
    path = project_path(name)
    if path.suffix in (".yml", ".yaml"):
        return [path]
    return [path / each for each in context.scope.listing(path) if each.endswith((".yml", ".yaml"))]


def _rule(context: Context, file: str, rule: rulefiles.Rule, loaded: Sequence[Rule]) -> Row | None:
    """What is wrong with a shipped rule; None when nothing is."""
    subject, what = f"{file}: {rule.name}", "rule"
    kind = {"alert": "alerting", "record": "recording"}[rule.kind]
    named = [each for each in loaded if (each.kind, each.name) == (kind, rule.name)]
    same = [each for each in named if _same(each, rule)]
    if not same:
        got = "not loaded"
        if named:
            got = f"another expression, severity or wait: {named[0].query[:120]}"
        return check_row(subject, what, "loaded as shipped", got, ok=False)
    for each in same:
        if each.health == "err":
            return check_row(subject, what, "healthy", each.last_error[:200] or "err", ok=False)
        if not each.is_evaluated:
            return unknown_row(subject, what, "evaluated", f"health {each.health}; never evaluated")
        if problem := _late(context, each):
            return unknown_row(subject, what, "evaluated recently", problem)
    return None


def _late(context: Context, rule: Rule) -> str:
    """How long ago it was evaluated, when that is too long; empty when it is not."""
    age = (context.now - rule.last_evaluation).total_seconds()
    limit = 2 * rule.interval_s + LATE_S
    return f"evaluated {age:.0f} s ago, at most {limit:.0f} s" if age > limit else ""


def _same(loaded: Rule, shipped: rulefiles.Rule) -> bool:
    severities = {loaded.labels.get("severity"), shipped.labels.get("severity")}
    waits = {round(loaded.duration_s * 1000), shipped.wait_ms}
    same = len(severities) == 1 and len(waits) == 1
    return same and _plain(loaded.query) == _plain(shipped.expr)


def _plain(expr: str) -> str:
    """An expression without what printing changes."""
    import promql_parser

    try:
        return str(promql_parser.parse(expr).prettify())
    except (ValueError, RecursionError):
        return " ".join(expr.split())


# --- alerts -------------------------------------------------------------------------------------


def _firing(context: Context, rules: Sequence[Rule], severities: Sequence[str]) -> list[Row]:
    """The watchdog fires, and nothing that pages does."""
    name = context.site.telemetry.watchdog
    fires = [r for r in rules if r.name == name and any(a.state == "firing" for a in r.alerts)]
    if not any(rule.is_evaluated and not _late(context, rule) for rule in fires):
        return [
            unknown_row(name, "watchdog", "firing", "not firing; no silence is a proof without")
        ]
    paging = [rule for rule in rules if _pages(rule, severities)]
    if not paging:
        listed = ", ".join(severities)
        return [unknown_row("rules", f"alerts of severity {listed}", "at least 1", "none loaded")]
    rows = [
        unknown_row(rule.name, "paging rule", "evaluated", problem)
        for rule in paging
        if (problem := _unsure(context, rule))
    ]
    # The severity that counts is the alert's own: a rule's may be a template.
    alerts = [
        (rule.name, alert)
        for rule in rules
        for alert in rule.alerts
        if alert.state == "firing"
        and alert.labels.get("severity") in severities
        and all(alert.labels.get(k, v) == v for k, v in context.matchers.items())
    ]
    for rule_name, alert in alerts:
        labels = ", ".join(f"{k}={v}" for k, v in sorted(alert.labels.items()) if k != "alertname")
        since = f"since {alert.active_at:%Y-%m-%d %H:%M} UTC ({labels})"
        rows.append(check_row(rule_name, "paging alert", "not firing", since, ok=False))
    text = f"{len(paging)} paging rules quiet, {name} firing"
    return rows or [check_row("rules", "paging alerts", text, text, ok=True)]


def _unsure(context: Context, rule: Rule) -> str:
    """Why a rule without an alert is no proof of quiet; empty when it is."""
    if not rule.is_evaluated:
        return f"health {rule.health} {rule.last_error[:200]}".strip()
    return _late(context, rule)


def _linked(context: Context) -> Row:
    """Prometheus sends its alerts to the Alertmanager we look at."""
    telemetry = context.site.telemetry
    own = telemetry.alertmanager_as or telemetry.alertmanager.url
    found = context.prometheus.alertmanagers()
    if not found:  # so it is for some seconds after a start
        return unknown_row("prometheus", "sends alerts to", own, "nobody it knows of")
    ok = any(_address(url) == _address(f"{own}/api/v2/alerts") for url in found)
    hint = (
        "" if ok else "; set telemetry.alertmanager_as where Prometheus knows it by another address"
    )
    return check_row("prometheus", "sends alerts to", own, ", ".join(found) + hint, ok)


def _address(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc, parts.path.rstrip("/")
