"""A mainnet of hundreds of validators without a listener: their files, and what each would answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from .chain.templates import bundle, node_config
from .chain.world import ClusterSpec, make_cluster, past
from .files import digest_of

ARTIFACT, BEFORE = "artifacts/rpp-node", "artifacts/previous"


class LargeFleet:
    """``size`` nodes below ``root``: ``sizes`` over 5 have three operators', as every rehearsal."""

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        addresses = [(f"127.3.{n // 250}.{n % 250 + 1}", 7070) for n in range(size)]
        self.cluster: ClusterSpec = make_cluster("mainnet", addresses, 1, 0.0)
        self._channel, self._gates = past("mainnet")
        # Validators joined since: the genesis accounts in a file are no more than elsewhere.
        genesis = replace(self.cluster, nodes=self.cluster.nodes[:7])
        (root / "nodes").mkdir(parents=True)
        (root / "artifacts").mkdir()
        (root / "bundle.toml").write_text(bundle())
        (root / ARTIFACT).write_text("the release\n")
        (root / BEFORE).write_text("the release before\n")
        for node in self.cluster.nodes:
            text = node_config(node, genesis, self._channel, self._gates)
            (root / "nodes" / f"{node.name}.toml").write_text(text)
        self._answers = {path: json.dumps(answer()).encode() for path, answer in self._views()}

    def states(self) -> dict[str, dict[str, Any]]:
        """What every node is: gates, channel, binary and config digest."""
        return {
            node.name: {
                "gates": self._gates,
                "channel": self._channel,
                "binary": digest_of(self.root / BEFORE),
                "config": digest_of(self.root / "nodes" / f"{node.name}.toml"),
                "artifact": digest_of(self.root / BEFORE),
            }
            for node in self.cluster.nodes
        }

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes as a site file lists them."""
        return [
            {"name": n.name, "url": n.url, "validator": n.validator, "peer": n.peer,
             "control": n.control, "operator": n.operator, "canary": n.canary}
            for n in self.cluster.nodes
        ]  # fmt: skip

    def transport(self) -> httpx.MockTransport:
        """Answers every node's RPC in this process."""

        def answer(request: httpx.Request) -> httpx.Response:
            body = self._answers.get(request.url.path)
            headers = {"content-type": "application/json"}
            return httpx.Response(
                404 if body is None else 200, content=body or b"", headers=headers
            )

        return httpx.MockTransport(answer)

    def _views(self) -> list[tuple[str, Callable[[], Any]]]:
        return [
            ("/ui/bft/membership", self._membership),
            ("/status/consensus", self._consensus),
            ("/status/rollout", self._rollout),
        ]

    def _membership(self) -> Any:
        validators = [
            {"address": n.validator, "stake": str(n.stake), "reputation_score": n.reputation,
             "tier": "Tl5", "timetoke_hours": n.timetoke_hours}
            for n in self.cluster.nodes
        ]  # fmt: skip
        return {"height": 1, "epoch": 0, "validators": validators, "observers": []}

    def _consensus(self) -> Any:
        total = sum(
            n.stake * (round(n.reputation * 1000) + 1000) * (n.timetoke_hours + 1)
            for n in self.cluster.nodes
        )
        quorum = -(-2 * total // 3) + 1
        return {
            "height": 1, "block_hash": "00", "round": 0, "epoch": 0, "total_power": str(total),
            "quorum_threshold": str(quorum), "commit_power": str(total), "quorum_reached": True,
            "round_latencies_ms": [1], "leader_changes": 0, "witness_events": 0,
            "slashing_events": 0, "failed_votes": 0,
        }  # fmt: skip

    def _rollout(self) -> Any:
        telemetry = {"enabled": True, "endpoint": None}
        gates = dict(self._gates)
        return {"release_channel": self._channel, "feature_gates": gates, "telemetry": telemetry}
