"""preflight.observability: rules and alerts."""

from __future__ import annotations

from typing import Any

import pytest

from .observing import FAIL, INCONCLUSIVE, NEVER, Look, iso


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"query": "rate(x[2m]) == 1"}, (FAIL, "rules.yaml: Stall", "rule", "another expression, severity or wait: rate(x[2m]) == 1")),
        ({"labels": {"severity": "page"}}, (FAIL, "rules.yaml: Stall", "rule", "another expression, severity or wait: rate(x[2m]) == 0")),
        ({"name": "Other"}, (FAIL, "rules.yaml: Stall", "rule", "not loaded")),
        ({"duration": 86400}, (FAIL, "rules.yaml: Stall", "rule", "another expression, severity or wait: rate(x[2m]) == 0")),
        ({"lastEvaluation": iso(7200)}, (INCONCLUSIVE, "rules.yaml: Stall", "rule", "evaluated 7200 s ago, at most 90 s")),
    ],
)  # fmt: skip
def test_a_shipped_rule_is_loaded_as_it_is(look: Look, changes: Any, row: Any) -> None:
    """By name, expression, severity and wait, and evaluated lately; spelling does not matter."""
    look.world.rules[1] |= changes
    found, *_ = look.bad()
    assert found[:3] == row[:3]
    assert str(found[3])[:10] == str(row[3])[:10]


def test_a_rule_that_errs_fails_and_one_never_evaluated_is_inconclusive(look: Look) -> None:
    """Both look like "no alert"."""
    look.world.rules[1] |= {"health": "err", "lastError": "duplicate series"}
    assert look.bad() == [
        (FAIL, "rules.yaml: Stall", "rule", "duplicate series"),
        (INCONCLUSIVE, "Stall", "paging rule", "health err duplicate series"),
    ]
    look.world.rules[1] |= {"health": "unknown", "lastEvaluation": NEVER, "lastError": ""}
    assert look.bad() == [
        (INCONCLUSIVE, "rules.yaml: Stall", "rule", "health unknown; never evaluated"),
        (INCONCLUSIVE, "Stall", "paging rule", "health unknown"),
    ]


def test_a_paging_rule_that_stands_still_proves_no_quiet(look: Look) -> None:
    """Shipped by the site or not; a watchdog that was last evaluated long ago proves nothing."""
    look.world.rules.append(look.world.rule("Slow", "y > 1", "page", lastEvaluation=iso(7200)))
    [found] = look.bad()
    assert found[:3] == (INCONCLUSIVE, "Slow", "paging rule")
    assert str(found[3]).startswith("evaluated 720")
    look.world.rules.pop()
    look.world.rules[0] |= {"lastEvaluation": iso(7200)}
    problem = "not firing; no silence is a proof without"
    assert look.bad() == [(INCONCLUSIVE, "Watchdog", "watchdog", problem)]


def test_rules_must_be_shipped_and_readable(look: Look) -> None:
    """No file, an empty folder, a broken file: nothing to compare with."""
    named = (INCONCLUSIVE, "rules", "shipped by the site", "none; set telemetry.rules")
    assert look.bad(site=look.site(rules=[])) == [named]
    (look.root / "empty").mkdir()
    empty = (INCONCLUSIVE, "rules", "shipped by the site", "none")
    assert look.bad(site=look.site(rules=[str(look.root / "empty")])) == [empty]
    (look.root / "rules.yaml").write_text("groups: []")
    assert look.bad() == [(INCONCLUSIVE, "rules.yaml", "rule file", "no rules")]


@pytest.mark.parametrize(
    ("alert", "blocks"),
    [
        ({}, True),
        ({"labels": {"cluster": "dev"}}, True),
        ({"labels": {"cluster": "test"}}, False),
        ({"state": "pending"}, False),
        ({"labels": {"severity": "warning"}}, False),
    ],
)
def test_a_paging_alert_of_this_cluster_blocks(look: Look, alert: Any, blocks: bool) -> None:
    """One without the cluster's label may be of any."""
    look.world.rules[1]["alerts"] = [look.world.alert("critical", **alert)]
    assert [row[:3] for row in look.bad()] == [(FAIL, "Stall", "paging alert")] * blocks


def test_a_severity_that_the_site_adds_pages_too(look: Look) -> None:
    """And one that the parameters add; the playbook's own stay."""
    look.world.rules.append(look.world.rule("Slow", "y > 1", "sev1", look.world.alert("sev1")))
    assert look.bad() == []
    look.world.config["route"]["routes"][0]["matchers"] = ["severity!=none"]
    wide = look.site(paging_severities=["sev1"])
    assert [row[:3] for row in look.bad(site=wide)] == [(FAIL, "Slow", "paging alert")]
    severities = ["critical", "page", "sev1"]
    found = look.bad(paging_severities=severities)
    assert [row[:3] for row in found] == [(FAIL, "Slow", "paging alert")]


def test_silence_proves_nothing_without_the_watchdog(look: Look) -> None:
    """Nor without any rule that could page."""
    look.world.rules[0]["alerts"] = []
    expected = (INCONCLUSIVE, "Watchdog", "watchdog", "not firing; no silence is a proof without")
    assert look.bad() == [expected]


def test_no_paging_rule_is_no_quiet(look: Look) -> None:
    """An empty set of subjects."""
    (look.root / "rules.yaml").write_text("groups: [{name: g, rules: [{alert: W, expr: up}]}]")
    look.world.rules[1] = look.world.rule("W", "up", "warning", labels={})
    row = (INCONCLUSIVE, "rules", "alerts of severity critical, page", "none loaded")
    assert look.bad() == [row]


def test_prometheus_must_send_to_the_alertmanager_we_look_at(look: Look) -> None:
    """By the address it knows it under; none yet is no proof."""
    look.world.alertmanagers = ["http://alertmanager:9093/api/v2/alerts"]
    [(outcome, subject, _, got)] = look.bad()
    assert (outcome, subject) == (FAIL, "prometheus")
    assert got == (
        "http://alertmanager:9093/api/v2/alerts; set telemetry.alertmanager_as where Prometheus"
        " knows it by another address"
    )
    assert look.bad(site=look.site(alertmanager_as="http://alertmanager:9093")) == []
    look.world.alertmanagers = []
    assert look.bad()[0][0] is INCONCLUSIVE


def test_servers_without_a_past_are_not_asked_about_it(look: Look) -> None:
    """Dashboards are judged at the instant; rules and routes are INCONCLUSIVE."""
    then = iso(3600)
    look.world.age = 3605.0 - 3600
    problem = f"expected an instant of the last 0:05:00, got {then}: "
    rows = [row for row in look.bad(as_of=then) if row[1] == "as_of"]
    assert rows == [
        (INCONCLUSIVE, "as_of", "rules and alerts", problem + "rules and alerts have no past"),
        (INCONCLUSIVE, "as_of", "alert routing", problem + "alerts have no past"),
    ]
