"""Nodes in flight: this attempt has begun to change them, and has not verified them since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..changes.state import Known, kept_config
from ..context import Context
from ..errors import SourceError
from ..evidence.events import NodeDropped, NodeVerified, StepTaken
from ..evidence.order import plan_of
from ..plan import NodePlan, NodeState, Phase, Plan, phase_of

if TYPE_CHECKING:
    from .drift import Live


def in_flight(context: Context) -> dict[str, Known]:
    """Node -> what this attempt makes of it, of each on which a step began since its last read-back."""
    entries = context.so_far
    made = plan_of(entries)
    if made is None:
        return {}
    found: dict[str, Known] = {}
    for event in entries:
        if isinstance(event, NodeVerified | NodeDropped):
            found.pop(event.node, None)
        elif isinstance(event, StepTaken) and event.phase == "intent":
            for phase, node in _touched(made.plan, event):
                kept = str(kept_config(Path(context.attempt_name), node.node, phase.name))
                found[node.node] = Known(
                    state=node.after, at=event.at, origin=context.attempt_name, kept=kept
                )
    return found


def _touched(plan: Plan, step: StepTaken) -> Iterator[tuple[Phase, NodePlan]]:
    """The nodes that a step is about: its own, or those of the operator that it instructs."""
    for phase in plan.of(step.item):
        if phase.name == phase_of(step.step):
            yield from (
                (phase, node)
                for node in phase.nodes
                if step.node == (node.operator if node.control == "operator" else node.node)
            )


def between(name: str, after: Known, live: Live) -> Known | SourceError:
    """What a node at work must be: each part as planned where it is so already, else as before."""
    known, rollout, config = live.known[name], live.rollouts[name], live.configs[name]
    if isinstance(known, SourceError):
        return known
    running = {} if isinstance(rollout, SourceError) else rollout.flat()
    digest = "" if isinstance(config, SourceError) else config.digest
    planned = {k: value for k, value in after.state.flat().items() if k.startswith("rollout.")}
    gates = after.state if running == planned else known.state
    binary = after.state if live.builds[name] == after.state.binary else known.state
    delivered = after if digest == after.state.config else known
    state = NodeState(
        gates=gates.gates,
        channel=gates.channel,
        binary=binary.binary,
        artifact=binary.artifact,
        config=delivered.state.config,
    )
    return known.model_copy(update={"state": state, "kept": delivered.kept})
