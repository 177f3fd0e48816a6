"""Rules evaluated over a stretch of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from runbook_rehearsal.telemetry.rules import RuleEngine, check, load
from runbook_rehearsal.telemetry.tsdb import Store

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
