"""The mainnet stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

from ..changes.phases import make_plan as plan
from ..context import Context
from ..outcomes import Row, check_row
from ..sources.config import GATES_AT
from .announce import announce, frozen_row
from .regression import mainnet_comparison as comparison
from .regression import no_regression
from .rollouts import rollout

__all__ = ["announce", "comparison", "no_regression", "plan", "witness_gate"]


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


witness_gate = rollout(
    "mainnet.activate.witness-gate",
    "{nodes} run the release on the mainnet profile, every gate read back",
    each_wave=_each_wave,
    after=_profile,
)
