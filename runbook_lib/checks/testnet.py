"""The testnet stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

from ..changes.phases import make_plan as plan
from ..context import Context, judges
from ..outcomes import CheckResult, Row, check_row
from ..sources.config import GATES_AT
from .rollouts import rollout

__all__ = ["deploy", "gate", "gates", "plan"]

ONLY = "malachite_consensus"
STAY_OFF = ("timetoke_rewards", "witness_network")


@judges("testnet.ready.gates")
def gates(context: Context) -> CheckResult:
    """The planned delta is exactly malachite_consensus, or empty; the others stay off.

    Playbook: testnet readiness, 3.
    """
    made = plan(context)
    rows: list[Row] = []
    for name, before in made.recovery().items():
        after = [node.after for _, node in made.changes() if node.node == name][-1]
        moved = sorted(g for g, on in after.gates.items() if before.gates.get(g, False) != on)
        expected, got = f"{ONLY}, or nothing", ", ".join(moved) or "nothing"
        rows.append(check_row(name, "gates that change", expected, got, set(moved) <= {ONLY}))
        rows += [
            check_row(name, f"{GATES_AT}.{gate}", False, after.gates.get(gate, False), ok=False)
            for gate in STAY_OFF
            if after.gates.get(gate, False)
        ]
    return context.conclude(
        rows,
        passed=f"{len(made.nodes)} nodes: {ONLY} only; rewards and witness networking stay off",
        empty="the plan changes no node",
    )


deploy = rollout("testnet.activate.deploy", "{nodes} run the release, read back")
gate = rollout("testnet.activate.gate", f"{{nodes}} have {ONLY} on")
