"""The way back: every node to the state before the apply that is undone.

Whatever cannot be reached is passed over, tried again at the end, and named; nothing waits for it.
A node is looked at when its turn comes, so that what is back already is only read back. Operators
are instructed about their nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..context import AT_ONCE, Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..sources.commands import NodeConfig
from ..sources.process import Ended
from ..strict import project_path
from .apply import Applier, Step, all_pass
from .back_plan import BACK
from .operators import look, tell_wave
from .plan import Artifact, NodePlan, Phase
from .previous import artifact_or_none
from .read_back import read_back, runs_as_planned
from .targets import keep
from .undone import Undone, file_of, undone


@dataclass(frozen=True)
class Builds:
    """The file of each build by digest; None where the site has none. ``now`` is the undone one.

    On ``staged`` nodes something else may lie in place than what runs.
    """

    files: dict[str, Artifact | None]
    now: Artifact | None
    staged: frozenset[str] = frozenset()


def go_back(context: Context, applier: Applier) -> list[Row]:
    """Take every node of the plan back; a row for each thing seen, the whole of it in node order."""
    if context.plan is None:
        return [unknown_row("the plan", "made", "a way back", "none; see the plan's card")]
    (phase,) = context.plan.phases
    made = undone(context)
    digests = {node.after.binary for node in phase.nodes if node.control == "ours"}
    builds = Builds(
        {digest: artifact_or_none(context, digest) for digest in sorted(digests)},
        made.plan.artifact if made is not None else None,
        made.staged() if made is not None else frozenset(),
    )
    context.scope.now()
    ours = [wave for wave in phase.waves if phase.node(wave[0]).control == "ours"]
    theirs = [wave for wave in phase.waves if phase.node(wave[0]).control == "operator"]
    found: dict[str, list[Row]] = {}
    for wave in ours:
        found |= _wave(context, applier, phase, wave, builds)
    told = [row for wave in theirs for row in tell_wave(context, applier, phase, wave)]
    for wave in ours:  # wave by wave as well: most of them may run
        if left := [name for name in wave if _unreached(found[name])]:
            found |= _wave(context, applier, phase, left, builds, again=True)
    told += [row for wave in theirs for row in look(context, applier, phase, wave)]
    rows = [row for node in phase.nodes for row in found.get(node.node, ())]
    return [*_inspected(context, made, found), *rows, *told]


def _wave(
    context: Context,
    applier: Applier,
    phase: Phase,
    wave: Sequence[str],
    builds: Builds,
    *,
    again: bool = False,
) -> dict[str, list[Row]]:
    """Several nodes at a time, each in a lane of its own, so that a replay tells them apart."""

    def one(name: str) -> list[Row]:
        lane = context.scope.lane(f"{name}, again" if again else name)
        mine = replace(context, scope=lane)
        rows = _node(mine, replace(applier, context=mine, rows=[]), phase.node(name), builds)
        return [_tried(row) for row in rows] if again else rows

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(wave, pool.map(one, wave), strict=True))


def _unreached(rows: Sequence[Row]) -> bool:
    return not rows or any(row.outcome is Outcome.INCONCLUSIVE for row in rows)


def _tried(row: Row) -> Row:
    if row.outcome is not Outcome.INCONCLUSIVE:
        return row
    return row.model_copy(update={"observed": f"{row.observed}; passed over, tried again"})


def _node(context: Context, applier: Applier, node: NodePlan, builds: Builds) -> list[Row]:
    """Take one node of ours back, unless it is; what cannot be done is a row."""
    settled = node.node not in builds.staged or _was_taken_back(applier, node.node)
    if settled and runs_as_planned(context, node):
        rows = read_back(context, node)
        applier.verified(node.node, node.after, BACK)
        return rows
    if _was_taken_back(applier, node.node) and (rows := _unproven(context, node)):
        return rows
    there: NodeConfig | None = None
    try:
        there = context.commands.read_config(node.node)
    except SourceError as error:
        unread: SourceError | None = error
    file = file_of(context, node.node, there, node.after)
    if file is None:
        why = unread.problem if there is None and unread is not None else "none of that digest"
        return [unknown_row(node.node, "previous file", node.after.config, why)]
    build, rows = builds.files[node.after.binary], list[Row]()
    if build is None:
        got = "previous artifact missing; set previous_release, or put it where the site says"
        rows.append(check_row(node.node, "previous artifact", node.after.binary, got, ok=False))
        if (build := builds.now) is None:
            return rows
    if not _steps(context, applier, node, file, build):
        return [*rows, *(_passed_over(row) for row in applier.rows)]
    seen = read_back(context, node, silent=Outcome.INCONCLUSIVE)
    if all_pass(seen):
        applier.verified(node.node, node.after, BACK)
    return [*rows, *seen]


def _was_taken_back(applier: Applier, node: str) -> bool:
    """Whether all was done on a node, as far as the journal tells."""
    mine = [body for body in applier.steps() if body["node"] == node]
    ended = bool(mine) and mine[-1]["phase"] == "done"
    return ended and mine[-1]["step"].startswith(f"restart-{BACK}")


def _unproven(context: Context, node: NodePlan) -> list[Row]:
    """Rows of a node that answers, and shows nothing that is not as planned; else none.

    What merely cannot be read of it would not be mended by a further restart.
    """
    rollout = context.fleet.rollout([node.node])[node.node]
    rows = read_back(context, node) if not isinstance(rollout, SourceError) else []
    return [] if any(row.outcome is Outcome.FAIL for row in rows) else rows


def _passed_over(row: Row) -> Row:
    """A command that fails on a node says that it could not be reached, not what it is."""
    return row.model_copy(update={"outcome": Outcome.INCONCLUSIVE})


def _steps(
    context: Context, applier: Applier, node: NodePlan, file: NodeConfig, build: Artifact
) -> bool:
    commands, path = context.commands, project_path(build.path)
    name = node.node
    config = keep(context, f"{name}.{BACK}", "targets", file.text, file.raw)
    inspect = partial(runs_as_planned, context, node)

    def deliver(lock: int, outputs: Path) -> Ended:
        return commands.deploy(name, path, build.digest, config, lock=lock, outputs=outputs)

    def restart(lock: int, outputs: Path) -> Ended:
        return commands.restart(name, lock=lock, outputs=outputs)

    return all(
        applier.step(Step(name, _free(applier, name, f"{what}-{BACK}"), run, inspect))
        for what, run in (("deliver", deliver), ("restart", restart))
    )


def _free(applier: Applier, node: str, step: str) -> str:
    """The step's name; a further one where it was done, and the node is not what it made of it."""
    number, name = 1, step
    while applier.done(node, name):
        number += 1
        name = f"{step}-{number}"
    return name


def _inspected(context: Context, made: Undone | None, found: dict[str, list[Row]]) -> list[Row]:
    """What became of the steps that the undone apply had begun: never assumed, seen on the node."""
    rows = list[Row]()
    if made is None:
        return rows
    for _, node, step in made.half_done():
        if node in found:
            seen = "the node was read and taken back" if all_pass(found[node]) else "see its rows"
            outcome = Outcome.PASS if all_pass(found[node]) else Outcome.INCONCLUSIVE
            expected = "inspected, as it began and did not end"
            rows.append(check_row(node, f"{step} of {made.name}", expected, seen, outcome))
    return rows
