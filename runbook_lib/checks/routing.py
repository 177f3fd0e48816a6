"""Whether a paging alert of this cluster would reach somebody, now and over the window ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ..context import Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row, worst
from ..params import RolloutParams
from ..sources.alertmanager import Alert, Silence
from ..sources.prometheus import Rule
from ..sources.routes import (
    MINUTE,
    Config,
    Inhibition,
    Labels,
    Matcher,
    Route,
    may_match,
    read_config,
)

TEST_ALERT = "RunbookRoutingTest"
TEST_LASTS = timedelta(minutes=1)
FRESH = timedelta(minutes=5)  # Prometheus repeats each alert once a minute
UNIQUE = ("alertname", "runbook")  # labels of the test alert that no other alert has


def judge(context: Context, paging_rules: Sequence[Rule], severities: Sequence[str]) -> list[Row]:
    """Route, receivers, silences, inhibitions and mute intervals. Raises SourceError."""
    alertmanager = context.alertmanager
    config = read_config(alertmanager.status().config.original)
    rows = _test_alert(context, config, severities) if _posts(context) else []
    common = {**context.matchers, **context.site.telemetry.paging_labels}
    paging: dict[str, Labels] = {f"severity {s}": {**common, "severity": s} for s in severities}
    for rule in paging_rules:
        own = {k: v for k, v in rule.labels.items() if "{{" not in v}
        paging[rule.name] = {**common, **own, "alertname": rule.name}
    alerts = alertmanager.alerts()
    rows += [_watchdog(context, alerts), *_routes(context, config, paging)]
    # Without a name, whatever names one alert might be about ours.
    named = {name: labels for name, labels in paging.items() if "alertname" in labels} or paging
    rows += _silenced(context, alertmanager.silences(), named)
    return rows + _inhibited(config, alerts, named)


def _posts(context: Context) -> bool:
    return context.stage != "development" and context.params.mode == "apply"


# --- the watchdog, and the way to a receiver ----------------------------------------------------


def _watchdog(context: Context, alerts: list[Alert]) -> Row:
    name = context.site.telemetry.watchdog
    what, expected = "watchdog", f"active, told of in the last {FRESH}"
    # One of another cluster's Prometheus proves nothing about ours.
    wanted = {**context.matchers, "alertname": name}
    held = [a for a in alerts if all(a.labels.get(k, v) == v for k, v in wanted.items())]
    problem = f"no alert {name}; nothing proves delivery"
    if held:
        newest = max(held, key=lambda each: each.updated_at)
        age = context.now - newest.updated_at
        fresh = age <= FRESH and newest.ends_at > context.now
        problem = "" if fresh else f"told of {age.total_seconds():.0f} s ago"
    if problem:
        return unknown_row("alertmanager", what, expected, problem)
    return check_row("alertmanager", what, expected, "active", ok=True)


def _routes(context: Context, config: Config, paging: Mapping[str, Labels]) -> list[Row]:
    """A row per alert that reaches nobody; of those that reach somebody, one per way."""
    quiet: dict[str, Row] = {}  # alerts that end at the same nodes are judged once
    rows: dict[object, list[Row]] = {}
    for name, labels in paging.items():
        leaves = config.leaves(labels)
        key = repr(leaves)
        if key not in quiet:
            quiet[key] = _route(context, config, leaves)
        row = quiet[key].model_copy(update={"subject": name})
        rows.setdefault(key if row.outcome is Outcome.PASS else name, []).append(row)
    return [
        same[0].model_copy(update={"subject": _several([row.subject for row in same])})
        for same in rows.values()
    ]


def _several(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def _route(context: Context, config: Config, leaves: Sequence[Route]) -> Row:
    """Whether these nodes have a receiver that notifies, at every minute of the window."""
    what, expected = "route", "a receiver that notifies, at every minute of the window"
    loud = [leaf for leaf in leaves if config.notifiers(leaf.receiver)]
    if not loud:
        names = ", ".join(leaf.receiver for leaf in leaves)
        return check_row("", what, expected, f"{names}, which notifies nobody", ok=False)
    try:
        quiet = _first_quiet(context, config, loud)
    except SourceError as error:
        return unknown_row("", what, expected, error.problem)
    if quiet:
        return check_row("", what, expected, quiet, ok=False)
    shown = [f"{leaf.receiver} ({', '.join(config.notifiers(leaf.receiver))})" for leaf in loud]
    return check_row("", what, expected, "; ".join(dict.fromkeys(shown)), ok=True)


def _first_quiet(context: Context, config: Config, leaves: Sequence[Route]) -> str:
    """The first minute of the window at which no leaf notifies; empty when there is none."""
    if any(not leaf.mute_time_intervals and not leaf.active_time_intervals for leaf in leaves):
        return ""
    start, end = _window(context)
    for minute in range((end - start) // MINUTE + 1):
        at = start + minute * MINUTE
        # Intervals are of Alertmanager's own clock, which is no rehearsal's.
        by = [config.muted(leaf, at - context.scope.offset) for leaf in leaves]
        if all(by):
            return f"muted by {', '.join(dict.fromkeys(by))} at {at:%Y-%m-%d %H:%M} UTC"
    return ""


def _window(context: Context) -> tuple[datetime, datetime]:
    """From now for as long as the site says, and to the end of the change window."""
    end = context.now + timedelta(hours=context.site.telemetry.armed_hours)
    params = context.params
    return context.now, max(end, params.window[1]) if isinstance(params, RolloutParams) else end


# --- what keeps an alert back -------------------------------------------------------------------


def _silenced(context: Context, silences: list[Silence], paging: Mapping[str, Labels]) -> list[Row]:
    """A row per silence of the window: it must match no paging alert of this cluster."""
    start, end = _window(context)
    expected = "matches no paging alert of this cluster"
    rows = []
    for silence in silences:
        ahead = silence.status.state != "expired" and silence.ends_at > start
        if not ahead or silence.starts_at >= end:
            continue
        matchers = ", ".join(map(str, silence.matchers))
        until = f"until {silence.ends_at:%Y-%m-%d %H:%M} UTC, by {silence.created_by}"
        outcome, name = _hits(silence.matchers, paging)
        shown = f"{{{matchers}}} {until}" + (f" ({name})" if name else "")
        rows.append(check_row(f"silence {silence.id[:8]}", "silence", expected, shown, outcome))
    none = check_row("alertmanager", "silences", "none on paging alerts", "none ahead", ok=True)
    return rows or [none]


def _hits(matchers: Sequence[Matcher], paging: Mapping[str, Labels]) -> tuple[Outcome, str]:
    """FAIL with the first alert that is surely matched, INCONCLUSIVE with one that may be."""
    found = {name: may_match(matchers, labels) for name, labels in paging.items()}
    for sure, outcome, word in ((True, Outcome.FAIL, ""), (None, Outcome.INCONCLUSIVE, "perhaps ")):
        if hit := [name for name, matches in found.items() if matches is sure]:
            return outcome, word + hit[0]
    return Outcome.PASS, ""


def _inhibited(config: Config, alerts: list[Alert], paging: Mapping[str, Labels]) -> list[Row]:
    """A row per inhibition that could hold a paging alert back: no source of it may be active."""
    rows = []
    expected = "no alert active that keeps a paging one back"
    for rule in config.inhibit_rules:
        targets = {n: v for n, v in paging.items() if may_match(rule.target, v) is not False}
        sources = [a for a in alerts if all(m.matches(a.labels) for m in rule.source)]
        hits = {
            f"{alert.labels.get('alertname', 'an alert')} keeps back {name}": outcome
            for alert in sources
            for name, labels in targets.items()
            if (outcome := _keeps_back(rule, alert.labels, labels)) is not Outcome.PASS
        }
        if targets:
            outcome = worst(hits.values()) if hits else Outcome.PASS
            shown = next((hit for hit, each in hits.items() if each is outcome), "none active")
            rows.append(check_row(str(rule), "inhibition", expected, shown, outcome))
    return rows


def _keeps_back(rule: Inhibition, source: Labels, target: Labels) -> Outcome:
    """FAIL for surely, INCONCLUSIVE for perhaps; an alert does not keep itself back."""
    if source.get("alertname") == target.get("alertname"):
        return Outcome.PASS
    known = [name for name in rule.equal if name in target]
    if any(source.get(name, "") != target[name] for name in known):
        return Outcome.PASS
    sure = may_match(rule.target, target) is True and known == rule.equal
    return Outcome.FAIL if sure else Outcome.INCONCLUSIVE


# --- the test alert -----------------------------------------------------------------------------


def _test_alert(context: Context, config: Config, severities: Sequence[str]) -> list[Row]:
    """Post an alert that no inhibition touches, and read back whom Alertmanager sends it to.

    A notification, not a change: it is over in a minute.
    """
    what, expected = "test alert", "active, at the receivers the routes lead to"
    common = {**context.matchers, **context.site.telemetry.paging_labels}
    mark = f"{context.params.release}/{context.attempt_name}/{context.scope.number}"
    unique = {"alertname": TEST_ALERT, "runbook": mark}
    candidates = [{**common, **unique, "severity": severity} for severity in severities]
    safe = [c for c in candidates if not any(r.touches(c, UNIQUE) for r in config.inhibit_rules)]
    if not safe:
        problem = "an inhibition matches it whatever its severity; it was not posted"
        return [unknown_row(TEST_ALERT, what, expected, problem)]
    labels = safe[0]
    about = {"summary": "Test of the way to the pager by a release runbook; nothing is wrong"}
    context.alertmanager.post(labels, about, context.now + TEST_LASTS)
    held = [each for each in context.alertmanager.alerts() if each.labels == labels]
    if not held:
        return [unknown_row(TEST_ALERT, what, expected, "Alertmanager does not hold it")]
    got = [receiver.name for receiver in held[0].receivers]
    wanted = list(dict.fromkeys(leaf.receiver for leaf in config.leaves(labels)))
    shown = f"{held[0].status.state}, at {', '.join(got) or 'nobody'}"
    loud = any(config.notifiers(name) for name in got)
    ok = loud and sorted(got) == sorted(wanted) and held[0].status.state != "suppressed"
    return [check_row(TEST_ALERT, what, expected, shown, ok)]
