"""The node's TOML as the chain reads it: strictly, with its wording and its exit code.

A scalar that stands after a table header belongs to that table, as TOML says; the chain's own
templates fall into that trap.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
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
SCHEMA: Mapping[str, Any] = {
    "config_version": str, "data_dir": str, "key_path": str, "p2p_key_path": str,
    "vrf_key_path": str, "snapshot_dir": str, "proof_cache_dir": str, "block_time_ms": int,
    "max_block_transactions": int, "max_block_identity_registrations": int,
    "mempool_limit": int, "epoch_length": int, "target_validator_count": int,
    "max_proof_size_bytes": int,
    "rollout": {
        "release_channel": str, "feature_gates": dict.fromkeys(GATES, bool),
        "telemetry": {"enabled": bool, "endpoint": str, "sample_interval_secs": int},
    },
    "network": {
        "rpc": {"listen": str, "auth_token": str},
        "limits": {
            "per_ip_token_bucket": {"enabled": bool, "burst": int, "replenish_per_minute": int},
        },
        "p2p": {"listen_addr": str, "heartbeat_interval_ms": int, "gossip_enabled": bool},
        "admission": _ADMISSION,
    },
    "admission_reconciler": {"cadence_secs": int, "drift_alert_threshold": int,
                             "max_audit_lag_secs": int},
    "genesis": {"chain_id": str, "accounts": [{"address": str, "balance": int, "stake": str}]},
}  # fmt: skip
"""The chain's keys that a node of this network, or the chain's own bundle, can have."""
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
_NAMES = {dict: "a table", int: "an integer"}


class ConfigurationError(Exception):
    """What the node prints on stderr before it ends with exit code 2."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"configuration error: {cause}")


class NodeConfig(NamedTuple):
    """What a running node took from its file. ``telemetry`` is as ``/status/rollout`` shows it."""

    channel: str
    gates: Mapping[str, bool]
    telemetry: Mapping[str, Any]
    burst: int
    per_minute: int


def read_config(path: Path, *, strict: bool = True) -> NodeConfig:
    try:
        return parse(path.read_text(), strict=strict)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"unable to read config: {error}") from error


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
        burst=bucket.get("burst", 120),
        per_minute=bucket.get("replenish_per_minute", 60),
    )


def _walk(value: Any, schema: Any, path: str) -> Iterator[str]:
    """Dotted paths of unknown keys. Raises ConfigurationError for what serde refuses itself."""
    wanted: Any = schema if isinstance(schema, type) else type(schema)
    if type(value) is not wanted:
        kind, expected = (_KINDS.get(each, "value") for each in (type(value), wanted))
        expected = _NAMES.get(wanted, f"a {expected}")
        raise ConfigurationError(
            f"unable to parse config: invalid type: {kind}, expected {expected} for key `{path}`"
        )
    if isinstance(schema, list):
        for item in value:
            yield from _walk(item, schema[0], path)
    elif isinstance(schema, dict):
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
