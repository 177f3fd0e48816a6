"""The mainnet stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

from ..changes.phases import make_plan as plan
from ..context import Context
from ..evidence.order import effect
from ..outcomes import Row, Value, check_row
from ..sources.config import GATES_AT
from . import preflight
from .announce import announce, frozen_row
from .effects import proven
from .hotfixes import hotfix_branches
from .pinning import pin_before
from .regression import mainnet_comparison as comparison
from .regression import no_regression
from .rollouts import rollout
from .validators import validators_signed_off
from .watch import expected as watched_for
from .watch import watch

__all__ = [
    "announce",
    "comparison",
    "expectations",
    "hotfix_branches",
    "no_regression",
    "plan",
    "validators_signed_off",
    "watch",
    "witness_gate",
]


WITNESS = "mainnet.activate.witness-gate"


def _each_wave(context: Context) -> list[Row]:
    return [frozen_row(context)]


def _profile(context: Context) -> list[Row]:
    """Every gate of every node equals the mainnet profile: no named deviation is left."""
    from ..changes.targets import read_bundle
    from ..errors import SourceError

    wanted = read_bundle(context).profile(context.stage)
    rows = []
    for name, seen in context.fleet.rollout().items():
        if isinstance(seen, SourceError):
            rows.append(context.unreadable("gates", "the mainnet profile", seen))
            continue
        wrong = {g: on for g, on in wanted.feature_gates.items() if seen.feature_gates.get(g) != on}
        for gate, on in wrong.items():
            got = seen.feature_gates.get(gate, "absent")
            rows.append(check_row(name, f"{GATES_AT}.{gate}", on, got, ok=False))
        channel = wanted.release_channel
        ok = seen.release_channel == channel
        if not wrong:
            rows.append(check_row(name, "profile and channel", channel, seen.release_channel, ok))
    return rows


def _on(context: Context) -> list[Row]:
    """The profile everywhere, and on every node the traffic that shows each gate at work."""
    at = effect(context.so_far, WITNESS)
    gates = ("timetoke_rewards", "witness_network")
    return [
        *_profile(context),
        *(row for gate in gates for row in proven(context, WITNESS, gate, at)),
    ]


witness_gate = rollout(
    WITNESS,
    "{nodes} run the release on the mainnet profile, every gate read back",
    each_wave=_each_wave,
    after=_on,
    capture=pin_before,
)


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold, with its thresholds, before any data is read."""
    return [
        *preflight.expectations(context),
        (validators_signed_off.item, "every validator signed off on window and plan", "all"),
        (hotfix_branches.item, "every open issue low-risk, its branch queued and green", "all"),
        (watch.item, *watched_for(context)),
    ]
