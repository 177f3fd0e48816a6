"""The keys of a node's TOML, as far as its tables are documented: for want of a binary to ask.

The chain refuses unknown keys only in a strict dry run. Where there is none, this model finds what
it would refuse in the tables whose keys are known; of any other table it says that it was not
checked. It also recognises the trap that the chain's own templates fall into: a scalar that stands
below a table header belongs to that table, and the node starts on a default or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .config import GATES, GATES_AT

_ROOT = {
    "config_version": str, "data_dir": str, "key_path": str, "vrf_key_path": str,
    "p2p_key_path": str, "snapshot_dir": str, "snapshot_checksum_algorithm": str,
    "timetoke_snapshot_key_path": str, "proof_cache_dir": str, "consensus_pipeline_path": str,
    "block_time_ms": int, "max_block_transactions": int, "mempool_limit": int,
    "max_block_identity_registrations": int, "epoch_length": int, "target_validator_count": int,
    "max_proof_size_bytes": int,
}  # fmt: skip
TABLES: Mapping[str, Mapping[str, type]] = {
    "": _ROOT,
    "rollout": {"release_channel": str},
    GATES_AT: dict.fromkeys(GATES, bool),
    "rollout.telemetry": {
        "enabled": bool, "endpoint": str, "http_endpoint": str, "secondary_endpoint": str,
        "secondary_http_endpoint": str, "failover_enabled": bool, "auth_token": str,
        "timeout_ms": int, "retry_max": int, "sample_interval_secs": int, "redact_logs": bool,
        "warn_on_drop": bool,
    },
    "rollout.telemetry.vrf_thresholds": dict.fromkeys(
        ("min_participation_rate", "max_rejection_rate", "max_fallback_ratio"), float
    ),
    "rollout.telemetry.metrics": {"listen": str, "auth_token": str},
    "genesis": {"chain_id": str},
    "genesis.accounts": {"address": str, "balance": int, "stake": str},
    "maintenance": {"poll_interval_secs": int},
    "maintenance.windows": {
        "name": str, "starts_at": str, "ends_at": str, "suppress_uptime": bool,
        "suppress_timetoke": bool,
    },
    "governance": {},
    "governance.timetoke_rewards": {
        "enabled": bool, "leader_pool_weight": float, "witness_pool_weight": float,
        "minimum_balance_hours": int,
    },
}  # fmt: skip
"""The scalars of every table whose keys are known, by its path (lists of tables as well)."""

UNLISTED = frozenset({
    "secrets", "proof_cache", "network", "reputation", "queue_weights", "storage", "pruning",
    "admission_reconciler", "snapshot_validator", "snapshot_sizing", "snapshot_download",
    "rollout.telemetry.grpc_tls", "rollout.telemetry.http_tls",
})  # fmt: skip
"""Tables the node knows, whose keys are not documented."""
OPEN = frozenset({"governance"})
"""Tables of which only a part is documented: another key there is not checked, not unknown."""
_OPEN_NAMES = ("rollout.telemetry.trace_",)
_LISTS = frozenset({"genesis.accounts", "maintenance.windows"})
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "": ("data_dir", "key_path", "vrf_key_path", "block_time_ms", "max_block_transactions",
         "mempool_limit", "genesis"),
    "rollout": ("release_channel", "feature_gates", "telemetry"),
    "rollout.telemetry": ("enabled",),
    "genesis": ("chain_id", "accounts"),
    "genesis.accounts": ("address", "balance", "stake"),
}  # fmt: skip
_ALSO_THERE = frozenset({"network.admission.signing.key_path"})
"""Keys of an unlisted table that share their name with one of a table above it."""
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Wrong:
    """A key that the node would refuse."""

    key: str
    expected: str
    got: str


def judge_keys(table: Mapping[str, Any]) -> tuple[list[Wrong], list[str]]:
    """What a strict node would refuse in the listed tables, and the tables that were not checked."""
    wrong: list[Wrong] = []
    unchecked: list[str] = []
    _walk(table, "", "", wrong, unchecked)
    return wrong, sorted(set(unchecked))


def _walk(
    table: Mapping[str, Any], path: str, shown: str, wrong: list[Wrong], unchecked: list[str]
) -> None:
    for key in _REQUIRED.get(path, ()):
        if key not in table:
            wrong.append(Wrong(_join(shown, key), "a value", "absent"))
    for key, value in table.items():
        inner, at = _join(path, key), _join(shown, key)
        kind = TABLES[path].get(key)
        if kind is not None:
            if not _is(value, kind):
                wrong.append(Wrong(at, _NAMES[kind], f"{type(value).__name__} {value!r}"[:80]))
        elif inner in TABLES:
            _inner(value, inner, at, wrong, unchecked)
        elif inner in UNLISTED or path in OPEN or inner.startswith(_OPEN_NAMES):
            unchecked.append(at)
        else:
            wrong.append(Wrong(at, "no such key", "unknown to the node"))


def _inner(value: Any, path: str, shown: str, wrong: list[Wrong], unchecked: list[str]) -> None:
    if path in _LISTS:
        if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
            wrong.append(Wrong(shown, "a list of tables", type(value).__name__))
            return
        for number, one in enumerate(value):
            _walk(one, path, f"{shown}[{number}]", wrong, unchecked)
    elif isinstance(value, Mapping):
        _walk(value, path, shown, wrong, unchecked)
    else:
        wrong.append(Wrong(shown, "a table", type(value).__name__))


def _is(value: Any, kind: type) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)


def misplaced(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(where it landed, where it belongs) of every scalar that fell into a table above it.

    Such a scalar bears the name of one of a table further up, which lacks it, and of none of the
    table it stands in.
    """
    return sorted(_misplaced(table, table, ""))


def _misplaced(
    root: Mapping[str, Any], table: Mapping[str, Any], path: str
) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        inner = _join(path, key)
        if isinstance(value, Mapping):
            yield from _misplaced(root, value, inner)
        elif path and key not in TABLES.get(path, {}) and inner not in _ALSO_THERE:
            home = _home(root, path, key)
            if home is not None:
                yield inner, _join(home, key)


def _home(root: Mapping[str, Any], path: str, key: str) -> str | None:
    """The nearest table above ``path`` that has such a scalar and lacks it."""
    words = path.split(".")
    for length in range(len(words) - 1, -1, -1):
        above = ".".join(words[:length])
        if key in TABLES.get(above, {}):
            held: Any = root
            for word in words[:length]:
                held = held[word]
            return None if key in held else above
    return None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
