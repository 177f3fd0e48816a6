"""canary.ready.alerts-active: which alerts are about a topic, and whether they would fire."""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.checks import canary
from runbook_lib.checks.canary import about, unit_test
from runbook_lib.errors import SourceError
from runbook_lib.metrics.catalogue import parse_catalogue, selected
from runbook_lib.outcomes import Outcome, Row, worst
from runbook_lib.sources.commands import ToolVerdict
from runbook_lib.sources.prometheus import NEVER, Rule
from runbook_lib.strict import PROJECT
from runbook_rehearsal.telemetry import rules as telemetry

from .conftest import Bare

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CATALOGUE = parse_catalogue((PROJECT / "params/metrics.yaml").read_bytes(), "params/metrics.yaml")
REWARDS = 'pipeline_stage_latency_ms_count{stage="rewards_distributed"}'
STOPS, VANISHES = "alert when it stops", "alert when it vanishes (absent guard)"
LATE = "  FAILED:\n    expr: x, time: 4h30m,\n        exp: {} 1E+00\n        got: nil"


def alert(name: str, severity: str = "critical", **changes: Any) -> Rule:
    return Rule.model_validate(
        {
            "name": name, "type": "alerting", "query": f"increase({REWARDS}[5m]) == {len(name)}",
            "health": "ok", "lastEvaluation": NOW - timedelta(seconds=10),
            "labels": {"severity": severity} if severity else {}, **changes,
        }
    )  # fmt: skip


def fires(*names: str) -> Mapping[str, ToolVerdict | SourceError]:
    """promtool's words by what is tested: ``NAME/SCENARIO``."""
    return dict.fromkeys(names, ToolVerdict(True, "SUCCESS"))


def judged(
    folder: Path,
    *rules: Rule,
    says: Mapping[str, ToolVerdict | SourceError],
) -> list[Row]:
    """The rows of reward distribution; what ``says`` does not name does not fire."""
    by_expr = {rule.query: rule.name for rule in rules}

    def test_rules(file: Path) -> ToolVerdict:
        document = yaml.safe_load(file.read_bytes())
        (loaded,) = yaml.safe_load((folder / "alerts" / document["rule_files"][0]).read_bytes())[
            "groups"
        ][0]["rules"]
        scenario = "vanishes" if "stale" in file.read_text() else "stops"
        verdict = says.get(f"{by_expr[loaded['expr']]}/{scenario}", ToolVerdict(False, LATE))
        if isinstance(verdict, SourceError):
            raise verdict
        return verdict

    context: Any = Bare(
        now=NOW,
        folder=folder,
        matchers={},
        params=SimpleNamespace(paging_severities=["critical", "page"]),
        site=SimpleNamespace(
            telemetry=SimpleNamespace(paging_severities=["sms"], node_label="instance")
        ),
        commands=SimpleNamespace(test_rules=test_rules),
    )
    canary._topic(context, "reward_distribution", CATALOGUE, rules)
    return list(context.findings)


def found(rows: list[Row], what: str) -> tuple[Outcome, object]:
    return next((row.outcome, row.observed) for row in rows if row.what == what)


@pytest.mark.parametrize(
    ("changes", "outcome", "observed"),
    [
        ({"health": "err", "lastError": "many-to-many"}, FAIL, "many-to-many"),
        ({"health": "err"}, FAIL, "an error"),
        ({"health": "unknown"}, INCONCLUSIVE, "never yet"),
        ({"lastEvaluation": NEVER}, INCONCLUSIVE, "never yet"),
        ({"lastEvaluation": NOW - timedelta(seconds=301)}, INCONCLUSIVE, "301 s ago"),
    ],
)
def test_an_alert_that_is_not_evaluated_is_not_armed(
    tmp_path: Path, changes: dict[str, Any], outcome: Outcome, observed: str
) -> None:
    says = fires("Sick/stops", "Sick/vanishes")
    alone = judged(tmp_path, alert("Sick", **changes), says=says)
    beside = judged(
        tmp_path,
        alert("Sick", **changes),
        alert("Sound"),
        says={**says, **fires("Sound/stops", "Sound/vanishes")},
    )

    assert found(alone, "Sick (critical) evaluated") == (outcome, observed)
    assert found(alone, STOPS) == (INCONCLUSIVE, "no healthy alert to test")
    assert found(alone, VANISHES) == (INCONCLUSIVE, "no healthy alert to test")
    assert found(beside, STOPS) == (PASS, "Sound (critical) fires")
    assert worst(row.outcome for row in beside) is outcome


def test_without_a_test_nothing_is_proven(tmp_path: Path) -> None:
    missing = SourceError("test_rules", "promtool: not found")
    says = {"A/stops": missing, "A/vanishes": missing, **fires("Bee/stops")}
    rows = judged(tmp_path, alert("A"), alert("Bee"), says=says)

    assert found(rows, STOPS) == (PASS, "Bee (critical) fires")
    assert found(rows, VANISHES) == (INCONCLUSIVE, "A (critical): promtool: not found")


# --- which alerts are about a topic, and their tests ---------------------------------------------

NEEDS_PROMTOOL = [
    pytest.mark.servers,
    pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed"),
]
CLUSTER = {"cluster": "mainnet"}
WITNESS = "rpp_runtime_consensus_witness_events_total"


def wanted(topic: str) -> list[Any]:
    metrics = CATALOGUE.of_topic(topic)
    return [s for metric in metrics for query in metric.queries for s in selected(query)]


def witness(query: str) -> list[str]:
    """Topics of the series that make a query one of witness gossip."""
    return [labels["topic"] for labels in about(query, wanted("witness_gossip"), CLUSTER)]


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
    assert witness(query) == topics


@given(st.text(max_size=60) | st.text('(){}[]"=~!|.*+x,', max_size=40))
def test_no_text_is_an_accident(text: str) -> None:
    assert about(text, wanted("witness_gossip"), CLUSTER) == []
    assert witness(
        f"{WITNESS}{{topic=~{yaml.safe_dump(text, default_style=chr(34)).strip()}}}"
    ) in (
        [],
        ["Witnessx"],
        [text],
    )


def promtool(tests: Path) -> int:
    argv = ["promtool", "test", "rules", str(tests)]
    return subprocess.run(argv, capture_output=True, check=False).returncode


def stand_in(tests: Path) -> int:
    return int(bool(telemetry.failures(tests)))


@pytest.mark.parametrize("program", [pytest.param(promtool, marks=NEEDS_PROMTOOL), stand_in])
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
    tmp_path: Path, program: Callable[[Path], int], expr: str, stops: bool, vanishes: bool
) -> None:
    """On what is loaded as it is loaded; one that cannot be evaluated never fires.

    A rehearsal without promtool has a stand-in that says the same.
    """
    series = about(expr, wanted("reward_distribution"), CLUSTER)
    found = []
    for scenario in (canary.STOPS, canary.VANISHES):
        labels = {"severity": "page", "why": "{{ $labels.none }}"}
        loaded = alert("A", query=expr, duration=300.0, labels=labels)
        rules, tests = unit_test(loaded, series, scenario, "instance")
        (tmp_path / "r.yaml").write_bytes(rules)
        (tmp_path / "t.yaml").write_bytes(tests.replace(b"{rules}", b"r.yaml"))
        found.append(program(tmp_path / "t.yaml"))

    assert found == [0 if fires else 1 for fires in (stops, vanishes)]
