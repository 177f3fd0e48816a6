"""The plan: what a stage will do to which node, and nothing that merely varies.

Its digest covers intent only: nodes, keys before and after, artifact, waves, policy. Heights,
latencies and times are judged again when it is applied.
"""

from __future__ import annotations

from functools import cached_property

from ..canonical import digest
from ..outcomes import Model
from .state import NodeState, differences


class NodePlan(Model):
    node: str
    control: str
    before: NodeState
    after: NodeState

    def changes(self) -> list[tuple[str, str | bool, str | bool]]:
        """(key, before, after) of what will differ."""
        return differences(self.before.flat(), self.after.flat())


class Artifact(Model):
    """A release artifact: its path as the site names it, its digest."""

    path: str
    digest: str


class Plan(Model):
    """``waves`` are node names in the order they are changed; ``policy`` the digest of the limits."""

    stage: str
    release: str
    commit: str
    cluster: str
    chain_id: str
    artifact: Artifact
    nodes: tuple[NodePlan, ...]
    waves: tuple[tuple[str, ...], ...]
    policy: str

    @cached_property
    def digest(self) -> str:
        return digest(self.model_dump(mode="json"))

    def node(self, name: str) -> NodePlan:
        return next(node for node in self.nodes if node.node == name)
