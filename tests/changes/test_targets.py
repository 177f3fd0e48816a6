"""What a node's TOML must become, and that its secrets reach the node but never the evidence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import playbook
from runbook_lib.canonical import digest_bytes
from runbook_lib.changes.targets import (
    TURNS,
    Delta,
    Turn,
    artifact,
    artifact_of,
    delta,
    keep_target,
    rendered,
    target,
)
from runbook_lib.context import Context
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.plan import CHANNEL_AT, GATES_AT, Artifact, NodeState, moves
from runbook_lib.site import Cluster
from runbook_lib.sources.commands import NodeConfig
from runbook_lib.sources.config import BASE_GATES, GATES, parse_bundle
from runbook_rehearsal.chain.templates import bundle

from ..messages import saying

PLAIN = b'data_dir = "./data"\n\n[rollout]\nrelease_channel = "development"\n'
FILE = NodeConfig(PLAIN, digest_bytes(PLAIN))
SECRET = PLAIN + b'\n[network.rpc]\nauth_token = "do-not-tell-anyone"\n'
SHOWN = SECRET.replace(b"do-not-tell-anyone", b"[redacted]")
BUILD = Artifact(path="p", digest="sha256:file", binary="sha256:new")
BEFORE = NodeState(gates={}, channel="development", binary="sha256:old", config="sha256:old")


@pytest.fixture
def context(practice: Any) -> Context:
    stage = practice.open()
    found: Context = stage.context("development.activate.deploy", 1)
    return found


def made_of(profile: str, before: NodeState, *turns: Turn) -> NodeState:
    """What changes make of a node by a profile of the chain's own bundle."""
    return Delta({}, parse_bundle(bundle().encode(), "b").profile(profile), BUILD).after(
        before, turns
    )


def test_a_target_turns_on_the_changes_gates_and_nothing_off(context: Context) -> None:
    before = BEFORE.model_copy(update={"gates": {"pruning": True, "witness_network": True}})
    turn = Turn("i", "n", "all", ("malachite_consensus", "pruning"), channel=True)
    made, after = target(context, "dev-1", FILE, before, made_of("testnet", before, turn))

    on = ("pruning", "witness_network", "malachite_consensus")
    assert after.gates == dict.fromkeys(on, True)
    assert (after.channel, after.binary) == ("testnet", "sha256:new")
    assert made.text == PLAIN.replace(b'"development"', b'"testnet"') + (
        b"\n[rollout.feature_gates]\nmalachite_consensus = true\n"
    )
    assert (made.raw, after.config) == (None, digest_bytes(made.text))


def test_nothing_to_change_leaves_the_file_byte_for_byte(context: Context) -> None:
    after = made_of("development", BEFORE, *TURNS["development"])
    made, after = target(context, "dev-1", FILE, BEFORE, after)

    found = (made.text, after.config, after.binary)
    assert found == (PLAIN, digest_bytes(PLAIN), "sha256:new")


# --- what each stage makes of each node ---------------------------------------------------------

MALACHITE, REWARDS, WITNESS = GATES[4:]
NAMES = ("n-1", "n-2", "n-3")


def afters(context: Context, stage: str, *canaries: str) -> dict[str, NodeState]:
    """Of a cluster of three nodes, on a bundle with the chain's own stages."""
    nodes = [
        {"name": name, "url": f"http://{name}.invalid", "canary": name in canaries}
        for name in NAMES
    ]
    cluster = Cluster.model_validate({"chain_id": "c", "nodes": nodes})
    there = {"clusters": {"there": cluster}, "stages": dict.fromkeys(playbook.STAGES, "there")}
    context.site, context.stage = context.site.model_copy(update=there), stage
    made = delta(context, parse_bundle(bundle().encode(), "bundle"), BUILD)
    return {name: made.after(BEFORE, made.turns[name]) for name in NAMES}


def changed(channel: str, *on: str) -> NodeState:
    update = {"binary": BUILD.binary, "artifact": BUILD.digest, "channel": channel}
    return BEFORE.model_copy(update={"gates": dict.fromkeys(on, True), **update})


@pytest.mark.parametrize(
    ("stage", "on"),
    [
        ("development", ()),
        ("testnet", (*BASE_GATES, MALACHITE)),
        ("mainnet", (*BASE_GATES, MALACHITE, REWARDS, WITNESS)),
    ],
)
def test_each_stage_brings_every_node_to_its_profile_and_development_moves_the_build_alone(
    context: Context, stage: str, on: tuple[str, ...]
) -> None:
    assert afters(context, stage, "n-1") == dict.fromkeys(NAMES, changed(stage, *on))


@pytest.mark.parametrize("canaries", [("n-1",), ("n-2", "n-3")])
def test_canary_touches_its_members_alone(context: Context, canaries: tuple[str, ...]) -> None:
    found = afters(context, "canary", *canaries)
    member = changed("canary", *BASE_GATES, MALACHITE, REWARDS, WITNESS)

    assert found == {name: member if name in canaries else BEFORE for name in NAMES}
    said = "site: clusters.there.nodes: expected a node with canary: true, got none"
    with saying(SourceError, said):
        afters(context, "canary")


@given(st.dictionaries(st.sampled_from(GATES), st.booleans()), st.sets(st.sampled_from(GATES)))
def test_a_stage_never_turns_a_gate_off(before: dict[str, bool], on: set[str]) -> None:
    """Whatever was on and whatever the profile wants: only off turns into on."""
    state = BEFORE.model_copy(update={"gates": before})
    after = made_of("testnet", state, Turn("i", "n", "all", tuple(on), channel=True))

    assert {gate for gate in GATES if after.gates.get(gate)} == on | {
        g for g in before if before[g]
    }
    changes = {f"{GATES_AT}.{gate}": True for gate in on if not before.get(gate)}
    assert moves(state, after) == {**changes, CHANNEL_AT: "testnet"}


def test_the_digest_of_a_target_is_that_of_the_file_with_its_secrets(context: Context) -> None:
    config = NodeConfig(SHOWN, digest_bytes(SECRET), SECRET)

    made = rendered(context, "dev-1", config, {"rollout.release_channel": "testnet"})

    raw, text = (each.replace(b'"development"', b'"testnet"') for each in (SECRET, SHOWN))
    assert (made.raw, made.text, made.digest) == (raw, text, digest_bytes(raw))


def test_a_secret_target_is_delivered_from_outside_the_evidence(context: Context) -> None:
    delivered = keep_target(context, "dev-1", NodeConfig(SHOWN, "", SECRET))

    assert delivered.parent == context.private
    assert (delivered.read_bytes(), delivered.stat().st_mode & 0o777) == (SECRET, 0o600)
    assert (context.folder / "targets" / "dev-1.toml").read_bytes() == SHOWN
    kept = [path for path in context.folder.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"do-not-tell-anyone" in path.read_bytes()]


def test_an_attempt_renders_a_target_without_secrets_in_the_evidence_and_once(
    context: Context,
) -> None:
    assert keep_target(context, "dev-1", FILE) == context.folder / "targets" / "dev-1.toml"
    said = "dev-1: expected the target this attempt already rendered, got another; start a new one"
    with saying(SourceError, said):
        keep_target(context, "dev-1", NodeConfig(SHOWN, ""))


def test_a_site_without_an_artifact_is_the_users_mistake(context: Context) -> None:
    context.site = context.site.model_copy(update={"artifacts": {}})
    with saying(ParameterError, "site: artifacts.node: expected the path of the release, got none"):
        artifact(context)


def test_an_attempt_without_its_log_hides_no_file_of_a_build(
    context: Context, tmp_path: Path
) -> None:
    """Or one damaged folder of the store would stop every way back."""
    (file := tmp_path / "builds" / "v0.9.0").parent.mkdir()
    file.write_bytes(b"old")
    given = {"artifacts": {"node": f"{file.parent}/{{release}}"}}
    context.site = context.site.model_copy(update=given)
    (context.store.root / "v0.9.0" / "development" / "0001").mkdir(parents=True)
    found = artifact_of(context, BEFORE.model_copy(update={"artifact": digest_bytes(b"old")}))

    assert found is not None
    assert found.path == str(file)
