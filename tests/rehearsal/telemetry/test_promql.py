"""The PromQL subset, against a real Prometheus on the same data and on its own, and its rules."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_rehearsal.telemetry import processes, remote
from runbook_rehearsal.telemetry.promql import BadQuery, Unsupported, evaluate
from runbook_rehearsal.telemetry.rules import RuleEngine, check, load
from runbook_rehearsal.telemetry.tsdb import KEPT_MS, STALE, Store, format_value

from ...messages import saying

START = 1_700_000_000_000
MINUTE = 60_000
EXPRESSIONS = """
c_total
g{cluster="a"}
{__name__=~"g|h",instance!="n0"}
nothing
rate(c_total[5m])
rate(c_total[1m])
rate(c_total[5m] offset 10m)
increase(c_total[1h])
increase(c_total[90s])
max_over_time(g[10m])
count_over_time(g[1h])
present_over_time(g[10m])
resets(c_total[3h])
max_over_time(ALERTS[3h])
max_over_time(ALERTS{alertstate="firing"}[20m])
sum by (cluster) (rate(c_total[5m]))
avg(g)
max(g)
min by (instance) (g)
count(g > 4) by (cluster)
group(g)
sum(nothing)
histogram_quantile(0.95, sum by (le) (rate(latency_bucket[5m])))
histogram_quantile(0.5, rate(latency_bucket[10m]))
histogram_quantile(0.5, latency_bucket)
histogram_quantile(0.99, idle_bucket)
timestamp(g)
time() - timestamp(g)
absent(nothing{a="b",c=~"d"})
absent(g)
absent(sum(nothing))
absent(ALERTS{alertname="Down"})
clamp_min(g, 5)
clamp_max(g, 5)
floor(g)
g * 2 + 1
g / 0
g > 5
5 < g
g > bool 5
g == g
g / h
g / on (instance) h
g > on (instance) h
g and on (instance) h{zone="y"}
g unless on (instance) h{zone="y"}
missing unless missing
missing or g
missing and g
g{cluster="b"} or h
g or on (instance) h
sum(g) or vector(0)
sum(rate(c_total[5m])) / count(g)
vector(1)
""".strip().splitlines()


@pytest.fixture(scope="module")
def store() -> Store:
    """Three nodes with jitter, resets, NaN, a gap, an early end and staleness markers."""
    rng, store = np.random.default_rng(0), Store()
    for node in range(3):
        times = START + np.arange(180) * MINUTE + rng.integers(-3000, 3000, 180)
        times = np.delete(times, np.s_[60:90]) if node == 1 else times
        times = times[:100] if node == 2 else times
        where = {"cluster": "b" if node == 2 else "a", "instance": f"n{node}"}
        counter = np.cumsum(rng.integers(0, 50, len(times))).astype(float)
        counter[50:] -= counter[50]
        store.append({"__name__": "c_total", **where}, times, counter)
        gauge = rng.normal(5, 2, len(times))
        gauge[20:23], gauge[30] = np.nan, STALE
        store.append({"__name__": "g", **where}, times, gauge)
        zone = {"instance": f"n{node}", "zone": 'z"\\q' if node else "y"}
        store.append({"__name__": "h", **zone}, times, rng.normal(5, 2, len(times)))
        total = np.zeros(len(times))
        for bound in ("0.1", "0.5", "1", "5", "+Inf"):
            total = total + np.cumsum(rng.integers(0, 5, len(times)))
            store.append({"__name__": "latency_bucket", **where, "le": bound}, times, total.copy())
    times = START + np.arange(180) * MINUTE
    alert = {"__name__": "ALERTS", "alertname": "Down", "alertstate": "firing"}
    store.append(alert, times[40:61], np.append(np.ones(20), STALE))
    for bound in ("1", "+Inf"):
        store.append({"__name__": "idle_bucket", "le": bound}, times, np.zeros(180))
    return store


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[httpx.Client]:
    if processes.binary("prometheus") is None:
        pytest.skip("prometheus is not installed")
    root = tmp_path_factory.mktemp("prometheus")
    (root / "prometheus.yml").write_text("{}\n")
    server = processes.prometheus(root, processes.free_port())
    server.start()
    try:
        remote.push(store, server.url)
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            yield client
    finally:
        server.stop()


def by_labels(rows: Any) -> dict[frozenset[Any], dict[int, float]]:
    return {frozenset(labels.items()): dict(points) for labels, points in rows}


@pytest.mark.servers
@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(120 * MINUTE, 120 * MINUTE, MINUTE), (-10 * MINUTE, 195 * MINUTE, 47_000)],
    ids=["instant", "range"],
)
def test_answers_as_prometheus_does(
    prometheus: httpx.Client, store: Store, expression: str, start: int, end: int, step: int
) -> None:
    """The same series at the same steps, values equal to nine digits."""
    params = {"query": expression, "start": (START + start) / 1000, "end": (START + end) / 1000}
    answer = prometheus.get("/api/v1/query_range", params={**params, "step": step / 1000}).json()
    wanted = by_labels(
        (row["metric"], [(round(at * 1000), float(value)) for at, value in row["values"]])
        for row in answer["data"]["result"]
    )

    steps = np.arange(START + start, START + end + 1, step)
    found = by_labels(
        (labels, zip(steps[there].tolist(), values[there].tolist(), strict=True))
        for labels, values, there in evaluate(store, expression, steps)
        if there.any()
    )

    assert {key: list(points) for key, points in found.items()} == {
        key: list(points) for key, points in wanted.items()
    }
    for key, points in found.items():
        assert list(points.values()) == pytest.approx(
            list(wanted[key].values()), rel=1e-9, abs=1e-12, nan_ok=True
        )


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sum(x", "parse error: unclosed left parenthesis"),
        ("topk(3, g)", "aggregation topk is not supported"),
        ("deriv(g[5m])", "function deriv() is not supported"),
        ("g @ 100", "the @ modifier is not supported"),
        ("time()", "expected an instant vector, got a scalar: time()"),
        ("timestamp(clamp_min(g, 1))", "function timestamp() is not supported"),
        ("-g", "UnaryExpr is not supported: -g{}"),
        ("2 ^ g", "operator ^ is not supported"),
        ("1 + 2", "expected an instant vector, got a scalar: 1 + 2"),
        ("g / ignoring (zone) h", "matching that ignores labels is not supported"),
        ('g{cluster="a" or cluster="b"}', "alternatives between matchers are not supported"),
        (
            'histogram_quantile(0.5, latency_bucket{le!="+Inf"})',
            "expected buckets with bounds from 0 to +Inf, got [0.1 0.5 1.  5. ]",
        ),
        (
            "histogram_quantile(1.2, latency_bucket)",
            "histogram_quantile(): expected a quantile in (0, 1) of whole histograms",
        ),
        ("clamp(g, 2, 1)", "function clamp() is not supported"),
        ("sum without (instance) (g)", "aggregation without labels is not supported"),
        ("g * on (instance) group_left h", "matching of many with one is not supported"),
        ("g + fill (0) g", "fill modifiers are not supported"),
        ("g + on (cluster) h", None),
        ('rate({__name__=~"g|c_total"}[5m])', None),
        ("max_over_time(g[1h:1m])", None),
        ('label_replace(g, "a", "b", "c", "d")', "function label_replace() is not supported"),
    ],
)
def test_refuses_what_it_does_not_know(store: Store, expression: str, message: str | None) -> None:
    """No guess: an expression beyond the subset raises."""
    kind = BadQuery if expression == "sum(x" else Unsupported
    with pytest.raises(kind) as caught:
        evaluate(store, expression, np.array([START + 40 * MINUTE]))
    assert message is None or str(caught.value) == message


# --- Rules evaluated over a stretch of time, and the samples under them ---------------------------


STEPS = 1_700_000_000_000 + np.arange(10) * 60_000


def folder(tmp_path: Path, *rules: dict[str, Any]) -> Path:
    document = {"groups": [{"name": "g", "rules": list(rules)}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document))
    return tmp_path


def broken() -> Store:
    store = Store()
    values = np.array([0, 0, 1, 1, 1, 1, 0, 0, 1, 1.0])
    store.append({"__name__": "broken", "instance": "n1"}, STEPS, values)
    return store


def alerts(store: Store) -> dict[str, list[int]]:
    """Minutes with a sample, by state."""
    return {
        series.labels.get("alertstate", "since"): [
            int(at - STEPS[0]) // 60_000 for at in series.samples().times
        ]
        for series in store
        if series.labels["__name__"].startswith("ALERTS")
    }


DOWN = {
    "alert": "Down",
    "expr": "broken == 1",
    "for": "2m",
    "labels": {"severity": "page", "node": "{{ $labels.instance }}"},
}


@pytest.mark.parametrize("cuts", [[10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [3, 7, 10]])
def test_an_alert_is_pending_before_it_fires(tmp_path: Path, cuts: list[int]) -> None:
    """It fires once it has held for long enough, however the time is cut into batches."""
    engine, store = RuleEngine(load(folder(tmp_path, DOWN))), broken()
    first = 0
    for cut in cuts:
        engine.run(store, STEPS[first:cut])
        first = cut

    assert alerts(store) == {"pending": [2, 3, 8, 9], "firing": [4, 5], "since": [2, 3, 4, 5, 8, 9]}
    (active,) = engine.active.values()
    assert active.labels == {
        "alertname": "Down",
        "instance": "n1",
        "node": "n1",
        "severity": "page",
    }
    assert (active.since, active.firing) == (STEPS[8], False)


def test_a_rule_that_fails_is_unhealthy_and_leaves_the_others_alone(tmp_path: Path) -> None:
    """As in Prometheus, where operands that do not match are seen when they are evaluated."""
    wrong = {"alert": "Wrong", "expr": "broken * on (job) broken"}
    store = broken()
    store.append({"__name__": "broken", "instance": "n2"}, STEPS, np.ones(10))
    engine = RuleEngine(load(folder(tmp_path, wrong, DOWN)))
    check(engine.rules)

    engine.run(store, STEPS)

    assert list(engine.errors) == [0]
    assert "several series match where one may" in engine.errors[0]
    assert {alert.rule.name for alert in engine.active.values()} == {"Down"}
    engine.run(Store(), STEPS)
    assert engine.errors == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "groups: [{name: g, rules: [{alert: Top, expr: 'topk(1, x) > 1'}]}]",
            "rule Top: aggregation topk is not supported",
        ),
        ("spec: {}", "expected Prometheus rule groups, got 'groups'"),
    ],
    ids=["beyond the subset", "no rules"],
)
def test_what_cannot_be_evaluated_is_refused_by_name(
    tmp_path: Path, text: str, problem: str
) -> None:
    """Silence of a rule that was never evaluated must not pass for quiet."""
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with saying(ValueError, f"{path}: {problem}"):
        check(load(tmp_path))


# --- samples in memory and how they are written ---------------------------------------------------


@given(st.floats(allow_nan=False))
def test_a_printed_value_reads_as_the_same_number(value: float) -> None:
    """Nothing is rounded."""
    assert float(format_value(value)) == value


def test_the_first_sample_of_an_instant_stays() -> None:
    """What comes again, or too late, is dropped."""
    store = Store()
    labels = {"__name__": "x"}
    store.append(labels, np.array([1, 2]), np.array([1.0, 2.0]))
    store.append(labels, np.array([2, 3]), np.array([9.0, 3.0]))

    (series,) = store
    assert (series.times.tolist(), series.values.tolist()) == ([1, 2, 3], [1.0, 2.0, 3.0])


def test_a_series_that_ends_is_marked_once() -> None:
    """A staleness marker follows the last sample, also when it ends between two batches."""
    store = Store()
    labels = {"__name__": "x"}
    there = np.array([True, True])
    store.append_while(labels, np.array([1, 2]), np.ones(2), there)
    store.append_while(labels, np.array([3, 4]), np.ones(2), ~there)
    store.append_while(labels, np.array([5, 6]), np.ones(2), ~there)

    (series,) = store
    assert series.times.tolist() == [1, 2, 3]
    assert series.is_stale().tolist() == [False, False, True]
    assert series.samples().times.tolist() == [1, 2]


def test_what_nobody_looks_back_to_is_dropped() -> None:
    """The days that are kept stay as they were."""
    store, begin, hour = Store(), 1_700_000_000_000, 3_600_000
    for day in range(40):
        times = begin + day * 24 * hour + np.arange(0, 24 * hour, hour)
        store.append({"__name__": "x"}, times, times / 1000.0)
    (series,) = store

    assert series.times[-1] - series.times[0] == KEPT_MS
    assert (np.diff(series.times) == hour).all()
    assert (series.values == series.times / 1000.0).all()
    assert series.times[-1] == times[-1]
