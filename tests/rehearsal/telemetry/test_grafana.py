"""The stand-in Grafana: the documented API, its token, and dashboards that a fault spoils."""

from __future__ import annotations

import httpx
import pytest

from runbook_rehearsal.telemetry.grafana import FAULTY, dashboards

from ..conftest import Visitor


def ask(visitor: Visitor, path: str, token: str | None = None) -> httpx.Response:
    given = visitor.network.env["GRAFANA_TOKEN"] if token is None else token
    url = visitor.site["dashboards"]["grafana"]["url"]
    headers = {"authorization": f"Bearer {given}"} if given else {}
    return visitor.http.get(url + path, headers=headers, timeout=2)


@pytest.mark.parametrize(
    ("fault", "path", "token", "status", "key"),
    [
        ("", "/api/health", "", 200, "database"),
        ("", "/api/dashboards/uid/proof-latency", None, 200, "dashboard"),
        ("", "/api/dashboards/uid/proof-latency", "wrong", 401, "message"),
        ("", "/api/dashboards/uid/nope", None, 404, "message"),
        ("dashboard-missing", f"/api/dashboards/uid/{FAULTY}", None, 404, "message"),
        ("grafana-401", f"/api/dashboards/uid/{FAULTY}", None, 401, "message"),
        ("grafana-unwell", "/api/health", None, 503, "database"),
    ],
)
def test_it_answers_as_documented(
    visitor: Visitor, fault: str, path: str, token: str | None, status: int, key: str
) -> None:
    """Health needs no token, dashboards do; refusals have the shapes of the real ones."""
    if fault:
        visitor.network.fault(f"{fault}@development")
    answer = ask(visitor, path, token)
    assert (answer.status_code, key in answer.json()) == (status, True)


def test_faults_spoil_one_dashboard_and_leave_the_files(visitor: Visitor) -> None:
    """What is served is altered, not what lies in the repository."""

    def served() -> object:
        return ask(visitor, f"/api/dashboards/uid/{FAULTY}").json()["dashboard"]

    whole = dashboards()[FAULTY]
    assert served() == whole
    for fault in ("panel-no-data", "panel-red", "panel-parse-error", "topic-cannot-be-red"):
        visitor.network.fault(f"{fault}@development")
        assert served() != whole
        visitor.network.clear(fault)
    assert (served(), dashboards()[FAULTY]) == (whole, whole)


def test_a_grafana_that_is_down_refuses_connections(visitor: Visitor) -> None:
    """And answers again where it did."""
    visitor.network.fault("grafana-down@development")
    with pytest.raises(httpx.ConnectError):
        ask(visitor, "/api/health")
    visitor.network.clear("grafana-down")
    assert ask(visitor, "/api/health").status_code == 200
