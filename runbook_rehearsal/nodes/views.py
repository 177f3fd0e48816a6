"""What a node shows of itself and its chain: the JSON shapes of the answers that are asked for."""

from __future__ import annotations

from typing import Any

from ..chain.timeline import ChainState
from .fleet import Fleet, Running


class View:
    """What one node shows of itself and its chain at one instant."""

    def __init__(self, fleet: Fleet, running: Running, state: ChainState) -> None:
        self.fleet, self.running, self.state = fleet, running, state

    @property
    def block_hash(self) -> str:
        """Of the tip, as this node has it."""
        spec = self.running.spec
        split = self.fleet.faults.is_on("hash-split", spec.cluster, spec.name)
        return self.state.block_hash[::-1] if split else self.state.block_hash

    def node(self) -> dict[str, Any]:
        state = self.state
        verifier = {
            "accepted": state.proofs_verified, "rejected": 0, "bypassed": 0,
            "total_duration_ms": 8 * state.proofs_verified,
        }  # fmt: skip
        return {
            "address": self.running.spec.validator,
            "height": state.height,
            "last_hash": self.block_hash,
            "epoch": state.epoch,
            "epoch_nonce": state.epoch_nonce,
            "pending_block_proposals": 0,
            "pending_transactions": 3,
            "pending_identities": 0,
            "pending_votes": 0,
            "pending_uptime_proofs": 0,
            "vrf_metrics": self.vrf(),
            "tip": {
                "height": state.height,
                "hash": state.block_hash,
                "timestamp": int(state.block_time),
                "proposer": state.proposer,
            },
            "backend_health": {
                "stwo": {
                    "verifier": verifier,
                    "verifier_sla": {"latency_ms": 8.0, "healthy": True},
                }
            },
        }

    def vrf(self) -> dict[str, Any]:
        size = len(self.state.validators)
        accepted = round(self.state.vrf_participation * size)
        return {
            "pool_entries": size,
            "target_validator_count": 100,
            "verified_submissions": accepted,
            "accepted_validators": accepted,
            "rejected_candidates": 0,
            "fallback_selected": False,
            "unique_addresses": size,
            "participation_rate": round(self.state.vrf_participation, 6),
            "success_rate": round(accepted / 100, 6),
            "total_weight": str(self.state.total_power),
            "entropy_beacon": self.state.epoch_nonce,
            "latest_epoch": self.state.epoch,
            "latest_round": self.state.height,
        }

    def consensus(self) -> dict[str, Any]:
        state = self.state
        known = {} if state.quorum_latency_ms is None else {
            "quorum_latency_ms": state.quorum_latency_ms
        }  # fmt: skip
        return {
            "height": state.height,
            "block_hash": self.block_hash,
            "proposer": state.proposer,
            "round": state.round,
            "total_power": str(state.total_power),
            "quorum_threshold": str(state.quorum_threshold),
            "pre_vote_power": str(state.pre_vote_power),
            "pre_commit_power": str(state.pre_commit_power),
            "commit_power": str(state.commit_power),
            "quorum_reached": state.quorum_reached,
            "observers": 0,
            "epoch": state.epoch,
            "epoch_nonce": state.epoch_nonce,
            "pending_votes": 0,
            "round_latencies_ms": list(state.round_latencies_ms),
            "leader_changes": state.leader_changes,
            "witness_events": state.witness_events,
            "slashing_events": state.slashing_events,
            "failed_votes": state.failed_votes,
        } | known

    def rollout(self) -> dict[str, Any]:
        config = self.running.config
        return {
            "release_channel": config.channel,
            "feature_gates": dict(config.gates),
            "telemetry": dict(config.telemetry),
        }

    def membership(self) -> dict[str, Any]:
        return {
            "height": self.state.height,
            "epoch": self.state.epoch,
            "epoch_nonce": self.state.epoch_nonce,
            "validators": [
                {
                    "address": validator.spec.validator,
                    "stake": str(validator.spec.stake),
                    "reputation_score": validator.spec.reputation,
                    "tier": "Tl4",
                    "timetoke_hours": validator.spec.timetoke_hours,
                }
                for validator in self.state.validators.values()
            ],
            "observers": [],
        }

    def peers(self) -> dict[str, Any]:
        me, faults = self.running.spec, self.fleet.faults
        others = [self.fleet.running.get(spec.name) for spec in self.fleet.members(me.cluster)]
        peers = [
            self._peer(other)
            for other in others
            if other is not None
            and other.spec.name != me.name
            and not faults.is_on("no-nodes-in-peers", me.cluster, other.spec.name)
        ]
        return {
            "local_peer_id": me.peer,
            "peer_count": len(peers),
            "block_height": self.state.height,
            "peers": peers,
        }

    def _peer(self, other: Running) -> dict[str, Any]:
        gates = dict(other.config.gates)
        if self.fleet.faults.is_on("peers-disagree", other.spec.cluster, other.spec.name):
            gates["witness_network"] = not gates["witness_network"]
        return {
            "peer": other.spec.peer,
            "version": f"rpp-node/{other.build.version.removeprefix('v')}",
            "latency_ms": 2 + other.spec.index % 5,
            "last_seen": int(self.state.at) - other.spec.index % 4,
            "features": gates,
            "proof_backends": ["stwo"],
        }

    def ready(self) -> dict[str, Any]:
        healthy = {"healthy": True, "warnings": []}
        return {
            "status": "ok",
            "ready": True,
            "role": "validator" if self.running.spec.validator else "node",
            "backend": self.node()["backend_health"],
            "snapshot_breaker": {"open": False, "consecutive_failures": 0},
            "subsystems": {
                "zk_ready": True,
                "pruning_available": True,
                "snapshots_available": True,
                "wallet_signer_ready": True,
                "wallet_connected": True,
                "wallet_key_cache_ready": True,
            },
            "slo": {"timetoke": healthy, "uptime": healthy},
        }

    def account(self, address: str) -> dict[str, Any] | None:
        try:
            validator = self.state.validator(address)
        except KeyError:
            return None  # the chain answers 200 with null
        return {
            "address": address,
            "balance": validator.balance,
            "nonce": 0,
            "stake": str(validator.spec.stake),
            "reputation": {
                "score": validator.spec.reputation,
                "tier": "Tl4",
                "timetokes": {"hours_online": validator.spec.timetoke_hours},
            },
        }
