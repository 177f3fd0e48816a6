"""preflight.observability: the way of a page, and the test alert."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from runbook_lib.outcomes import CheckResult, Outcome, Row
from runbook_lib.params import RolloutParams
from runbook_lib.sources.tape import read_entries
from runbook_rehearsal.telemetry import processes
from runbook_rehearsal.telemetry.backends import free_port

from ..conftest import mutations
from .observing import FAIL, INCONCLUSIVE, PASS, Look, iso


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
