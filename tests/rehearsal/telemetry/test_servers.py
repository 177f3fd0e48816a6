"""Prometheus and Alertmanager of the rehearsal: real and embedded, the same to whoever asks."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from runbook_rehearsal.chain.world import HISTORY_S, Clock, Event
from runbook_rehearsal.telemetry import processes
from runbook_rehearsal.telemetry.servers import TelemetryServers

from ...conftest import until
from ..conftest import begun


def mean(name: str, by: str) -> str:
    return f"sum by ({by}) (rate({name}_sum[5m])) / sum by ({by}) (rate({name}_count[5m]))"


ROUNDS = mean("rpp_runtime_consensus_round_duration_milliseconds", "cluster")
LONGEST = "rate(rpp_runtime_consensus_round_duration_milliseconds_bucket[5m])"
CATALOGUE = (
    ROUNDS,
    f"histogram_quantile(0.95, sum by (cluster, le) ({LONGEST}))",
    mean("rpp_crypto_vrf_selection_participation_rate", "cluster, instance"),
    "avg by (cluster) (increase(rpp_runtime_chain_block_height_count[10m]))",
    "max_over_time(ALERTS[30m])",
    "timestamp(rpp_runtime_consensus_round_duration_milliseconds_count)",
    'absent(rpp_runtime_consensus_witness_events_total{topic="WitnessMeta"})',
    "count(up == 1)",
)
METRICS = Path(__file__).parents[3] / "params" / "metrics.yaml"


class Site:
    """A world with its servers, and the two APIs as a stage asks them."""

    def __init__(self, root: Path, kind: Any) -> None:
        genesis = Clock(root / "clock.json").now() - HISTORY_S
        self.world = begun(root, genesis, "development", "mainnet")
        self.origin = self.world.clock.now() - 7200
        self.servers = TelemetryServers(self.world, kind, self.origin)

    def get(self, server: str, path: str, **params: Any) -> Any:
        url = self.servers.urls[server] + path
        answer = httpx.get(url, params=params, trust_env=False, timeout=10)
        return answer.raise_for_status().json()

    def query(self, expression: str, **params: Any) -> list[Any]:
        params = {"query": expression, **params}
        return list(self.get("prometheus", "/api/v1/query", **params)["data"]["result"])

    def alerts(self) -> list[str]:
        alerts = self.get("alertmanager", "/api/v2/alerts")
        return [alert["labels"]["alertname"] for alert in alerts]

    def post(self, path: str, body: Any) -> Any:
        url = self.servers.urls["alertmanager"] + "/api/v2" + path
        return httpx.post(url, json=body, trust_env=False).raise_for_status()

    def fault(self, kind: str, name: str) -> None:
        now = self.world.clock.now()
        self.world.append(Event(now, "mainnet", "", kind, {"name": name}))  # type: ignore[arg-type]


def needs_real() -> None:
    if not all(processes.binary(name) for name in ("prometheus", "alertmanager")):
        pytest.skip("prometheus and alertmanager are not installed")


KINDS = ["embedded", pytest.param("real", marks=pytest.mark.servers)]


@contextlib.contextmanager
def running(kind: str, root: Path) -> Iterator[Site]:
    """A site that leaves nothing behind."""
    if kind == "real":
        needs_real()
    site = Site(root, kind)
    site.servers.start()
    urls = site.servers.urls
    try:
        yield site
    finally:
        site.servers.stop()
    for url in urls.values():
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with running(request.param, tmp_path) as site:
        yield site


@pytest.fixture(params=KINDS, scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Site]:
    """One that no test changes for another."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as site:
        yield site


def test_answers_at_once_and_keeps_watching(shared: Site) -> None:
    """History is there from the start; nodes are scraped; the watchdog reaches Alertmanager."""
    assert len(shared.query(ROUNDS)) == 2
    shared.servers.settle()
    laid = float(shared.query("max(timestamp(up))")[0]["value"][1])
    until(lambda: float(shared.query("min(timestamp(up))")[0]["value"][1]) > laid, "a scrape")
    assert "Watchdog" in shared.alerts()
    rules = shared.get("prometheus", "/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
    (manager,) = shared.get("prometheus", "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert manager["url"] == shared.servers.urls["alertmanager"] + "/api/v2/alerts"


def test_an_alert_is_remembered_over_a_fast_forward(site: Site) -> None:
    """It fires, and is found in the window that holds it long after it has ended."""
    site.fault("fault-on", "consensus-stall")
    site.servers.relay(1800)
    alert = 'ALERTS{alertname="ConsensusLivenessStall",alertstate="firing",cluster="mainnet"}'
    assert len(site.query(alert)) == 1
    until(lambda: "ConsensusLivenessStall" in site.alerts(), "the page")

    site.fault("fault-off", "consensus-stall")
    site.servers.relay(4 * 3600)

    assert site.query(alert) == []
    assert len(site.query(f"max_over_time({alert}[6h])")) == 1
    assert site.query(f"max_over_time({alert}[3h])") == []
    until(lambda: "ConsensusLivenessStall" not in site.alerts(), "its end")


def test_silences_and_posted_alerts_end_with_the_time_skipped(site: Site) -> None:
    """One that ended in between is over, one that did not still holds."""
    now = datetime.now(UTC)
    for hours in (1, 8):
        ends = (now + timedelta(hours=hours)).isoformat()
        matcher = {"name": "hours", "value": str(hours), "isRegex": False, "isEqual": True}
        silence = {"matchers": [matcher], "startsAt": now.isoformat(), "endsAt": ends}
        site.post("/silences", {**silence, "comment": "maintenance", "createdBy": "ada"})
        labels = {"alertname": f"Posted{hours}", "severity": "page"}
        site.post("/alerts", [{"labels": labels, "endsAt": ends}])

    site.servers.relay(2 * 3600)

    silences = site.get("alertmanager", "/api/v2/silences")
    assert {s["matchers"][0]["value"]: s["status"]["state"] for s in silences} == {
        "1": "expired",
        "8": "active",
    }
    assert {name for name in site.alerts() if name.startswith("Posted")} == {"Posted8"}


def test_a_server_taken_away_comes_back_at_the_same_place(site: Site) -> None:
    """Connections are refused meanwhile; afterwards nothing is missing."""
    site.servers.down("prometheus")
    with pytest.raises(httpx.ConnectError):
        site.query("up")
    site.servers.down("alertmanager")
    with pytest.raises(httpx.ConnectError):
        site.alerts()
    site.servers.up("alertmanager")
    site.servers.up("prometheus")

    assert site.query("count(up == 1)")[0]["value"][1] == "8"
    assert isinstance(site.alerts(), list)


def test_an_alert_is_routed_by_its_severity(shared: Site) -> None:
    """Both name the receivers at once: paging ones a real receiver, the rest the dashboard."""
    for severity in ("page", "critical", "warning"):
        shared.post("/alerts", [{"labels": {"alertname": severity, "severity": severity}}])

    alerts = shared.get("alertmanager", "/api/v2/alerts")
    routed = {alert["labels"]["alertname"]: alert["receivers"] for alert in alerts}
    assert [routed[severity] for severity in ("page", "critical", "warning")] == [
        [{"name": "pager"}],
        [{"name": "pager"}],
        [{"name": "dashboard"}],
    ]
    assert "receiver: pager" in shared.get("alertmanager", "/api/v2/status")["config"]["original"]


@pytest.mark.parametrize(
    ("path", "params", "status", "kind"),
    [
        ("query", {"query": "sum(x"}, 400, "bad_data"),
        ("query", {"query": "x", "time": "soon"}, 400, "bad_data"),
        ("query_range", {"query": "x", "start": 0, "end": 12_000, "step": 1}, 400, "bad_data"),
        ("query_range", {"query": "x", "start": 2, "end": 1, "step": 1}, 400, "bad_data"),
        ("query_range", {"query": "x", "start": 1, "end": 2, "step": 0}, 400, "bad_data"),
        ("query", {"query": "up + on (cluster) up"}, 422, "execution"),
    ],
)
def test_bad_questions_are_refused_as_prometheus_refuses_them(
    shared: Site, path: str, params: dict[str, Any], status: int, kind: str
) -> None:
    """Status code and error type."""
    url = f"{shared.servers.urls['prometheus']}/api/v1/{path}"
    answer = httpx.get(url, params=params, trust_env=False)

    assert (answer.status_code, answer.json()["status"]) == (status, "error")
    assert answer.json()["errorType"] == kind


@pytest.mark.servers
def test_embedded_and_real_answer_alike(tmp_path: Path) -> None:
    """The catalogue's expressions over the same history, to nine digits."""
    needs_real()
    metrics = yaml.safe_load(METRICS.read_text())["metrics"]
    expressions = [*CATALOGUE, *(query for metric in metrics for query in metric["queries"])]
    site = Site(tmp_path, "embedded")
    at = site.world.clock.now() - 600
    embedded, real = site.servers, TelemetryServers(site.world, "real", site.origin)
    answers = []
    for site.servers in (embedded, real):
        site.servers.start()
        try:
            answers.append([by_labels(site.query(each, time=at)) for each in expressions])
        finally:
            site.servers.stop()

    for expression, one, other in zip(expressions, *answers, strict=True):
        assert one == pytest.approx(other, rel=1e-9), expression
    assert all(answers[0][: len(CATALOGUE)])


def by_labels(result: list[Any]) -> dict[str, float]:
    return {str(sorted(row["metric"].items())): float(row["value"][1]) for row in result}


@pytest.mark.servers
def test_a_real_prometheus_runs_on_while_the_clock_runs_ahead(tmp_path: Path) -> None:
    """It is not started anew for each look of a watch; what it wrote at other instants is gone."""
    told = 'count_over_time(ALERTS{alertname="Watchdog"}[1m])'  # every two seconds while it runs
    with running("real", tmp_path) as site:
        site.servers.settle()
        until(lambda: float(site.query(told)[0]["value"][1]) > 6, "some time")
        begun = site.get("prometheus", "/api/v1/status/runtimeinfo")["data"]["startTime"]
        site.servers.relay(3600)
        after = site.get("prometheus", "/api/v1/status/runtimeinfo")["data"]["startTime"]
        known = site.get("prometheus", "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]

        assert float(site.query(told)[0]["value"][1]) < 6
        assert (after, len(known)) == (begun, 1)


def test_a_start_that_fails_leaves_nothing_running(tmp_path: Path) -> None:
    """A rule file that cannot be read is named, and no listener or thread stays."""
    before = threading.active_count()
    site = Site(tmp_path, "embedded")
    rules = tmp_path / "prometheus" / "rules"
    rules.mkdir(parents=True)
    (rules / "bad.yaml").write_text("groups: 3\n")

    with pytest.raises(ValueError, match=r"bad\.yaml: expected Prometheus rule groups, got "):
        site.servers.start()
    assert threading.active_count() == before


# --- their processes: ready when started, gone when stopped, or when their owner dies -------------


def alone(test: Any) -> Any:
    """A test of the real server, where there is one."""
    missing = processes.binary("prometheus") is None
    return pytest.mark.servers(pytest.mark.skipif(missing, reason="no prometheus on PATH")(test))


OWNER = """
import sys, time
from pathlib import Path
from typing import Any
from runbook_rehearsal.telemetry import processes
server = processes.prometheus(Path(sys.argv[1]), processes.free_port())
server.start()
print(server.url, flush=True)
time.sleep(60)
"""


@alone
def test_a_server_answers_from_start_to_stop_or_says_why_not(tmp_path: Path) -> None:
    """It can be started again at the same place; stopping twice is no error."""
    (tmp_path / "prometheus.yml").write_text("{}\n")
    server = processes.prometheus(tmp_path, processes.free_port())
    for _ in range(2):
        server.start()
        assert httpx.get(f"{server.url}/-/ready", trust_env=False).status_code == 200
        server.stop()
        server.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url, trust_env=False)
    (tmp_path / "prometheus.yml").write_text("scrape: often\n")
    with pytest.raises(RuntimeError, match=r"(?s)did not become ready: .*field scrape not found"):
        server.start()


@alone
def test_a_server_ends_with_its_owner(tmp_path: Path) -> None:
    """Even when the owner is killed outright."""
    (tmp_path / "prometheus.yml").write_text("{}\n")
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().decode().strip()
        os.kill(owner.pid, signal.SIGKILL)

    deadline = time.monotonic() + 20
    with pytest.raises(httpx.ConnectError):
        while time.monotonic() < deadline:
            httpx.get(f"{url}/-/ready", trust_env=False)
            time.sleep(0.05)
