"""The world of the rehearsal: clock, clusters, events, the chain, and the files of its nodes."""

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_rehearsal.chain import templates
from runbook_rehearsal.chain.node_config import ConfigurationError, parse
from runbook_rehearsal.chain.timeline import noise, state_at, voting_power
from runbook_rehearsal.chain.world import Clock, Event, World, make_cluster, profile

from .conftest import begun, happening

ADDRESSES = [(f"127.1.3.{index}", 7070) for index in range(1, 8)]


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_clock_never_goes_back(tmp_path: Path, seconds: float) -> None:
    """A negative or undefined step is refused and changes nothing."""
    clock = Clock(tmp_path / "clock.json")

    with pytest.raises(ValueError, match=r"^clock: the offset only grows: expected >= 0 s, got "):
        clock.advance(seconds)
    assert clock.offset == 0


@pytest.mark.parametrize("seed", range(8))
def test_canaries_hold_less_than_a_third_of_the_power(seed: int) -> None:
    """Whatever the seed, the two canaries of seven cannot stop the chain."""
    nodes = make_cluster("mainnet", ADDRESSES, seed, 0.0).nodes
    canaries = sum(voting_power(node) for node in nodes if node.canary)

    assert [node.name for node in nodes if node.canary] == ["main-1", "main-2"]
    assert canaries * 3 < sum(voting_power(node) for node in nodes)


def test_events_come_in_order(tmp_path: Path) -> None:
    """A cluster's are sorted by time."""
    world = World(tmp_path, 1, {"mainnet": make_cluster("mainnet", ADDRESSES, 1, 0.0)})
    late = Event(20.0, "mainnet", "", "fault-on", {"name": "consensus-stall"})
    early = Event(10.0, "mainnet", "main-1", "down")
    for event in (late, early, Event(5.0, "testnet", "test-2", "down")):
        world.append(event)

    assert world.events_of("mainnet") == [early, late]


# --- the chain as a function of seed, events and time ---------------------------------------------


GENESIS = 1_790_000_000.0
happen = happening("mainnet", GENESIS)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return begun(tmp_path, GENESIS, "mainnet", nodes=7)


def test_without_quorum_the_chain_stands(world: World) -> None:
    """Three of seven nodes down stop it; it goes on from where it stood."""
    for node in ("main-5", "main-6", "main-7"):
        happen(world, 1000, "down", node)
    happen(world, 2000, "up", "main-5")
    stalled = state_at(world, "mainnet", GENESIS + 1999)

    assert (stalled.height, stalled.quorum_reached, stalled.quorum_latency_ms) == (200, False, None)
    assert stalled.commit_power < stalled.quorum_threshold
    assert state_at(world, "mainnet", GENESIS + 2100).height == 220


def test_noise_depends_on_the_instant_alone() -> None:
    """Overlapping windows agree; the series keeps its variance and its memory."""
    whole = noise(1, "key", GENESIS + np.arange(0, 40_000 * 60.0, 60))
    part = noise(1, "key", GENESIS + np.arange(600.0, 6000.0, 60))

    assert np.array_equal(whole[10:100], part)
    assert whole.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(whole[1:], whole[:-1])[0, 1] == pytest.approx(0.6, abs=0.02)
    assert not np.array_equal(part, noise(2, "key", GENESIS + np.arange(600.0, 6000.0, 60)))


# --- The node's TOML, read as the chain reads it --------------------------------------------------


CLUSTER = make_cluster("mainnet", [("127.1.3.1", 7070), ("127.1.3.2", 7070)], 1, 0.0)


def text(channel: str = "development") -> str:
    return templates.node_config(CLUSTER.nodes[0], CLUSTER, channel, profile(channel))


CHANNEL_NAMES = "`development`, `testnet`, `canary`, `mainnet`"
GATES = (
    "`pruning`, `recursive_proofs`, `reconstruction`, `consensus_enforcement`, "
    "`malachite_consensus`, `timetoke_rewards`, `witness_network`"
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[rollout]\n",
            "foo = 1\n[rollout]\nx = 2\n",
            "unknown configuration key(s): foo, rollout.x",
        ),
        (
            "gossip_enabled",
            "gossip_fanout = 8\ngossip_enabled",
            "unknown configuration key(s): network.p2p.gossip_fanout",
        ),
        ("block_time_ms", "[secrets]\nblock_time_ms", "missing field `block_time_ms`"),
        ("enabled = true\nendpoint", "endpoint", "missing field `enabled`"),
        ("witness_network", "witness", f"unknown field `witness`, expected one of {GATES}"),
        (
            "pruning = true",
            "pruning = 1",
            "invalid type: integer, expected a boolean for key `rollout.feature_gates.pruning`",
        ),
        (
            'release_channel = "development"',
            'release_channel = "stable"',
            f"unknown variant `stable`, expected one of {CHANNEL_NAMES}",
        ),
        ("[rollout]\n", "", "missing field `release_channel`"),
        (
            'config_version = "1.0"',
            'config_version = "2.0"',
            "node configuration config_version 2.0 is not supported; expected 1.0",
        ),
        (
            "mempool_limit = 8192",
            "mempool_limit = 0",
            "node configuration requires mempool_limit to be greater than 0",
        ),
    ],
)
def test_refused_in_the_words_of_the_chain(old: str, new: str, message: str) -> None:
    """Each way to break a file is named after the prefix that the node prints."""
    broken = text().replace(old, new, 1)

    with pytest.raises(ConfigurationError) as caught:
        parse(broken)
    said = str(caught.value)
    assert said.startswith("configuration error: ")
    assert message in said.removeprefix("configuration error: ")


def test_rollout_table_needs_all_three_parts() -> None:
    """A [rollout] without telemetry is refused; without [rollout] the defaults hold."""
    document = text()
    start, end = document.index("[rollout.telemetry]"), document.index("[network.rpc]")
    start_all = document.index("[rollout]")

    with pytest.raises(ConfigurationError, match=r"missing field `telemetry`$"):
        parse(document[:start] + document[end:])
    assert parse(document[:start_all] + document[end:]).channel == "development"


def test_partial_gate_table_takes_the_defaults() -> None:
    """A gate that is not named is on for the base gates and off for the others."""
    without = (
        text("testnet").replace("pruning = true\n", "").replace("witness_network = false\n", "")
    )

    assert parse(without).gates == profile("testnet")


@given(st.text())
def test_any_text_is_a_configuration_error_or_a_configuration(anything: str) -> None:
    """No input, however odd, ends in another exception."""
    try:
        parse(anything)
    except ConfigurationError as error:
        assert str(error).startswith("configuration error: ")


def test_bundle_has_the_tables_of_the_chains_own() -> None:
    """Ours differs in its prose, and says nothing of the export that nodes refuse."""
    folder = os.environ.get("RPP_CHAIN_DIR")
    if not folder:
        pytest.skip("RPP_CHAIN_DIR names no copy of the chain's files")
    ours = tomllib.loads(templates.bundle())
    theirs = tomllib.loads(Path(folder, "config/defaults/mainnet.toml").read_text())
    for key in ("description", "notes"):
        del ours[key], theirs[key]
    del theirs["network"]["admission"]["worm_export"]

    assert ours == theirs
