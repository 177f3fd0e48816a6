"""The node's TOML, read as the chain reads it."""

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_rehearsal.chain import templates
from runbook_rehearsal.chain.node_config import ConfigurationError, parse
from runbook_rehearsal.chain.world import make_cluster, profile

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
