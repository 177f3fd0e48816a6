"""Which alerts are about a topic, and what promtool makes of them on series that stop or vanish."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.metrics import catalogue
from runbook_lib.metrics.alerting import STOPS, VANISHES, about, unit_test
from runbook_lib.metrics.catalogue import parse_catalogue
from runbook_lib.sources.prometheus import Rule
from runbook_lib.strict import PROJECT

CATALOGUE = parse_catalogue((PROJECT / "params/metrics.yaml").read_bytes(), "params/metrics.yaml")
SHIPPED = yaml.safe_load((PROJECT / "params/rules/rollout.yaml").read_bytes())["groups"]
RULES = {rule["alert"]: rule for group in SHIPPED for rule in group["rules"]}
NEEDS_PROMTOOL = [
    pytest.mark.servers,
    pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed"),
]
CLUSTER = {"cluster": "mainnet"}
REWARDS = 'pipeline_stage_latency_ms_count{stage="rewards_distributed"}'
WITNESS = "rpp_runtime_consensus_witness_events_total"


def wanted(topic: str) -> list[Any]:
    metrics = CATALOGUE.of_topic(topic)
    return [s for metric in metrics for query in metric.queries for s in catalogue.selected(query)]


def witness(query: str) -> list[str]:
    """Topics of the series that make a query one of witness gossip."""
    return [labels["topic"] for labels in about(query, wanted("witness_gossip"), CLUSTER)]


def rule(expr: str, for_s: float = 300.0, **labels: str) -> Rule:
    return Rule.model_validate(
        {
            "name": "A",
            "type": "alerting",
            "query": expr,
            "health": "ok",
            "lastEvaluation": datetime(2026, 1, 1, tzinfo=UTC),
            "duration": for_s,
            "labels": labels,
        }
    )


@pytest.mark.parametrize("name", RULES)
def test_the_shipped_rules_are_about_their_topic(name: str) -> None:
    """All but the one on timetoke replay, which rewards rest on."""
    found = {
        topic: bool(about(RULES[name]["expr"], wanted(topic), CLUSTER))
        for topic in ("reward_distribution", "witness_gossip")
    }

    assert found == {
        "reward_distribution": name.startswith("RewardDistribution"),
        "witness_gossip": name.startswith("WitnessGossip"),
    }


@pytest.mark.parametrize(
    ("query", "topics"),
    [
        (f'rate({WITNESS}{{topic="WitnessMeta"}}[5m]) == 0', ["WitnessMeta"]),
        (f'{WITNESS}{{topic=~"WitnessProofs|WitnessMeta"}} == 0', ["WitnessProofs"]),
        (f'{WITNESS}{{topic=~"Witness.+",cluster="mainnet"}} == 0', ["Witnessx"]),
        (f'{WITNESS}{{topic!="blocks"}} == 0', ["Witnessx"]),
        (f'{WITNESS}{{topic!~"Vote.*",cluster=~"main.*"}} == 0', ["Witnessx"]),
        (f"sum by (topic) ({WITNESS}) == 0", []),
        (f'{WITNESS}{{topic="blocks"}} == 0', []),
        (f'{WITNESS}{{topic=~"Witness.*",topic!~"Witness.*"}} == 0', []),
        (f'{WITNESS}{{topic=~"Witness.*",cluster="testnet"}} == 0', []),
        (f'{WITNESS}{{topic=~"(Witness|W+)+"}} == 0', []),
        (f'{WITNESS}{{topic=~".*.*.*.*.*Witness"}} == 0', []),
        ('witness_events_total{topic="WitnessMeta"} == 0', []),
        ("sum(", []),
        ("1+" * 5000 + "1", []),
    ],
)
def test_an_alert_is_about_a_topic_by_the_series_it_selects(query: str, topics: list[str]) -> None:
    """Not by its name, not by a metric that counts other topics too, not in another cluster."""
    assert witness(query) == topics


@given(st.text(max_size=60) | st.text('(){}[]"=~!|.*+x,', max_size=40))
def test_no_text_is_an_accident(text: str) -> None:
    """What a server calls a rule is a string of its own choosing."""
    assert about(text, wanted("witness_gossip"), CLUSTER) == []
    assert witness(
        f"{WITNESS}{{topic=~{yaml.safe_dump(text, default_style=chr(34)).strip()}}}"
    ) in (
        [],
        ["Witnessx"],
        [text],
    )


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(["promtool", "test", "rules"], id="promtool", marks=NEEDS_PROMTOOL),
        pytest.param(
            [sys.executable, "-m", "runbook_rehearsal.telemetry.ruletests"], id="stand-in"
        ),
    ],
)
@pytest.mark.parametrize(
    ("expr", "stops", "vanishes"),
    [
        (f"increase({REWARDS}[10m]) == 0", True, False),
        (f"sum(increase({REWARDS}[10m])) == 0 and on () up", True, False),
        (f"absent({REWARDS})", False, True),
        (f"rate({REWARDS}[5m]) < 0.1 or absent({REWARDS})", True, True),
        (f"increase({REWARDS}[10m]) == -1", False, False),
        (f"{REWARDS} >= 0", False, False),  # fires while all is well, too
        (f"increase({REWARDS}[10m]) * on () up > 0", False, False),  # many meet many
        (REWARDS.replace("}", ',instance="a\\"\\\\{{x}}"} == 1080'), True, False),
    ],
)
def test_promtool_says_when_an_alert_fires(
    tmp_path: Path, program: list[str], expr: str, stops: bool, vanishes: bool
) -> None:
    """On what is loaded as it is loaded; one that cannot be evaluated never fires.

    A rehearsal without promtool has a stand-in that says the same.
    """
    series = about(expr, wanted("reward_distribution"), CLUSTER)
    found = []
    for scenario in (STOPS, VANISHES):
        loaded = rule(expr, severity="page", why="{{ $labels.none }}")
        rules, tests = unit_test(loaded, series, scenario, "instance")
        (tmp_path / "r.yaml").write_bytes(rules)
        (tmp_path / "t.yaml").write_bytes(tests.replace(b"{rules}", b"r.yaml"))
        argv = [*program, str(tmp_path / "t.yaml")]
        ended = subprocess.run(argv, capture_output=True, check=False, cwd=PROJECT)
        found.append(ended.returncode)

    assert found == [0 if fires else 1 for fires in (stops, vanishes)]
