"""Dashboards: what a panel asks, what stands for its variables, and what colours its values."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import reach
from runbook_lib.errors import SourceError
from runbook_lib.sources.dashboards import Dashboard, Grafana, Panel, read_dashboard
from runbook_lib.strict import PROJECT

from ..messages import saying
from .conftest import World

ENDPOINT = reach.Endpoint(url="http://grafana/g", token_env="GRAFANA_TOKEN")


def dashboard(*panels: Any, variables: list[dict[str, Any]] | None = None) -> bytes:
    document = {"title": "D", "panels": panels, "templating": {"list": variables or []}}
    return json.dumps(document).encode()


def panel(expr: str = "up", kind: str = "stat", **more: Any) -> dict[str, Any]:
    return {"id": 1, "title": "P", "type": kind, "targets": [{"refId": "A", "expr": expr}], **more}


def read(*panels: Any, given: Any = None, **more: Any) -> Dashboard:
    return read_dashboard(dashboard(*panels, **more), "d.json", given or {})


def coloured(
    *steps: tuple[str, float | None], kind: str = "stat", more: Any = None, **defaults: Any
) -> Panel:
    listed = [{"color": color, "value": value} for color, value in steps]
    if steps:
        defaults["thresholds"] = {"mode": defaults.pop("mode", "absolute"), "steps": listed}
    fields = {"defaults": defaults, "overrides": None}
    [found] = read(panel(kind=kind, **{"fieldConfig": fields, **(more or {})})).panels
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
    found, _, problem = filled(expr, *variables)
    assert (found, problem) == (expected, "")


def test_the_sites_values_come_first_and_are_told() -> None:
    given = {"environment": "canary", "zone": ["a", "b"]}
    found, told, _ = filled('x{e="$environment",z=~"$zone"}', ENVIRONMENT, given=given)
    assert found == 'x{e="canary",z=~"(a|b)"}'
    assert told == "$environment = canary, $zone = (a|b)"
    wanted = "expected a value of $shard, got none; set dashboards.variables.shard"
    assert filled('x{s="$shard"}')[2] == wanted
    assert filled('x{s="$shard"}', {"name": "shard", "type": "query"})[2] == wanted


STEPS = (("green", None), ("red", 10), ("orange", 20), ("blue", 30))


@pytest.mark.parametrize(
    ("value", "shade"),
    [(-1e9, ""), (9.99, ""), (10, "red"), (19, "red"), (20, "orange"), (30, ""), (1e9, "")],
)
def test_the_last_step_at_or_below_a_value_decides(value: float, shade: str) -> None:
    found = coloured(*STEPS)
    assert (found.can_be_red, found.shade(value)) == (True, shade)


def mapped(kind: str, options: Any) -> dict[str, Any]:
    return {"type": kind, "options": options}


DOWN = mapped("value", {"0": {"text": "DOWN", "color": "red"}, "on": {"color": "red"}})


@pytest.mark.parametrize(
    ("mappings", "value", "shade"),
    [
        ([DOWN], 0, "red"),
        ([DOWN], 1, ""),
        ([DOWN], 10, "red"),
        ([mapped("value", {"10": {"color": "green"}}), DOWN], 10, ""),
        ([mapped("value", {"10": {"text": "ten"}})], 10, "red"),
        ([mapped("range", {"from": 2, "to": 5, "result": {"color": "#f00"}})], 5, "red"),
        ([mapped("range", {"from": None, "to": 5, "result": {"color": "red"}})], -9, "red"),
        ([mapped("range", {"from": 2, "to": 5, "result": {"color": "red"}})], 6, ""),
        ([mapped("special", {"match": "null", "result": {"color": "red"}})], 1, ""),
        ([{"id": 1, "type": 1, "op": "=", "text": "N/A", "value": "null"}], 1, ""),
        # The first that matches counts, and leaves the colour to the thresholds where it has none.
        ([mapped("value", {"10": {"text": "ten"}}), mapped("range", {"from": 5, "to": 20, "result": {"color": "green"}})], 10, "red"),
    ],
)  # fmt: skip
def test_mappings_win_over_thresholds(mappings: list[Any], value: float, shade: str) -> None:
    assert coloured(*STEPS, mappings=mappings).shade(value) == shade
    assert coloured(("green", None), mappings=[DOWN]).can_be_red
    assert not coloured(("green", None)).can_be_red


@pytest.mark.parametrize(
    ("color", "shade"),
    [("red", "red"), ("semi-dark-red", "red"), ("super-light-red", "red"), ("#F2495C", "red"), ("#d44a3a", "red"),
     ("#f00", "red"), ("rgba(245, 54, 54, 0.9)", "red"), ("hsl(0, 100%, 50%)", "red"), ("rgb(0,255,0)", ""),
     ("orange", "orange"), ("dark-orange", "orange"), ("#FF9830", "orange"), ("#73BF69", ""), ("#0f0", ""),
     ("green", ""), ("yellow", ""), ("#ffffff", ""), ("#000000", ""), ("transparent", ""), ("text", "")],
)  # fmt: skip
def test_hue_decides(color: str, shade: str) -> None:
    assert coloured((color, None)).shade(1) == shade


@pytest.mark.parametrize(
    ("kind", "defaults", "shows"),
    [
        ("timeseries", {"custom": {"thresholdsStyle": {"mode": "off"}}}, False),
        ("timeseries", {"custom": {"thresholdsStyle": {"mode": "off"}}, "color": {"mode": "thresholds"}}, True),
        ("timeseries", {"custom": {"thresholdsStyle": {"mode": "line"}}}, True),
        ("timeseries", {}, False), ("timeseries", {"color": {"mode": "palette-classic-by-name"}}, False),
        ("timeseries", {"custom": {"gradientMode": "scheme", "thresholdsStyle": {"mode": "off"}}}, True),
        ("timeseries", {"custom": {"gradientMode": "scheme"}, "color": {"mode": "fixed"}}, False),
        ("timeseries", {"custom": {"thresholdsStyle": {"mode": "of tomorrow"}}}, True), ("heatmap", {}, False),
        ("table", {"custom": {"align": "auto"}, "mappings": [DOWN]}, False), ("stat", {}, True), ("state-timeline", {}, True),
        ("table", {"custom": {"cellOptions": {"type": "auto"}}}, False), ("table", {"custom": {"displayMode": "color-text"}}, True),
        ("table", {"custom": {"cellOptions": {"type": "color-background"}}}, True),
        ("stat", {"color": {"mode": "fixed"}}, False), ("stat", {"color": {"mode": "thresholds"}}, True),
    ],
)  # fmt: skip
def test_thresholds_that_a_panel_does_not_show_do_not_count(
    kind: str, defaults: dict[str, Any], shows: bool
) -> None:
    """Grafana saves "red from 80" with every new panel, whatever it draws."""
    found = coloured(("green", None), ("red", 80), kind=kind, **defaults)
    assert (found.can_be_red, found.problem) == (shows, "")


def test_what_colours_nothing_is_asked_for_data_alone() -> None:
    found = coloured(*STEPS, mappings=[DOWN], more={"options": {"colorMode": "none"}})
    assert (found.steps, found.mappings, found.problem) == ((), (), "")
    assert coloured(("red", 10), ("green", 20)).shade(5) == "red"  # below the first as the first


def override(name: str, value: Any = None) -> dict[str, Any]:
    fields = {"overrides": [{"matcher": {}, "properties": [{"id": name, "value": value}]}]}
    return {"fieldConfig": fields}


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (coloured(more=override("thresholds")), "expected colours of the whole panel, got an override of thresholds"),
        (coloured(more=override("color", {"mode": "continuous-GrYlRd"})), "expected colours of the whole panel, got an override of color"),
        (coloured(more=override("color", {"mode": "fixed"})), ""),
        (coloured(more=override("unit", "s")), ""),
        (coloured(more=override("custom.lineWidth", 2)), ""),
        (coloured(more=override("custom.displayMode", "color-text")), "expected colours of the whole panel, got an override of custom.displayMode"),
        (coloured(("green", None), ("red", "NaN")), "expected ascending thresholds, got others"),  # type: ignore[arg-type]
        (coloured(mappings=[7]), "mappings: expected objects, got 7"),
        (coloured(*STEPS, more={"options": {"reduceOptions": {"values": True}}}), "expected the newest value shown, got all values"),
        (coloured(color={"mode": "continuous-RdYlGr"}), "expected colours by thresholds, got the scheme continuous-RdYlGr"),
        (coloured(mappings=[mapped("regex", {"pattern": "1.*", "result": {"color": "red"}})]),
         "expected mappings of values and ranges, got one by an expression"),
        (coloured(*STEPS, more={"options": {"reduceOptions": {"calcs": ["max"]}}}), "expected the newest value shown, got max"),
        (coloured(*STEPS, more={"options": {"reduceOptions": {"calcs": ["lastNotNull"]}}}), ""),
        (coloured(kind="singlestat", more={"thresholds": "50,80"}), "expected thresholds of Grafana 8 or later, got a legacy panel's"),
        (coloured(more={"transformations": [{"id": "organize"}, {"id": "calculateField"}]}),
         "expected the queries' own values, got them changed by calculateField"),
        (coloured(more={"transformations": [{"id": "merge"}, {"id": "reduce", "disabled": True}]}), ""),
        (coloured(more={"targets": "up"}), "targets: expected a list, got 'up'"),
    ],
)  # fmt: skip
def test_a_panel_whose_colours_are_not_understood_says_why(found: Panel, problem: str) -> None:
    assert (found.title, found.problem) == ("P", problem)


def test_one_odd_panel_is_no_others_problem() -> None:
    found = read(panel(), {"title": "L", "libraryPanel": {"uid": "x"}}, panel(title=7), 5, None)
    assert [(each.title, len(each.queries)) for each in found.panels] == [
        ("P", 1), ("L", 0), ("a panel (no. 3)", 0), ("a panel (no. 4)", 0), ("a panel (no. 5)", 0)
    ]  # fmt: skip
    assert [bool(each.problem) for each in found.panels] == [False, False, True, True, True]
    [found_null] = read(panel(targets=None, options=None, transformations=None)).panels
    assert (found_null.queries, found_null.problem) == ((), "")
    for templating in (b"null", b'{"list": null}'):
        text = b'{"title": "D", "panels": [], "templating": %s}' % templating
        assert read_dashboard(text, "d.json", {}) == Dashboard("D", ())


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


def test_panels_are_those_with_data_each_by_its_own_title() -> None:
    """A collapsed row keeps its panels inside; a waiver that names one must not cover another."""
    inside = [panel(), panel(kind="text"), panel(title="Q"), panel("x", hide=True)]
    found = read(panel(kind="text"), {"type": "row", "panels": inside})
    assert [each.title for each in found.panels] == ["P (no. 1)", "Q", "P (no. 3)"]
    hidden = panel(targets=[{"refId": "A", "expr": "up", "hide": True}])
    assert read(hidden).panels[0].queries == ()


def test_the_api_is_asked_with_the_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", "token-of-grafana")

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/g/api/health":
            return httpx.Response(200, json={"database": "ok", "version": "11.0.0"})
        if request.url.path == "/g/api/dashboards/uid/a b":
            return httpx.Response(200, json={"dashboard": json.loads(dashboard(panel()))})
        return httpx.Response(404, json={"message": "Dashboard not found"})

    found = Grafana(world.scope(answer), ENDPOINT).dashboards(["a b", "gone"], {})
    assert found["a b"].title == "D"
    assert str(found.failed["gone"]) == (
        "grafana: gone: expected status 200, got 404:"
        ' {"message":"Dashboard not found"}; check the URL'
    )
    assert {r.headers["authorization"] for r in world.asked} == {"Bearer token-of-grafana"}
    sick = world.scope(lambda _: httpx.Response(200, json={"database": "failing"}), number=2)
    with pytest.raises(SourceError, match="grafana: health: expected database ok, got 'failing'"):
        Grafana(sick, ENDPOINT).dashboards(["a"], {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"{", "expected JSON, got: EOF while parsing an object at line 1 column 1"),
        (b"[]", "expected an object, got a list"),
        (b'{"title": "D"}', "panels: expected a value, got none"),
        (b'{"title": "D", "panels": [], "templating": {"list": [7]}}', "templating.list.0: expected an object, got 7"),
        (b'{"title": "D", "panels": ' + b'[{"type":"row","panels":' * 300 + b"[]" + b"}]" * 300 + b"}", "expected JSON, got: recursion limit exceeded at line 1 column 2411"),
        (b" " * 8_000_001, "expected at most 8000000 bytes, got 8000001"),
    ],
)  # fmt: skip
def test_an_unreadable_dashboard_is_an_error(text: bytes, problem: str) -> None:
    with saying(SourceError, f"d.json: {problem}"):
        read_dashboard(text, "d.json", {})


KEYS = ["title", "panels", "type", "targets", "expr", "fieldConfig", "defaults", "thresholds", "steps", "mappings",
        "options", "overrides", "properties", "templating", "list", "datasource", "transformations", "color"]  # fmt: skip


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(KEYS), inner, max_size=4), max_leaves=12))  # fmt: skip
def test_no_document_ends_the_reader(document: Any) -> None:
    try:
        read_dashboard(json.dumps(document).encode(), "d.json", {})
    except SourceError as error:
        assert error.source == "d.json"
    for given_panel in (document, {**panel(), **(document if isinstance(document, dict) else {})}):
        read(given_panel)


SHIPPED = sorted((PROJECT / "params" / "dashboards").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_dashboard_can_be_red_panel_by_panel(path: Any) -> None:
    found = read_dashboard(path.read_bytes(), path.name, {})
    assert found.panels
    for each in found.panels:
        assert (each.problem, each.can_be_red) == ("", True)
        assert [query.problem for query in each.queries] == [""]
