"""preflight.observability: rules, alerts, and servers without a past."""

from __future__ import annotations

from .observing import INCONCLUSIVE, PASS, Look


def test_a_healthy_world_passes(look: Look) -> None:
    """So that what the other tests change is what makes the difference."""
    found = look()
    assert found.outcome is PASS
    assert found.reason == "1 panels green, 2 rules loaded, a page would arrive"


def test_a_replay_finds_the_same_without_anybody_to_ask(look: Look) -> None:
    """Row by row, test alert included; nothing new is asked."""
    look.world.silence(("instance", "dev-1"))
    found = look(stage="testnet", mode="apply")
    look.world.answer = None  # type: ignore[assignment,method-assign]
    again = look(stage="testnet", mode="apply", replay=True)
    assert again == found
    assert found.outcome is INCONCLUSIVE
