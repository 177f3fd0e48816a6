"""Voting power by the chain's formula, waves and margins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.changes.power import Powers, cut, margins, power_of, quorum_of
from runbook_lib.errors import SourceError
from runbook_lib.plan import NodeState, Phase
from runbook_lib.sources.node import Validator

from .plans import node, phase

STATE = NodeState(gates={}, channel="testnet", binary="sha256:1", config="sha256:1")
SEVEN = tuple(f"n{number}" for number in range(1, 8))
EQUAL = Powers(dict.fromkeys(SEVEN, 100), 700, quorum_of(700))


def waves(*waves: tuple[str, ...]) -> Phase:
    nodes = (node(name, STATE, STATE) for wave in waves for name in wave)
    return phase("testnet.activate.deploy", "build", nodes, waves)


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


def test_margins_name_the_sides_at_each_boundary() -> None:
    few = Powers(dict.fromkeys(("n1", "n2"), 100), 200, quorum_of(200))
    split = "; neither side has a quorum of its own"

    assert [said for _, said in margins(waves(("n1", "n2"), ("n3", "n4")), EQUAL)] == [
        "new 0.0%, old 71.4%, down 28.6%",
        f"new 28.6%, old 42.9%, down 28.6%{split}",
        f"new 57.1%, old 42.9%, down 0.0%{split}",
    ]
    assert margins(waves(("n1",)), few) == [
        (
            "power, build, wave 1",
            f"new 0.0%, old 50.0%, down 50.0%; NO QUORUM while it is down{split}",
        ),
        ("power, build, afterwards", f"new 50.0%, old 50.0%, down 0.0%{split}"),
    ]


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
