"""The node's TOML as the chain reads it: strictly, with its wording and its exit code.

A scalar that stands after a table header belongs to that table, as TOML says; the chain's own
templates fall into that trap. Standard library only: the commands import this and must start fast.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

EXIT_CONFIGURATION = 2

GATES = (
    "pruning",
    "recursive_proofs",
    "reconstruction",
    "consensus_enforcement",
    "malachite_consensus",
    "timetoke_rewards",
    "witness_network",
)
CHANNELS = ("development", "testnet", "canary", "mainnet")

ADMISSION_TIERS = {
    "blocks": "tl3", "votes": "tl3", "proofs": "tl1", "vrf_proofs": "tl2", "snapshots": "tl1",
    "meta": "tl0", "vrf_meta": "tl1", "witness_proofs": "tl2", "witness_meta": "tl1",
}  # fmt: skip
"""Who may publish on a gossip topic."""

_TOPIC = {"subscribe": str, "publish": str}
_ENDPOINT_TLS = {"ca_certificate": str, "client_certificate": str, "client_private_key": str,
                 "domain_name": str, "insecure_skip_verify": bool}  # fmt: skip
_TELEMETRY = {
    "enabled": bool, "endpoint": str, "http_endpoint": str, "secondary_endpoint": str,
    "secondary_http_endpoint": str, "failover_enabled": bool, "auth_token": str,
    "timeout_ms": int, "retry_max": int, "sample_interval_secs": int, "redact_logs": bool,
    "trace_max_queue_size": int, "trace_max_export_batch_size": int, "trace_sample_ratio": float,
    "warn_on_drop": bool, "grpc_tls": _ENDPOINT_TLS, "http_tls": _ENDPOINT_TLS,
    "vrf_thresholds": {"min_participation_rate": float, "max_rejection_rate": float,
                       "max_fallback_ratio": float},
    "metrics": {"listen": str, "auth_token": str},
}  # fmt: skip
_ADMISSION = {
    "policy_path": str, "audit_retention_days": int,
    "defaults": dict.fromkeys(ADMISSION_TIERS, _TOPIC),
    "signing": {"enabled": bool, "key_path": str, "active_key": str, "trust_store": {"*": str}},
    "worm_export": {
        "enabled": bool, "required": bool, "retention_days": int, "require_signatures": bool,
        "target": {"kind": str, "program": str, "endpoint": str, "region": str, "bucket": str,
                   "prefix": str, "access_key": str, "secret_key": str},
    },
}  # fmt: skip
_NETWORK = {
    "rpc": {"listen": str, "auth_token": str, "allowed_origin": str, "requests_per_minute": int},
    "limits": {
        "header_read_timeout_ms": int, "read_timeout_ms": int, "write_timeout_ms": int,
        "max_header_bytes": int, "max_body_bytes": int,
        "per_ip_token_bucket": {"enabled": bool, "burst": int, "replenish_per_minute": int},
    },
    "tls": {"enabled": bool, "require_client_auth": bool, "certificate": str, "private_key": str,
            "client_ca": str},
    "p2p": {
        "listen_addr": str, "bootstrap_peers": [str], "heartbeat_interval_ms": int,
        "gossip_enabled": bool, "gossip_rate_limit_per_sec": int, "replay_window_size": int,
        "peerstore_path": str, "gossip_path": str,
        "reputation_heuristics": {
            "vote_timeout_penalty": float, "proof_relay_penalty": float,
            "gossip_backpressure_penalty": float, "gossip_backpressure_threshold": int},
    },
    "admission": _ADMISSION,
}  # fmt: skip
SCHEMA: Mapping[str, Any] = {
    "config_version": str, "data_dir": str, "key_path": str, "p2p_key_path": str,
    "vrf_key_path": str, "snapshot_dir": str, "snapshot_checksum_algorithm": str,
    "timetoke_snapshot_key_path": str, "proof_cache_dir": str, "consensus_pipeline_path": str,
    "block_time_ms": int, "max_block_transactions": int, "max_block_identity_registrations": int,
    "mempool_limit": int, "epoch_length": int, "target_validator_count": int,
    "max_proof_size_bytes": int,
    "secrets": {"backend": str},
    "proof_cache": {"capacity": int, "max_queue_depth": int},
    "rollout": {"release_channel": str, "feature_gates": dict.fromkeys(GATES, bool),
                "telemetry": _TELEMETRY},
    "network": _NETWORK,
    "reputation": {
        "tier_thresholds": {"tier2_min_uptime_hours": int, "tier3_min_consensus_success": int,
                            "tier4_min_consensus_success": int, "tier5_min_score": float},
        "weights": {"validation": float, "uptime": float, "consensus": float,
                    "peer_feedback": float, "decay": float},
    },
    "queue_weights": {"priority": float, "fee": float},
    "storage": {"enabled": bool, "path": str},
    "pruning": {"cadence_secs": int, "retention_depth": int, "emergency_pause": bool},
    "admission_reconciler": {"cadence_secs": int, "drift_alert_threshold": int,
                             "max_audit_lag_secs": int},
    "snapshot_validator": {"cadence_secs": int},
    "snapshot_sizing": {"default_chunk_size": int, "min_chunk_size": int, "max_chunk_size": int},
    "snapshot_download": {"timeout_ms": int, "max_retries": int},
    "governance": {"timetoke_rewards": {
        "enabled": bool, "leader_pool_weight": float, "witness_pool_weight": float,
        "minimum_balance_hours": int}},
    "maintenance": {"poll_interval_secs": int, "windows": [
        {"name": str, "starts_at": str, "ends_at": str, "suppress_uptime": bool,
         "suppress_timetoke": bool}]},
    "genesis": {"chain_id": str, "accounts": [{"address": str, "balance": int, "stake": str}]},
}  # fmt: skip
_REQUIRED = {
    "": ("data_dir", "key_path", "vrf_key_path", "block_time_ms", "max_block_transactions",
         "mempool_limit", "genesis"),
    "rollout": ("release_channel", "feature_gates", "telemetry"),
    "rollout.telemetry": ("enabled",),
    "genesis": ("chain_id", "accounts"),
    "genesis.accounts": ("address", "balance", "stake"),
}  # fmt: skip
_POSITIVE = ("block_time_ms", "max_block_transactions", "max_block_identity_registrations",
             "mempool_limit", "epoch_length", "target_validator_count", "max_proof_size_bytes")  # fmt: skip
_KINDS: Mapping[type, str] = {
    list: "sequence", dict: "map", str: "string", int: "integer", float: "floating point",
    bool: "boolean",
}  # fmt: skip
_NAMES = {str: "a string", int: "an integer", float: "a float", bool: "a boolean"}


class ConfigurationError(Exception):
    """What the node prints on stderr before it ends with exit code 2."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"configuration error: {cause}")


class NodeConfig(NamedTuple):
    """What a running node took from its file. ``telemetry`` is as ``/status/rollout`` shows it."""

    channel: str
    gates: Mapping[str, bool]
    telemetry: Mapping[str, Any]
    chain_id: str
    epoch_length: int
    burst: int
    per_minute: int


def parse(text: str, *, strict: bool = True) -> NodeConfig:
    """The configuration, as ``NodeConfig::load`` (strict) accepts it; else unknown keys may be.

    Raises ConfigurationError: not TOML, a field missing or of the wrong type, unknown keys (all of
    them, by dotted path), a value the node refuses.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"unable to parse config: TOML parse error: {error}") from error
    unknown = sorted(_walk(document, SCHEMA, ""))
    if unknown and strict:
        raise ConfigurationError(f"unknown configuration key(s): {', '.join(unknown)}")
    _validate(document)
    rollout = document.get("rollout", {})
    gates = {gate: gate in GATES[:4] for gate in GATES} | rollout.get("feature_gates", {})
    telemetry = rollout.get("telemetry", {"enabled": False})
    bucket = document.get("network", {}).get("limits", {}).get("per_ip_token_bucket", {})
    return NodeConfig(
        channel=rollout.get("release_channel", "development"),
        gates=gates,
        telemetry={
            "enabled": telemetry["enabled"],
            "endpoint": telemetry.get("endpoint"),
            "sample_interval_secs": telemetry.get("sample_interval_secs", 30),
            "last_observed_height": None,
        },
        chain_id=document["genesis"]["chain_id"],
        epoch_length=document.get("epoch_length", 720),
        burst=bucket.get("burst", 120),
        per_minute=bucket.get("replenish_per_minute", 60),
    )


def _walk(value: Any, schema: Any, path: str) -> Iterator[str]:
    """Dotted paths of unknown keys. Raises ConfigurationError for what serde refuses itself."""
    if isinstance(schema, type):
        number = schema is float and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not schema and not number:
            kind = _KINDS.get(type(value), "value")
            raise ConfigurationError(
                f"unable to parse config: invalid type: {kind}, expected {_NAMES[schema]}"
                f" for key `{path}`"
            )
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise ConfigurationError(f"unable to parse config: expected a sequence for `{path}`")
        for item in value:
            yield from _walk(item, schema[0], path)
    else:
        if not isinstance(value, dict):
            raise ConfigurationError(f"unable to parse config: expected a table for `{path}`")
        yield from _walk_table(value, schema, path)


def _walk_table(table: dict[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for field in _REQUIRED.get(path, ()):
        if field not in table:
            raise ConfigurationError(f"unable to parse config: missing field `{field}`")
    for key, value in table.items():
        inner = schema.get(key, schema.get("*"))
        dotted = f"{path}.{key}" if path else key
        if inner is not None:
            yield from _walk(value, inner, dotted)
        elif path == "rollout.feature_gates":  # the one table that denies unknown fields itself
            expected = ", ".join(f"`{gate}`" for gate in GATES)
            raise ConfigurationError(
                f"unable to parse config: unknown field `{key}`, expected one of {expected}"
            )
        else:
            yield dotted


def _validate(document: dict[str, Any]) -> None:
    version = document.get("config_version", "1.0")
    if version != "1.0":
        raise ConfigurationError(
            f"node configuration config_version {version} is not supported; expected 1.0"
        )
    for key in _POSITIVE:
        if document.get(key, 1) <= 0:
            raise ConfigurationError(f"node configuration requires {key} to be greater than 0")
    channel = document.get("rollout", {}).get("release_channel", "development")
    if channel not in CHANNELS:
        expected = ", ".join(f"`{name}`" for name in CHANNELS)
        raise ConfigurationError(
            f"unable to parse config: unknown variant `{channel}`, expected one of {expected}"
        )
    weights = document.get("queue_weights", {"priority": 0.7, "fee": 0.3})
    if abs(weights.get("priority", 0.7) + weights.get("fee", 0.3) - 1) > 1e-6:
        raise ConfigurationError("queue_weights priority and fee must sum to 1.0")
    if channel in ("canary", "mainnet"):
        _validate_worm_export(document, channel)


def _validate_worm_export(document: dict[str, Any], channel: str) -> None:
    export = document.get("network", {}).get("admission", {}).get("worm_export", {})
    target = export.get("target", {})
    complete = target.get("kind") == "s3" and all(
        target.get(key) for key in ("endpoint", "access_key", "secret_key")
    )
    if not export.get("enabled") or export.get("retention_days", 0) <= 0 or not complete:
        raise ConfigurationError(
            f"release channel {channel} requires network.admission.worm_export to be enabled with"
            " retention_days > 0 and an s3 target (endpoint, access_key, secret_key)"
        )
