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


GATE = "rollout.feature_gates"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (said(other=True), [("profile and channel", "mainnet", "mainnet", Outcome.PASS)]),
        (
            said(timetoke_rewards=False, pruning=True),
            [
                (f"{GATE}.timetoke_rewards", True, False, Outcome.FAIL),
                (f"{GATE}.pruning", False, True, Outcome.FAIL),
            ],
        ),
        (said("canary"), [("profile and channel", "mainnet", "canary", Outcome.FAIL)]),
        (
            SourceError("n", "no answer"),
            [("gates", "the mainnet profile", "no answer", Outcome.INCONCLUSIVE)],
        ),
    ],
    ids=["other gates do not matter", "gates that deviate", "another channel", "a silent node"],
)
def test_a_node_has_the_mainnet_profile_or_says_what_it_has(
    monkeypatch: pytest.MonkeyPatch, answer: Any, found: list[tuple[Any, ...]]
) -> None:
    assert rows(monkeypatch, answer) == found
