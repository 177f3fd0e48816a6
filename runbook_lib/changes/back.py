"""The way back: every node to the state before the apply that is undone.

Whatever cannot be reached is passed over, tried again at the end, and named; nothing waits for it.
A node is looked at when its turn comes, so that what is back already is only read back. Operators
are instructed about their nodes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .. import playbook
from ..canonical import digest_bytes
from ..context import AT_ONCE, Context
from ..errors import LogDamaged, ParameterError, SourceError, tried
from ..evidence.events import Event, NodeVerified, StepTaken, of
from ..evidence.ledger import states
from ..evidence.status import plan_of, policy_of
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..plan import GATES_AT, Artifact, NodePlan, NodeState, Phase, Plan, moves
from ..site import Node
from ..sources.commands import NodeConfig
from ..sources.node import Rollout
from ..strict import load_toml
from .apply import Applier, all_pass, put, read_back, runs_as_planned
from .approvals import Ruling
from .kit import folder_of
from .kit_script import FOLDERS, target_file
from .operators import instructions, look, tell_all
from .power import cut, powers
from .targets import (
    Variant,
    artifact_of,
    keep,
    keep_target,
    kept_toml,
    missing,
    no_file,
    rendered,
    stage_plan,
    stalled,
)


@dataclass(frozen=True)
class Undone:
    """The apply that a recovery undoes: its plan, who approved that, and its log."""

    name: str
    plan: Plan
    author: str
    approved_by: tuple[str, ...]
    entries: Sequence[Event]

    def last(self, node: str) -> NodeState | None:
        """The state that the apply last verified on a node."""
        known = dict(states(self.entries, self.name)).get(node)
        return known.state if known is not None else None

    def staged(self) -> frozenset[str]:
        """Nodes on which something may lie in place that their next restart would take up."""
        last = {step.node: step for step in of(self.entries, StepTaken)}
        return frozenset(
            node
            for node, step in last.items()
            if not (step.step.startswith("restart") and step.phase == "done")
        )

    def half_done(self) -> list[tuple[str, str]]:
        """(node, step) of every step that began and has no end in its journal."""
        ended: dict[tuple[str, str, str], bool] = {}
        for step in of(self.entries, StepTaken):
            # An inspected one was found half done, and the apply ended before it was repeated;
            # one that failed without an exit code was still at work.
            failed = step.phase == "failed" and step.code is not None
            ended[step.item, step.node, step.step] = step.phase == "done" or failed
        return [(node, step) for (_, node, step), is_over in ended.items() if not is_over]


def undone(context: Context) -> Undone | None:
    """The apply that this attempt undoes; None where there is none. Raises SourceError."""
    undoes = context.opened.undoes
    if undoes is None:
        return None
    name = undoes.name
    try:
        entries = context.ledger.events(name)
    except LogDamaged as error:
        raise SourceError(name, f"expected its log whole, got: {error}") from error
    made = plan_of(entries)
    if made is None or made.digest != undoes.plan:
        raise SourceError(name, f"expected its plan {undoes.plan}, got another")
    return Undone(name, made.plan, made.author, made.approved_by, entries)


def turned_back(context: Context, node: str, found: NodeConfig, goal: NodeState) -> NodeConfig:
    """A node's TOML as it lies there with the gates and channel of ``goal``. Raises SourceError."""
    try:
        rollout = load_toml(found.text.decode())["rollout"]
        held = dict(rollout["feature_gates"])
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(node, f"expected a TOML with {GATES_AT}, got: {error!r}") from error
    gates = {gate: bool(held.get(gate, False)) for gate in goal.gates}
    there = {"gates": gates, "channel": rollout.get("release_channel", goal.channel)}
    return rendered(context, node, found, moves(goal.model_copy(update=there), goal))


def file_of(
    context: Context, node: str, found: NodeConfig | None, goal: NodeState
) -> NodeConfig | None:
    """The file that makes a node ``goal``: what lies there, that turned back, or one that was kept.

    Where none has the digest of ``goal``, what lies there turned back (its digest differs); None
    where nothing can be had.
    """
    if found is not None and found.digest == goal.config:
        # As a rendered one: the raw file only where it holds what the evidence may not.
        return found if found.secret else replace(found, raw=None)
    made = None
    with suppress(SourceError):
        made = turned_back(context, node, found, goal) if found is not None else None
    if made is not None and made.digest == goal.config:
        return made
    return next(_kept(context, node, goal.config), made)


def _kept(context: Context, node: str, config: str) -> Iterator[NodeConfig]:
    """A node's TOML with that digest, out of the kit or the store. What is unreadable is passed over."""
    for variant in FOLDERS if context.opened.undoes else ():
        with suppress(SourceError):
            yield from _kept_in_kit(context, node, config, variant)
    for origin in context.store.everything(context.scope):
        with suppress(SourceError, LogDamaged):
            entries = context.ledger.events(origin, NodeVerified)
            for name, known in states(entries, origin):
                if name == node and known.state.config == config:
                    with suppress(SourceError):
                        yield kept_toml(context, known)


def _kept_in_kit(
    context: Context, node: str, config: str, variant: Variant
) -> Iterator[NodeConfig]:
    """A node's file out of the kit of the apply that is undone, where it has that digest."""
    assert context.opened.undoes is not None
    path = target_file(folder_of(context.site, context.opened.undoes.name), node, variant)
    raw = b""

    def look() -> str:
        # It holds secrets: the tape keeps its digest, and the text without them.
        nonlocal raw
        with suppress(OSError):
            raw = path.read_bytes()
        return digest_bytes(raw) if raw else ""

    if context.scope.derive(f"kit target {node}", look) == config:
        text = context.scope.read(path)
        # The raw file only where it holds what the evidence may not: a replay has none.
        secret = raw and digest_bytes(text) != config
        yield NodeConfig(text, config, raw if secret else None)


BACK = "back"
"""The name of the one phase of a way back."""


def make_back_plan(context: Context) -> Plan:
    """The plan of the way back, whatever can be read. Raises SourceError, ParameterError."""
    made = undone(context)
    goals = _goals(context, made)
    names = list(goals)
    rollouts = context.fleet.get("/status/rollout", Rollout, names, retries=1)
    configs = context.each(context.commands.read_config, names)
    builds = context.each(context.commands.version, names)
    nodes = []
    for node in (node for node in context.cluster.nodes if node.name in goals):
        name, config = node.name, configs.known.get(node.name)
        after = _after(context, node, goals[name], config)
        before = (made.last(name) if made is not None else None) or goals[name]
        read: dict[str, Any] = {}
        if seen := rollouts.known.get(name):
            read |= {"gates": seen.feature_gates, "channel": seen.release_channel}
        if build := builds.known.get(name):
            artifact = before.artifact if build.digest == before.binary else ""
            read |= {"binary": build.digest, "artifact": artifact}
        if config is not None:
            read["config"] = config.digest
        nodes.append(NodePlan.of(node, before.model_copy(update=read), after))
    first = artifact_of(context, nodes[0].after) or no_file(nodes[0].after)
    item = playbook.DECLARED[f"{context.stage}_recovery"][0]
    phase = Phase(item=item, name=BACK, nodes=tuple(nodes), waves=_waves(context, nodes))
    return stage_plan(context, first, [phase])


def _goals(context: Context, made: Undone | None) -> dict[str, NodeState]:
    """Node -> the state it goes back to."""
    back = made.plan.recovery() if made is not None else {}
    names = context.params.nodes or list(back)
    known = {node.name for node in context.cluster.nodes}
    if wrong := sorted(set(names) - known):
        raise ParameterError(f"nodes: expected nodes of {context.cluster_name}, got {wrong[0]!r}")
    if not names:
        raise ParameterError(
            "nodes: expected the nodes to take back, as no apply is undone, got none"
        )
    beyond = sorted(set(names) - set(back))
    good = context.ledger.good(context.cluster_name) if beyond else {}
    for name in beyond:
        back[name] = good[name].state
    return {name: back[name] for name in names}


def _after(context: Context, node: Node, goal: NodeState, there: NodeConfig | None) -> NodeState:
    """What a node becomes, its file kept; after a stall with both gates off: a named deviation."""
    file = file_of(context, node.name, there, goal)
    if context.stage == "mainnet" and goal != stalled(goal):
        goal = stalled(goal)
        if file is not None:
            file = turned_back(context, node.name, file, goal)
            goal = goal.model_copy(update={"config": file.digest})
    if file is not None:
        keep_target(context, f"{node.name}.{BACK}", file.text, file.raw)
    return goal


def _waves(context: Context, nodes: Sequence[NodePlan]) -> tuple[tuple[str, ...], ...]:
    """Ours by voting power, so that a chain that runs goes on; operators' nodes all at once."""
    ours = [node.node for node in nodes if node.control == "ours"]
    theirs = tuple(node.node for node in nodes if node.control == "operator")
    waves = tried(lambda: cut(ours, powers(context), playbook.MAX_DOWN))
    if isinstance(waves, SourceError):  # not known: a share of the nodes instead
        share = max(1, int(len(ours) * playbook.MAX_DOWN))
        waves = tuple(tuple(ours[at : at + share]) for at in range(0, len(ours), share))
    return (*waves, theirs) if theirs else waves


def ruling(context: Context, plan: Plan) -> Ruling:
    """Whether this way back was approved with the plan that it undoes, or is break-glass."""
    made, reason = undone(context), context.params.break_glass
    beyond = sorted(set(plan.nodes) - set(made.plan.recovery() if made is not None else ()))
    moved = made is not None and policy_of(made.entries) != context.site.policy_digest
    free = context.stage not in playbook.APPROVERS
    approved = made is not None and not moved and (made.approved_by or free)
    author = made.author if made is not None else ""
    what, expected = "the way back", "approved together with the plan it undoes"
    why = "the site's policy moved since" if moved else "nobody's approval"
    why = f"it goes beyond it on {', '.join(beyond)}" if beyond else why
    got = f"{why}; break-glass: {reason}; to be ratified within 24 h"
    by, ok = tuple[str, ...](), bool(reason)
    if made is not None and approved and not beyond:
        by, ok = made.approved_by, True
        got = f"{made.plan.digest}, by {', '.join(by) or author}"
    elif not ok:
        got = f"{why}; give a reason (--reason) for break-glass"
    return Ruling(plan, author, [check_row("approval", what, expected, got, ok)], by)


def go_back(context: Context, applier: Applier) -> list[Row]:
    """Take every node of the plan back; a row for each thing seen, the whole of it in node order."""
    if context.plan is None:
        return [unknown_row("the plan", "made", "a way back", "none; see the plan's card")]
    (phase,) = context.plan.phases
    made = undone(context)
    wanted = {n.after.binary: n.after for n in phase.nodes if n.control == "ours"}
    # The file of each binary by digest; None where the site has none.
    builds = {binary: artifact_of(context, wanted[binary]) for binary in sorted(wanted)}
    context.scope.now()
    ours = [wave for wave in phase.waves if phase.node(wave[0]).control == "ours"]
    theirs = [wave for wave in phase.waves if phase.node(wave[0]).control == "operator"]
    found: dict[str, list[Row]] = {}

    def one(mine: Context, applier: Applier, name: str) -> list[Row]:
        return _node(mine, applier, phase.node(name), builds, made)

    for wave in ours:
        found |= lanes(context, applier, wave, "", one)
    orders = [each for wave in theirs for each in instructions(context, phase, wave)]
    told = tell_all(context, applier, orders)
    for wave in ours:  # wave by wave as well: most of them may run
        left = [name for name in wave if unreached(found[name])]
        again = lanes(context, applier, left, ", again", one)
        found |= {name: [_tried(row) for row in rows] for name, rows in again.items()}
    told += [row for wave in theirs for row in look(context, applier, phase, wave)]
    rows = [row for node in phase.nodes for row in found.get(node.node, ())]
    return [*(_inspected(made, found) if made is not None else ()), *rows, *told]


def lanes(
    context: Context,
    applier: Applier,
    names: Sequence[str],
    about: str,
    do: Callable[[Context, Applier, str], list[Row]],
) -> dict[str, list[Row]]:
    """``do`` of several nodes at a time, each in a lane of its own, so that a replay tells them
    apart: named by the node and what it is ``about``.
    """

    def one(name: str) -> list[Row]:
        mine = replace(context, scope=context.scope.lane(f"{name}{about}"))
        return do(mine, replace(applier, context=mine, rows=[]), name)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def unreached(rows: Sequence[Row]) -> bool:
    """Whether a node is to be tried again: what was not determined may be by then."""
    return any(row.outcome is Outcome.INCONCLUSIVE for row in rows)


def _tried(row: Row) -> Row:
    if row.outcome is not Outcome.INCONCLUSIVE:
        return row
    return row.model_copy(update={"observed": f"{row.observed}; passed over, tried again"})


def _node(
    context: Context,
    applier: Applier,
    node: NodePlan,
    builds: Mapping[str, Artifact | None],
    made: Undone | None,
) -> list[Row]:
    """Take one node of ours back, unless it is; what cannot be done is a row."""
    settled = made is None or node.node not in made.staged() or _was_taken_back(applier, node.node)
    if settled and runs_as_planned(context, node):
        rows = read_back(context, node)
        applier.verified(node.node, node.after, BACK)
        return rows
    if _was_taken_back(applier, node.node) and (rows := _unproven(context, node)):
        return rows
    read = tried(context.commands.read_config, node.node)
    there = None if isinstance(read, SourceError) else read
    file = file_of(context, node.node, there, node.after)
    if file is None:
        why = read.problem if isinstance(read, SourceError) else "none of that digest"
        return [unknown_row(node.node, "previous file", node.after.config, why)]
    build, rows = builds[node.after.binary], list[Row]()
    if build is None:
        got = f"previous artifact missing; {missing(node.after)}"
        rows.append(check_row(node.node, "previous artifact", node.after.binary, got, ok=False))
        if made is None:
            return rows
        build = made.plan.artifact
    config = keep(context, f"{node.node}.{BACK}", "targets", file.text, file.raw)
    name = partial(_free, applier, node.node)
    if not put(context, applier, node, build, config, name):
        # A command that fails on a node says that it could not be reached, not what it is.
        failed = {"outcome": Outcome.INCONCLUSIVE}
        return [*rows, *(row.model_copy(update=failed) for row in applier.rows)]
    seen = read_back(context, node, silent=Outcome.INCONCLUSIVE)
    if all_pass(seen):
        applier.verified(node.node, node.after, BACK)
    return [*rows, *seen]


def _was_taken_back(applier: Applier, node: str) -> bool:
    """Whether all was done on a node, as far as the journal tells."""
    mine = [step for step in applier.steps() if step.node == node]
    ended = bool(mine) and mine[-1].phase == "done"
    return ended and mine[-1].step.startswith(f"restart-{BACK}")


def _unproven(context: Context, node: NodePlan) -> list[Row]:
    """Rows of a node that answers, and shows nothing that is not as planned; else none.

    What merely cannot be read of it would not be mended by a further restart.
    """
    rows = read_back(context, node) if context.fleet.rollout([node.node]).known else []
    return [] if any(row.outcome is Outcome.FAIL for row in rows) else rows


def _free(applier: Applier, node: str, step: str) -> str:
    """The step's name; a further one where it was done, and the node is not what it made of it."""
    number, step = 1, f"{step}-{BACK}"
    name = step
    while applier.done(node, name):
        number += 1
        name = f"{step}-{number}"
    return name


def _inspected(made: Undone, found: Mapping[str, list[Row]]) -> Iterator[Row]:
    """What became of the steps that the undone apply had begun: never assumed, seen on the node."""
    for node, step in made.half_done():
        if node in found:
            back = all_pass(found[node])
            seen = "the node was read and taken back" if back else "see its rows"
            what, expected = f"{step} of {made.name}", "inspected, as it began and did not end"
            yield check_row(node, what, expected, seen, back or Outcome.INCONCLUSIVE)
