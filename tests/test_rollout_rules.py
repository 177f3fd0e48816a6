"""The alert rules we ship: loadable, tested by promtool, quiet on a healthy network, loud on a broken one."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from runbook_lib.checks.observability import read_rules
from runbook_lib.metrics.catalogue import parse_catalogue, selected
from runbook_lib.playbook import PAGING_SEVERITIES
from runbook_lib.strict import PROJECT
from runbook_rehearsal.chain.timeline import LEAD_S
from runbook_rehearsal.chain.world import World, profile
from runbook_rehearsal.telemetry.recorder import Recorder
from runbook_rehearsal.telemetry.rules import SHIPPED_RULES, RuleEngine, check, failures, load
from runbook_rehearsal.telemetry.tsdb import Store

from .conftest import ran
from .rehearsal.conftest import begun, happening

UNIT_TESTS = PROJECT / "tests" / "rules" / "rollout_test.yaml"
RULES = [r for g in yaml.safe_load(SHIPPED_RULES.read_text())["groups"] for r in g["rules"]]
NAMES = {rule["alert"] for rule in RULES}
GENESIS = 4_000_000_000.0
HOUR = 3600.0
ON = 2 * HOUR  # after genesis
happen = happening("mainnet", GENESIS)


@pytest.mark.servers
def test_promtool_runs_their_unit_tests() -> None:
    """Every rule fires on the series it is about, and on no others."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = ran(promtool, "test", "rules", UNIT_TESTS)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_rehearsals_stand_in_says_the_same(tmp_path: Path) -> None:
    """The queries of the same tests, where promtool is not installed."""
    document = yaml.safe_load(UNIT_TESTS.read_text())
    document["rule_files"] = [str(SHIPPED_RULES)]
    for test in document["tests"]:
        test.pop("alert_rule_test", None)
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    assert failures(tmp_path / "tests.yaml") == []

    document["tests"][2]["promql_expr_test"][1]["exp_samples"].pop()
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    (failed,) = failures(tmp_path / "tests.yaml")
    assert "time: 150m," in failed
    assert "got: " in failed


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"alert_rule_test": []}, "alert_rule_test"),
        ({"external_labels": {}}, "external_labels"),
        ({"input_series": [{"series": "x", "values": "1e3"}]}, "'1e3'"),
    ],
)
def test_the_stand_in_refuses_what_it_does_not_read(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    test = {"interval": "1m", "input_series": [], "promql_expr_test": [], **changes}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))

    with pytest.raises(ValueError) as caught:
        failures(tmp_path / "t.yaml")
    assert problem in str(caught.value)


def test_every_rule_has_a_unit_test_in_which_it_fires() -> None:
    tests = yaml.safe_load(UNIT_TESTS.read_text())["tests"]
    fired = {
        name
        for test in tests
        for query in test["promql_expr_test"]
        for sample in query["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }

    assert fired == NAMES


def test_they_load_and_ask_for_series_of_the_catalogue_alone() -> None:
    """Read as Prometheus loads them; promtool is asked where it is installed."""
    found = read_rules(SHIPPED_RULES.read_bytes(), SHIPPED_RULES.name)
    catalogue = parse_catalogue((PROJECT / "params/metrics.yaml").read_bytes(), "metrics.yaml")
    known = [query for metric in catalogue.metrics for query in metric.queries]
    asked, emitted = (
        {selector.name for expr in exprs for selector in selected(expr)}
        for exprs in ([rule.expr for rule in found], known)
    )

    assert {rule.name for rule in found} == NAMES
    assert asked <= emitted | {"up"}
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "rules", SHIPPED_RULES], check=True)


def test_they_follow_the_chains_conventions() -> None:
    """A severity of the chain's set, a team, a summary, a page of the chain's documents."""
    for rule in RULES:
        assert rule["labels"]["severity"] in {"info", "warning", "critical", "page"}
        assert rule["labels"]["team"] in {"consensus", "networking"}
        assert set(rule["annotations"]) == {"summary", "runbook_url"}
        assert rule["annotations"]["runbook_url"].startswith(
            "https://github.com/HUBId/chain/blob/main/docs/deployment/staged_rollout.md#"
        )


# --- on the rehearsal's chain -------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A cluster of four whose past has every gate of the rollout off."""
    return begun(tmp_path, GENESIS, "mainnet")


def turn(world: World, at: float, stage: str, *nodes: str) -> None:
    """Nodes restarted on the gates of a stage's profile."""
    for number, node in enumerate(nodes or ("main-1", "main-2", "main-3", "main-4")):
        happen(world, at + 60 * number, "down", node)
        happen(world, at + 60 * number + 20, "config", node, gates=profile(stage), channel=stage)
        happen(world, at + 60 * number + 20, "up", node)


def fired(world: World, until: float = 5 * HOUR) -> dict[str, set[str]]:
    """The shipped alerts that fired, with the nodes they name."""
    store, instants = Store(), np.arange(GENESIS, GENESIS + until, 60.0)
    wall = Recorder(world, GENESIS).lay(store, instants)
    rules = load(SHIPPED_RULES.parent)
    check(rules)
    RuleEngine(rules).run(store, wall)
    found: dict[str, set[str]] = {}
    for series in store:
        if (series.labels["__name__"], series.labels.get("alertstate")) == ("ALERTS", "firing"):
            named = found.setdefault(series.labels["alertname"], set())
            named |= {series.labels["instance"]} if "instance" in series.labels else set()
    return found


@pytest.mark.parametrize(
    ("stage", "nodes"),
    [("development", ()), ("canary", ()), ("mainnet", ()), ("mainnet", ("main-1", "main-2"))],
)
def test_they_are_quiet_on_a_healthy_network(
    world: World, stage: str, nodes: tuple[str, ...]
) -> None:
    """With the gates off, before, while and after they are turned on; also on canaries alone."""
    turn(world, ON, stage, *nodes)

    assert fired(world) == {}


@pytest.mark.parametrize(
    ("fault", "alerts"),
    [
        ("rewards-stall", {"RewardDistributionStalled", "RewardDistributionNodeStalled"}),
        (
            "witness-silent",
            {"WitnessGossipSilent", "WitnessGossipNodeSilent", "WitnessGossipDrops"},
        ),
        ("replay-stall", {"RewardReplayFailing"}),
    ],
)
def test_they_fire_under_the_fault_that_they_are_about(
    world: World, fault: str, alerts: set[str]
) -> None:
    turn(world, ON, "mainnet")
    happen(world, 4 * HOUR + LEAD_S[fault], "fault-on", name=fault)

    assert set(fired(world)) == alerts


def test_the_guards_fire_when_what_was_there_is_gone(world: World) -> None:
    """One node loses its gates: it is named. All do: somebody is paged."""
    turn(world, ON, "mainnet", "main-1", "main-2")
    turn(world, 3 * HOUR, "testnet", "main-2")
    node = fired(world)
    turn(world, 4 * HOUR, "testnet", "main-1")

    assert node == {
        "RewardDistributionNodeAbsent": {"main-2"},
        "WitnessGossipNodeAbsent": {"main-2"},
    }
    gone = fired(world)
    assert set(gone) == {*node, "RewardDistributionAbsent", "WitnessGossipAbsent"}
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in RULES}
    assert {severities[f"{topic}Absent"] for topic in ("RewardDistribution", "WitnessGossip")} <= (
        PAGING_SEVERITIES
    )
