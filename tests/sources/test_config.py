"""Configurations: compared by dotted key and type, rewritten with nothing else changed."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.sources.config import (
    DOCUMENTED,
    GATES,
    Difference,
    diff,
    flatten,
    gates_turned_off,
    misplaced,
    parse_bundle,
    parse_toml,
    render,
)

from ..messages import saying

NODE = b"""# kept
data_dir = "./data"   # kept too
block_time_ms = 5000

[rollout]
release_channel = "development"
feature_gates = { pruning = true, recursive_proofs = true }

# about telemetry
[rollout.telemetry]
enabled = true
"""
KEYS = st.text("abc.-_ ", min_size=1, max_size=4)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.text("ab\n\"'", max_size=4),
    st.floats(allow_nan=False),
)
VALUES = st.one_of(SCALARS, st.lists(st.integers(0, 9), max_size=3))
TABLES = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=3),
    lambda inner: st.dictionaries(
        KEYS, st.one_of(VALUES, inner, st.lists(inner, max_size=2)), max_size=3
    ),
    max_leaves=6,
)


def test_values_have_dotted_keys() -> None:
    table = tomllib.loads('a.b = 1\n"c.d" = 2\ne = [{f = 3}, {}]\ng = []\nh = [1, 2]\n[i]\n')
    whole = {"a.b": 1, '"c.d"': 2, "e[0].f": 3, "e[1]": {}, "g": [], "h": [1, 2], "i": {}}
    assert flatten(table) == whole
    assert flatten({}) == {}


@given(TABLES, TABLES)
def test_every_difference_is_found_from_both_sides(a: dict[str, Any], b: dict[str, Any]) -> None:
    left, right = flatten(a), flatten(b)
    there, back = diff(left, right), diff(right, left)
    assert diff(left, flatten(parse_toml(tomlkit.dumps(a).encode(), "x"))) == []
    turned = {"missing": "extra", "extra": "missing"}
    forth = [(each.key, turned.get(each.kind, each.kind)) for each in there]
    assert forth == [(each.key, each.kind) for each in back]
    assert {each.key for each in there} == {
        key
        for key in left.keys() | right.keys()
        if key not in left or key not in right or repr(left[key]) != repr(right[key])
    }


def test_kinds_of_difference() -> None:
    expected = {"same": 1, "gone": 1, "value": 1, "type": True, "list": [1, 2]}
    observed = {"same": 1, "new": 1, "value": 2, "type": 1, "list": [1, 2.0]}
    assert diff(expected, observed) == [
        Difference("gone", "missing", 1, None),
        Difference("list", "wrong type", [1, 2], [1, 2.0]),
        Difference("new", "extra", None, 1),
        Difference("type", "wrong type", True, 1),
        Difference("value", "different", 1, 2),
    ]


def test_rendering_changes_the_keys_named_and_keeps_the_rest() -> None:
    changes = {
        "rollout.release_channel": "testnet",
        "rollout.feature_gates.malachite_consensus": True,
        "epoch_length": 720,
    }
    assert render(NODE, changes, "n1") == (
        NODE.replace(b'"development"', b'"testnet"')
        .replace(b"proofs = true }", b"proofs = true, malachite_consensus = true}")
        .replace(b"5000\n", b"5000\nepoch_length = 720\n")
    )
    made = render(b"a = {}\n", {"rollout.feature_gates.pruning": True, "a.b": 1}, "n1")
    rollout = {"feature_gates": {"pruning": True}}
    assert tomllib.loads(made.decode()) == {"a": {"b": 1}, "rollout": rollout}


GATE_CHANGES = st.dictionaries(
    st.sampled_from([f"rollout.feature_gates.{gate}" for gate in GATES]), st.booleans()
)


@given(TABLES, GATE_CHANGES)
def test_rendering_differs_in_exactly_the_changes(
    table: dict[str, Any], changes: dict[str, bool]
) -> None:
    text = tomlkit.dumps(table).encode()
    after = flatten(parse_toml(render(text, dict(changes), "n1"), "n1"))
    assert diff({**flatten(parse_toml(text, "n1")), **changes}, after) == []


@pytest.mark.parametrize(
    ("text", "changes", "problem"),
    [
        (b"a = 1\n", {"a.b": 1}, "a.b: expected to be settable, got: "),
        (b"a = 1\n", {"b[0]": 1}, "expected a plain dotted key to change, got b[0]"),
        (b"a = \n", {"a": 1}, "expected TOML, got: Invalid value (at line 1, column 5)"),
        (
            b"\xff",
            {"a": 1},
            "expected TOML, got: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (b"[a]\nb = 1\n", {"a": 1}, "expected to change only a, got a.b too"),
    ],
)
def test_what_cannot_be_rendered_is_an_error(
    text: bytes, changes: dict[str, Any], problem: str
) -> None:
    with saying(SourceError, f"n1: {problem}", whole=False):
        render(text, changes, "n1")


# --- the bundle ---------------------------------------------------------------------------------

STAGE = """[[stages]]
name = "{name}"
release_channel = "{name}"
change_window = "daily"
feature_gates = {{ {gates} }}
release_checks = ["a.md#{name}-readiness"]
recovery_playbook = "a.md#{name}-recovery"
"""


def stage(name: str, *off: str) -> str:
    gates = ", ".join(f"{gate} = {'false' if gate in off else 'true'}" for gate in GATES)
    return STAGE.format(name=name, gates=gates)


def bundle(*stages: str, head: str = 'version = 1\nbundle = "b"\n', tail: str = "") -> bytes:
    return (head + "".join(stages) + tail).encode()


def test_a_bundles_stages_its_tables_for_nodes_and_what_it_turns_off() -> None:
    stages = stage("development", "witness_network"), stage("testnet")
    found = parse_bundle(bundle(*stages, tail="[network.admission]\nx = 1\n"), "bundle.toml")
    assert (found.name, list(found.stages)) == ("b", ["development", "testnet"])
    assert found.other == {"network.admission.x": 1}
    assert tuple(found.profile("development").feature_gates) == GATES
    assert not found.profile("development").feature_gates["witness_network"]
    with saying(ParameterError, "bundle b: stages: expected mainnet, got development, testnet"):
        found.profile("mainnet")
    off = bundle(stage("development"), stage("testnet", "pruning"), stage("canary", "pruning"))
    assert gates_turned_off(parse_bundle(off, "b")) == [("testnet", "pruning")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (bundle(stage("testnet").replace("pruning", "prunning")), "stages.0.feature_gates: expected exactly the 7 gates, got ['pruning'] missing and ['prunning'] unknown"),
        (bundle(stage("testnet").replace("pruning = true", "pruning = 1")), "stages.0.feature_gates.pruning: expected true or false, got 1"),
        (bundle(stage("testnet"), head='version = 2\nbundle = "b"\n'), "version: expected 1, got 2"),
        (bundle(stage("testnet"), stage("testnet")), "stages: expected every name once, got one twice"),
        (b"version = ", "expected TOML, got: Invalid value (at end of document)"),
    ],
)  # fmt: skip
def test_a_wrong_bundle_is_the_users_mistake(text: bytes, problem: str) -> None:
    with saying(ParameterError, f"bundle.toml: {problem}"):
        parse_bundle(text, "bundle.toml")


@pytest.mark.skipif("RPP_CHAIN_DIR" not in os.environ, reason="needs the chain's files")
def test_the_chains_own_bundles_are_read() -> None:
    folder = Path(os.environ["RPP_CHAIN_DIR"]) / "config" / "defaults"
    mainnet, testnet = (
        parse_bundle((folder / f"{name}.toml").read_bytes(), name)
        for name in ("mainnet", "testnet")
    )
    assert (list(mainnet.stages), list(testnet.stages)) == (
        ["development", "testnet", "canary", "mainnet"],
        ["development", "testnet"],
    )
    assert gates_turned_off(mainnet) == gates_turned_off(testnet) == []
    off = {gate for gate, on in mainnet.profile("canary").feature_gates.items() if not on}
    assert off == {"witness_network"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            'data_dir = "d"\n[secrets]\nbackend = "x"\n[proof_cache]\ncapacity = 1\n'
            "block_time_ms = 5000\nmempool_limit = 1\n[rollout.telemetry]\nenabled = true\n"
            'release_channel = "testnet"\n[network.admission.signing]\nkey_path = "k"\n',
            [
                ("proof_cache.block_time_ms", "block_time_ms"),
                ("proof_cache.mempool_limit", "mempool_limit"),
                ("rollout.telemetry.release_channel", "rollout.release_channel"),
            ],
        ),
        # One that stands at home as well did not fall: it is an unknown key like any other.
        ("block_time_ms = 1\n[proof_cache]\nblock_time_ms = 2\n", []),
        ('[rollout.telemetry.metrics]\nauth_token = "t"\n[maintenance]\nenabled = true\n', []),
        ("[rollout.telemetry.grpc_tls]\nwarn_on_drop = true\n",
         [("rollout.telemetry.grpc_tls.warn_on_drop", "rollout.telemetry.warn_on_drop")]),
    ],
)  # fmt: skip
def test_scalars_below_a_table_header_are_named_with_their_home(
    text: str, found: list[tuple[str, str]]
) -> None:
    """As in the chain's own templates: root scalars after [proof_cache]."""
    assert misplaced(tomllib.loads(text)) == found


@given(st.sampled_from(sorted(DOCUMENTED[""])), st.sampled_from(["proof_cache", "network.p2p"]))
def test_any_root_scalar_is_recognised_wherever_it_landed(key: str, table: str) -> None:
    assert misplaced(tomllib.loads(f"[{table}]\n{key} = 1\n")) == [(f"{table}.{key}", key)]
