"""Nodes that belong to operators: instructed, never touched, and read back.

All operators of a wave are instructed at once where a quorum stands even while all of them are
down together: they need no order among themselves. Otherwise (a node is down already) one operator
is, and the next once those nodes are read back; so is the next wave once this one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ..context import Context
from ..outcomes import Outcome, Row
from ..params import RolloutParams
from .apply import Applier, all_pass
from .followed import Look
from .instruction import Instruction, instruction
from .plan import NodePlan, Phase
from .telling import tell, told


def is_theirs(phase: Phase, wave: Sequence[str]) -> bool:
    """Whether a wave belongs to operators; none is mixed."""
    return phase.node(wave[0]).control == "operator"


def instructed(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> bool:
    """Whether every operator of a wave was told what to do, by an earlier try."""
    return all(told(context, applier, made) for made in _instructions(context, phase, wave))


def roll_theirs(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> bool:
    """Instruct the operators of a wave, once, and read their nodes. False: not all are there."""
    for made in _instructions(context, phase, wave):
        if not tell(context, applier, made):
            return False
    rows = look(context, applier, phase, wave)
    applier.rows += rows
    return all_pass(rows)


def tell_wave(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> list[Row]:
    """Instruct the operators of a wave by every way there is; rows of the ways that failed."""
    mine = replace(applier, rows=[])
    for made in _instructions(context, phase, wave):
        tell(context, mine, made, all_ways=True)
    return [row.model_copy(update={"outcome": Outcome.INCONCLUSIVE}) for row in mine.rows]


def look(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> list[Row]:
    """What became of a wave that was told, now; rows of what is still missing say when to return."""
    context.require_going_on()
    params, now = context.params, context.scope.reread()
    deadline = params.window[1] if isinstance(params, RolloutParams) else None
    one = Look(context, phase, _told(applier), now, deadline)
    rows = [row for name in wave for row in one.node(phase.node(name))]
    for name in wave:
        if all_pass([row for row in rows if row.subject == name]):
            applier.verified(name, phase.node(name).after, phase.name)
    return rows


def _instructions(context: Context, phase: Phase, wave: Sequence[str]) -> list[Instruction]:
    by: dict[str, list[NodePlan]] = {}
    for name in wave:
        by.setdefault(phase.node(name).operator, []).append(phase.node(name))
    return [instruction(context, phase, nodes) for nodes in by.values()]


def _told(applier: Applier) -> dict[tuple[str, str], datetime]:
    """(operator, step) -> when its instruction first went out."""
    found: dict[tuple[str, str], datetime] = {}
    for entry in applier.steps():
        if entry["phase"] == "intent":
            at = datetime.fromisoformat(entry["at"])
            found.setdefault((entry["node"], entry["step"].partition("-")[2]), at)
    return found
