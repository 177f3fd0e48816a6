"""Plans: what their digest covers, what moved between two, and what is left when a node is dropped."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import display
from runbook_lib.changes.power import Powers, cut, power_of, quorum_of
from runbook_lib.errors import SourceError
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import check_row, unknown_row
from runbook_lib.plan import NodePlan, NodeState, Plan, moved, phase_of
from runbook_lib.runs import plan_card
from runbook_lib.site import Node
from runbook_lib.sources.node import Validator

from ..cards import judged, verdict
from ..conftest import benchmark
from . import plans
from .plans import node, phase

WAS = NodeState(gates={"a": False}, channel="testnet", binary="sha256:1", config="sha256:1")
BUILT = WAS.model_copy(update={"binary": "sha256:2"})
GATED = BUILT.model_copy(update={"gates": {"a": True}, "config": "sha256:3"})


def plan(**changes: Any) -> Plan:
    build = phase("i", "build", (node(name, WAS, BUILT) for name in ("n1", "n2")))
    both = (node(name, BUILT, GATED) for name in ("n1", "n2"))
    gates = phase("j", "gates", both, waves=(("n1", "n2"),))
    window = ("2026-01-01T00:00:00+00:00", "2026-01-01T08:00:00+00:00")
    facts = {"phases": (build, gates), "untouched": {"n3": WAS}, "window": window, **changes}
    return plans.plan(**facts)


def test_the_same_intent_has_one_digest() -> None:
    again = Plan.model_validate_json(plan().model_dump_json())
    assert plan().digest == plan().digest == again.digest
    for changes in ({"release": "v2"}, {"window": ()}, {"policy": "x"}, {"untouched": {}}):
        assert plan(**changes).digest != plan().digest


def test_a_plan_knows_its_changes_and_the_way_back() -> None:
    assert plan().nodes == ("n1", "n2")
    assert plan().recovery() == {"n1": WAS, "n2": WAS}
    assert [phase.name for phase in plan().of("j")] == ["gates"]
    assert plan().phases[1].node("n2").changes() == [
        ("rollout.feature_gates.a", False, True),
        ("config", "sha256:1", "sha256:3"),
    ]


@pytest.mark.parametrize(("control", "who"), [("ours", ""), ("operator", "ada")])
def test_a_plan_names_an_operator_only_where_they_change_the_node(control: str, who: str) -> None:
    """A node of ours whose validator an operator speaks for is ours to put back, and in the kit."""
    given = {
        "name": "n1",
        "validator": "v",
        "control": control,
        "operator": "ada",
        "url": "http://n1",
    }
    assert NodePlan.of(Node.model_validate(given), WAS, BUILT).operator == who


@pytest.mark.parametrize(
    ("step", "phase"),
    [
        ("restart", "build"),
        ("deliver-gates", "gates"),
        ("instruct-build.2", "build"),
        ("instruct-gates.main-5.2", "gates"),
    ],
)
def test_a_step_tells_its_phase(step: str, phase: str) -> None:
    assert phase_of(step) == phase


def test_what_moved_is_said_by_node_and_key() -> None:
    other = BUILT.model_copy(update={"gates": {"a": True}})
    first = phase("i", "build", (node("n1", WAS, BUILT), node("n2", other, other)))

    found = moved(plan(), plan(phases=(first, plan().phases[1])))

    assert found == [
        ("n2", "rollout.feature_gates.a before", "false", "true"),
        ("n2", "binary before", "sha256:1", "sha256:2"),
    ]
    assert moved(plan(), plan()) == []
    assert moved(plan(), plan(policy="sha256:q")) == [
        ("the plan", "policy", "sha256:p", "sha256:q")
    ]


def test_a_dropped_node_leaves_every_phase_and_the_digest_is_kept() -> None:
    left = plan().without("n1")

    assert left.nodes == ("n2",)
    assert [phase.waves for phase in left.phases] == [(("n2",),), (("n2",),)]
    assert left.untouched == {"n3": WAS, "n1": WAS}
    assert left.digest == left.without("n2").digest == plan().digest


# --- voting power by the chain's formula, and waves -----------------------------------------------


STATE = NodeState(gates={}, channel="testnet", binary="sha256:1", config="sha256:1")
SEVEN = tuple(f"n{number}" for number in range(1, 8))
EQUAL = Powers(dict.fromkeys(SEVEN, 100), 700, quorum_of(700))


@pytest.mark.parametrize(
    ("stake", "score", "hours", "power"),
    [("1000", 0.8, 5, 1000 * 1800 * 6), ("1000", 0.8004, 5, 1000 * 1800 * 6), ("2", 0.0, 9999, 2 * 1000 * 721)],
)  # fmt: skip
def test_power_is_the_chains_formula(stake: str, score: float, hours: int, power: int) -> None:
    """Stake, rounded reputation, hours up to the cap."""
    one = Validator(
        address="a", stake=stake, reputation_score=score, tier="Tl3", timetoke_hours=hours
    )

    assert power_of(one) == power


@pytest.mark.parametrize(("total", "quorum"), [(900, 601), (901, 602), (3, 3), (1, 2)])
def test_the_quorum_is_two_thirds_rounded_up_and_one(total: int, quorum: int) -> None:
    """As the chain counts it; a total of one never commits."""
    assert quorum_of(total) == quorum


def test_waves_keep_their_order_and_their_limit() -> None:
    assert cut(SEVEN, EQUAL, 0.3) == (("n1", "n2"), ("n3", "n4"), ("n5", "n6"), ("n7",))
    assert cut(SEVEN[:2], EQUAL, 0.2) == (("n1",), ("n2",))


def test_a_node_too_heavy_for_any_wave_is_named() -> None:
    with pytest.raises(SourceError, match=r"n1: expected at most 10.0% of the voting power in one"):
        cut(SEVEN, EQUAL, 0.1)


@given(
    powers=st.lists(st.integers(1, 1000), min_size=1, max_size=40),
    limit=st.floats(0.05, 0.33),
)
def test_every_node_is_in_one_wave_and_no_wave_is_too_heavy(
    powers: list[int], limit: float
) -> None:
    of = {f"n{number}": power for number, power in enumerate(powers)}
    found = Powers(of, sum(powers), quorum_of(sum(powers)))
    try:
        cuts = cut(list(of), found, limit)
    except SourceError:
        assert max(powers) / sum(powers) > limit
        return
    assert [name for wave in cuts for name in wave] == list(of)
    assert all(found.share(wave) <= limit for wave in cuts)


# --- Plans of a large fleet: nothing is lost on the way -------------------------------------------


NODES = 60
LIMIT = 300_000


def test_a_large_plan_counts_every_node_once(tmp_path: Path) -> None:
    """Ours first, no wave of ours and operators', no wave above the limit; the card counts exactly."""
    bench: Any = benchmark("plan")  # it times the same for 500 nodes
    fleet = bench.LargeFleet(tmp_path / "fleet", NODES)
    bench.adopt(fleet, Store(bench.site_of(fleet).store_path))

    canary, _ = bench.planned(fleet, "canary")
    mainnet, _ = bench.planned(fleet, "mainnet")

    assert (len(canary.nodes), len(canary.untouched)) == (2, NODES - 2)
    assert (len(mainnet.nodes), len(mainnet.untouched)) == (NODES, 0)
    theirs = {node.name for node in fleet.cluster.nodes if node.operator}
    for made in mainnet.phases:
        order = [name for wave in made.waves for name in wave]
        assert Counter(order) == dict.fromkeys((node.name for node in fleet.cluster.nodes), 1)
        assert set(order[-len(theirs) :]) == theirs
        assert all(set(wave) <= theirs or not set(wave) & theirs for wave in made.waves)
    changed = sum(len(node.changes()) for _, node in mainnet.changes())
    cards = [plan_card(plan, ()) for plan in (canary, mainnet)]
    assert "12 keys on 2 nodes will change" in cards[0].text
    assert f"{changed} keys on {NODES} nodes will change" in cards[1].text
    assert {change[0] for change in cards[0].data["changes"]} == {"main-1", "main-2"}
    assert max(len(card.html.encode()) for card in cards) < LIMIT


def test_no_card_of_a_large_fleet_is_too_large_to_read() -> None:
    """Each form of each card, of 1,000 rows on 500 nodes; a forge renders a notebook of that size."""
    nodes = [f"main-{number + 1}" for number in range(500)]
    rows = [unknown_row(name, "gates its peers see", "its own", "seen by 0 of 3") for name in nodes]
    rows += [check_row(n, "binary", "sha256:" + "1" * 64, "sha256:" + "0" * 64) for n in nodes]
    drifted = judged(*rows)
    cards = [display.result_card(drifted), display.verdict_card(verdict(drifted))]
    forms = [(card.html, card.text, json.dumps(card.data)) for card in cards]

    assert [len(form) for card in forms for form in card if len(form.encode()) >= LIMIT] == []
    assert sum(len(html.encode()) for html, _, _ in forms) < LIMIT
