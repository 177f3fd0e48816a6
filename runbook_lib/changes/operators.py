"""Nodes that belong to operators: instructed, never touched, and read back.

All operators of a wave are instructed at once where a quorum stands even while all of them are
down together: they need no order among themselves. Otherwise (a node is down already) one operator
is, and the next once those nodes are read back; so is the next wave once this one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..canonical import digest_bytes
from ..context import Context
from ..errors import SourceError, SourceRefused
from ..evidence import outbox
from ..files import keep_file
from ..outcomes import Outcome, Row, unknown_row
from ..params import RolloutParams
from ..sources import notices
from ..sources.process import Ended
from .apply import Applier, Step, all_pass, keep, was_sent
from .followed import Look
from .instruction import Instruction, instruction
from .plan import NodePlan, Phase

PAUSES_S = (10.0, 20.0, 30.0, 60.0)
"""Between looks at what operators do; whoever needs longer is returned to."""


@dataclass(frozen=True)
class Way:
    """A step that tells an operator, and the same as a document that can be sent later."""

    step: Step
    name: str
    document: dict[str, Any]


def tell(context: Context, applier: Applier, made: Instruction, *, all_ways: bool = False) -> bool:
    """Tell an operator, once. False: not by every way there is; what failed is kept.

    With ``all_ways`` a way that fails does not stop the other.
    """
    keep_file(context.folder, str(made.file.relative_to(context.folder)), made.text)
    ways = _ways(context, made)
    if not ways:
        problem = "neither: set `issue` in the parameters or commands.instruct in the site file"
        row = unknown_row(made.operator, "told", "by an issue or commands.instruct", problem)
        applier.rows.append(row)
        return False
    done = True
    for way in ways:
        if _step(applier, way.step):
            outbox.drop(context.folder, way.name)
            continue
        done = False
        applier.rows.append(keep(context, way.name, way.document, None))
        if not all_ways:
            break
    return done


def _step(applier: Applier, step: Step) -> bool:
    """The step; where nobody can tell whether an earlier try's stands, that is a row."""
    try:
        return applier.step(step)
    except SourceError as error:
        applier.rows.append(unknown_row(step.node, step.name, step.expected, str(error)))
        return False


def told(context: Context, applier: Applier, made: Instruction) -> bool:
    """Whether an earlier try told it, by every way."""
    return all(applier.done(made.operator, way.step.name) for way in _ways(context, made))


def _ways(context: Context, made: Instruction) -> list[Way]:
    """A comment where there is an issue, the site's command where there is one."""
    key = digest_bytes(made.marker.encode()).removeprefix("sha256:")[:12]
    until = context.params.window[1] if isinstance(context.params, RolloutParams) else None
    said = {"operator": made.operator, "until": until.isoformat() if until else ""}
    ways = []
    if issue := context.params.issue:
        document = {"kind": "comment", "issue": issue, "marker": made.marker, "text": made.comment}
        ways.append(Way(_comment(context, made), f"instruct-{key}", said | document))
    if context.site.commands.instruct is not None:
        step = _command(context, made, f"notify-{key}")
        ways.append(Way(step, f"notify-{key}", said | {"kind": "instruct", "text": made.text}))
    return ways


def _command(context: Context, made: Instruction, name: str) -> Step:
    values = {"operator": made.operator, "file": str(made.file)}
    send = context.commands.change("instruct", made.operator, **values)

    def notify(lock: int, outputs: Path) -> Ended:
        if was_sent(context, name):
            return Ended(0, b"", b"")
        return send(lock, outputs)

    return Step(made.operator, f"notify-{made.key}", notify)


def _comment(context: Context, made: Instruction) -> Step:
    number = context.params.issue

    def post(lock: int, outputs: Path) -> Ended:
        try:
            context.forge.create_comment(number, made.comment)
        except SourceRefused as refused:
            return Ended(1, b"", b"", refused.problem)
        except SourceError as error:  # it may stand there all the same: the next try looks
            return Ended(None, b"", b"", error.problem)
        return Ended(0, b"", b"")

    def posted() -> bool:
        return notices.stands(context.forge, number, made.marker)

    return Step(made.operator, f"instruct-{made.key}", post, posted, expected="posted")


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
    """What became of a wave that was told, looked at again for two minutes.

    Rows of what is still missing then say when to return.
    """
    params, told_at = context.params, _told(applier)
    deadline = params.window[1] if isinstance(params, RolloutParams) else None
    names = ", ".join(dict.fromkeys(phase.node(name).operator for name in wave))
    for pause in (*PAUSES_S, None):
        context.require_going_on()
        now = context.scope.reread()
        one = Look(context, phase, told_at, now, deadline)
        rows = [row for name in wave for row in one.node(phase.node(name))]
        for name in wave:
            if all_pass([row for row in rows if row.subject == name]):
                applier.verified(name, phase.node(name).after, phase.name)
        waits = all(row.outcome is not Outcome.FAIL for row in rows) and one.due is not None
        if pause is None or all_pass(rows) or not waits:
            break
        from .waiting import hold_until

        hold_until(context, now + timedelta(seconds=pause), names)
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
