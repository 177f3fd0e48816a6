"""The margin of a wave: whether a quorum stands while its nodes are down, those already down subtracted."""

from __future__ import annotations

from collections.abc import Sequence

from ..context import Context
from ..errors import SourceError
from ..outcomes import Row, check_row
from .followed import VIEWERS, seen
from .operators import is_theirs
from .plan import Phase
from .power import powers

Turns = list[Sequence[str]]


def margin(context: Context, phase: Phase, number: int) -> tuple[Row, Turns]:
    """Whether a wave leaves a quorum up, and in which turns: all at once, where that does.

    Else our nodes, which we restart one after the other, one at a time; and one operator at a
    time, as each of them may take down all of theirs.
    """
    what, wave = f"power during {phase.name}, wave {number + 1}", phase.waves[number]
    try:
        found = powers(context)
    except SourceError as error:
        return context.unreadable(what, "a quorum stays up", error), [wave]
    down = _down(context)
    up = found.total - sum(found.of.get(name, 0) for name in down)
    theirs = is_theirs(phase, wave)
    parts: dict[str, list[str]] = {}
    for name in wave:
        parts.setdefault(phase.node(name).operator if theirs else name, []).append(name)
    power = [sum(found.of.get(n, 0) for n in part if n not in down) for part in parts.values()]
    at_once = up - sum(power) >= found.quorum
    left = up - sum(power) if at_once else up - max(power, default=0)
    how = "" if at_once else f", one {'operator ' if theirs else ''}at a time"
    got = f"{left} of {found.total} up{how}"
    got += f" ({', '.join(down)} down already)" if down else ""
    row = check_row("quorum", what, f"at least {found.quorum} up", got, left >= found.quorum)
    return row, list(parts.values()) if theirs and not at_once else [wave]


def _down(context: Context) -> list[str]:
    """Nodes that do not answer us; of operators' only those that our nodes do not see either."""
    answers = context.fleet.status()
    silent = [name for name, answer in answers.items() if isinstance(answer, SourceError)]
    operators = {node.name for node in context.cluster.nodes if node.control == "operator"}
    asked = [name for name in silent if name in operators]
    sights = seen(context, asked) if asked else {}
    return [name for name in silent if len(sights.get(name, ())) < VIEWERS]
