"""Nodes that belong to operators: instructed, never touched; waited for, and read back.

All operators of a wave are instructed at once where a quorum stands even while all of them are
down together: they need no order among themselves. Otherwise (a node is down already) one operator
is, and the next once those nodes are read back; so is the next wave once this one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from ..context import Context
from ..outcomes import Outcome, Row
from ..params import RolloutParams
from ..progress import progress
from .apply import POLL_S, Applier, all_pass
from .followed import Look
from .instruction import Instruction, instruction
from .plan import NodePlan, Phase
from .telling import tell, told

SLOWEST_POLL_S = 60.0


def is_theirs(phase: Phase, wave: Sequence[str]) -> bool:
    """Whether a wave belongs to operators; none is mixed."""
    return phase.node(wave[0]).control == "operator"


def instructed(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> bool:
    """Whether every operator of a wave was told what to do, by an earlier try."""
    return all(told(context, applier, made) for made in _instructions(context, phase, wave))


def roll_theirs(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> bool:
    """Instruct the operators of a wave, once, and wait for their nodes. False: not all are there."""
    for made in _instructions(context, phase, wave):
        if not tell(context, applier, made):
            return False
    rows = _await(context, applier, phase, wave)
    applier.rows += rows
    return all_pass(rows)


def tell_wave(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> list[Row]:
    """Instruct the operators of a wave by every way there is; rows of the ways that failed."""
    mine = replace(applier, rows=[])
    for made in _instructions(context, phase, wave):
        tell(context, mine, made, all_ways=True)
    return [row.model_copy(update={"outcome": Outcome.INCONCLUSIVE}) for row in mine.rows]


def look(context: Context, applier: Applier, phase: Phase, wave: Sequence[str]) -> list[Row]:
    """What became of a wave that was told; waits for it as long as a takeover would."""
    until = context.scope.reread() + timedelta(minutes=context.params.takeover_minutes)
    return _await(context, applier, phase, wave, until)


def _instructions(context: Context, phase: Phase, wave: Sequence[str]) -> list[Instruction]:
    by: dict[str, list[NodePlan]] = {}
    for name in wave:
        by.setdefault(phase.node(name).operator, []).append(phase.node(name))
    return [instruction(context, phase, nodes) for nodes in by.values()]


def _await(
    context: Context,
    applier: Applier,
    phase: Phase,
    wave: Sequence[str],
    until: datetime | None = None,
) -> list[Row]:
    """Look until every node of the wave is there; only with ``wait``, and until the deadline.

    ``until``: no longer than that, though nodes may well be there later.
    """
    deadline = _deadline(context)
    since = _told(applier, context)
    pause, begun = POLL_S, context.scope.reread()
    end = deadline or until
    total = max((end - begun).total_seconds(), 1.0) if end else 1.0
    waiting = f"waiting for {', '.join(_operators(phase, wave))}"
    with progress(waiting, total, live=context.scope.live and context.params.wait) as advance:
        while True:
            context.require_going_on()
            now = context.scope.reread()
            look = Look(context, phase, since, now, deadline)
            rows = [row for name in wave for row in look.node(phase.node(name))]
            _journal(applier, phase, wave, rows)
            open_ = [row for row in rows if row.outcome is not Outcome.PASS]
            over = any(end is not None and now >= end for end in (deadline, until))
            failed = any(row.outcome is Outcome.FAIL for row in open_)
            if not open_ or failed or over or not context.params.wait:
                return rows
            context.scope.sleep(pause)
            advance(pause)
            pause = min(SLOWEST_POLL_S, pause * 1.5)


def _operators(phase: Phase, wave: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(phase.node(name).operator for name in wave))


def _journal(applier: Applier, phase: Phase, wave: Sequence[str], rows: Sequence[Row]) -> None:
    for name in wave:
        if all_pass([row for row in rows if row.subject == name]):
            applier.verified(name, phase.node(name).after, phase.name)


def _deadline(context: Context) -> datetime | None:
    params = context.params
    return params.window[1] if isinstance(params, RolloutParams) else None


def _told(applier: Applier, context: Context) -> dict[tuple[str, str], datetime]:
    """(operator, step) -> when its instruction first went out."""
    found: dict[tuple[str, str], datetime] = {}
    for entry in applier.steps():
        if entry["phase"] == "intent":
            at = datetime.fromisoformat(entry["at"])
            found.setdefault((entry["node"], entry["step"].partition("-")[2]), at)
    return found
