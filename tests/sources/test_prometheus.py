"""Prometheus: translated clocks, split windows, and what an answer does not say."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from runbook_lib import reach
from runbook_lib.errors import SourceError
from runbook_lib.sources.prometheus import Prometheus

from ..messages import saying
from .conftest import World

AT = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
WALL = AT.timestamp()
ENDPOINT = reach.Endpoint(url="http://prom/path")
MINUTE = timedelta(minutes=1)
AHEAD = timedelta(days=2, seconds=0.25)
Handler = Callable[[httpx.Request], httpx.Response]


def vector(*samples: dict[str, Any], **more: Any) -> Handler:
    body = {"status": "success", "data": {"resultType": "vector", "result": list(samples)}, **more}
    return lambda _: httpx.Response(200, json=body)


def sample(value: str, at: float = WALL, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [at, value]}


def form(request: httpx.Request) -> dict[str, str]:
    return {key: value[0] for key, value in parse_qs(request.content.decode()).items()}


@pytest.fixture
def ahead(tmp_path: Path) -> reach.Clock:
    """A rehearsal's clock, two days and a quarter of a second ahead."""
    file = tmp_path / "clock.json"
    file.write_text(json.dumps({"offset_s": AHEAD.total_seconds()}))
    return reach.Clock(source="offset-file", path=str(file))


def test_an_instant_query_is_a_form_and_keeps_nan_and_inf(world: World) -> None:
    """Long expressions do not fit a URL; NaN and Inf are values."""
    answer = vector(sample("NaN", a="1"), sample("+Inf", a="2"), sample("-Inf"), sample("1e3"))
    found = Prometheus(world.scope(answer), ENDPOINT).instant("up", AT)
    values = [math.isnan(each.value) or each.value for each in found]
    assert values == [True, math.inf, -math.inf, 1000.0]
    assert (found[0].labels, found[0].at) == ({"a": "1"}, AT)
    [request] = world.asked
    assert (request.method, str(request.url)) == ("POST", "http://prom/path/api/v1/query")
    assert form(request) == {"query": "up", "time": f"{WALL:.3f}"}


def test_an_empty_answer_is_empty_and_a_partial_one_is_none(world: World) -> None:
    assert Prometheus(world.scope(vector(infos=["x"])), ENDPOINT).instant("up", AT) == ()
    with saying(SourceError, "prometheus: up: expected all of it, got shard down"):
        Prometheus(world.scope(vector(warnings=["shard down"]), item="b"), ENDPOINT).instant(
            "up", AT
        )


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (vector(sample("1_000")), "data.result.0.value.1: expected a number as text, got '1_000'"),
        (vector(sample(" 1")), "data.result.0.value.1: expected a number as text, got ' 1'"),
        (vector({"metric": {}, "value": [WALL, 1]}), "data.result.0.value.1: expected a number as text, got 1"),
        (vector({"metric": {}, "value": [WALL]}), "data.result.0.value.1: expected a value, got none"),
        (vector({"metric": {}}), "expected a value, got none"),
        (vector({"metric": {}, "histogram": [WALL, {"count": "1"}]}), "expected float samples, got a native histogram"),
        (lambda _: httpx.Response(200, json={"status": "success", "data": {"resultType": "scalar", "result": [WALL, "1"]}}), "data.resultType: expected 'vector', got 'scalar' (and 2 more)"),
    ],
)  # fmt: skip
def test_an_unusable_vector_is_an_error(world: World, answer: Handler, problem: str) -> None:
    with saying(SourceError, f"prometheus: up: {problem}"):
        Prometheus(world.scope(answer), ENDPOINT).instant("up", AT)


def test_freshness_of_an_expression_and_a_window_upside_down_are_refused(world: World) -> None:
    """The timestamp of rate(x) is the instant of asking: always fresh, so no proof."""
    asked = Prometheus(world.scope(), ENDPOINT)
    with pytest.raises(ValueError, match=r"^expected a plain selector, got rate\(up\[5m\]\)$"):
        asked.newest(["rate(up[5m])"], AT)
    with pytest.raises(ValueError):
        asked.range("up", AT, AT - MINUTE, MINUTE)


def matrix_server(gap: range = range(0)) -> Handler:
    """A series with the number of the minute as its value, and the server's limit of points."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = form(request)
        start, end, step = (round(float(asked[key]) * 1000) for key in ("start", "end", "step"))
        times = range(start, end + 1, step)
        if len(times) > 11_000:
            return httpx.Response(400, json={"error": "exceeded maximum resolution"})
        values = [[at / 1000, str(at // 60_000)] for at in times if at // 60_000 not in gap]
        result = [{"metric": {"a": "b"}, "values": values}] if values else []
        data = {"resultType": "matrix", "result": result}
        return httpx.Response(200, json={"status": "success", "data": data})

    return answer


@pytest.mark.parametrize(
    ("points", "gap"),
    [(1, None), (2, None), (11_000, None), (11_001, None), (22_001, None), (22_000, 10_990)],
)
def test_windows_over_the_servers_limit_are_split_and_joined(
    world: World, points: int, gap: int | None
) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first = round(start.timestamp())
    kept = range(points if gap is None else gap)
    server = matrix_server(gap=range(first // 60 + len(kept), first // 60 + points))
    end = start + (points - 1) * MINUTE
    [found] = Prometheus(world.scope(server), ENDPOINT).range("up", start, end, MINUTE)
    assert found.times.tolist() == [(first + 60 * n) * 1000 for n in kept]
    assert found.values.tolist() == [first // 60 + n for n in kept]
    assert len(world.asked) == -(-points // 11_000)


def rules(**keys: Any) -> Handler:
    recording = {
        "type": "recording", "name": "a:b", "query": "up", "health": "ok",
        "lastEvaluation": "2026-01-01T12:00:00Z",
    }  # fmt: skip
    alert = {
        "labels": {"alertname": "Watchdog"}, "annotations": {}, "state": "firing",
        "activeAt": "2026-01-01T11:00:00+01:00", "value": "1e+00",
    }  # fmt: skip
    rule = {
        **recording, "type": "alerting", "name": "Watchdog", "query": "vector(1)",
        "lastEvaluation": "2026-01-01T12:00:00.123456789Z", "state": "firing", "duration": 60,
        "labels": {"severity": "page"}, "annotations": {}, "alerts": [alert], **keys,
    }  # fmt: skip
    groups = [{"name": "g", "file": "/rules.yml", "interval": 15, "rules": [rule, recording]}]
    return lambda _: httpx.Response(200, json={"status": "success", "data": {"groups": groups}})


def test_rules_with_their_alerts_in_the_callers_time(world: World, ahead: reach.Clock) -> None:
    watchdog, recording = Prometheus(world.scope(rules(), clock=ahead), ENDPOINT).rules()
    assert (watchdog.interval_s, watchdog.duration_s) == (15, 60)
    assert watchdog.last_evaluation == datetime(2026, 1, 3, 12, 0, 0, 373456, tzinfo=UTC)
    assert watchdog.alerts[0].active_at == datetime(2026, 1, 1, 10, tzinfo=UTC) + AHEAD
    assert watchdog.is_evaluated
    assert (recording.kind, recording.state, recording.alerts) == ("recording", None, [])


@pytest.mark.parametrize(
    "keys",
    [
        {"health": "unknown", "lastEvaluation": "0001-01-01T00:00:00Z", "state": "inactive"},
        {"health": "ok", "lastEvaluation": "0001-01-01T00:00:00Z", "state": "inactive"},
        {"health": "unknown", "state": "inactive"},
        {"health": "err", "lastError": "many-to-many", "state": "inactive"},
    ],
    ids=["never", "zero time", "unknown", "broken"],
)
def test_a_rule_that_was_not_evaluated_says_so(
    world: World, ahead: reach.Clock, keys: dict[str, Any]
) -> None:
    """It looks like "no alert" and is not; its zero time is not translated into a real one."""
    rule = Prometheus(world.scope(rules(alerts=[], **keys), clock=ahead), ENDPOINT).rules()[0]
    assert not rule.is_evaluated


def test_many_instants_are_asked_at_once_and_one_may_fail(world: World) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if form(request)["query"] == "broken(":
            return httpx.Response(400, json={"error": "parse error"})
        return vector(sample("1"))(request)

    found = Prometheus(world.scope(answer), ENDPOINT).instants(["up", "broken(", "up"], AT)
    assert list(found) == ["up", "broken("]
    assert found["up"][0].value == 1.0
    said = 'prometheus: broken(: expected status 200, got 400: {"error":"parse error"}'
    assert str(found.failed["broken("]) == said
    assert len(world.asked) == 2
