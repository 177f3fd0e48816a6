"""Dashboards: what a panel asks, what stands for its variables, and when it shows red."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import reach
from runbook_lib.errors import SourceError
from runbook_lib.sources.dashboards import Dashboard, Panel, read_dashboard
from runbook_lib.sources.grafana import Grafana
from runbook_lib.strict import PROJECT

from .conftest import World

ENDPOINT = reach.Endpoint(url="http://grafana/g", token_env="GRAFANA_TOKEN")


def dashboard(*panels: dict[str, Any], variables: list[dict[str, Any]] | None = None) -> bytes:
    document = {"title": "D", "panels": panels, "templating": {"list": variables or []}}
    return json.dumps(document).encode()


def panel(expr: str = "up", kind: str = "stat", **more: Any) -> dict[str, Any]:
    return {"id": 1, "title": "P", "type": kind, "targets": [{"refId": "A", "expr": expr}], **more}


def read(*panels: dict[str, Any], given: Any = None, **more: Any) -> Dashboard:
    return read_dashboard(dashboard(*panels, **more), "d.json", given or {})


def thresholds(*steps: tuple[str, float | None], kind: str = "stat", **defaults: Any) -> Panel:
    listed = [{"color": color, "value": value} for color, value in steps]
    mode = defaults.pop("mode", "absolute")
    defaults["thresholds"] = {"mode": mode, "steps": listed}
    [found] = read(panel(kind=kind, fieldConfig={"defaults": defaults})).panels
    return found


def filled(expr: str, *variables: dict[str, Any], given: Any = None) -> tuple[str, str, str]:
    [found] = read(panel(expr), variables=list(variables), given=given).panels
    [query] = found.queries
    return query.expr, query.filled, query.problem


ENVIRONMENT = {"name": "environment", "type": "query", "current": {"value": ["$__all"]}}


@pytest.mark.parametrize(
    ("expr", "variables", "expected"),
    [
        ("rate(x[$__rate_interval])", [], "rate(x[5m])"),
        ("x * $__interval_ms / ${__range_s}", [], "x * 60000 / 3600"),
        ('x{e=~"$environment"}', [ENVIRONMENT], 'x{e=~".+"}'),
        ('x{e=~"$environment"}', [{**ENVIRONMENT, "allValue": ".*"}], 'x{e=~".*"}'),
        ('x{e=~"${environment:regex}"}', [{**ENVIRONMENT, "current": {"value": ["a", "b"]}}], 'x{e=~"(a|b)"}'),
        ('x{e="[[environment]]"}', [{**ENVIRONMENT, "current": {"value": "prod"}}], 'x{e="prod"}'),
        ("x > $limit", [{"name": "limit", "type": "constant", "query": "7"}], "x > 7"),
        ("rate(x[$w])", [{"name": "w", "type": "interval", "current": {"value": "$__auto_interval_w"}}], "rate(x[1m])"),
        ('label_replace(x, "a", "$1", "b", "(.*)")', [], 'label_replace(x, "a", "$1", "b", "(.*)")'),
    ],
)  # fmt: skip
def test_variables_are_filled_in(expr: str, variables: list[dict[str, Any]], expected: str) -> None:
    """From what the dashboard was saved with, and from fixed durations; groups stay."""
    found, _, problem = filled(expr, *variables)
    assert (found, problem) == (expected, "")


def test_the_sites_values_come_first_and_are_told() -> None:
    """Also for a variable that the dashboard does not declare."""
    given = {"environment": "canary", "zone": ["a", "b"]}
    found, told, _ = filled('x{e="$environment",z=~"$zone"}', ENVIRONMENT, given=given)
    assert found == 'x{e="canary",z=~"(a|b)"}'
    assert told == "$environment = canary, $zone = (a|b)"


def test_a_variable_without_a_value_is_a_problem() -> None:
    """Never an empty text in its place."""
    wanted = "expected a value of $shard, got none; set dashboards.variables.shard"
    assert filled('x{s="$shard"}')[2] == wanted
    assert filled('x{s="$shard"}', {"name": "shard", "type": "query"})[2] == wanted


@pytest.mark.parametrize(
    ("value", "red"), [(-1e9, False), (9.99, False), (10, True), (19, True), (20, False), (1e9, False)]
)  # fmt: skip
def test_the_last_step_at_or_below_a_value_decides(value: float, red: bool) -> None:
    """A red step ends where the next one begins."""
    found = thresholds(("green", None), ("red", 10), ("orange", 20))
    assert (found.can_be_red, found.is_red(value)) == (True, red)


def test_steps_in_percent_need_bounds() -> None:
    """Of the range between them."""
    steps = (("green", None), ("red", 80))
    found = thresholds(*steps, mode="percentage", min=0, max=50)
    assert (found.is_red(39.9), found.is_red(40)) == (False, True)
    assert thresholds(*steps, mode="percentage").problem == (
        "expected min and max with thresholds in percent, got none"
    )


@pytest.mark.parametrize(
    ("color", "red"),
    [("red", True), ("semi-dark-red", True), ("#F2495C", True), ("#d44a3a", True),
     ("rgba(245, 54, 54, 0.9)", True), ("orange", False), ("#FF9830", False), ("#73BF69", False),
     ("green", False), ("#ffffff", False), ("#000000", False), ("nonsense", False)],
)  # fmt: skip
def test_reds_are_told_by_name_and_by_hue(color: str, red: bool) -> None:
    """Orange is a warning."""
    assert thresholds((color, None)).can_be_red is red


@pytest.mark.parametrize(
    ("kind", "defaults", "shows"),
    [
        ("timeseries", {"custom": {"thresholdsStyle": {"mode": "off"}}}, False),
        ("timeseries", {"custom": {"thresholdsStyle": {"mode": "line"}}}, True),
        ("timeseries", {}, True),
        ("stat", {"color": {"mode": "fixed"}}, False),
        ("stat", {"color": {"mode": "thresholds"}}, True),
        ("stat", {}, True),
    ],
)
def test_thresholds_that_a_panel_does_not_show_do_not_count(
    kind: str, defaults: dict[str, Any], shows: bool
) -> None:
    """Grafana saves "red from 80" with every new panel, whatever it draws."""
    assert thresholds(("green", None), ("red", 80), kind=kind, **defaults).can_be_red is shows


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (panel(targets=[]), "expected a query, got none"),
        (panel(targets=[{"refId": "A", "expr": "up", "hide": True}]), "expected a query, got none"),
        (panel(transformations=[{"id": "organize"}, {"id": "calculateField"}]),
         "expected the queries' own values, got them changed by calculateField"),
        (panel(transformations=[{"id": "merge"}, {"id": "reduce", "disabled": True}]), ""),
        (panel(fieldConfig={"overrides": [{"properties": [{"id": "thresholds"}]}]}),
         "expected thresholds of the whole panel, got an override of a field's"),
        (panel(fieldConfig={"defaults": {"thresholds": {"steps": [
            {"color": "red", "value": 2}, {"color": "green", "value": 1}]}}}),
         "expected ascending thresholds, got others"),
    ],
)  # fmt: skip
def test_a_panel_that_cannot_be_judged_says_why(found: dict[str, Any], problem: str) -> None:
    """It is a subject all the same."""
    assert read(found).panels[0].problem == problem


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"datasource": {"type": "loki"}}, "expected a Prometheus query, got one of loki"),
        ({"datasource": "-- Dashboard --"}, "expected a Prometheus query, got one of -- Dashboard --"),
        ({"targets": [{"refId": "A", "datasource": {"type": "__expr__"}}]}, "expected a Prometheus query, got one of __expr__"),
        ({"targets": [{"refId": "A"}]}, "expected a Prometheus query, got none"),
        ({"datasource": {"type": "prometheus", "uid": "gone"}}, ""),
        ({"datasource": "${DS_PROMETHEUS}"}, ""),
        ({"datasource": None}, ""),
    ],
)  # fmt: skip
def test_only_prometheus_is_asked_whatever_its_uid(more: dict[str, Any], problem: str) -> None:
    """The chain's dashboards name a uid that nothing provides."""
    [query] = read(panel(**more)).panels[0].queries
    assert query.problem == problem


def test_rows_and_texts_are_no_panels_but_what_rows_hold_is() -> None:
    """A collapsed row keeps its panels inside."""
    found = read(panel(kind="text"), {"type": "row", "panels": [panel(), panel(kind="text")]})
    assert [each.title for each in found.panels] == ["P"]


def test_panels_of_one_title_are_told_apart() -> None:
    """A waiver that names one must not cover the other."""
    found = read(panel(), panel(title="Q"), panel())
    assert [each.title for each in found.panels] == ["P (no. 1)", "Q", "P (no. 3)"]


def test_the_api_is_asked_with_the_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health first, then dashboards at once; one that is missing is no other's error."""
    monkeypatch.setenv("GRAFANA_TOKEN", "token-of-grafana")

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/g/api/health":
            return httpx.Response(200, json={"database": "ok", "version": "11.0.0"})
        if request.url.path == "/g/api/dashboards/uid/a b":
            return httpx.Response(200, json={"dashboard": json.loads(dashboard(panel()))})
        return httpx.Response(404, json={"message": "Dashboard not found"})

    grafana = Grafana(world.scope(answer), ENDPOINT)
    assert grafana.health() == "11.0.0"
    found = grafana.dashboards(["a b", "gone"], {})
    assert isinstance(found["a b"], Dashboard) and found["a b"].title == "D"
    assert str(found["gone"]) == (
        "grafana: gone: expected status 200, got 404:"
        ' {"message":"Dashboard not found"}; check the URL'
    )
    assert {r.headers["authorization"] for r in world.asked} == {"Bearer token-of-grafana"}


def test_a_grafana_that_is_not_well_is_an_error(world: World) -> None:
    """Its dashboards may be old ones."""
    sick = world.scope(lambda _: httpx.Response(200, json={"database": "failing"}))
    with pytest.raises(SourceError, match="grafana: health: expected database ok, got 'failing'"):
        Grafana(sick, reach.Endpoint(url="http://grafana")).health()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "expected JSON, got: EOF while parsing an object at line 1 column 1"),
        (b"[]", "expected an object, got a list"),
        (b'{"title": "D"}', "panels: expected a value, got none"),
        (b'{"title": "D", "panels": [{"type": "stat", "targets": [{"expr": 7}]}]}', "panels.0.targets.0.expr: expected a valid string, got 7"),
        (b'{"title": "D", "panels": ' + b'[{"type":"row","panels":' * 300 + b"[]" + b"}]" * 300 + b"}", "expected JSON, got: recursion limit exceeded at line 1 column 2411"),
        (b" " * 8_000_001, "expected at most 8000000 bytes, got 8000001"),
    ],
)  # fmt: skip
def test_an_unreadable_dashboard_is_an_error(text: bytes, problem: str) -> None:
    """Named by its file; never an empty set of panels."""
    with pytest.raises(SourceError) as caught:
        read_dashboard(text, "d.json", {})
    assert str(caught.value) == f"d.json: {problem}"


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["title", "panels", "type", "targets", "expr", "fieldConfig",
                                         "defaults", "thresholds", "steps", "templating", "list"]),
                        inner, max_size=4), max_leaves=12))  # fmt: skip
def test_no_document_ends_the_reader(document: Any) -> None:
    """A dashboard or a named problem, whatever the JSON."""
    try:
        read_dashboard(json.dumps(document).encode(), "d.json", {})
    except SourceError as error:
        assert error.source == "d.json"


SHIPPED = sorted((PROJECT / "params" / "dashboards").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_dashboard_can_be_red_panel_by_panel(path: Any) -> None:
    """What we ship for a topic must be able to fail it."""
    found = read_dashboard(path.read_bytes(), path.name, {})
    assert found.panels
    for each in found.panels:
        assert (each.problem, each.can_be_red) == ("", True)
        assert [query.problem for query in each.queries] == [""]
