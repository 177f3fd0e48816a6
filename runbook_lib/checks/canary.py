"""The canary stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import playbook
from ..changes.apply import all_pass
from ..changes.phases import make_plan as plan
from ..context import Context
from ..evidence.order import effect
from ..outcomes import Row, Value
from . import alerts, candidate, clean_epochs, gossip, ledger, preflight
from .alerts import alerts_active
from .candidate import candidate_installed
from .clean_epochs import epochs_clean
from .effects import proven
from .observe import REWARDS, VOTES_OF_MEDIAN, observe
from .pinning import pin_before
from .regression import canary_comparison as comparison
from .rollouts import canary_selection, others_unchanged, rollout

__all__ = [
    "alerts_active",
    "candidate_installed",
    "comparison",
    "epochs_clean",
    "expectations",
    "observe",
    "plan",
    "rewards_gate",
    "witness_clients",
]

CLIENTS = "canary.activate.witness-clients"


def _before_rewards(context: Context) -> tuple[list[Row], Mapping[str, Any]]:
    rows, pinned = pin_before(context)
    more, recorded = ledger.record(context)
    return [*rows, *more], {**pinned, **recorded}


def _clients_on(context: Context) -> list[Row]:
    rows = others_unchanged(context)
    if rows and not all_pass(rows):
        return rows
    at = effect(context.so_far, CLIENTS)
    return rows + proven(context, CLIENTS, "witness_network", at)


rewards_gate = rollout(
    REWARDS,
    "{nodes} have timetoke_rewards on, and no other node",
    before=canary_selection,
    after=others_unchanged,
    capture=_before_rewards,
)
witness_clients = rollout(
    CLIENTS,
    "relays are stable; {nodes} have witness_network on, with traffic",
    before=gossip.relays,
    after=_clients_on,
)


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """(item, what must hold, threshold) of this stage, before any data is read."""
    below = f"under {playbook.CANARY_POWER_BELOW:.1%} of the power"
    epochs = f"{context.params.observe_epochs} whole epochs"
    votes = f"{VOTES_OF_MEDIAN:.0%} of the median's votes"
    return [
        *preflight.expectations(context),
        (epochs_clean.item, *clean_epochs.expected(context)),
        (candidate_installed.item, *candidate.expected(context)),
        (alerts_active.item, *alerts.expected(context)),
        (REWARDS, "rewards are on for the canaries, no other node gains them", below),
        (observe.item, "canaries alone are rewarded, vote, and nobody is slashed", f"{epochs}, {votes}"),
        (CLIENTS, "relays proven stable, then witness traffic on the canaries", epochs),
    ]  # fmt: skip
