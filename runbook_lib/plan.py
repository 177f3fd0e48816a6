"""The plan: what a stage will do to which node, and nothing that merely varies.

Its digest covers intent only: nodes, keys before and after, artifact, waves, window, limits, the way
back, policy. Heights, latencies and margins are judged again when it is applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal, TypeVar

from .canonical import digest
from .outcomes import Model, value_text
from .site import Node
from .strict import Name, OwnName

GATES_AT = "rollout.feature_gates"
CHANNEL_AT = "rollout.release_channel"
BUILD = "build"
"""The phase that installs a release; its steps bear no other name."""


def phase_of(step: str) -> str:
    """The name of the phase that a step is of, by the step's name in the journal."""
    return step.partition("-")[2].partition(".")[0] or BUILD


def rollout_keys(channel: str, gates: Mapping[str, bool]) -> dict[str, str | bool]:
    """Channel and gates by dotted key."""
    named = {f"{GATES_AT}.{gate}": on for gate, on in sorted(gates.items())}
    return {CHANNEL_AT: channel, **named}


class NodeState(Model):
    """What one node is: gates by name; digests are ``sha256:HEX``.

    ``artifact`` is the file that ``binary`` was delivered in, empty where that is not known. No node
    tells it, so that it is not among what is compared.
    """

    gates: dict[str, bool]
    channel: str
    binary: str
    config: str
    artifact: str = ""

    def flat(self) -> dict[str, Fact]:
        """As key -> value, gates by their dotted key."""
        rollout = rollout_keys(self.channel, self.gates)
        return {**rollout, "binary": self.binary, "config": self.config}


def moves(before: NodeState, after: NodeState) -> dict[str, str | bool]:
    """Dotted keys of the gates and the channel that differ, with their values ``after``."""
    gates = {gate: on for gate, on in after.gates.items() if before.gates.get(gate) != on}
    channel = {CHANNEL_AT: after.channel} if before.channel != after.channel else {}
    return {**{f"{GATES_AT}.{gate}": on for gate, on in gates.items()}, **channel}


class NodePlan(Model):
    """One node in one phase. An operator's node is changed by its operator, on our instruction."""

    node: OwnName
    control: Literal["ours", "operator"]
    operator: Name = ""
    before: NodeState
    after: NodeState

    @classmethod
    def of(cls, node: Node, before: NodeState, after: NodeState) -> NodePlan:
        """The plan of a node of the cluster; ``operator`` is who changes it, if not we do."""
        who = node.operator if node.control == "operator" else ""
        return cls(node=node.name, control=node.control, operator=who, before=before, after=after)

    def changes(self) -> list[tuple[str, str | bool, str | bool]]:
        """(key, before, after) of what will differ."""
        return differences(self.before.flat(), self.after.flat())


class Phase(Model):
    """What one change item does: nodes, wave by wave. ``name`` tells phases of one item apart."""

    item: str
    name: OwnName
    nodes: tuple[NodePlan, ...]
    waves: tuple[tuple[str, ...], ...]

    def node(self, name: str) -> NodePlan:
        """The plan of a node. Raises KeyError."""
        return {node.node: node for node in self.nodes}[name]


class Artifact(Model):
    """A release artifact: its path as the site names it, its digest, and that of the binary in it."""

    path: str
    digest: str
    binary: str


class Plan(Model):
    """Phases in the order in which they are made.

    ``untouched`` are the known states of the cluster's other nodes, ``window`` two instants (ISO
    8601, UTC) or empty, ``max_down`` the share of voting power that one wave may take down,
    ``policy`` the site's policy digest, ``limits`` that of what else limits the stage. The way back is the state before, node by node.
    """

    stage: OwnName
    release: OwnName
    commit: str
    cluster: OwnName
    chain_id: str
    artifact: Artifact
    phases: tuple[Phase, ...]
    untouched: dict[OwnName, NodeState] = {}
    window: tuple[str, ...] = ()
    max_down: float = 1.0
    policy: str
    limits: str = ""

    @cached_property
    def digest(self) -> str:
        return digest(self.model_dump(mode="json"))

    def of(self, item: str) -> tuple[Phase, ...]:
        """The phases that a change item makes."""
        return tuple(phase for phase in self.phases if phase.item == item)

    @property
    def first(self) -> dict[str, NodePlan]:
        """Every node that some phase changes, by name, as the first of these finds it."""
        first: dict[str, NodePlan] = {}
        for _, node in self.changes():
            first.setdefault(node.node, node)
        return first

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node that some phase changes, once, in the order of the phases."""
        return tuple(self.first)

    def recovery(self) -> dict[str, NodeState]:
        """What each changed node was before: the state that recovery goes back to."""
        return {name: node.before for name, node in self.first.items()}

    def changes(self) -> Iterator[tuple[Phase, NodePlan]]:
        """Every node of every phase, in order."""
        for phase in self.phases:
            for node in phase.nodes:
                yield phase, node

    def without(self, node: str) -> Plan:
        """The plan after a node was dropped: it only shrinks; the node keeps the state it has.

        Its digest stays: what was approved, signed off and sent to operators is still that plan.
        """
        kept = []
        for phase in self.phases:
            nodes = tuple(one for one in phase.nodes if one.node != node)
            waves = (tuple(name for name in wave if name != node) for wave in phase.waves)
            update = {"nodes": nodes, "waves": tuple(filter(None, waves))}
            kept += [phase.model_copy(update=update)] if nodes else []
        left = {name: state for name, state in self.recovery().items() if name == node}
        untouched = {**self.untouched, **left}
        made = self.model_copy(update={"phases": tuple(kept), "untouched": untouched})
        vars(made)["digest"] = self.digest
        return made


K = TypeVar("K", bound=str | tuple[str, str])
Fact = str | bool


def differences(
    expected: Mapping[K, Fact], observed: Mapping[K, Fact]
) -> list[tuple[K, Fact, Fact]]:
    """(key, expected, observed) of every key that differs; an absent side reads ``absent``."""
    keys = [*expected, *sorted(set(observed) - set(expected), key=str)]
    return [
        (key, expected.get(key, "absent"), observed.get(key, "absent"))
        for key in keys
        if expected.get(key) != observed.get(key)
    ]


def moved(planned: Plan, now: Plan) -> list[tuple[str, str, str, str]]:
    """(subject, what, planned, now) of everything in which a fresh plan differs from an older one."""
    found = differences(_facts(planned), _facts(now))
    if not found and planned.digest != now.digest:
        found = [(("the plan", "digest"), planned.digest, now.digest)]
    return [(*about, value_text(then), value_text(today)) for about, then, today in found]


def _facts(plan: Plan) -> dict[tuple[str, str], Fact]:
    """Everything that a plan says, by subject and what of it."""
    facts: dict[tuple[str, str], Fact] = {}
    after = {node.node: node.after for _, node in plan.changes()}
    for when, states in (("before", {**plan.untouched, **plan.recovery()}), ("after", after)):
        for name, state in states.items():
            facts |= {(name, f"{key} {when}"): value for key, value in state.flat().items()}
    whole = plan.model_dump(mode="json", exclude={"phases", "untouched"})
    facts |= {("the plan", key): str(value) for key, value in whole.items()}
    facts["the plan", "order and waves"] = "; ".join(
        f"{phase.item} {phase.name}: " + " | ".join(" ".join(wave) for wave in phase.waves)
        for phase in plan.phases
    )
    return facts
