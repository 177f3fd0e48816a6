"""The plan: what a stage will do to which node, and nothing that merely varies.

Its digest covers intent only: nodes, keys before and after, artifact, waves, window, limits, the way
back, policy. Heights, latencies and margins are judged again when it is applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal

from .canonical import digest
from .clusters import Node
from .outcomes import Model
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

    def flat(self) -> dict[str, str | bool]:
        """As key -> value, gates by their dotted key."""
        rollout = rollout_keys(self.channel, self.gates)
        return {**rollout, "binary": self.binary, "config": self.config}


class NodePlan(Model):
    """One node in one phase. An operator's node is changed by its operator, on our instruction."""

    node: OwnName
    control: Literal["ours", "operator"]
    operator: Name = ""
    before: NodeState
    after: NodeState

    @classmethod
    def of(cls, node: Node, before: NodeState, after: NodeState) -> NodePlan:
        """The plan of a node of the cluster."""
        who, control = node.operator, node.control
        return cls(node=node.name, control=control, operator=who, before=before, after=after)

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
        for node in self.nodes:
            if node.node == name:
                return node
        raise KeyError(name)


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
    def nodes(self) -> tuple[str, ...]:
        """Every node that some phase changes, once, in the order of the phases."""
        return tuple(dict.fromkeys(node.node for phase in self.phases for node in phase.nodes))

    def recovery(self) -> dict[str, NodeState]:
        """What each changed node was before: the state that recovery goes back to."""
        back: dict[str, NodeState] = {}
        for phase in self.phases:
            for node in phase.nodes:
                back.setdefault(node.node, node.before)
        return back

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
        back = self.recovery()
        left = {node: back[node]} if node in back else {}
        untouched = {**self.untouched, **left}
        made = self.model_copy(update={"phases": tuple(kept), "untouched": untouched})
        vars(made)["digest"] = self.digest
        return made


def differences(
    expected: Mapping[str, str | bool], observed: Mapping[str, str | bool]
) -> list[tuple[str, str | bool, str | bool]]:
    """(key, expected, observed) of every key that differs; an absent side reads ``absent``."""
    keys = [*expected, *sorted(set(observed) - set(expected))]
    return [
        (key, expected.get(key, "absent"), observed.get(key, "absent"))
        for key in keys
        if expected.get(key) != observed.get(key)
    ]


def moved(planned: Plan, now: Plan) -> list[tuple[str, str, str, str]]:
    """(subject, what, planned, now) of everything in which a fresh plan differs from an older one."""
    found = []
    for what, of in (("its state before", _before), ("its state after", _after)):
        then, today = of(planned), of(now)
        for name in (name for name in then if name in today and then[name] != today[name]):
            keys = differences(then[name].flat(), today[name].flat())
            found.append((name, what, _states(keys, 1), _states(keys, 2)))
    for name in sorted(set(_before(planned)) ^ set(_before(now))):
        there = name in _before(planned)
        found.append((name, "a node of the plan", str(there).lower(), str(not there).lower()))
    old, new = planned.model_dump(mode="json"), now.model_dump(mode="json")
    for key in ("stage", "release", "commit", "cluster", "chain_id", "artifact", "window",
                "max_down", "policy", "limits"):  # fmt: skip
        if old[key] != new[key]:
            found.append(("the plan", key, str(old[key]), str(new[key])))
    waves = [[p.item, p.name, p.waves] for p in planned.phases]
    if not found and waves != [[p.item, p.name, p.waves] for p in now.phases]:
        found.append(("the plan", "order and waves", _shape(planned), _shape(now)))
    if not found and planned.digest != now.digest:
        found.append(("the plan", "digest", planned.digest, now.digest))
    return found


def _before(plan: Plan) -> dict[str, NodeState]:
    return {**plan.untouched, **plan.recovery()}


def _after(plan: Plan) -> dict[str, NodeState]:
    return {node.node: node.after for _, node in plan.changes()}


def _states(found: list[tuple[str, str | bool, str | bool]], side: int) -> str:
    return ", ".join(f"{each[0]}={str(each[side]).lower()}" for each in found)


def _shape(plan: Plan) -> str:
    return "; ".join(
        f"{phase.item} {phase.name}: " + " | ".join(" ".join(wave) for wave in phase.waves)
        for phase in plan.phases
    )
