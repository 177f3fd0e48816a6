"""Which loaded alerts are about a topic of the catalogue, and a test that shows whether one fires.

An alert is about a topic when its expression selects a series that one of the topic's queries
selects too, and narrows it at least as the query does. Such a series is then made up: absent while
the gate is off, at work, and at last at fault. promtool says what the alert makes of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from ..sources import patterns
from ..sources.prometheus import Rule
from . import catalogue

STOPS, VANISHES = "stops", "vanishes"
_AFTER = {STOPS: "1080x120", VANISHES: "stale"}
"""What becomes of a counter that has reached 1080: it stands still, or its series ends."""

NODES = 3
QUIET_AT, FIRES_AT = "2h30m", "4h30m"
SUBJECT = "Subject"

Labels = dict[str, str]


def about(query: str, wanted: Sequence[Any], matchers: Mapping[str, str]) -> list[Labels]:
    """Label sets, ``__name__`` included, of series that an alert and a topic have in common.

    ``wanted`` are the selectors of the topic's queries, ``matchers`` pick the cluster. Of another
    topic or cluster, or of an expression that does not parse: none.
    """
    try:
        selectors = catalogue.selected(query)
    except ValueError:
        return []
    found = []
    for selector in selectors:
        for topic in wanted:
            narrowed = {each.name for each in selector.matchers.matchers}
            if selector.name != topic.name or not {m.name for m in topic.matchers.matchers} <= (
                narrowed
            ):
                continue
            labels = _series([*selector.matchers.matchers, *topic.matchers.matchers], matchers)
            if labels is not None and (made := {"__name__": selector.name, **labels}) not in found:
                found.append(made)
    return found


def _series(own: Sequence[Any], cluster: Mapping[str, str]) -> Labels | None:
    """Labels that all matchers accept; None where there are none, or none that is easily found."""
    labels = dict(cluster)
    for name in dict.fromkeys(each.name for each in own):
        these = [each for each in own if each.name == name]
        candidates = [cluster[name]] if name in cluster else [*_literals(these), "x"]
        value = next((v for v in candidates if all(_accepts(m, v) for m in these)), None)
        if value is None:
            return None
        labels[name] = value
    return labels


def _literals(matchers: Iterable[Any]) -> Iterator[str]:
    """Values that the positive matchers name, or that their simple patterns suggest."""
    for each in matchers:
        if _is(each, "Equal"):
            yield each.value
        elif _is(each, "Re"):
            for part in each.value.split("|"):
                yield re.sub(r"\.[*+]", "x", part)


def _accepts(matcher: Any, value: str) -> bool:
    if _is(matcher, "Equal") or _is(matcher, "NotEqual"):
        return (matcher.value == value) is _is(matcher, "Equal")
    try:
        return patterns.matches(str(matcher.value), value) is _is(matcher, "Re")
    except ValueError:  # nothing is known of what it matches
        return False


def _is(matcher: Any, op: str) -> bool:
    import promql_parser as promql

    return bool(matcher.op == getattr(promql.MatchOp, op))


def unit_test(
    rule: Rule, series: Sequence[Labels], scenario: str, node_label: str
) -> tuple[bytes, bytes]:
    """(rule file, unit tests) for promtool, the rule as it is loaded; the tests name ``{rules}``.

    They hold when the alert is quiet while ``series`` go on, and fires once each of them has
    stopped or vanished. Whatever else the alert asks for goes on all the time.
    """
    inputs = _inputs(rule.query, series, f"_x60 0+12x90 {_AFTER[scenario]}", node_label)
    tests = {
        "rule_files": ["{rules}"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in inputs.items()],
                "promql_expr_test": [
                    {"expr": _fired("80m"), "eval_time": QUIET_AT, "exp_samples": []},
                    {
                        "expr": f"{_fired('118m')} > bool 0",
                        "eval_time": FIRES_AT,
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    },
                ],
            }
        ],
    }
    loaded = {
        "alert": SUBJECT,
        "expr": rule.query,
        "for": f"{round(rule.duration_s * 1000)}ms",
        "labels": {name: text for name, text in rule.labels.items() if name != "alertname"},
    }
    rules = {"groups": [{"name": "subject", "interval": "1m", "rules": [loaded]}]}
    return _yaml(rules), _yaml(tests)


def _fired(span: str) -> str:
    """Whether the alert was firing at any time of that span before."""
    firing = f'ALERTS{{alertname="{SUBJECT}",alertstate="firing"}}'
    return f"count(count_over_time({firing}[{span}]))"


def _inputs(query: str, series: Sequence[Labels], values: str, node_label: str) -> dict[str, str]:
    """promtool's input: ``series`` of some nodes with ``values``, the rest of the query at work."""
    names = {labels["__name__"] for labels in series}
    beside = [s for s in catalogue.selected(query) if s.name and s.name not in names]
    found = {}
    for number in range(1, NODES + 1):
        node = {node_label: f"node-{number}"}
        for labels in series:
            found[_name(node | labels)] = values
        for selector in beside:
            steady = "1x270" if selector.name == "up" else "0+12x270"
            labels = _series(selector.matchers.matchers, {}) or {}
            found[_name(node | labels | {"__name__": selector.name})] = steady
    return found


def _name(labels: Mapping[str, str]) -> str:
    """A series as promtool's input names it."""
    inner = ",".join(f"{k}={json.dumps(v)}" for k, v in labels.items() if k != "__name__")
    return f"{labels['__name__']}{{{inner}}}"


def _yaml(document: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, width=1000).encode()
