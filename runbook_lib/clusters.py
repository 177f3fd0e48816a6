"""The clusters of a site: their nodes, and what they fall back on."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from .reach import Command, PublicKey, Rpc, Url
from .strict import Name, OwnName, Strict


class Node(Strict):
    name: OwnName
    validator: str = ""
    peer: str = ""
    control: Literal["ours", "operator"] = "ours"
    operator: Name = ""
    signoff_key: PublicKey = ""
    canary: bool = False
    url: Url | None = None
    rpc_command: Command | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Node:
        if (self.url is None) == (self.rpc_command is None):
            raise ValueError("expected either url or rpc_command")
        if self.control == "operator" and not self.operator:
            raise ValueError("expected the operator's account for an operator's node")
        return self


class SnapshotKey(Strict):
    """A public key of snapshot signatures, and the number the chain knows it by."""

    version: int = Field(default=1, ge=0, lt=2**31)
    key: PublicKey = Field(min_length=1)


class Rollback(Strict):
    """What a cluster falls back on: the previous release, snapshot bundles, and their limits.

    ``release`` is the file of an artifact; empty where builds are images in a registry.
    """

    release: str = ""
    snapshots: list[str] = Field(min_length=1)
    keys: list[SnapshotKey] = Field(min_length=1)
    at_least: int = Field(default=1, ge=1, le=100)
    max_age_hours: float = Field(default=24.0, gt=0, le=8760)
    max_lag_blocks: int = Field(default=17_280, gt=0)

    @model_validator(mode="after")
    def _usable(self) -> Rollback:
        versions = [key.version for key in self.keys]
        if len(set(versions)) != len(versions):
            raise ValueError("expected every key version once")
        unknown = set(re.findall(r"\{(.*?)\}", self.release)) - {"cluster", "digest"}
        if unknown:  # a candidate's release or commit is none of it
            raise ValueError(f"expected {{cluster}} and {{digest}}, got {{{min(unknown)}}}")
        return self


class Cluster(Strict):
    chain_id: str
    epoch_length: int = Field(default=720, gt=0)
    block_time_ms: int = Field(default=5000, gt=0)
    rpc: Rpc = Rpc()
    rollback: Rollback | None = None
    nodes: list[Node] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Cluster:
        for key in ("name", "validator", "peer", "url"):
            values = [getattr(node, key) for node in self.nodes if getattr(node, key)]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"expected every {key} once, got {', '.join(twice)} twice")
        return self
