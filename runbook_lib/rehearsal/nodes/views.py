"""What a node shows of itself and its chain: the JSON shapes of the chain's answers."""

from __future__ import annotations

from typing import Any

from ..chain.timeline import ChainState, Timeline, ValidatorState
from .fleet import Fleet, Running


class View:
    """What one node shows of itself and its chain at one instant."""

    def __init__(
        self, fleet: Fleet, running: Running, timeline: Timeline, state: ChainState
    ) -> None:
        self.fleet, self.running, self.timeline, self.state = fleet, running, timeline, state

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

    def mempool(self) -> dict[str, Any]:
        return {"transactions": [], "identities": [], "votes": [], "uptime_proofs": []}

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

    def telemetry(self) -> dict[str, Any]:
        return {
            "rollout": self.rollout(),
            "node": self.node(),
            "consensus": self.consensus(),
            "mempool": {"transactions": 0, "identities": 0, "votes": 0, "uptime_proofs": 0},
            "timetoke_params": {"minimum_window_secs": 3600, "accrual_cap_hours": 720},
            "verifier_metrics": {
                "per_backend": {"stwo": self.node()["backend_health"]["stwo"]["verifier"]},
                "cache": {
                    "hits": 9 * self.state.proofs_verified, "misses": self.state.proofs_verified,
                    "evictions": 0, "capacity": 1024, "backend": "stwo",
                    "queue_depth": self.state.proof_queue_depth, "max_queue_depth": 256,
                    "last_persist_latency_ms": 2, "last_load_latency_ms": 1,
                },
                "last": None,
            },
            "vrf_threshold": self.threshold(),
        }  # fmt: skip

    def threshold(self) -> dict[str, Any]:
        vrf = self.vrf()
        return {
            "epoch": self.state.epoch,
            "committee_target": vrf["target_validator_count"],
            "pool_entries": vrf["pool_entries"],
            "accepted_validators": vrf["accepted_validators"],
            "participation_rate": vrf["participation_rate"],
        }

    def timetoke(self) -> list[dict[str, Any]]:
        synced = int(self.state.block_time)
        return [
            {
                "identity": validator.spec.validator,
                "balance": validator.spec.timetoke_hours,
                "epoch_accrual": 1,
                "decay_rate": 0.0,
                "last_update": synced,
                "last_sync": synced,
                "last_decay": 0,
            }
            for validator in self.state.validators.values()
        ]

    def replay(self) -> dict[str, Any]:
        state = self.state
        stalled = "replay-stall" in state.faults
        last = int(state.at) - (3600 if stalled else int(state.at) % 60)
        warnings = ["timetoke replay stalled"] if stalled else []
        return {
            "success_total": state.replay_success,
            "failure_total": state.replay_failure,
            "success_rate": 1.0,
            "latency_p50_ms": 40.0,
            "latency_p95_ms": 70.0,
            "latency_p99_ms": 90.0,
            "last_attempt_epoch": last,
            "last_success_epoch": last,
            "seconds_since_attempt": int(state.at) - last,
            "seconds_since_success": int(state.at) - last,
            "stall_warning": stalled,
            "stall_critical": stalled,
            "failure_breakdown": {},
            "slo": {"healthy": not stalled, "warnings": warnings},
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
            "reputation": _reputation(validator),
        }

    def block(self, height: int) -> dict[str, Any] | None:
        if not 0 <= height <= self.state.height:
            return None
        nodes = self.timeline.spec.nodes
        return {
            "header": {
                "height": height,
                "previous_hash": self.timeline.block_hash(height - 1) if height else "0" * 64,
                "timestamp": int(self.timeline.time_of(height, self.state.at)),
                "proposer": nodes[height % len(nodes)].validator,
            },
            "hash": self.timeline.block_hash(height),
        }

    def proof(self) -> dict[str, Any]:
        state = self.state
        return {
            "height": state.height,
            "round": state.round,
            "block_hash": state.block_hash,
            "total_power": str(state.total_power),
            "quorum_threshold": str(state.quorum_threshold),
            "prevote_power": str(state.pre_vote_power),
            "precommit_power": str(state.pre_commit_power),
            "commit_power": str(state.commit_power),
            "epoch": state.epoch,
            "slot": state.height,
            "vrf_entries": [],
            "witness_commitments": [],
            "reputation_roots": [],
            "quorum_bitmap_root": state.block_hash,
            "quorum_signature_root": state.block_hash,
        }


def _reputation(validator: ValidatorState) -> dict[str, Any]:
    return {
        "score": validator.spec.reputation,
        "tier": "Tl4",
        "timetokes": {"hours_online": validator.spec.timetoke_hours},
    }
