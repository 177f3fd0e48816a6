"""The recovery of each stage, in the playbook's order: three changes a stage, none blocks another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .. import playbook
from ..changes.apply import Applier, Change
from ..changes.back import go_back
from ..changes.back_plan import make_back_plan as plan
from ..changes.halt import announce_halt, plan_halt
from ..changes.roll import planned_rows
from ..context import Context
from ..outcomes import CheckResult, Row, Value
from ..wording import count
from .incident_figure import what_happened
from .incidents import council, governance_incident, incident, public_report
from .restoring import halt_fallback, restore, restore_state, storage, storage_rows

__all__ = [
    "RUNS",
    "council",
    "disable_gates",
    "expectations",
    "governance_incident",
    "halt",
    "halt_fallback",
    "incident",
    "plan",
    "public_report",
    "restore",
    "restore_state",
    "revert_build",
    "stall",
    "storage",
    "what_happened",
]


Do = Callable[[Context, Applier], list[Row]]


def _back(
    item: str,
    passed: str,
    *,
    would: Callable[[Context], list[Row]] = lambda context: [],
    first: Do | None = None,
    then: Do | None = None,
) -> Change:
    """A change that takes the plan's nodes back; ``first`` and ``then`` are what else it does.

    ``would`` plans what comes first.
    """

    def plan_it(context: Context) -> list[Row]:
        return [*would(context), *planned_rows(context, item)]

    def apply(context: Context, applier: Applier) -> CheckResult:
        rows = list(first(context, applier)) if first is not None else []
        rows += go_back(context, applier)
        rows += then(context, applier) if then is not None else []
        nodes = len(context.plan.nodes) if context.plan is not None else 0
        return context.conclude(
            rows,
            passed=passed.format(nodes=count(nodes, "node")),
            empty="the plan has no node",
            data={"plan": context.plan.digest if context.plan is not None else ""},
        )

    return Change(item, plan_it, apply)


revert_build = _back(
    "development.recover.revert-build", "{nodes} run the previous build again, read back"
)
halt = _back(
    "testnet.recover.halt",
    "the halt is announced, {nodes} run the previous release again, read back",
    would=plan_halt,
    first=announce_halt,
)
disable_gates = _back(
    "canary.recover.disable-gates",
    "{nodes} have rewards and witness off again, on their previous configuration",
)
stall = _back(
    "mainnet.recover.stall",
    "{nodes} have rewards and witness off, on the canary configuration; that deviation is named",
    then=storage_rows,
)

_ALL: Sequence[Change] = (
    revert_build, restore_state, incident, halt, storage, governance_incident,
    disable_gates, halt_fallback, public_report, stall, restore, council,
)  # fmt: skip
RUNS: dict[str, tuple[Change, ...]] = {
    runbook: tuple(change for change in _ALL if change.item in playbook.DECLARED[runbook])
    for runbook in playbook.RECOVERY
}
"""The changes of each recovery, in the playbook's order."""

EXPECTED: dict[str, tuple[str, Value]] = {
    "development.recover.revert-build": ("the previous build runs, read back", "every node"),
    "development.recover.restore-state": ("snapshot restored, WAL replayed, roots equal", "all"),
    "development.recover.incident": ("an incident is open and blocks promotion", "1"),
    "testnet.recover.halt": (
        "halt announced, previous release redeployed, read back",
        "every node",
    ),
    "testnet.recover.storage": (
        "corrupted snapshots restored, roots equal",
        "all, or none corrupt",
    ),
    "testnet.recover.governance-incident": ("incident filed with impact and gates, read back", "1"),
    "canary.recover.disable-gates": ("rewards and witness off, previous bundle", "affected nodes"),
    "canary.recover.halt-fallback": ("prior snapshot, proofs replayed", "all, or no halt"),
    "canary.recover.public-report": ("mitigations and next steps, filed, read back", "none empty"),
    "mainnet.recover.stall": ("rewards and witness off, canary configuration", "every node"),
    "mainnet.recover.restore": ("snapshot restored, proofs verified before blocks", "all"),
    "mainnet.recover.council": ("convened, its decision recorded", "within 24 h"),
}


def expectations(context: Context) -> list[tuple[str, str, Value]]:
    """What must hold after this stage's recovery, before any data is read."""
    prefix = f"{context.stage}.recover."
    return [(item, *said) for item, said in EXPECTED.items() if item.startswith(prefix)]
