"""Configurations: nodes' TOML read, compared and rewritten, and the rollout bundle.

A dotted key names one value (``rollout.feature_gates.pruning``; list elements as ``accounts[0]``),
so that drift, plans and cards speak of the same thing.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..errors import ParameterError, SourceError, tried
from ..strict import Strict, load_toml, validate
from .redact import MARK, TOO_DEEP

GATES = (
    "pruning",
    "recursive_proofs",
    "reconstruction",
    "consensus_enforcement",
    "malachite_consensus",
    "timetoke_rewards",
    "witness_network",
)
BASE_GATES = GATES[:4]
"""On where a node's file does not say; the others are off there."""

Flat = dict[str, Any]
Kind = Literal["missing", "extra", "wrong type", "different"]


# --- a node's TOML ------------------------------------------------------------------------------


def parse_toml(text: bytes, where: str) -> dict[str, Any]:
    """TOML bytes as a table. Raises SourceError naming ``where`` and the line."""
    try:
        table = load_toml(text.decode("utf-8"))
    except ValueError as error:
        got = text.decode().removeprefix(f"{MARK} ") if text == TOO_DEEP else error
        raise SourceError(where, f"expected TOML, got: {got}") from error
    for key, value in flatten(table).items() if b"nan" in text else ():
        if _holds_nan(value):
            raise SourceError(where, f"{key}: expected a number that can be compared, got nan")
    return table


def _holds_nan(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_holds_nan, value))
    return isinstance(value, float) and math.isnan(value)


def flatten(table: Mapping[str, Any]) -> Flat:
    """Every value of a table by its dotted key; an empty table or list is a value as well."""
    flat: Flat = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{_word(key)}" if prefix else _word(key), inner)
        elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
            for number, inner in enumerate(value):
                walk(f"{prefix}[{number}]", inner)
        elif prefix:
            flat[prefix] = value

    walk("", table)
    return flat


def _word(key: str) -> str:
    # As TOML writes it: a key with a dot in it must not look like two.
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'


@dataclass(frozen=True)
class Difference:
    """One key on which two configurations differ; a side that lacks it holds None."""

    key: str
    kind: Kind
    expected: Any
    observed: Any


def diff(expected: Flat, observed: Flat) -> list[Difference]:
    """What ``observed`` has otherwise than ``expected``, sorted by key; types must agree too."""
    found = []
    for key in sorted(expected.keys() | observed.keys()):
        left, right = expected.get(key), observed.get(key)
        if key not in observed:
            found.append(Difference(key, "missing", left, None))
        elif key not in expected:
            found.append(Difference(key, "extra", None, right))
        elif _types(left) != _types(right):
            found.append(Difference(key, "wrong type", left, right))
        elif left != right:
            found.append(Difference(key, "different", left, right))
    return found


def _types(value: Any) -> Any:
    # true == 1 == 1.0 in Python, not in TOML.
    return [_types(inner) for inner in value] if isinstance(value, list) else type(value)


def render(text: bytes, changes: Flat, where: str) -> bytes:
    """``text`` with the dotted keys in ``changes`` set, comments and order kept.

    The result is read back: it must differ from ``text`` in exactly these keys, or SourceError.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    before = flatten(parse_toml(text, where))
    document = tomlkit.parse(text)
    for key, value in changes.items():
        if "[" in key or '"' in key:
            raise SourceError(where, f"expected a plain dotted key to change, got {key}")
        *tables, last = key.split(".")
        at: Any = document
        try:
            for name in tables:
                if name not in at:
                    at[name] = tomlkit.table()
                at = at[name]
            at[last] = value
        except (TypeError, TOMLKitError) as error:
            raise SourceError(where, f"{key}: expected to be settable, got: {error}") from error
    rendered = tomlkit.dumps(document).encode()
    after = flatten(parse_toml(rendered, where))
    filled = {key for key in before if any(changed.startswith(f"{key}.") for changed in changes)}
    kept = {key: value for key, value in before.items() if key not in filled}
    if unexpected := diff({**kept, **changes}, after):
        keys = ", ".join(difference.key for difference in unexpected)
        raise SourceError(where, f"expected to change only {', '.join(changes)}, got {keys} too")
    return rendered


# --- the rollout bundle -------------------------------------------------------------------------


def _all_gates(value: dict[str, bool]) -> dict[str, bool]:
    if set(value) != set(GATES):
        missing = [gate for gate in GATES if gate not in value]
        extra = sorted(set(value) - set(GATES))
        raise ValueError(
            f"expected exactly the {len(GATES)} gates, got {missing} missing and {extra} unknown"
        )
    return {gate: value[gate] for gate in GATES}


class Profile(Strict):
    """One stage of the bundle: its channel and the seven gates it wants."""

    name: Literal["development", "testnet", "canary", "mainnet"]
    release_channel: Literal["development", "testnet", "canary", "mainnet"]
    change_window: str
    feature_gates: Annotated[dict[str, bool], AfterValidator(_all_gates)]
    release_checks: list[str]
    recovery_playbook: str

    @property
    def on(self) -> set[str]:
        """The gates it wants on."""
        return {gate for gate, on in self.feature_gates.items() if on}


class _File(Strict):
    version: Literal[1]
    bundle: str
    description: str = ""
    node_template: str = ""
    wallet_template: str = ""
    notes: list[str] = []
    stages: list[Profile] = Field(min_length=1)


@dataclass(frozen=True)
class Bundle:
    """A rollout bundle. ``other`` holds its further tables by dotted key: they are for nodes."""

    name: str
    stages: dict[str, Profile]
    other: Flat

    def profile(self, stage: str) -> Profile:
        """The profile of a stage. Raises ParameterError when the bundle has none."""
        if stage not in self.stages:
            raise ParameterError(
                f"bundle {self.name}: stages: expected {stage}, got {', '.join(self.stages)}"
            )
        return self.stages[stage]


def parse_bundle(text: bytes, where: str) -> Bundle:
    """A rollout bundle, as ``config/defaults/*.toml`` of the chain. Raises ParameterError."""
    table = tried(parse_toml, text, where)
    if isinstance(table, SourceError):
        raise ParameterError(str(table))
    other = {key: table.pop(key) for key in list(table) if isinstance(table[key], dict)}
    found = validate(_File, table, where)
    stages: dict[str, Profile] = {profile.name: profile for profile in found.stages}
    if len(stages) != len(found.stages):
        raise ParameterError(f"{where}: stages: expected every name once, got one twice")
    return Bundle(found.bundle, stages, flatten(other))


def gates_turned_off(bundle: Bundle) -> list[tuple[str, str]]:
    """(stage, gate) where a gate is on in the stage before and off in this one; none should be."""
    return [
        (after.name, gate)
        for before, after in pairwise(bundle.stages.values())
        for gate in GATES
        if before.feature_gates[gate] and not after.feature_gates[gate]
    ]


# --- scalars that fell into the table above them ----------------------------------------------------

DOCUMENTED = {
    "": frozenset({
        "config_version", "data_dir", "key_path", "vrf_key_path", "p2p_key_path", "snapshot_dir",
        "snapshot_checksum_algorithm", "timetoke_snapshot_key_path", "proof_cache_dir",
        "consensus_pipeline_path", "block_time_ms", "max_block_transactions", "mempool_limit",
        "max_block_identity_registrations", "epoch_length", "target_validator_count",
        "max_proof_size_bytes",
    }),
    "rollout": frozenset({"release_channel"}),
    "rollout.telemetry": frozenset({
        "enabled", "endpoint", "http_endpoint", "secondary_endpoint", "secondary_http_endpoint",
        "failover_enabled", "auth_token", "timeout_ms", "retry_max", "sample_interval_secs",
        "redact_logs", "warn_on_drop",
    }),
}  # fmt: skip
"""The documented scalars of tables that others stand below."""
_ALSO_THERE = frozenset(
    {"network.admission.signing.key_path", "rollout.telemetry.metrics.auth_token"}
)
"""Keys that share their name with one of a table above theirs."""


def misplaced(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(where it landed, where it belongs) of every scalar that fell into a table above it.

    The chain's own templates fall into this trap: a scalar below a table header belongs to that
    table. Such a scalar bears the name of one of a table further up, which lacks it.
    """
    held = flatten(table)
    found = []
    for key in held:
        path, _, name = key.rpartition(".")
        home, above = None, path
        while above and home is None:
            above = above.rpartition(".")[0]
            home = above if name in DOCUMENTED.get(above, ()) else None
        if home is None or key in _ALSO_THERE or name in DOCUMENTED.get(path, ()):
            continue
        if (belongs := f"{home}.{name}" if home else name) not in held:
            found.append((key, belongs))
    return sorted(found)
