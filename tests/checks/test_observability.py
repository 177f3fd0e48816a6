"""Rules, alerts and the way of a page, judged on a Prometheus and an Alertmanager made of data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import httpx
import pytest
import yaml

from runbook_lib.checks.observability import observability
from runbook_lib.context import Context
from runbook_lib.evidence.record import Record
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import CheckResult, Outcome, Row
from runbook_lib.params import RolloutParams, StageParams
from runbook_lib.reach import Endpoint
from runbook_lib.rehearsal import processes
from runbook_lib.rehearsal.backends import free_port
from runbook_lib.site import Dashboards, Site, Telemetry, parse_site
from runbook_lib.sources.http import Http
from runbook_lib.sources.redact import Redactor
from runbook_lib.sources.scope import Outside, Scope
from runbook_lib.sources.tape import LiveTape, ReplayTape, Tape, mutations, read_entries
from runbook_lib.strict import PROJECT

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
TOPICS = ("consensus_health", "proof_latency", "vrf_participation", "network_churn")
PAGER = {"name": "pager", "webhook_configs": [{"url": "http://pager"}]}
NEVER = "0001-01-01T00:00:00Z"


def iso(age_s: float = 0.0) -> str:
    return (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()


class World:
    """What the two servers hold; a test changes it before the check looks."""

    def __init__(self, root: Path) -> None:
        self.root, self.posted = root, cast(list[dict[str, Any]], [])
        self.value, self.age, self.values = "1", 5.0, cast(dict[str, list[Any]], {})
        self.rules = [
            self.rule("Watchdog", "vector(1)", "none", self.alert("none")),
            self.rule("Stall", "rate(x[2m]) == 0", "critical"),
        ]
        self.alertmanagers = ["http://am/api/v2/alerts"]
        self.config: dict[str, Any] = {
            "route": {"receiver": "null", "routes": [
                {"receiver": "pager", "matchers": ['severity=~"page|critical"']}]},
            "receivers": [{"name": "null"}, PAGER],
        }  # fmt: skip
        self.alerts = [self.held({"alertname": "Watchdog"})]
        self.silences: list[dict[str, Any]] = []
        self.panel: dict[str, Any] = {"title": "P", "type": "stat", "targets": [{"expr": "x"}]}
        self.steps("green", None, "red", 80)
        (root / "rules.yaml").write_text(
            "groups: [{name: g, rules: [{alert: Stall, expr: 'rate(x[2m])==0',"
            " labels: {severity: critical}}]}]"
        )

    def steps(self, *parts: Any) -> None:
        steps = [{"color": c, "value": v} for c, v in zip(parts[::2], parts[1::2], strict=True)]
        self.panel["fieldConfig"] = {"defaults": {"thresholds": {"steps": steps}}}

    def rule(self, name: str, query: str, severity: str, *alerts: Any, **more: Any) -> Any:
        return {"name": name, "type": "alerting", "query": query, "health": "ok", "state": "inactive",
                "lastEvaluation": iso(), "labels": {"severity": severity}, "annotations": {},
                "alerts": list(alerts), "duration": 0, **more}  # fmt: skip

    def alert(self, severity: str, **more: Any) -> Any:
        return {"labels": {"severity": severity, **more.pop("labels", {})}, "annotations": {},
                "state": "firing", "activeAt": iso(60), **more}  # fmt: skip

    def held(self, labels: dict[str, str], **more: Any) -> Any:
        status = {"state": "active", "silencedBy": [], "inhibitedBy": []}
        return {"labels": labels, "annotations": {}, "startsAt": iso(99), "endsAt": iso(-99),
                "updatedAt": iso(9), "status": status, "receivers": [{"name": "pager"}], **more}  # fmt: skip

    def silence(self, *matchers: tuple[str, str], starts: float = 60, ends: float = -3600) -> None:
        state = "pending" if starts < 0 else "active" if ends < 0 else "expired"
        self.silences.append({
            "id": "0123456789", "status": {"state": state}, "createdBy": "ada", "comment": "",
            "matchers": [{"name": n, "value": v, "isRegex": False} for n, v in matchers],
            "startsAt": iso(starts), "endsAt": iso(ends),
        })  # fmt: skip

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/query"):
            return self._query(parse_qs(request.content.decode())["query"][0])
        if path.endswith("/rules"):
            group = {"name": "g", "file": "f", "interval": 15.0, "rules": self.rules}
            return _success({"groups": [group]})
        if path.endswith("/alertmanagers"):
            return _success({"activeAlertmanagers": [{"url": url} for url in self.alertmanagers]})
        if request.method == "POST":
            [alert] = json.loads(request.content)
            self.posted.append(alert)
            self.alerts.append(self.held(alert["labels"]))
            return httpx.Response(200)
        bodies = {
            "status": {"versionInfo": {"version": "0.25.0"},
                       "config": {"original": yaml.safe_dump(self.config)}},
            "alerts": self.alerts,
            "silences": self.silences,
        }  # fmt: skip
        return httpx.Response(200, json=bodies[path.rpartition("/")[2]])

    def _query(self, query: str) -> httpx.Response:
        now = datetime.now(UTC).timestamp()
        if query.startswith("timestamp("):
            values = [now - self.age] if self.age < 300 else []
        elif query.startswith("present_over_time("):
            values = [1.0] if self.age < 3600 else []
        else:
            values = self.values.get(query, [self.value])
        result = [{"metric": {"i": str(i)}, "value": [now, str(v)]} for i, v in enumerate(values)]
        return _success({"resultType": "vector", "result": result})


def _success(data: Any) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "data": data})


class Look:
    """The check over such a world; ``rows`` of what is not PASS."""

    def __init__(self, root: Path) -> None:
        self.world, self.tape, self.root = World(root), root / "tape", root
        redactor = Redactor()
        transport = httpx.MockTransport(lambda request: self.world.answer(request))
        self.outside = Outside(redactor, Http(redactor, transport))

    def site(self, **telemetry: Any) -> Site:
        given = {
            "prometheus": Endpoint(url="http://prom"),
            "alertmanager": Endpoint(url="http://am"),
            "matchers": {"development": {"cluster": "dev"}, "testnet": {"cluster": "dev"}},
            "paging_labels": {"team": "a"},
            "rules": [str(self.root / "rules.yaml")],
            "backends": ["prometheus"],
        }
        example = parse_site((PROJECT / "params/sites/example.yaml").read_bytes(), "example.yaml")
        path = self.root / "d.json"
        path.write_text(json.dumps({"title": "D", "panels": [self.world.panel]}))
        boards = Dashboards(topics={key: [str(path)] for key in TOPICS})  # type: ignore[arg-type]
        changes = {"telemetry": Telemetry(**{**given, **telemetry}), "dashboards": boards}
        return example.model_copy(update=changes)

    def __call__(
        self,
        *,
        site: Site | None = None,
        stage: str = "development",
        replay: bool = False,
        params: StageParams | None = None,
        **given: Any,
    ) -> CheckResult:
        item = "preflight.observability"
        live = LiveTape(self.tape, Redactor())
        tape: Tape = ReplayTape(self.tape, {item: 1}) if replay else live
        scope = Scope(tape, self.outside, item, 1)
        context = Context(
            item="preflight.observability",
            stage=stage,
            params=params or StageParams(release="v1", **given),
            site=site or self.site(),
            scope=scope,
            store=cast(Store, None),
            folder=self.root,
            record=cast(Record, None),
            journal=(),
            attempt_name="v1/testnet/0001",
        )
        return observability(context)

    def bad(self, **more: Any) -> list[tuple[Outcome, str, str, Any]]:
        rows = [row for row in self(**more).rows if row.outcome is not PASS]
        return [(row.outcome, row.subject, row.what, row.observed) for row in rows]


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Look]:
    made = Look(tmp_path)
    yield made
    made.outside.close()


def test_a_healthy_world_passes(look: Look) -> None:
    """So that what the other tests change is what makes the difference."""
    found = look()
    assert found.outcome is PASS
    assert found.reason == "1 panels green, 2 rules loaded, a page would arrive"


def test_a_replay_finds_the_same_without_anybody_to_ask(look: Look) -> None:
    """Row by row, test alert included; nothing new is asked."""
    look.world.silence(("instance", "dev-1"))
    found = look(stage="testnet", mode="apply")
    look.world.answer = None  # type: ignore[assignment,method-assign]
    again = look(stage="testnet", mode="apply", replay=True)
    assert again == found
    assert found.outcome is INCONCLUSIVE


# --- dashboards ---------------------------------------------------------------------------------


def test_a_red_panel_is_named_with_its_value(look: Look) -> None:
    """The value lies in the red step."""
    look.world.value = "80"
    assert look.bad() == [(FAIL, "D: P", "query ?", "80 at i=0")]


@pytest.mark.parametrize(
    ("value", "age", "problem"),
    [
        ("NaN", 5.0, "no number: nan at i=0"),
        ("1", 200.0, "stale: 200 s old, at most 180 s"),
        ("1", 600.0, 'stale: x{cluster="dev"} has samples of the last 1h, none of the last 5 min'),
        ("1", 9999.0, 'no data: nothing emits x{cluster="dev"}'),
    ],
)
def test_what_is_no_fresh_number_is_inconclusive(
    look: Look, value: str, age: float, problem: str
) -> None:
    """Never green, whatever the value was."""
    look.world.value, look.world.age = value, age
    assert look.bad() == [(INCONCLUSIVE, "D: P", "query ?", problem)]


def test_an_empty_answer_of_fresh_series_is_no_data(look: Look) -> None:
    """A join that finds no partner has fresh sources and says nothing."""
    look.world.values['x{cluster="dev"}'] = []
    assert look.bad() == [(INCONCLUSIVE, "D: P", "query ?", "no data: the query is empty")]


def test_a_constant_proves_nothing(look: Look) -> None:
    """Without a selector there is nothing whose age could be told."""
    look.world.panel["targets"] = [{"refId": "A", "expr": "vector(1)"}]
    problem = "expected a query with a selector, got 'vector(1)'"
    assert look.bad() == [(INCONCLUSIVE, "D: P", "query A", problem)]


def test_panels_without_thresholds_get_the_catalogues_limit(look: Look) -> None:
    """Of the metric that reads the same series; a topic with no such panel cannot pass."""
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


def test_a_topic_that_is_not_mapped_names_its_key(look: Look) -> None:
    """An empty set of dashboards is no green one."""
    bare = look.site().model_copy(update={"dashboards": Dashboards()})
    assert look.bad(site=bare) == [
        (INCONCLUSIVE, t, "dashboards", f"none; set dashboards.topics.{t}") for t in TOPICS
    ]


def test_a_uid_without_a_grafana_names_its_key(look: Look) -> None:
    """Nobody to ask."""
    boards = Dashboards(topics={"proof_latency": ["uid"]})
    found = look.bad(site=look.site().model_copy(update={"dashboards": boards}))
    problem = "expected dashboards.grafana for a uid, got none; set it"
    assert (INCONCLUSIVE, "uid", "dashboard", problem) in found


# --- rules and alerts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"query": "rate(x[2m]) == 1"}, (FAIL, "rules.yaml: Stall", "rule", "another expression or severity: rate(x[2m]) == 1")),
        ({"labels": {"severity": "page"}}, (FAIL, "rules.yaml: Stall", "rule", "another expression or severity: rate(x[2m]) == 0")),
        ({"name": "Other"}, (FAIL, "rules.yaml: Stall", "rule", "not loaded")),
        ({"lastEvaluation": iso(7200)}, (INCONCLUSIVE, "rules.yaml: Stall", "rule", "evaluated 7200 s ago, at most 90 s")),
    ],
)  # fmt: skip
def test_a_shipped_rule_is_loaded_as_it_is(look: Look, changes: Any, row: Any) -> None:
    """By name, expression and severity, and evaluated lately; spelling does not matter."""
    look.world.rules[1] |= changes
    [found] = look.bad()
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
    """What an Alertmanager was told long ago proves no delivery today."""
    for each in alerts:
        each.update(labels={"alertname": "Watchdog", **each.get("labels", {})})
    look.world.alerts = [look.world.held(**each) for each in alerts]
    [(outcome, subject, what, got)] = look.bad()
    assert (outcome, subject, what) == (INCONCLUSIVE, "alertmanager", "watchdog")
    assert str(got).startswith(problem)


def test_the_change_window_is_looked_at_to_its_end(look: Look) -> None:
    """A silence days ahead matters when the change is then."""
    look.world.silence(("severity", "critical"), starts=-90_000, ends=-99_000)
    assert look.bad(stage="testnet") == []
    window = {"window_start": iso(-80_000), "window_end": iso(-95_000)}
    found = look.bad(stage="testnet", params=RolloutParams(release="v1", **window))
    assert [row[:2] for row in found] == [(FAIL, "silence 01234567")]


def test_every_paging_alert_must_reach_a_notifier(look: Look) -> None:
    """One that a team's route takes away is named, with the receiver that keeps quiet."""
    look.world.config["route"]["routes"].insert(
        0, {"receiver": "null", "matchers": ['alertname="Stall"']}
    )
    assert look.bad() == [(FAIL, "Stall", "route", "null, which notifies nobody")]


def test_an_expression_that_cannot_be_judged_is_named(look: Look) -> None:
    """One that would hold another engine for ever is judged like any other."""
    hostile, unread = "(a+)+b", "(?=a)a"
    routes = look.world.config["route"]["routes"]
    routes.insert(0, {"receiver": "null", "match_re": {"team": hostile}})
    assert look.bad(site=look.site(paging_labels={"team": "a" * 1000})) == []

    routes.insert(0, {"receiver": "null", "match_re": {"team": unread}})
    problem = f"expected a regular expression we can read, got {unread!r}: Invalid regular"
    [row] = look.bad()
    assert (row[0], problem in row[3]) == (INCONCLUSIVE, True)


def test_an_interval_that_mutes_the_only_way_fails(look: Look) -> None:
    """At some minute of the day ahead; with another way open it does no harm."""
    minute = (datetime.now(UTC) + timedelta(hours=2)).strftime("%H:%M")
    times = [{"start_time": minute, "end_time": "24:00"}]
    look.world.config["time_intervals"] = [{"name": "late", "time_intervals": [{"times": times}]}]
    route = look.world.config["route"]["routes"][0]
    route["mute_time_intervals"] = ["late"]
    found = look.bad()
    assert {row[:3] for row in found} == {
        (FAIL, name, "route") for name in ("severity critical", "severity page", "Stall")
    }
    assert str(found[0][3]).startswith("muted by late at ")
    open_too = {"receiver": "pager", "matchers": ["severity!=none"]}
    look.world.config["route"]["routes"] = [{**route, "continue": True}, open_too]
    assert look.bad() == []
    look.world.config["route"]["routes"] = [{**route, "mute_time_intervals": ["gone"]}]
    assert {row[0] for row in look.bad()} == {INCONCLUSIVE}


@pytest.mark.parametrize(
    ("matchers", "times", "outcome"),
    [
        ([("severity", "critical")], {}, FAIL),
        ([("alertname", "Stall"), ("cluster", "dev")], {}, FAIL),
        ([("severity", "critical")], {"starts": -3600, "ends": -7200}, FAIL),
        ([("severity", "critical"), ("instance", "dev-1")], {}, INCONCLUSIVE),
        ([("severity", "critical"), ("cluster", "test")], {}, PASS),
        ([("alertname", "Slow")], {}, PASS),
        ([("severity", "critical")], {"starts": 7200, "ends": 3600}, PASS),
        ([("severity", "critical")], {"starts": -90_000, "ends": -99_000}, PASS),
    ],
)
def test_silences_of_the_window_are_judged(
    look: Look, matchers: Any, times: Any, outcome: Outcome
) -> None:
    """Surely a paging alert of ours: FAIL; perhaps: INCONCLUSIVE; another's, or another time: no."""
    look.world.silence(*matchers, **times)
    found = look()
    assert found.outcome is outcome
    listed = [row for row in found.rows if row.subject == "silence 01234567"]
    assert len(listed) == (0 if times and outcome is PASS else 1)


@pytest.mark.parametrize(
    ("equal", "labels", "outcome"),
    [
        ([], {}, FAIL),
        (["cluster"], {"cluster": "dev"}, FAIL),
        (["cluster"], {"cluster": "test"}, PASS),
        (["instance"], {"instance": "a"}, INCONCLUSIVE),
    ],
)
def test_an_active_alert_that_keeps_pages_back_fails(
    look: Look, equal: list[str], labels: dict[str, str], outcome: Outcome
) -> None:
    """Only while its source is active, and where the labels that must be equal are."""
    rule = {"source_matchers": ["alertname=Outage"], "target_matchers": ["severity=critical"]}
    look.world.config["inhibit_rules"] = [{**rule, "equal": equal}]
    assert look().outcome is PASS
    look.world.alerts.append(look.world.held({"alertname": "Outage", **labels}))
    [row] = [row for row in look().rows if row.what == "inhibition"]
    assert row.outcome is outcome
    assert row.observed == ("none active" if outcome is PASS else "Outage keeps back Stall")


# --- the test alert -----------------------------------------------------------------------------


def row_of_test(result: CheckResult) -> Row:
    [row] = [row for row in result.rows if row.what == "test alert"]
    return row


@pytest.mark.parametrize(
    ("stage", "mode"), [("development", "apply"), ("testnet", "plan"), ("development", "plan")]
)
def test_no_test_alert_in_plans_and_in_development(look: Look, stage: str, mode: str) -> None:
    """Nobody is paged by a look."""
    assert look(stage=stage, mode=mode).outcome is PASS
    assert look.world.posted == []


def test_the_test_alert_is_a_notification_read_back(look: Look) -> None:
    """From testnet on, in apply: posted first, over in a minute, at the receivers we computed."""
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
    """Elsewhere, nowhere, held back: FAIL; not there at all: no proof."""
    before, original = list(look.world.alerts), look.world.held

    def other(labels: dict[str, str], **more: Any) -> Any:
        return original(labels if held is not None else {"alertname": "X"}, **(held or {}))

    monkeypatch.setattr(look.world, "held", other)
    look.world.alerts = before
    row = row_of_test(look(stage="testnet", mode="apply"))
    assert (row.outcome, row.observed) == (outcome, observed)


def test_no_alert_is_posted_that_would_inhibit_real_ones(look: Look) -> None:
    """Another severity is taken; with none left nothing is posted."""
    rule = {"target_matchers": ["severity=warning"], "equal": ["cluster"]}
    look.world.config["inhibit_rules"] = [{**rule, "source_matchers": ["severity=critical"]}]
    look(stage="testnet", mode="apply")
    assert [alert["labels"]["severity"] for alert in look.world.posted] == ["page"]
    look.world.posted.clear()
    look.world.config["inhibit_rules"] = [{**rule, "source_matchers": ["severity=~page|critical"]}]
    row = row_of_test(look(stage="testnet", mode="apply"))
    assert (row.outcome, look.world.posted) == (INCONCLUSIVE, [])
    assert row.observed == "an inhibition matches it whatever its severity; it was not posted"


@pytest.mark.servers
@pytest.mark.skipif(processes.binary("alertmanager") is None, reason="no alertmanager on PATH")
def test_a_real_alertmanager_holds_the_test_alert_at_the_pager(look: Look, tmp_path: Path) -> None:
    """Its configuration as it shows it, its answer to a post, the receivers it computes."""
    root = tmp_path / "alertmanager"
    (root / "data").mkdir(parents=True)
    (root / "alertmanager.yml").write_text(yaml.safe_dump(look.world.config))
    server = processes.alertmanager(root, free_port())
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
    bad = [(row.outcome, row.subject) for row in found.rows if row.outcome is not PASS]
    assert bad == [(INCONCLUSIVE, "alertmanager")]  # nobody told it of a watchdog
