"""The testnet stage: its readiness and activation items, in the playbook's order."""

from __future__ import annotations

from ..changes.phases import make_plan as plan
from ..context import Context, judges
from ..outcomes import CheckResult, Row, Value, check_row
from ..playbook import TESTNET_SUITES
from ..sources.config import GATES_AT
from . import gossip, preflight
from . import soak as soaking
from .pinning import pin_before
from .rollouts import rollout
from .soak import soak
from .suites import run_suites
from .validators import validators_acknowledged

__all__ = [
    "deploy",
    "expectations",
    "gate",
    "gates",
    "plan",
    "regression_suites",
    "soak",
    "validators_acknowledged",
]

ONLY = "malachite_consensus"
STAY_OFF = ("timetoke_rewards", "witness_network")


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold, with its thresholds, before any data is read."""
    nodes = f"{len(context.cluster.nodes)} nodes"
    epochs = f"at least {context.params.gossip_epochs} whole epoch(s)"
    return [
        *preflight.expectations(context),
        (soak.item, *soaking.expected(context)),
        (
            validators_acknowledged.item,
            "every validator knows the window",
            "all, by stake and count",
        ),
        (gates.item, f"gates that change: {ONLY}, or none", nodes),
        (deploy.item, "the release's binary runs, read back", nodes),
        (gate.item, f"{ONLY} on, then gossip no worse than before", epochs),
        (
            regression_suites.item,
            "0 failed, 0 skipped, more than 0 passed",
            ", ".join(TESTNET_SUITES),
        ),
    ]


@judges("testnet.ready.gates")
def gates(context: Context) -> CheckResult:
    """The planned delta is exactly malachite_consensus on, or empty when it is; the others stay off.

    Playbook: testnet readiness, 3.
    """
    made = plan(context, keep=False)
    rows: list[Row] = []
    for name, before in made.recovery().items():
        after = [node.after for _, node in made.changes() if node.node == name][-1]
        moved = sorted(g for g, on in after.gates.items() if before.gates.get(g, False) != on)
        expected, got = f"{ONLY}, or nothing", ", ".join(moved) or "nothing"
        rows.append(check_row(name, "gates that change", expected, got, set(moved) <= {ONLY}))
        rows += [
            check_row(name, f"{GATES_AT}.{gate}", wanted, after.gates.get(gate, False), ok=False)
            for gate, wanted in ((ONLY, True), *((gate, False) for gate in STAY_OFF))
            if after.gates.get(gate, False) is not wanted
        ]
    return context.conclude(
        rows,
        passed=f"{len(made.nodes)} nodes: {ONLY} only; rewards and witness networking stay off",
        empty="the plan changes no node",
    )


deploy = rollout(
    "testnet.activate.deploy", "{nodes} run the release, read back", capture=pin_before
)
gate = rollout("testnet.activate.gate", f"{{nodes}} have {ONLY} on", after=gossip.after_gate)


@judges("testnet.activate.regression-suites")
def regression_suites(context: Context) -> CheckResult:
    """The witness and proof suites pass at the commit. Playbook: testnet activation, 3."""
    return run_suites(context, TESTNET_SUITES)
