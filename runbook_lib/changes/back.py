"""The way back: every node to the state before the apply that is undone.

Whatever cannot be reached is passed over, tried again at the end, and named; nothing waits for it.
A node is looked at when its turn comes, so that what is back already is only read back. Operators
are instructed about their nodes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from .. import playbook
from ..canonical import digest_bytes
from ..context import Context
from ..errors import LogDamaged, ParameterError, SourceError, tried
from ..evidence.events import Event, KitWritten, NodeVerified, StepTaken, last, of
from ..evidence.ledger import states
from ..evidence.status import plan_of, policy_of
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..plan import CHANNEL_AT, GATES_AT, Artifact, NodePlan, NodeState, Phase, Plan, moves
from ..site import Node
from ..sources.commands import NodeConfig
from ..strict import load_toml
from .apply import RECOVERY, Applier, install, read_back, runs_as_planned, unsure, walk
from .approvals import Ruling
from .kit import folder_of, target_name
from .operators import instructions, look, tell_all
from .power import cut, powers
from .targets import (
    artifact_of,
    goal_of,
    keep,
    keep_target,
    kept_toml,
    missing,
    no_file,
    rendered,
    stage_plan,
)


@dataclass(frozen=True)
class Undone:
    """The apply that a recovery undoes: its plan, who approved that, and its log."""

    name: str
    plan: Plan
    author: str
    approved_by: tuple[str, ...]
    entries: Sequence[Event]

    def staged(self) -> frozenset[str]:
        """Nodes on which something may lie in place that their next restart would take up."""
        last = {step.node: step for step in of(self.entries, StepTaken)}
        return frozenset(
            node
            for node, step in last.items()
            if not (step.step.startswith("restart") and step.phase == "done")
        )

    def kept(self, node: str) -> str | None:
        """The digest of what a node of ours goes back to, as the apply wrote it into its kit."""
        written = last(self.entries, KitWritten)
        return written.files.get(target_name(node)) if written is not None else None


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
    if found is None or found.digest == goal.config:
        return found or next(_kept(context, node, goal.config), None)
    made = tried(turned_back, context, node, found, goal)
    if isinstance(made, NodeConfig) and made.digest == goal.config:
        return made
    kept = next(_kept(context, node, goal.config), None)
    return kept or (made if isinstance(made, NodeConfig) else None)


def _kept(context: Context, node: str, config: str) -> Iterator[NodeConfig]:
    """A node's TOML with that digest, out of the kit or the store. What is unreadable is passed over."""
    if context.opened.undoes:
        with suppress(SourceError):
            yield from _kept_in_kit(context, node, config, context.opened.undoes.name)
    for origin in context.store.everything(context.scope):
        with suppress(SourceError, LogDamaged):
            entries = context.ledger.events(origin, NodeVerified)
            for name, known in states(entries, origin):
                if name == node and known.state.config == config:
                    with suppress(SourceError):
                        yield kept_toml(context, known)


def _kept_in_kit(context: Context, node: str, config: str, undoes: str) -> Iterator[NodeConfig]:
    """A node's file out of the kit of the apply that is undone, where it has that digest."""
    path = folder_of(context.site, undoes) / target_name(node)
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
    """The plan of the way back: from what the undone apply makes of each node, or what it was last
    verified to be. Raises SourceError, ParameterError.
    """
    made = undone(context)
    first = made.plan.first if made is not None else {}
    names = context.params.nodes or list(first)
    if wrong := sorted(set(names) - {node.name for node in context.cluster.nodes}):
        raise ParameterError(f"nodes: expected nodes of {context.cluster_name}, got {wrong[0]!r}")
    if not names:
        raise ParameterError(
            "nodes: expected the nodes to take back, as no apply is undone, got none"
        )
    beyond, ledger = set(names) - set(first), context.ledger
    good = ledger.good(context.cluster_name) if beyond else {}
    known = ledger.known(context.cluster_name) if beyond else {}
    there = {name: known[name].state for name in beyond}
    there |= {n.node: n.after for _, n in (made.plan.changes() if made is not None else ())}
    configs, nodes = context.each(context.commands.read_config, names), list[NodePlan]()
    for node in (node for node in context.cluster.nodes if node.name in names):
        name = node.name
        was = good[name].state if name in beyond else first[name].before
        after = _after(context, made, node, was, configs.known.get(name))
        nodes.append(NodePlan.of(node, there[name], after))
    build = artifact_of(context, nodes[0].after) or no_file(nodes[0].after)
    item = playbook.DECLARED[f"{context.stage}_recovery"][0]
    phase = Phase(item=item, name=BACK, nodes=tuple(nodes), waves=_waves(context, nodes))
    return stage_plan(context, build, [phase])


def _after(
    context: Context, made: Undone | None, node: Node, before: NodeState, there: NodeConfig | None
) -> NodeState:
    """What a node becomes, its file kept; after a stall with both gates off: a named deviation."""
    goal = goal_of(context.stage, before)
    if goal != before and made is not None and (kept := made.kept(node.name)):
        goal = goal.model_copy(update={"config": kept})
    file = file_of(context, node.name, there, goal)
    if file is not None:
        if goal != before:
            file = turned_back(context, node.name, file, goal)
            goal = goal.model_copy(update={"config": file.digest})
        keep_target(context, f"{node.name}.{BACK}", file)
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
    made, reason, why = undone(context), context.params.break_glass, ""
    author, by = (made.author, made.approved_by) if made is not None else ("", ())
    beyond = sorted(set(plan.nodes) - set(made.plan.nodes if made is not None else ()))
    if beyond:
        why = f"it goes beyond it on {', '.join(beyond)}"
    elif made is not None and policy_of(made.entries) != context.site.policy_digest:
        why = "the site's policy moved since"
    elif made is None or not (by or context.stage not in playbook.APPROVERS):
        why = "nobody's approval"
    if why and reason:
        got, by = f"{why}; break-glass: {reason}; to be ratified within 24 h", ()
    elif why:
        got = f"{why}; give a reason (--reason) for break-glass"
    else:
        assert made is not None
        got = f"{made.plan.digest}, by {', '.join(by) or author}"
    what, expected, ok = "the way back", "approved together with the plan it undoes", not why
    row = check_row("approval", what, expected, got, ok or bool(reason))
    return Ruling(plan, author, [row], by if ok else ())


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

    def one(mine: Context, applier: Applier, name: str) -> list[Row]:
        return _node(mine, applier, phase.node(name), builds, made)

    found = walk(context, applier, ours, RECOVERY, one)
    orders = [each for wave in theirs for each in instructions(context, phase, wave)]
    told = tell_all(context, applier, orders)
    told += [row for wave in theirs for row in look(context, applier, phase, wave)]
    return [row for node in phase.nodes for row in found.get(node.node, ())] + told


def _node(
    context: Context,
    applier: Applier,
    node: NodePlan,
    builds: Mapping[str, Artifact | None],
    made: Undone | None,
) -> list[Row]:
    """Take one node of ours back, unless it is; what cannot be done is a row."""
    name, last_step = node.node, applier.steps(node.node)[-1:]
    taken_back = [e.phase for e in last_step if e.step.startswith(f"restart-{BACK}")] == ["done"]
    settled = taken_back or made is None or name not in made.staged()
    if settled and runs_as_planned(context, node):
        return read_back(context, applier, node, BACK)
    if taken_back and context.fleet.rollout([name]).known:
        rows = read_back(context, applier, node, BACK)
        # What merely cannot be read of it would not be mended by a further restart.
        if all(row.outcome is not Outcome.FAIL for row in rows):
            return rows
    read = tried(context.commands.read_config, name)
    there = read if isinstance(read, NodeConfig) else None
    file = file_of(context, name, there, node.after)
    if file is None:
        why = read.problem if isinstance(read, SourceError) else "none of that digest"
        return [unknown_row(name, "previous file", node.after.config, why)]
    build, rows = builds[node.after.binary], list[Row]()
    if build is None:
        got = f"previous artifact missing; {missing(node.after)}"
        rows = [check_row(name, "previous artifact", node.after.binary, got, ok=False)]
        if made is None:
            return rows
        build = made.plan.artifact
    config = keep(context, f"{name}.{BACK}", "targets", file)
    seen = install(context, applier, node, BACK, build, config, partial(_free, applier, name))
    if all(row.what != CHANNEL_AT for row in seen):
        # A command that fails, or silence, says that it could not be reached, not what it is.
        seen = unsure(seen)
    return [*rows, *seen]


def _free(applier: Applier, node: str, step: str) -> str:
    """The step's name; a further one where it was done, and the node is not what it made of it."""
    name = f"{step}-{BACK}"
    done = sum(e.phase == "done" and e.step.startswith(name) for e in applier.steps(node))
    return f"{name}-{done + 1}" if done else name
