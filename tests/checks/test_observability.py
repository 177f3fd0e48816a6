"""preflight.observability: rules, alerts, the way of a page, dashboards, servers without a past."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from runbook_lib import open_stage, playbook
from runbook_lib.checks import preflight
from runbook_lib.checks.observability import paging
from runbook_lib.outcomes import CheckResult, Outcome, Row
from runbook_lib.params import STAGE_PARAMS, RolloutParams
from runbook_lib.site import Dashboards
from runbook_lib.sources.tape import read_entries
from runbook_lib.strict import Range, parse_yaml
from runbook_rehearsal.network import RehearsalNetwork
from runbook_rehearsal.telemetry import processes

from ..conftest import mutations, not_passed
from .observing import FAIL, INCONCLUSIVE, NEVER, PASS, TOPICS, Look, iso

OTHER = "another expression, wait, label or annotation: "


def test_a_replay_finds_the_same_without_anybody_to_ask(look: Look) -> None:
    look.world.silence(("instance", "test-1"))
    found = look(stage="testnet", mode="apply")
    look.world.answer = None  # type: ignore[assignment,method-assign]
    assert look(stage="testnet", mode="apply", replay=True) == found
    assert found.outcome is INCONCLUSIVE


# --- rules and alerts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"query": "rate(x[2m]) == 1"}, [(FAIL, "rule", OTHER + "rate(x[2m]) == 1")]),
        ({"labels": {"severity": "page"}}, [(FAIL, "rule", OTHER)]),
        ({"annotations": {"summary": "older"}}, [(FAIL, "rule", OTHER)]),
        ({"duration": 86400}, [(FAIL, "rule", OTHER)]),
        ({"health": "unknown", "lastEvaluation": NEVER}, [
            (INCONCLUSIVE, "rule", "health unknown"), (INCONCLUSIVE, "paging rule", "health unknown")]),
        ({"lastEvaluation": iso(7200)}, [
            (INCONCLUSIVE, "rule", "evaluated "), (INCONCLUSIVE, "paging rule", "evaluated ")]),
    ],
)  # fmt: skip
def test_a_shipped_rule_is_loaded_as_it_is_and_evaluated(
    look: Look, changes: Any, rows: list[Any]
) -> None:
    look.world.rules[1] |= changes
    found = look.bad()
    assert [(outcome, what) for outcome, _, what, _ in found] == [row[:2] for row in rows]
    assert all(str(got).startswith(row[2]) for (*_, got), row in zip(found, rows, strict=True))
    assert found[0][1] == "rules.yaml: Stall"


def test_rules_of_one_name_are_judged_each(look: Look) -> None:
    for team in ("b", "c"):
        look.world.rules.append(look.world.rule("Twice", "y == 0", "page"))
        look.world.rules[-1]["labels"]["team"] = team
    look.world.silence(("alertname", "Twice"), ("team", "b"))
    assert [row[:2] for row in look.bad()] == [(FAIL, "silence 01234567")]

    text = (look.root / "rules.yaml").read_text()
    second = "{alert: Stall, expr: y == 0, labels: {severity: critical}}"
    (look.root / "rules.yaml").write_text(text.replace("}]}]", f"}}, {second}]}}]"))
    assert look.bad()[0] == (FAIL, "rules.yaml: Stall", "rule", OTHER + "rate(x[2m]) == 0")


@pytest.mark.parametrize(
    ("named", "subject", "problem"),
    [
        ([], "rules", "none; set telemetry.rules"),
        (["rules.yaml", "typo"], "rules", "none in {root}/typo"),
        (["empty"], "rules", "none in {root}/empty"),
        (["deep"], "bad.rules", "bad.rules: groups.0.lmit: expected no such key; remove it or correct its"
         " spelling"),
    ],
)  # fmt: skip
def test_rules_must_be_shipped_and_readable(
    look: Look, named: list[str], subject: str, problem: str
) -> None:
    (look.root / "empty").mkdir()
    (look.root / "deep" / "v1.4").mkdir(parents=True)
    (look.root / "deep" / "README.md").write_text("no folder")
    (look.root / "deep" / "v1.4" / "bad.rules").write_text(
        "groups: [{name: g, lmit: 1, rules: []}]"
    )
    found = look.bad(site=look.site(rules=[str(look.root / name) for name in named]))
    assert [(row[0], row[1], row[3]) for row in found] == [
        (INCONCLUSIVE, subject, problem.format(root=look.root))
    ]


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
    """In the check, and between the waves of a change."""
    look.world.rules[1]["alerts"] = [look.world.alert("critical", **alert)]
    assert [row[:3] for row in look.bad()] == [(FAIL, "Stall", "paging alert")] * blocks
    assert paging(look.context()).startswith("Stall: paging alert: since ") == blocks


def test_a_severity_that_site_or_parameters_add_pages_too(look: Look) -> None:
    look.world.rules.append(look.world.rule("Slow", "y > 1", "sev1", look.world.alert("sev1")))
    assert look.bad() == []
    look.world.config["route"]["routes"][0]["matchers"] = ['severity!="none"']
    page = [(FAIL, "Slow", "paging alert")]
    assert [row[:3] for row in look.bad(site=look.site(paging_severities=["sev1"]))] == page
    severities = ["critical", "page", "sev1"]
    assert [row[:3] for row in look.bad(paging_severities=severities)] == page


def test_quiet_needs_a_watchdog_and_rules_that_could_page(look: Look) -> None:
    row = (INCONCLUSIVE, "Watchdog", "watchdog", "not firing; no silence is a proof without")
    alerts, look.world.rules[0]["alerts"] = look.world.rules[0]["alerts"], []
    assert look.bad() == [row]
    assert paging(look.context()) == ": ".join((*row[1:3], row[3]))
    look.world.rules[0] |= {"alerts": alerts, "lastEvaluation": iso(7200)}
    assert look.bad() == [row]
    look.world.rules[0] |= {"lastEvaluation": iso()}
    (look.root / "rules.yaml").write_text("groups: [{name: g, rules: [{alert: W, expr: up}]}]")
    look.world.rules[1] = look.world.rule("W", "up", "warning", labels={})
    row = (INCONCLUSIVE, "rules", "alerts of severity critical, page", "none loaded")
    assert look.bad() == [row]


def test_prometheus_must_send_to_the_alertmanager_we_look_at(look: Look) -> None:
    look.world.alertmanagers = ["http://alertmanager:9093/api/v2/alerts"]
    assert [row[:2] for row in look.bad()] == [(FAIL, "prometheus")]
    assert look.bad(site=look.site(alertmanager_as="http://alertmanager:9093")) == []
    look.world.alertmanagers = []
    assert look.bad()[0][0] is INCONCLUSIVE


def test_where_a_server_lists_no_alertmanagers_the_watchdog_proves_the_way(look: Look) -> None:
    made = look.world.answer

    def answer(request: httpx.Request) -> httpx.Response:
        listed = request.url.path.endswith("/alertmanagers")
        return httpx.Response(404, text="404 page not found") if listed else made(request)

    look.world.answer = answer  # type: ignore[method-assign]
    [row] = [row for row in look().rows if row.what == "sends alerts to"]
    way = "no list of Alertmanagers (404); its watchdog at http://am: "
    assert (row.outcome, row.observed) == (PASS, f"{way}active")
    look.world.alerts = []
    got = f"{way}no alert Watchdog; nothing proves delivery"
    assert (INCONCLUSIVE, "prometheus", "sends alerts to", got) in look.bad()


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


@pytest.mark.parametrize(
    ("query", "severity", "problem"),
    [
        ("rate(gone_total[5m]) > 0", "critical", "none of gone_total{}; mend the rule, or waive it"),
        ('y / on(i) x{zone="gone"} > 0', "page", 'none of x{zone="gone"}; mend the rule, or waive it'),
        ('rpp_runtime_consensus_witness_events_total{topic="gone"} == 0', "critical", ""),
        ('x{a=~"b\\\\d"} > 0', "critical", "expected PromQL, got "),
    ],
)  # fmt: skip
def test_a_paging_rule_that_can_never_fire_is_named(
    look: Look, query: str, severity: str, problem: str
) -> None:
    look.world.rules.append(look.world.rule("Mute", query, severity))
    found = look.bad()
    assert [row[:3] for row in found] == [(INCONCLUSIVE, "Mute", "can fire")] * bool(problem)
    assert all(str(row[3]).startswith(problem) for row in found)
    assert look.bad(replay=True) == found


# --- the way of a page --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alerts", "problem"),
    [
        ([], "no alert Watchdog; nothing proves delivery"),
        ([{"updatedAt": iso(600)}], "told of "),
        ([{"endsAt": iso(1)}], "told of "),
        ([{"labels": {"cluster": "test"}}], "no alert Watchdog"),
    ],
)
def test_the_watchdog_must_be_fresh_inside(look: Look, alerts: Any, problem: str) -> None:
    for each in alerts:
        each.update(labels={"alertname": "Watchdog", **each.get("labels", {})})
    look.world.alerts = [look.world.held(**each) for each in alerts]
    [(outcome, subject, what, got)] = look.bad()
    assert (outcome, subject, what) == (INCONCLUSIVE, "alertmanager", "watchdog")
    assert str(got).startswith(problem)


QUIET = {"receiver": "null", "matchers": ['alertname="Stall"']}
MUTED = "pager, muted at times by late; take the interval off this route, or add one that always"
PERHAPS = "perhaps null, which notifies nobody; say in telemetry.paging_labels which labels a page"


@pytest.mark.parametrize(
    ("routes", "pager", "rows"),
    [
        ([QUIET], {}, [(FAIL, "Stall", "null, which notifies nobody")]),
        ([{**QUIET, "continue": True}], {}, []),
        ([], {"mute_time_intervals": ["late"]}, [(INCONCLUSIVE, "severity critical", MUTED)]),
        ([], {"active_time_intervals": ["late"]}, [(INCONCLUSIVE, "severity critical", MUTED)]),
        ([{"receiver": "pager", "matchers": ['severity!="none"'], "continue": True}],
         {"mute_time_intervals": ["late"]}, []),
        ([{"receiver": "null", "matchers": ['zone="a"']}], {}, [(INCONCLUSIVE, "Stall", PERHAPS)]),
        ([{"receiver": "pager", "matchers": ['zone="a"']}], {}, []),
        ([{"receiver": "null", "match": {"team": "b"}}, {"receiver": "null", "match_re": {"team": "(a+)+b"}}], {}, []),
        ([{"receiver": "null", "match_re": {"team": "(?=a)a"}}], {}, [(INCONCLUSIVE, "severity critical", PERHAPS)]),
    ],
)  # fmt: skip
def test_every_page_must_reach_a_notifier_at_all_times(
    look: Look, routes: list[Any], pager: Any, rows: list[Any]
) -> None:
    config = look.world.config
    config["route"]["routes"] = [*routes, {**config["route"]["routes"][0], **pager}]
    found = look.bad()
    assert [(row[0], row[1]) for row in found][:1] == [row[:2] for row in rows]
    assert all(row[2] == "route" for row in found)
    assert not rows or str(found[0][3]).startswith(rows[0][2])


@pytest.mark.parametrize(
    ("labels", "status", "blocks"),
    [
        ({"severity": "page"}, {"state": "suppressed", "inhibitedBy": ["Outage"]}, True),
        ({"severity": "page"}, {"state": "active", "mutedBy": ["late"]}, True),
        ({"severity": "page"}, {"state": "active"}, False),
        ({"severity": "page", "cluster": "test"}, {"state": "suppressed"}, False),
        ({"severity": "none"}, {"state": "suppressed"}, False),
    ],
)
def test_a_page_that_is_held_back_now_fails(
    look: Look, labels: dict[str, str], status: Any, blocks: bool
) -> None:
    status = {"silencedBy": [], "inhibitedBy": [], **status}
    look.world.alerts.append(look.world.held({"alertname": "Lag", **labels}, status=status))
    assert [row[:3] for row in look.bad()] == [(FAIL, "Lag", "page")] * blocks


@pytest.mark.parametrize(
    ("matchers", "times", "outcome"),
    [
        ([("severity", "critical")], {}, FAIL),
        ([("alertname", "Stall"), ("cluster", "dev")], {}, FAIL),
        ([("severity", "critical")], {"starts": -3600, "ends": -7200}, FAIL),
        ([("severity", "critical"), ("instance", "dev-1")], {}, INCONCLUSIVE),
        ([("severity", "critical"), ("instance", "dev-1:9100")], {}, INCONCLUSIVE),
        ([("severity", "critical"), ("zone", "a")], {}, INCONCLUSIVE),
        ([("severity", "critical"), ("instance", "dev-9")], {}, PASS),
        ([("alertname", "Stall"), ("node", "dev-9")], {}, PASS),
        ([("alertname", "Stall"), ("node", "dev-1")], {}, INCONCLUSIVE),
        ([("alertname", "Stall"), ("host", "dev-1.example")], {}, INCONCLUSIVE),
        ([("severity", "critical"), ("cluster", "test")], {}, PASS),
        ([("alertname", "Slow")], {}, PASS),
        ([("severity", "critical")], {"starts": 7200, "ends": 3600}, PASS),
        ([("severity", "critical")], {"starts": -90_000, "ends": -99_000}, PASS),
    ],
)
def test_silences_of_the_window_that_match_a_page_count(
    look: Look, matchers: Any, times: Any, outcome: Outcome
) -> None:
    look.world.silence(*matchers, **times)
    found = look()
    assert found.outcome is outcome
    listed = [row for row in found.rows if row.subject == "silence 01234567"]
    assert len(listed) == (outcome is not PASS)


def test_the_change_window_is_looked_at_to_its_end(look: Look) -> None:
    look.world.silence(("severity", "critical"), starts=-90_000, ends=-99_000)
    window = {"window_start": iso(-80_000), "window_end": iso(-95_000)}
    found = look.bad(stage="testnet", params=RolloutParams(release="v1", **window))
    assert [row[:2] for row in found] == [(FAIL, "silence 01234567")]


@pytest.mark.parametrize(
    ("equal", "labels", "outcome"),
    [
        ([], {}, INCONCLUSIVE),
        (["cluster"], {"cluster": "dev"}, INCONCLUSIVE),
        (["instance"], {"instance": "a"}, INCONCLUSIVE),
        (["cluster"], {"cluster": "test"}, PASS),
        ([], None, PASS),
    ],
)
def test_an_active_alert_that_may_keep_pages_back_is_named(
    look: Look, equal: list[str], labels: dict[str, str] | None, outcome: Outcome
) -> None:
    sides = {"source_matchers": ['alertname="Outage"'], "target_matchers": ['severity="critical"']}
    look.world.config["inhibit_rules"] = [{**sides, "equal": equal}]
    if labels is not None:
        look.world.alerts.append(look.world.held({"alertname": "Outage", **labels}))
    found = look.bad()
    assert [row[0] for row in found] == [outcome] * (outcome is not PASS)
    for row in found:
        assert row[1] == '{alertname="Outage"} inhibits {severity="critical"}'
        assert str(row[3]).startswith("Outage may keep back Stall; ")


# --- dashboards ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "outcome", "shown"),
    [
        (["80"], FAIL, "80 at i=0"),
        (["1", "80", "90"], FAIL, "80 at i=1; 90 at i=2"),
        (["60", "1"], INCONCLUSIVE, "60 at i=0"),
        (["60", "80"], FAIL, "80 at i=1"),
        (["0"], FAIL, "0 at i=0"),
    ],
)
def test_a_red_panel_is_named_with_its_values(
    look: Look, values: list[str], outcome: Outcome, shown: str
) -> None:
    look.world.steps("green", None, "dark-orange", 50, "red", 80)
    down = {"type": "value", "options": {"0": {"text": "DOWN", "color": "red"}}}
    look.world.panel["fieldConfig"]["defaults"]["mappings"] = [down]
    look.world.values['x{cluster="dev"}'] = values
    assert look.bad() == [(outcome, "D: P", "query ?", shown)]


CURE = (
    "expected absolute thresholds, got percentage; state a limit for this panel: dashboards.limits"
)


@pytest.mark.parametrize(
    ("limit", "rows"),
    [
        (None, [(INCONCLUSIVE, "D: P", "panel", CURE)]),
        ({"max": 1}, []),
        ({"min": 0.5, "max": 2}, []),
        ({"max": 0.5}, [(FAIL, "D: P", "query ?", "1 at i=0")]),
        ({"min": 2}, [(FAIL, "D: P", "query ?", "1 at i=0")]),
    ],
)
def test_a_limit_of_the_site_takes_the_place_of_colours(
    look: Look, limit: dict[str, float] | None, rows: list[Any]
) -> None:
    defaults = look.world.panel["fieldConfig"]["defaults"]["thresholds"]
    defaults["mode"] = "percentage"
    limits = {} if limit is None else {"D: P": Range.model_validate(limit)}
    found = look.bad(site=look.site(limits=limits))
    assert [row for row in found if row[1] not in TOPICS] == rows
    if limit is not None:
        assert found == rows
        defaults["mode"] = "absolute"
        assert look.bad(site=look.site(limits=limits)) == rows


def test_what_of_the_sites_dashboards_is_not_there_is_named(look: Look) -> None:
    found = look.bad(site=look.site(limits={"D: Q": Range(max=1)}))
    row = (INCONCLUSIVE, "D: Q", "limit of the site", "no such panel; see dashboards.limits")
    assert found == [row]

    boards = Dashboards(topics={"proof_latency": ["uid"]})
    found = look.bad(site=look.site().model_copy(update={"dashboards": boards}))
    problem = "expected dashboards.grafana for a uid, got none; set it"
    assert (INCONCLUSIVE, "uid", "dashboard", problem) in found
    unmapped = [row for row in found if row[2] == "dashboards"]
    assert unmapped == [
        (INCONCLUSIVE, t, "dashboards", f"none; set dashboards.topics.{t}")
        for t in TOPICS
        if t != "proof_latency"
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"value": "NaN"}, "no number: nan at i=0"),
        ({"age": 200.0}, "stale: 200 s old, at most 180 s"),
        ({"age": 600.0}, 'no data: nothing emits x{cluster="dev"} now'),
        # A join that finds no partner has fresh sources and says nothing.
        ({"values": {'x{cluster="dev"}': []}}, "no data: the query is empty"),
    ],
)
def test_what_is_no_fresh_number_is_inconclusive(
    look: Look, changes: dict[str, Any], problem: str
) -> None:
    vars(look.world).update(changes)
    assert look.bad() == [(INCONCLUSIVE, "D: P", "query ?", problem)]


@pytest.mark.parametrize("limits", [{}, {"D: P": Range(max=70)}])
def test_a_series_that_ended_is_left_out_and_counted(look: Look, limits: dict[str, Range]) -> None:
    """A quotient of histograms whose labels change with every block."""
    look.world.values['x{cluster="dev"}'] = ["NaN", "60", "NaN"]
    cure = "2 more without a number (short-lived by i, take the sum without it)"
    [row] = [row for row in look(site=look.site(limits=limits)).rows if row.what == "query ?"]
    assert (row.outcome, row.observed) == (PASS, f"1 series, 5 s old; {cure}")
    look.world.values['x{cluster="dev"}'][1] = "90"
    assert look.bad() == [(FAIL, "D: P", "query ?", f"90 at i=1; {cure}")]


def test_one_panel_is_one_row_whatever_its_query(look: Look) -> None:
    site = look.site()
    boards = site.dashboards.model_copy(update={"variables": {"cluster": "dev"}})
    look.world.panel["targets"] = [
        {"refId": "A", "expr": 'max_over_time(x{cluster=~"${cluster:regex}"}[5m:])'},
        {"refId": "B", "expr": 'sum(rate(x{cluster="$cluster"}[$__rate_interval])) or vector(0)'},
        {"refId": "C", "expr": "x{"},
    ]
    site = look.site().model_copy(update={"dashboards": boards})
    [(outcome, subject, what, got)] = look.bad(site=site)
    assert (outcome, subject, what) == (INCONCLUSIVE, "D: P", "query C")
    assert str(got).startswith("expected PromQL, got 'x{'")


def test_a_constant_proves_nothing(look: Look) -> None:
    look.world.panel["targets"] = [{"refId": "A", "expr": "vector(1)"}]
    problem = "expected a query with a selector, got 'vector(1)'"
    assert look.bad() == [(INCONCLUSIVE, "D: P", "query A", problem)]


def test_panels_without_thresholds_get_the_catalogues_limit(look: Look) -> None:
    look.world.panel["fieldConfig"] = {}
    topics = [
        (INCONCLUSIVE, t, "panels that can be red", "0 of 1; give one thresholds") for t in TOPICS
    ]
    assert look.bad() == topics
    expr = "sum(rate(rpp_stark_verify_duration_seconds_bucket[5m]))"
    look.world.panel["targets"] = [{"expr": expr}]
    look.world.value = "999"
    assert look.bad() == []
    look.world.value = "1001"
    what = "Time to verify a proof (the catalogue's limit)"
    assert look.bad() == [(FAIL, "D: P", what, "1001 at i=0")]


# --- the test alert -----------------------------------------------------------------------------


def row_of_test(result: CheckResult) -> Row:
    [row] = [row for row in result.rows if row.what == "test alert"]
    return row


@pytest.mark.parametrize(
    ("stage", "mode"), [("development", "apply"), ("testnet", "plan"), ("development", "plan")]
)
def test_a_healthy_world_passes_without_a_test_alert_in_plans_and_in_development(
    look: Look, stage: str, mode: str
) -> None:
    found = look(stage=stage, mode=mode)
    reason = "1 panels green, 2 rules loaded, a page would arrive"
    assert (found.outcome, found.reason, look.world.posted) == (PASS, reason, [])


def test_the_test_alert_is_a_notification_read_back(look: Look) -> None:
    found = look(stage="testnet", mode="apply")
    assert (found.outcome, row_of_test(found).observed) == (PASS, "active, at pager")
    [alert] = look.world.posted
    assert alert["labels"] == {
        "alertname": "RunbookRoutingTest", "cluster": "dev", "team": "a",
        "runbook": "v1/v1/testnet/0001/1", "severity": "critical",
    }  # fmt: skip
    began, ends = (datetime.fromisoformat(alert[key]) for key in ("startsAt", "endsAt"))
    assert ends - began == timedelta(minutes=1)
    entries = read_entries(look.tape)
    assert [e.purpose for e in entries if e.purpose != "read"] == ["notify"]
    assert mutations(entries) == []


@pytest.mark.parametrize(
    ("held", "outcome", "observed"),
    [
        ({"receivers": [{"name": "null"}]}, FAIL, "active, at null"),
        ({"receivers": []}, FAIL, "active, at nobody"),
        ({"status": {"state": "suppressed", "silencedBy": ["s"], "inhibitedBy": []}}, FAIL, "suppressed, at pager"),
        (None, INCONCLUSIVE, "Alertmanager does not hold it"),
    ],
)  # fmt: skip
def test_a_test_alert_that_goes_astray(
    look: Look, monkeypatch: pytest.MonkeyPatch, held: Any, outcome: Outcome, observed: str
) -> None:
    before, original = list(look.world.alerts), look.world.held

    def other(labels: dict[str, str], **more: Any) -> Any:
        return original(labels if held is not None else {"alertname": "X"}, **(held or {}))

    monkeypatch.setattr(look.world, "held", other)
    look.world.alerts = before
    row = row_of_test(look(stage="testnet", mode="apply"))
    assert (row.outcome, row.observed) == (outcome, observed)


@pytest.mark.parametrize(
    ("source", "equal", "posted"),
    [
        ('severity="critical"', ["cluster"], ["page"]),
        ('severity="critical"', ["alertname"], ["critical"]),
        ('severity=~"page|critical"', ["cluster"], []),
    ],
)
def test_no_alert_is_posted_that_would_inhibit_real_ones(
    look: Look, source: str, equal: list[str], posted: list[str]
) -> None:
    rule = {"target_matchers": ['severity="warning"'], "equal": equal}
    look.world.config["inhibit_rules"] = [{**rule, "source_matchers": [source]}]
    row = row_of_test(look(stage="testnet", mode="apply"))
    assert [alert["labels"]["severity"] for alert in look.world.posted] == posted
    if not posted:
        assert row.outcome is INCONCLUSIVE
        assert row.observed == "an inhibition matches it whatever its severity; it was not posted"


@pytest.mark.servers
@pytest.mark.skipif(processes.binary("alertmanager") is None, reason="no alertmanager on PATH")
def test_a_real_alertmanager_holds_the_test_alert_at_the_pager(look: Look, tmp_path: Path) -> None:
    root = tmp_path / "alertmanager"
    (root / "data").mkdir(parents=True)
    (root / "alertmanager.yml").write_text(yaml.safe_dump(look.world.config))
    server = processes.alertmanager(root, processes.free_port())
    server.start()
    try:
        made = look.world.answer

        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.host != "am":
                return made(request)
            url = server.url + request.url.raw_path.decode()
            headers = {"content-type": "application/json"}
            found = httpx.request(
                request.method, url, content=request.content, headers=headers, trust_env=False
            )
            return httpx.Response(found.status_code, content=found.content)

        look.world.answer = answer  # type: ignore[method-assign]
        found = look(stage="testnet", mode="apply")
    finally:
        server.stop()
    row = row_of_test(found)
    assert (row.outcome, row.observed) == (PASS, "active, at pager")
    bad = not_passed(found.rows, "outcome", "subject")
    assert bad == [(INCONCLUSIVE, "alertmanager")]  # nobody told it of a watchdog


# --- the chain's own dashboards, against a real Prometheus with the chain's own series ------------


CHAIN = os.environ.get("RPP_CHAIN_DIR", "")
CHAINS = {
    "consensus_health": ["consensus_grafana.json", "pipeline_consensus_finality.json"],
    "proof_latency": ["pipeline_proof_validation.json", "consensus_proof_validation.json"],
    "vrf_participation": ["vrf_overview.json", "vrf_thresholds.json"],
    "network_churn": ["uptime_finality_correlation.json", "snapshot_resilience.json"],
}


@pytest.mark.servers
@pytest.mark.skipif(not CHAIN, reason="RPP_CHAIN_DIR names no chain")
@pytest.mark.skipif(processes.binary("prometheus") is None, reason="no prometheus on PATH")
def test_panels_on_series_that_nothing_emits_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(playbook.DECLARED, "preflight", ("preflight.observability",))
    with RehearsalNetwork(tmp_path / "network", servers="real") as network:
        for name, value in network.env.items():
            monkeypatch.setenv(name, value)
        site = yaml.safe_load(network.site.read_text())
        folder = Path(CHAIN) / "docs" / "dashboards"
        site["dashboards"]["topics"] = {
            topic: [str(folder / name) for name in names] for topic, names in CHAINS.items()
        }
        network.site.write_text(yaml.safe_dump(site))
        network.settle()
        file = network.params["preflight"]
        given = STAGE_PARAMS["preflight"]().model_dump() | parse_yaml(file.read_bytes(), file.name)
        stage = open_stage("preflight", given)
        stage.check(preflight.observability)
        [item] = stage.verdict().items
        stage.close()

    assert item.result is not None
    assert item.outcome is INCONCLUSIVE
    silent = {
        (subject, str(observed).removeprefix("no data: nothing emits ").partition("{")[0])
        for subject, observed in not_passed(item.result.rows, "subject", "observed")
    }
    assert silent >= {
        ("Pipeline Consensus Finality: Finality Lag (slots)", "finality_lag_slots"),
        ("Pipeline Consensus Finality: Finalized Height Gap", "finalized_height_gap"),
        ("Uptime & Finality Correlation: Block Progress During Recovery", "chain_block_height"),
        ("Snapshot Resilience: Chaos Runs (7d)", "snapshot_chaos_runs_total"),
        # histograms asked as if they were gauges, or without the suffix that a collector adds
        ("VRF Overview: Pool Health", "rpp_crypto_vrf_selection_pool_entries"),
        ("VRF Thresholds: Current Threshold Ratio", "rpp_crypto_vrf_selection_threshold_ratio"),
        ("Consensus Proof Validation: VRF verification latency (p95)", "consensus_vrf_verification_time_ms_bucket"),
    }  # fmt: skip
    passed = {row.subject for row in item.result.rows if row.outcome is PASS}
    assert passed >= {
        "Consensus Proof Validation: Quorum verification failures (5m)",
        "Pipeline Proof Validation: Verification Success Ratio by Circuit",
        "VRF Overview: Accepted vs Rejected Submissions",
    }
    assert {row.outcome for row in item.result.rows} == {PASS, INCONCLUSIVE}
