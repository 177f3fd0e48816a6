"""What a node's TOML must become, and that its secrets reach the node but never the evidence."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.canonical import digest_bytes
from runbook_lib.changes.state import NodeState
from runbook_lib.changes.targets import artifact, keep_target, rendered, target
from runbook_lib.context import Context
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.sources.commands import NodeConfig
from runbook_lib.sources.config import GATES, Profile

PLAIN = b'data_dir = "./data"\n\n[rollout]\nrelease_channel = "development"\n'
SECRET = PLAIN + b'\n[network.rpc]\nauth_token = "do-not-tell-anyone"\n'
SHOWN = SECRET.replace(b"do-not-tell-anyone", b"[redacted]")
BEFORE = NodeState(gates={}, channel="development", binary="sha256:old", config="sha256:old")


def profile(channel: str, **gates: bool) -> Profile:
    return Profile(
        name="testnet",
        release_channel=channel,  # type: ignore[arg-type]
        change_window="daily",
        feature_gates=dict.fromkeys(GATES, False) | gates,
        release_checks=[],
        recovery_playbook="",
    )


@pytest.fixture
def context(practice: Any) -> Context:
    stage = practice.open()
    found: Context = stage._context("development.activate.deploy", 1)
    return found


def test_a_target_turns_on_the_profiles_gates_and_nothing_off(context: Context) -> None:
    """After is before with the profile's gates, its channel and the release's build."""
    before = BEFORE.model_copy(update={"gates": {"pruning": True, "witness_network": True}})
    config = NodeConfig(PLAIN, digest_bytes(PLAIN), PLAIN)
    wanted = profile("testnet", malachite_consensus=True, pruning=True)

    made = target(context, "dev-1", config, before, wanted, "sha256:new")

    assert made.after.gates == {
        "pruning": True,
        "witness_network": True,
        "malachite_consensus": True,
    }
    assert (made.after.channel, made.after.binary) == ("testnet", "sha256:new")
    assert made.text == PLAIN.replace(b'"development"', b'"testnet"') + (
        b"\n[rollout.feature_gates]\nmalachite_consensus = true\n"
    )
    assert (made.raw, made.after.config) == (None, digest_bytes(made.text))


def test_nothing_to_change_leaves_the_file_byte_for_byte(context: Context) -> None:
    """A second release has an empty gate delta."""
    config = NodeConfig(PLAIN, digest_bytes(PLAIN), PLAIN)

    made = target(context, "dev-1", config, BEFORE, profile("development"), "sha256:new")

    assert (made.text, made.after.config) == (PLAIN, digest_bytes(PLAIN))


def test_the_digest_of_a_target_is_that_of_the_file_with_its_secrets(context: Context) -> None:
    """What is shown is without them; what is delivered and read back is the whole file."""
    config = NodeConfig(SHOWN, digest_bytes(SECRET), SECRET)

    text, raw, digest = rendered(context, "dev-1", config, {"rollout.release_channel": "testnet"})

    assert raw == SECRET.replace(b'"development"', b'"testnet"')
    assert text == SHOWN.replace(b'"development"', b'"testnet"')
    assert digest == digest_bytes(raw)


def test_a_secret_target_is_delivered_from_outside_the_evidence(context: Context) -> None:
    """The attempt keeps the redacted text; the whole file is ours alone to read."""
    delivered = keep_target(context, "dev-1", SHOWN, SECRET)

    assert delivered.parent == context.private
    assert (delivered.read_bytes(), delivered.stat().st_mode & 0o777) == (SECRET, 0o600)
    assert (context.folder / "targets" / "dev-1.toml").read_bytes() == SHOWN
    kept = [path for path in context.folder.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"do-not-tell-anyone" in path.read_bytes()]


def test_a_target_without_secrets_is_delivered_from_the_evidence(context: Context) -> None:
    """There is nothing to hide, so what is delivered is what is kept."""
    assert keep_target(context, "dev-1", PLAIN, None) == context.folder / "targets" / "dev-1.toml"


def test_an_attempt_renders_a_target_only_once(context: Context) -> None:
    """Another text under the same plan would be another change."""
    keep_target(context, "dev-1", PLAIN, None)
    with pytest.raises(SourceError) as caught:
        keep_target(context, "dev-1", SHOWN, None)

    assert str(caught.value) == (
        "dev-1: expected the target this attempt already rendered, got another; start a new one"
    )


def test_a_site_without_an_artifact_is_the_users_mistake(context: Context) -> None:
    """There is nothing to deploy."""
    context.site = context.site.model_copy(update={"artifacts": {}})
    with pytest.raises(ParameterError) as caught:
        artifact(context)

    assert str(caught.value) == "site: artifacts.node: expected the path of the release, got none"
