"""preflight.observability: dashboards are green, rules are evaluated, a page would arrive."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from math import inf, isnan
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from .. import playbook
from ..context import Context, judges
from ..errors import Answers, ParameterError, SourceError, tried
from ..findings import Findings
from ..metrics.catalogue import (
    Catalogue,
    Metric,
    check,
    inject,
    limit_words,
    parse_catalogue,
    pretty,
    resolve,
)
from ..metrics.catalogue import selectors as selectors_of
from ..outcomes import CheckResult, Outcome, Value
from ..params import RolloutParams
from ..site import Topic
from ..sources.alertmanager import Alert, Config, Labels, Silence, host_labels, matched
from ..sources.dashboards import Dashboard, Grafana, Panel, Query, read_dashboard
from ..sources.prometheus import Duration, Rule, Sample
from ..strict import Range, Strict, parse_yaml, project_path, validate

ITEM, CATALOGUE = "preflight.observability", "params/metrics.yaml"
GATED = ("reward_distribution", "witness_gossip")
LATE_S = 60.0  # an evaluation may be late by this and two of its intervals
TEST_ALERT = "RunbookRoutingTest"
TEST_LASTS = timedelta(minutes=1)
RULE_FILES = {".yml", ".yaml", ".rules"}
FRESH = timedelta(minutes=5)  # Prometheus repeats each alert once a minute


def expected(context: Context) -> tuple[str, Value]:
    """What must hold, and its threshold."""
    return "every panel is green; a page would reach somebody", "0 red, 0 silent, 0 paging alerts"


@judges(ITEM)
def observability(context: Context) -> CheckResult:
    """Dashboards green, rules loaded and quiet while the watchdog fires, routing armed.

    Playbook: common preflight, 3. The metrics are judged at ``as_of``; rules, alerts and routes
    have no past.
    """
    catalogue = parse_catalogue(context.scope.read(project_path(CATALOGUE)), CATALOGUE)
    judge_dashboards(context, catalogue)
    panels = len({row.subject for row in context.findings}) - len(context.site.dashboards.topics)
    rules: list[Rule] = []
    severities = _severities(context)
    with context.reading("rules and alerts", "an answer"):
        context.require_now("rules and alerts")
        rules = context.prometheus.rules()
        _shipped(context, rules)
        _firing(context, rules, severities)
        _mute(context, catalogue, [rule for rule in rules if _pages(rule, severities)])
        _linked(context)
    with context.reading("alert routing", "an answer"):
        _delivery(context, rules, severities)
    return context.conclude(
        passed=f"{panels} panels green, {len(rules)} rules loaded, a page would arrive",
        data={"rules": len(rules), "severities": list(severities)},
    )


def _severities(context: Context) -> list[str]:
    own = {*context.params.paging_severities, *context.site.telemetry.paging_severities}
    return sorted(own | playbook.PAGING_SEVERITIES)  # each may only widen it


def paging(context: Context) -> str:
    """Which alert pages now, or why nobody can say; empty when none does, and the watchdog fires."""
    with context.apart() as found, context.reading("paging alerts", "an answer"):
        _firing(context, context.prometheus.rules(), _severities(context))
    bad = [row for row in found if row.outcome is not Outcome.PASS]
    return "; ".join(f"{row.subject}: {row.what}: {row.observed}" for row in bad)


def _pages(rule: Rule, severities: Sequence[str]) -> bool:
    severity = rule.labels.get("severity", "")
    return rule.kind == "alerting" and (severity in severities or "{{" in severity)


# --- rules that the site ships ------------------------------------------------------------------


def _shipped(context: Context, loaded: Sequence[Rule]) -> None:
    """A finding per rule that is not loaded, healthy and evaluated, and one per file that is well.

    Prometheus is the judge of a file: a rule counts when the server reports it as it is shipped.
    """
    what, paths = "shipped by the site", context.site.telemetry.rules
    if not paths:
        context.unknown("rules", what, "named", "none; set telemetry.rules")
    for name in paths:
        files = _files(context, project_path(name))
        if not files:
            context.unknown("rules", what, "at least one file", f"none in {name}")
        for path in files:
            _file(context, path, loaded)


def _files(context: Context, path: Path) -> list[Path]:
    """A file, or all rule files of a folder and those in it."""
    if path.suffix in RULE_FILES:
        return [path]
    inner = (path / name for name in context.scope.listing(path))
    found = (_files(context, each) for each in inner if not each.name.startswith("."))
    return [file for files in found for file in files]


def _file(context: Context, path: Path, loaded: Sequence[Rule]) -> None:
    shown, wanted = path.name, "rules that load, as `promtool check rules` says"
    with context.reading("rule file", wanted, shown, ParameterError):
        shipped = read_rules(context.scope.read(path), shown)
        good = f"{len(shipped)} rules loaded, healthy, evaluated"
        with context.reading("rules", good, shown, clean=good):
            for rule in shipped:
                _rule(context, shown, rule, loaded)


def _rule(context: Context, file: str, rule: Shipped, loaded: Sequence[Rule]) -> None:
    """What is wrong with a shipped rule, if anything is."""
    subject, what = f"{file}: {rule.name}", "rule"
    kind = "alerting" if rule.alert else "recording"
    named = [each for each in loaded if (each.kind, each.name) == (kind, rule.name)]
    same = [each for each in named if _same(each, rule)]
    if not same:
        got = "not loaded"
        if named:
            got = f"another expression, wait, label or annotation: {named[0].query[:120]}"
        context.judge(subject, what, "loaded as shipped", got, ok=False)
    for each in same:
        if problem := _unsure(context, each):
            outcome = Outcome.FAIL if each.health == "err" else Outcome.INCONCLUSIVE
            context.judge(subject, what, "evaluated lately, without error", problem, outcome)
            break


def _unsure(context: Context, rule: Rule) -> str:
    """Why a rule without an alert is no proof of quiet; empty when it is."""
    if not rule.is_evaluated:
        return f"health {rule.health} {rule.last_error[:200]}".strip()
    age = (context.now - rule.last_evaluation).total_seconds()
    limit = 2 * rule.interval_s + LATE_S
    return f"evaluated {age:.0f} s ago, at most {limit:.0f} s" if age > limit else ""


def _same(loaded: Rule, shipped: Shipped) -> bool:
    labels = {name: text for name, text in loaded.labels.items() if name != "alertname"}
    return (
        labels == shipped.labels
        and loaded.annotations == shipped.annotations
        and round(loaded.duration_s * 1000) == shipped.wait
        and pretty(loaded.query) == pretty(shipped.expr)
    )


# --- rule files as they are shipped: plain, or PrometheusRule resources with the groups below spec ---
# Whether a file loads is for Prometheus to say; what is not understood here is an error that names
# file and key. Source: prometheus/model/rulefmt/rulefmt.go.


class Shipped(Strict):
    """A rule of a file, either an alert or a recording rule; ``wait`` is its ``for``."""

    alert: str = ""
    record: str = ""
    expr: str = Field(min_length=1)
    wait: Duration = Field(default=0, alias="for")
    keep_firing_for: Duration = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.alert or self.record

    @model_validator(mode="after")
    def _is_one(self) -> Shipped:
        if bool(self.alert) == bool(self.record):
            raise ValueError("expected either alert or record, got both or neither")
        return self


class _Group(Strict):
    name: str = Field(min_length=1)
    interval: Duration = 0
    query_offset: Duration = 0
    limit: int = 0
    partial_response_strategy: str = ""
    labels: dict[str, str] = {}
    rules: list[Shipped]


class _RuleFile(Strict):
    groups: list[_Group]

    @model_validator(mode="after")
    def _names_once(self) -> _RuleFile:
        if len({group.name for group in self.groups}) != len(self.groups):
            raise ValueError("expected every group's name once, got one again")
        if not any(group.rules for group in self.groups):
            raise ValueError("expected at least one rule, got none")
        return self


def read_rules(text: bytes, file: str) -> list[Shipped]:
    """The rules of a file, at least one. Raises ParameterError naming file and key."""
    document = parse_yaml(text, file)
    if document.get("kind") == "PrometheusRule":
        spec = document.get("spec")
        document = spec if isinstance(spec, dict) else {}
    return [
        rule.model_copy(update={"labels": {**group.labels, **rule.labels}})
        for group in validate(_RuleFile, document, file).groups
        for rule in group.rules
    ]


# --- alerts -------------------------------------------------------------------------------------


def _firing(context: Context, rules: Sequence[Rule], severities: Sequence[str]) -> None:
    """The watchdog fires, and nothing that pages does."""
    name = context.site.telemetry.watchdog
    fires = [r for r in rules if r.name == name and any(a.state == "firing" for a in r.alerts)]
    if all(_unsure(context, rule) for rule in fires):
        problem = "not firing; no silence is a proof without"
        context.unknown(name, "watchdog", "firing", problem)
        return
    paging = [rule for rule in rules if _pages(rule, severities)]
    if not paging:
        listed = ", ".join(severities)
        what = f"alerts of severity {listed}"
        context.unknown("rules", what, "at least 1", "none loaded")
        return
    quiet = f"{len(paging)} paging rules quiet, {name} firing"
    with context.reading("paging alerts", quiet, "rules", clean=quiet):
        for rule in paging:
            if problem := _unsure(context, rule):
                context.unknown(rule.name, "paging rule", "evaluated", problem)
        for rule, alert in ((one, alert) for one in rules for alert in one.alerts):
            # Its own severity counts: a rule's may be a template.
            pages = alert.state == "firing" and alert.labels.get("severity") in severities
            if pages and _ours(context, alert.labels):
                own = {k: v for k, v in sorted(alert.labels.items()) if k != "alertname"}
                labels = ", ".join(f"{k}={v}" for k, v in own.items())
                since = f"since {alert.active_at:%Y-%m-%d %H:%M} UTC ({labels})"
                context.judge(rule.name, "paging alert", "not firing", since, ok=False)


def _mute(context: Context, catalogue: Catalogue, paging: Sequence[Rule]) -> None:
    """A finding per paging rule that asks for what no target had in a week: it can never fire.

    What a gate turns on has no series before; those topics are proven once it is on.
    """
    gated = [q for m in catalogue.metrics if m.topic in GATED for q in m.queries]
    later = {base for query in gated for base in _bases(query)}
    asked: dict[str, list[str]] = {}
    for rule in paging:
        with context.reading("can fire", "a query we can ask", rule.name, ValueError):
            asked[rule.query] = [s for s in selectors_of(rule.query) if not later & _bases(s)]
    every = dict.fromkeys(each for found in asked.values() for each in found)
    unmatched = context.prometheus.unmatched(every, context.now)
    for rule in paging:
        if silent := [each for each in asked.get(rule.query, ()) if each in unmatched]:
            problem = f"none of {silent[0]}; mend the rule, or waive it"
            context.unknown(rule.name, "can fire", "series in the last 7 days", problem)


def _linked(context: Context) -> None:
    """Prometheus sends its alerts to the Alertmanager we look at."""
    telemetry, what = context.site.telemetry, "sends alerts to"
    own = telemetry.alertmanager_as or telemetry.alertmanager.url
    found = context.prometheus.alertmanagers()
    if found is None:  # Thanos and Mimir keep no list: that its watchdog arrives is proof as well
        with context.apart() as told:
            _watchdog(context, context.alertmanager.alerts())
        way = f"no list of Alertmanagers (404); its watchdog at {own}: {told[0].observed}"
        context.judge("prometheus", what, own, way, told[0].outcome)
        return
    if not found:  # so it is for some seconds after a start
        context.unknown("prometheus", what, own, "nobody it knows of")
        return
    urls = [urlsplit(url) for url in (f"{own}/api/v2/alerts", *found)]
    wanted, *known = ((url.netloc, url.path.rstrip("/")) for url in urls)
    hint = "; set telemetry.alertmanager_as where Prometheus knows it by another address"
    shown = ", ".join(found) + ("" if wanted in known else hint)
    context.judge("prometheus", what, own, shown, wanted in known)


# --- whether a page would reach somebody --------------------------------------------------------

Pages = list[tuple[str, Labels]]


def _delivery(context: Context, rules: Sequence[Rule], severities: Sequence[str]) -> None:
    """Watchdog, routes, what is held back now, silences and inhibitions. Raises SourceError."""
    alertmanager = context.alertmanager
    config = alertmanager.config()
    common = {**context.matchers, **context.site.telemetry.paging_labels}
    if context.stage != "development" and context.params.mode == "apply":
        _test_alert(context, config, common, severities)
    known = _each(common)
    pages: Pages = [(f"severity {s}", {**known, "severity": [s]}) for s in severities]
    named: Pages = []
    for rule in rules:
        if _pages(rule, severities):
            own = {k: v for k, v in rule.labels.items() if "{{" not in v}
            named.append((rule.name, {**known, **_each(own), "alertname": [rule.name]}))
    alerts = alertmanager.alerts()
    _watchdog(context, alerts)
    _routes(context, config, pages + named)
    for alert in alerts:
        state = alert.status
        by = [*state.silenced_by, *state.inhibited_by, *state.muted_by]
        kept = state.state == "suppressed" or bool(by)
        if kept and alert.labels.get("severity") in severities and _ours(context, alert.labels):
            got = f"held back by {', '.join(by) or 'Alertmanager'}"
            context.judge(alert.labels.get("alertname", ""), "page", "delivered", got, ok=False)
    # Without a name, whatever names one alert might be about ours.
    _silenced(context, alertmanager.silences(), named or pages)
    _inhibited(context, config, alerts, named or pages)


def _each(labels: Mapping[str, str]) -> dict[str, Collection[str]]:
    return {name: [value] for name, value in labels.items()}


def _ours(context: Context, labels: Mapping[str, str]) -> bool:
    """Whether an alert may be this cluster's: one without its labels may be of any."""
    return all(labels.get(name, value) == value for name, value in context.matchers.items())


def _watchdog(context: Context, alerts: Sequence[Alert]) -> None:
    name = context.site.telemetry.watchdog
    told = partial(
        context.judge, "alertmanager", "watchdog", f"active, told of in the last {FRESH}"
    )
    # One of another cluster's Prometheus proves nothing about ours.
    held = [a for a in alerts if a.labels.get("alertname") == name and _ours(context, a.labels)]
    if not held:
        told(f"no alert {name}; nothing proves delivery", Outcome.INCONCLUSIVE)
        return
    newest = max(held, key=lambda each: each.updated_at)
    age = context.now - newest.updated_at
    if age <= FRESH and newest.ends_at > context.now:
        told("active", ok=True)
    else:
        told(f"told of {age.total_seconds():.0f} s ago", Outcome.INCONCLUSIVE)


def _routes(context: Context, config: Config, pages: Pages) -> None:
    """A finding per page that reaches nobody or may reach nobody; one for all others."""
    what, expected = "route", "a receiver that notifies, at all times"
    good: dict[str, int] = {}
    for name, labels in pages:
        # A page in general is one that has no other labels; a rule's series may give it some.
        leaves = list(config.route.leaves(labels, complete="alertname" not in labels))
        loud = [leaf for leaf in leaves if config.notifiers(leaf.receiver)]
        always = [leaf for leaf in loud if not leaf.intervals]
        if len(always) == len(leaves) or any(leaf.sure for leaf in always):
            shown = (f"{x.receiver} ({', '.join(config.notifiers(x.receiver))})" for x in always)
            text = "; ".join(dict.fromkeys(shown))
            good[text] = good.get(text, 0) + 1
        elif not loud:
            names = ", ".join(leaf.receiver for leaf in leaves)
            context.judge(name, what, expected, f"{names}, which notifies nobody", ok=False)
        elif muted := next((leaf for leaf in loud if leaf.intervals), None):
            problem = f"{muted.receiver}, muted at times by {', '.join(muted.intervals)}"
            cure = "; take the interval off this route, or add one that always notifies"
            context.unknown(name, what, expected, problem + cure)
        else:
            quiet = next(leaf.receiver for leaf in leaves if leaf not in loud)
            cure = "; say in telemetry.paging_labels which labels a page carries"
            context.unknown(name, what, expected, f"perhaps {quiet}, which notifies nobody{cure}")
    for text, count in good.items():
        context.judge(f"{count} pages", what, expected, text, ok=True)


def _silenced(context: Context, silences: Sequence[Silence], pages: Pages) -> None:
    """A finding per silence that matches, or may match, a page of this cluster in the window ahead."""
    start = context.now
    end = start + timedelta(hours=context.site.telemetry.armed_hours)
    if isinstance(context.params, RolloutParams):
        end = max(end, context.params.window[1])
    label, nodes = context.site.telemetry.node_label, context.cluster.nodes
    ahead = [
        each
        for each in silences
        if each.status.state != "expired" and each.ends_at > start and each.starts_at < end
    ]
    hits = 0
    for each in ahead:
        hosts = host_labels(label, nodes, each.matchers)
        found = [(name, matched(each.matchers, {**hosts, **labels})) for name, labels in pages]
        if not (hit := sorted((m is None, name) for name, m in found if m is not False)):
            continue
        hits, (perhaps, name) = hits + 1, hit[0]
        until = f"until {each.ends_at:%Y-%m-%d %H:%M} UTC, by {each.created_by}"
        what = f"{{{', '.join(map(str, each.matchers))}}} {until}"
        shown = f"{what} ({'perhaps ' if perhaps else ''}{name})"
        outcome = Outcome.INCONCLUSIVE if perhaps else Outcome.FAIL
        expected = "matches no page of this cluster"
        context.judge(f"silence {each.id[:8]}", "silence", expected, shown, outcome)
    if not hits:
        text = f"none of {len(ahead)} ahead"
        context.judge("alertmanager", "silences", "none that match a page", text, ok=True)


def _inhibited(context: Context, config: Config, alerts: Sequence[Alert], pages: Pages) -> None:
    """A finding per inhibition whose source is active and which may keep a page back."""
    for rule, alert in product(config.inhibit_rules, alerts):
        source, own = _each(alert.labels), alert.labels.get("alertname", "an alert")
        if matched(rule.source_matchers, source, complete=True) is False:
            continue
        same = {name: alert.labels.get(name, "") for name in rule.equal}
        for name, labels in pages:
            equal = all(value in labels.get(label, [value]) for label, value in same.items())
            if own != name and equal and matched(rule.target_matchers, labels) is not False:
                got = f"{own} may keep back {name}; end it, or narrow what the rule inhibits"
                context.unknown(str(rule), "inhibition", "no source of it active", got)
                break


def _test_alert(
    context: Context, config: Config, common: Mapping[str, str], severities: Sequence[str]
) -> None:
    """Post an alert that no inhibition touches, and read back whom Alertmanager sends it to.

    A notification, not a change: it is over in a minute.
    """
    expected = "active, at the receivers the routes lead to"
    told = partial(context.judge, TEST_ALERT, "test alert", expected)
    mark = f"{context.params.release}/{context.attempt_name}/{context.scope.number}"
    unique = {"alertname": TEST_ALERT, "runbook": mark}  # no other alert has these labels

    rules = [rule for rule in config.inhibit_rules if not set(unique) & set(rule.equal)]
    sides = [side for rule in rules for side in (rule.source_matchers, rule.target_matchers)]
    for severity in severities:
        labels = {**common, **unique, "severity": severity}
        if all(matched(side, _each(labels), complete=True) is False for side in sides):
            break
    else:
        problem = "an inhibition matches it whatever its severity; it was not posted"
        told(problem, Outcome.INCONCLUSIVE)
        return
    about = {"summary": "Test of the way to the pager by a release runbook; nothing is wrong"}
    context.alertmanager.post(labels, about, context.now + TEST_LASTS)
    held = [each for each in context.alertmanager.alerts() if each.labels == labels]
    if not held:
        told("Alertmanager does not hold it", Outcome.INCONCLUSIVE)
        return
    got = [receiver.name for receiver in held[0].receivers]
    leaves = list(config.route.leaves(_each(labels), complete=True))
    sure = {leaf.receiver for leaf in leaves if leaf.sure}
    as_led = sure <= set(got) <= {leaf.receiver for leaf in leaves}
    shown = f"{held[0].status.state}, at {', '.join(got) or 'nobody'}"
    loud = any(config.notifiers(name) for name in got)
    ok = as_led and loud and held[0].status.state != "suppressed"
    told(shown, ok)


# --- The dashboards of the four topics: every panel asked, fresh, and not red ---

SHADES = ("red", "orange")
_SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")


def judge_dashboards(context: Context, catalogue: Catalogue) -> None:
    """A finding per query, per limit, and per panel that cannot be judged; one per topic."""
    settings = context.site.dashboards
    for topic in (topic for topic in get_args(Topic) if topic not in settings.topics):
        context.unknown(topic, "dashboards", "named", f"none; set dashboards.topics.{topic}")
    wanted = dict.fromkeys(ref for refs in settings.topics.values() for ref in refs)
    found: dict[str, Dashboard] = {}
    read = _read(context, list(wanted))
    for ref, dashboard in context.answers("dashboard", "readable", read):
        if dashboard.panels:
            found[ref] = dashboard
        else:
            context.unknown(ref, "dashboard", "at least one panel", "none")
    look = _Look(context, catalogue, [panel for each in found.values() for panel in each.panels])
    judged = dict[str, list[bool]]()
    with context.apart() as panels:
        for ref, each in found.items():
            judged[ref] = [look.panel(f"{each.title}: {one.title}", one) for one in each.panels]
    what = "panels that can be red"
    for topic, refs in settings.topics.items():
        can = [can for ref in refs for can in judged.get(ref, [])]
        observed = f"{sum(can)} of {len(can)}" + ("" if any(can) else "; give one thresholds")
        outcome = Outcome.PASS if any(can) else Outcome.INCONCLUSIVE
        context.judge(topic, what, "at least 1", observed, outcome)
    titles = {f"{each.title}: {panel.title}" for each in found.values() for panel in each.panels}
    for name in settings.limits if len(found) == len(wanted) else ():
        if name not in titles:
            problem = "no such panel; see dashboards.limits"
            context.unknown(name, "limit of the site", "of a panel", problem)
    context.findings += panels


def _read(context: Context, refs: list[str]) -> Answers[str, Dashboard]:
    settings, scope = context.site.dashboards, context.scope
    served = tried(_served, context, [ref for ref in refs if not ref.endswith(".json")])

    def read(ref: str) -> Dashboard:
        if ref.endswith(".json"):
            return read_dashboard(scope.read(project_path(ref)), ref, settings.variables)
        if isinstance(served, SourceError):
            raise served
        return served[ref]

    return Answers(read, refs)


def _served(context: Context, uids: list[str]) -> Mapping[str, Dashboard]:
    settings = context.site.dashboards
    if not uids:
        return {}
    if settings.grafana is None:
        raise SourceError("site", "expected dashboards.grafana for a uid, got none; set it")
    return Grafana(context.scope, settings.grafana).dashboards(uids, settings.variables)


class _Look:
    """Every query and the age of every selector asked at once, each limit of the catalogue once."""

    def __init__(self, context: Context, catalogue: Catalogue, panels: Sequence[Panel]) -> None:
        self.context, self.at = context, context.at
        self.max_age = timedelta(seconds=context.site.dashboards.max_age_s)
        self.limits = [(m, m.limit) for m in catalogue.metrics if m.limit is not None]
        self.held: dict[str, tuple[str, bool]] = {}
        self.exprs, unasked = dict[str, str](), Findings()
        for query in (query for panel in panels for query in panel.queries if not query.problem):
            with unasked.reading("query", "one we can ask", query.expr, ValueError):
                self.exprs[query.expr] = inject(check(query.expr), context.matchers, beside=True)
        self.problems = {row.subject: row.observed for row in unasked.findings}
        self.values = context.prometheus.instants(list(self.exprs.values()), self.at)
        selectors = dict.fromkeys(s for expr in self.exprs.values() for s in selectors_of(expr))
        self.newest = context.prometheus.newest(selectors, self.at)

    def panel(self, subject: str, panel: Panel) -> bool:
        """Judge a panel. Whether it can be red."""
        limit = self.context.site.dashboards.limits.get(subject)
        problem = "" if panel.queries else "expected a query, got none"
        if panel.problem and limit is None:
            problem = f"{panel.problem}; state a limit for this panel: dashboards.limits"
        if problem:
            self.context.unknown(subject, "panel", "one we can judge", problem)
            return False
        for query in panel.queries:
            self._query(subject, panel, query, limit)
        if limit is not None or panel.can_be_red:
            return True
        asked = [
            self.exprs[q.expr] for q in panel.queries if not q.problem and q.expr in self.exprs
        ]
        own = {base for expr in asked for base in _bases(expr)}
        fits = [
            self._limit(subject, metric, limit)
            for metric, limit in self.limits
            if any(own & _bases(query) for query in metric.queries)
        ]
        return bool(fits)

    def _query(self, subject: str, panel: Panel, query: Query, limit: Range | None) -> None:
        what = f"query {query.ref}" + (f" ({query.filled})" if query.filled else "")
        if query.problem or query.expr in self.problems:
            problem = query.problem or self.problems[query.expr]
            self.context.unknown(subject, what, "a query we can ask", problem)
            return
        expr = self.exprs[query.expr]
        allowed = _allowed(panel) if limit is None else limit_words(limit)
        with self.context.finding(subject, what, f"fresh data, {allowed}") as judge:
            samples, left, age = self._fresh(expr)
            if limit is None:
                red, orange = ([s for s in samples if panel.shade(s.value) == c] for c in SHADES)
            else:
                red, orange = [s for s in samples if not limit.holds(s.value)], []
            outcome = Outcome.FAIL if red else Outcome.INCONCLUSIVE if orange else Outcome.PASS
            shown = "; ".join(map(_shown, red or orange))
            text = f"{len(samples)} series, {age.total_seconds():.0f} s old"
            judge((shown or text) + left, outcome)

    def _fresh(self, expr: str) -> tuple[list[Sample], str, timedelta]:
        """A query's values, what was left out, its oldest source's age. Raises SourceError without.

        A selector without samples counts only when none has any: in ``a or b`` one is enough, in
        ``a / b`` the answer itself is empty.
        """
        stamps = {s: self.newest[s] for s in selectors_of(expr)}
        newest = [max(each.value for each in found) for found in stamps.values() if found]
        samples = self.values[expr]
        if not newest or not samples:
            silent = next((s for s, found in stamps.items() if not found), "")
            problem = f"nothing emits {silent} now" if silent else "the query is empty"
            raise SourceError("prometheus", f"no data: {problem}")
        age = self.at - datetime.fromtimestamp(min(newest), UTC)
        if age > self.max_age:
            limit = self.max_age.total_seconds()
            problem = f"stale: {age.total_seconds():.0f} s old, at most {limit:g} s"
            raise SourceError("prometheus", problem)
        return *_numbers(samples), age

    def _limit(self, subject: str, metric: Metric, limit: Range) -> bool:
        """The finding of a catalogue's limit for a panel that reads the metric's series."""
        what, expected = f"{metric.title} (the catalogue's limit)", limit_words(limit, metric.unit)
        with self.context.reading(what, expected, subject, (SourceError, ParameterError)):
            if metric.name not in self.held:
                self.held[metric.name] = self._held(metric, limit)
            return self.context.judge(subject, what, expected, *self.held[metric.name])
        return False

    def _held(self, metric: Metric, limit: Range) -> tuple[str, bool]:
        """The sample that breaks a limit, else one that holds it, and which it is."""
        query = resolve(self.context.prometheus, metric, self.context.matchers, self.at)
        samples, left = _numbers(self.context.prometheus.instant(query, self.at))
        out = [sample for sample in samples if not limit.holds(sample.value)]
        return _shown((out or samples)[0]) + left, not out


def _numbers(samples: Sequence[Sample]) -> tuple[list[Sample], str]:
    """Samples with a number, and how many are without: a series that ended divides zero by zero."""
    good, ended = ([s for s in samples if isnan(s.value) is nan] for nan in (False, True))
    if not good:
        got = f": {_shown(ended[0])}" if ended else ""
        raise SourceError("prometheus", f"no number{got}")
    kept = {pair for sample in good for pair in sample.labels.items()}
    by = {pair[0] for sample in ended for pair in sample.labels.items() if pair not in kept}
    cure = f" (short-lived by {', '.join(sorted(by))}, take the sum without it)" if by else ""
    return good, f"; {len(ended)} more without a number{cure}" if ended else ""


def _allowed(panel: Panel) -> str:
    if not panel.can_be_red:
        return "no thresholds"
    steps = [x.color + (f" from {x.low:g}" if x.low > -inf else "") for x in panel.steps]
    return f"not red ({', '.join([*steps, *(f'{x.color} at {x.low:g}' for x in panel.mappings)])})"


def _shown(sample: Sample) -> str:
    labels = ", ".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "__name__")
    return f"{sample.value:g}" + (f" at {labels}" if labels else "")


def _bases(expr: str) -> set[str]:
    """The series an expression reads, histograms and counters by their common name."""
    names = (selector.partition("{")[0] for selector in selectors_of(expr))
    return {_SUFFIX.sub("", name) for name in names if name}
