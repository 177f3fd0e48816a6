"""Rules evaluated over a stretch of time, and the samples under them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_rehearsal.telemetry.rules import RuleEngine, check, load
from runbook_rehearsal.telemetry.tsdb import KEPT_MS, Store, format_value

from ...messages import saying

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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (180.0, "180"),
        (0.1, "0.1"),
        (1.5e7, "15000000"),
        (1e-7, "1e-07"),
        (1e22, "1e+22"),
        (-0.25, "-0.25"),
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
    ],
)
def test_values_are_printed_as_prometheus_prints_them(value: float, text: str) -> None:
    """No exponent between a millionth and 1e21."""
    assert format_value(value) == text


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
