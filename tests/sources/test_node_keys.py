"""The documented keys of a node's TOML, and scalars that fell into the table above them."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.sources.node_keys import TABLES, UNLISTED, Wrong, judge_keys, misplaced

DOCUMENTED = """\
config_version = "1.0"
data_dir = "./data"
key_path = "./keys/node.toml"
vrf_key_path = "./keys/vrf.toml"
block_time_ms = 5000
max_block_transactions = 512
mempool_limit = 8192
epoch_length = 1440

[rollout]
release_channel = "testnet"
[rollout.feature_gates]
pruning = true
[rollout.telemetry]
enabled = true
endpoint = "http://collector:4317"
trace_sample_ratio = 0.1
[rollout.telemetry.vrf_thresholds]
min_participation_rate = 1
[governance.timetoke_rewards]
enabled = false
[maintenance]
poll_interval_secs = 30
[[maintenance.windows]]
name = "w"
starts_at = "2026-01-01T00:00:00Z"
ends_at = "2026-01-01T01:00:00Z"
[genesis]
chain_id = "c"
[[genesis.accounts]]
address = "a"
balance = 1
stake = "1"
"""
SCALARS = [(path, key, kind) for path, keys in TABLES.items() for key, kind in keys.items()]
LISTS = ("genesis.accounts", "maintenance.windows")


def document() -> dict[str, Any]:
    return tomllib.loads(DOCUMENTED)


def table_at(root: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The table of ``path``, made where it lacks, and its path as findings show it."""
    at, shown = root, path
    for word in path.split(".") if path else ():
        at = at.setdefault(word, {})
        if isinstance(at, list):
            at, shown = at[0], f"{path}[0]"
    return at, shown


def test_a_file_of_documented_keys_alone_is_checked_whole() -> None:
    """But for the trace keys, of which only the beginning of the name is documented."""
    assert judge_keys(document()) == ([], ["rollout.telemetry.trace_sample_ratio"])


@given(
    st.sampled_from(sorted(set(TABLES) - {"governance"})),
    st.from_regex(r"zz_[a-z]{1,8}", fullmatch=True),
)
def test_an_unknown_key_of_a_documented_table_is_found_by_its_path(path: str, key: str) -> None:
    """Exactly that key, wherever it stands."""
    root = document()
    table, shown = table_at(root, path)
    table[key] = 1

    wrong, _ = judge_keys(root)
    dotted = f"{shown}.{key}" if shown else key
    assert [one for one in wrong if one.key == dotted] == [
        Wrong(dotted, "no such key", "unknown to the node")
    ]


@given(st.sampled_from(SCALARS), st.sampled_from([True, 1, 1.5, "x", [], {}]))
def test_a_documented_scalar_is_wrong_exactly_when_its_type_is(
    scalar: tuple[str, str, type], value: Any
) -> None:
    """A whole number is a number; true is none."""
    path, key, kind = scalar
    root = document()
    table, shown = table_at(root, path)
    table[key] = copy.deepcopy(value)

    wrong, _ = judge_keys(root)
    dotted = f"{shown}.{key}" if shown else key
    fits = type(value) is kind or (kind is float and type(value) is int)
    assert (dotted in [one.key for one in wrong]) is not fits


@pytest.mark.parametrize("table", sorted(UNLISTED))
def test_a_table_whose_keys_are_not_documented_is_not_checked(table: str) -> None:
    """It is said, and nothing is said of what stands in it."""
    root = document()
    table_at(root, table)[0]["whatever"] = {"it": "is"}
    before = judge_keys(document())[1]

    assert judge_keys(root) == ([], sorted([*before, table]))


@pytest.mark.parametrize(
    ("path", "key", "shown"),
    [
        ("", "data_dir", "data_dir"),
        ("", "genesis", "genesis"),
        ("rollout", "feature_gates", "rollout.feature_gates"),
        ("rollout.telemetry", "enabled", "rollout.telemetry.enabled"),
        ("genesis.accounts", "stake", "genesis.accounts[0].stake"),
    ],
)
def test_a_required_key_that_lacks_is_found(path: str, key: str, shown: str) -> None:
    """The node has no default for it."""
    root = document()
    del table_at(root, path)[0][key]

    assert judge_keys(root)[0] == [Wrong(shown, "a value", "absent")]


@pytest.mark.parametrize(
    ("key", "value", "expected", "got"),
    [
        ("rollout", 1, "a table", "int"),
        ("malachite", {"a": 1}, "no such key", "unknown to the node"),
        ("maintenance", {"windows": {"name": "w"}}, "a list of tables", "dict"),
    ],
)
def test_a_table_of_another_shape_is_refused(key: str, value: Any, expected: str, got: str) -> None:
    """malachite has a file of its own."""
    found, _ = judge_keys({**document(), key: value})
    where = "maintenance.windows" if key == "maintenance" else key

    assert found == [Wrong(where, expected, got)]


def test_scalars_below_a_table_header_are_named_with_their_home() -> None:
    """As in the chain's own templates: root scalars after [proof_cache]."""
    text = (
        'data_dir = "d"\n[secrets]\nbackend = "x"\n[proof_cache]\ncapacity = 1\n'
        "block_time_ms = 5000\nmempool_limit = 1\n[rollout.telemetry]\nenabled = true\n"
        'release_channel = "testnet"\n[network.admission.signing]\nkey_path = "k"\n'
    )
    assert misplaced(tomllib.loads(text)) == [
        ("proof_cache.block_time_ms", "block_time_ms"),
        ("proof_cache.mempool_limit", "mempool_limit"),
        ("rollout.telemetry.release_channel", "rollout.release_channel"),
    ]


def test_a_scalar_that_stands_at_home_as_well_did_not_fall() -> None:
    """It is an unknown key like any other."""
    assert misplaced(tomllib.loads("block_time_ms = 1\n[proof_cache]\nblock_time_ms = 2\n")) == []


@given(
    st.sampled_from(sorted(TABLES[""])), st.sampled_from(["proof_cache", "network.p2p", "rollout"])
)
def test_any_root_scalar_is_recognised_wherever_it_landed(key: str, table: str) -> None:
    """Moved out of the root, into any table below it."""
    root = document()
    value = root.pop(key, "x")
    table_at(root, table)[0][key] = value

    assert misplaced(root) == [(f"{table}.{key}", key)]


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["rollout", "telemetry", "genesis", "accounts", "enabled", "x.y"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["rollout", "genesis", "maintenance", "network", "z"]), VALUES)
)
def test_any_table_can_be_judged(root: dict[str, Any]) -> None:
    """However odd, it ends in findings, never in an error; a root like this lacks its keys."""
    assert judge_keys(root)[0]
    misplaced(root)
