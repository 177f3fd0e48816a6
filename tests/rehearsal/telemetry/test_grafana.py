"""The stand-in Grafana: the documented API, its token, and dashboards that a fault spoils."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from runbook_rehearsal.telemetry.grafana import FAULTY, dashboards

from ..conftest import Visitor


def ask(visitor: Visitor, path: str, token: str | None = None) -> httpx.Response:
    given = visitor.network.env["GRAFANA_TOKEN"] if token is None else token
    url = visitor.site["dashboards"]["grafana"]["url"]
    headers = {"authorization": f"Bearer {given}"} if given else {}
    return visitor.http.get(url + path, headers=headers, timeout=2)


def panel(visitor: Visitor) -> dict[str, Any]:
    found = ask(visitor, f"/api/dashboards/uid/{FAULTY}").json()["dashboard"]["panels"]
    return dict(found[0]) if found else {}


def test_health_needs_no_token(visitor: Visitor) -> None:
    """As documented: anybody may ask whether it is well."""
    answer = ask(visitor, "/api/health", "")

    assert (answer.status_code, answer.json()["database"]) == (200, "ok")


def test_dashboards_are_served_with_the_token_only(visitor: Visitor) -> None:
    """Wrapped beside their meta data; an unknown uid is 404, another method 405."""
    found = ask(visitor, "/api/dashboards/uid/proof-latency")
    assert (found.status_code, found.json()["meta"]["slug"]) == (200, "proof-latency")
    assert found.json()["dashboard"] == dashboards()["proof-latency"]

    refused = ask(visitor, "/api/dashboards/uid/proof-latency", "wrong")
    assert (refused.status_code, refused.json()) == (401, {"message": "Invalid API key"})
    missing = ask(visitor, "/api/dashboards/uid/nope")
    assert (missing.status_code, missing.json()) == (404, {"message": "Dashboard not found"})
    url = visitor.site["dashboards"]["grafana"]["url"]
    assert visitor.http.post(f"{url}/api/dashboards/uid/proof-latency").status_code == 405


def test_faults_spoil_one_dashboard_and_leave_the_files(visitor: Visitor) -> None:
    """What is served is altered, not what lies in the repository."""
    whole = dashboards()[FAULTY]["panels"][0]
    assert panel(visitor) == whole
    for fault in ("panel-no-data", "panel-red", "panel-parse-error", "topic-cannot-be-red"):
        visitor.network.fault(f"{fault}@development")
        assert panel(visitor) != whole
        visitor.network.clear(fault)
    assert (panel(visitor), dashboards()[FAULTY]["panels"][0]) == (whole, whole)


@pytest.mark.parametrize(
    ("fault", "path", "status"),
    [
        ("dashboard-missing", f"/api/dashboards/uid/{FAULTY}", 404),
        ("grafana-401", f"/api/dashboards/uid/{FAULTY}", 401),
        ("grafana-unwell", "/api/health", 503),
    ],
)
def test_faults_of_the_server(visitor: Visitor, fault: str, path: str, status: int) -> None:
    """Refusals have the shapes of the real ones."""
    visitor.network.fault(f"{fault}@development")
    assert ask(visitor, path).status_code == status
    assert json.loads(ask(visitor, path).content)


def test_a_grafana_that_is_down_refuses_connections(visitor: Visitor) -> None:
    """And answers again where it did."""
    visitor.network.fault("grafana-down@development")
    with pytest.raises(httpx.ConnectError):
        ask(visitor, "/api/health")
    visitor.network.clear("grafana-down")
    assert ask(visitor, "/api/health").status_code == 200
