"""Whether every node of mainnet has the mainnet profile: a gate, a channel, a node that is silent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook_lib.changes import targets
from runbook_lib.checks import mainnet
from runbook_lib.context import Context
from runbook_lib.errors import SourceError
from runbook_lib.outcomes import Outcome, unknown_row

PROFILE = SimpleNamespace(
    feature_gates={"timetoke_rewards": True, "pruning": False}, release_channel="mainnet"
)


def rows(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    """Of one node that says ``answer`` of its rollout."""
    bundle = SimpleNamespace(profile=lambda stage: PROFILE)
    monkeypatch.setattr(targets, "read_bundle", lambda context: bundle)
    context = SimpleNamespace(
        stage="mainnet",
        fleet=SimpleNamespace(rollout=lambda: {"n": answer}),
        unreadable=lambda what, expected, error: unknown_row("n", what, expected, error.problem),
    )
    found = mainnet._profile(cast(Context, context))
    return [(row.what, row.expected, row.observed, row.outcome) for row in found]


def said(channel: str = "mainnet", **gates: bool) -> SimpleNamespace:
    wanted = dict(PROFILE.feature_gates)
    return SimpleNamespace(feature_gates={**wanted, **gates}, release_channel=channel)


def test_the_profile_passes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(monkeypatch, said(other=True)) == [
        ("profile and channel", "mainnet", "mainnet", Outcome.PASS)
    ]


def test_a_gate_that_deviates_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(monkeypatch, said(timetoke_rewards=False, pruning=True)) == [
        ("rollout.feature_gates.timetoke_rewards", True, False, Outcome.FAIL),
        ("rollout.feature_gates.pruning", False, True, Outcome.FAIL),
    ]


def test_another_channel_is_no_mainnet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(monkeypatch, said("canary")) == [
        ("profile and channel", "mainnet", "canary", Outcome.FAIL)
    ]


def test_a_node_that_does_not_say_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(monkeypatch, SourceError("n", "no answer")) == [
        ("gates", "the mainnet profile", "no answer", Outcome.INCONCLUSIVE)
    ]
