"""The people of a rehearsal: who they are, their keys, and how validators' operators speak.

Operators behave as the faults that are on tell them to when they speak; what they said stays said.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..chain.world import STAGE_CLUSTERS, NodeSpec
from ..files import write_atomically
from ..layout import COMMANDER, COUNCILLORS, OPERATOR, SECOND

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from ..network import RehearsalNetwork

Verb = Literal["acknowledge", "sign-off"]
_FAULTS = {"acknowledge": "ack", "sign-off": "signoff"}


def private_key(seed: int, name: str) -> Ed25519PrivateKey:
    """A throwaway key of a person (by account) or of a validator (by its node's name)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = hashlib.sha256(f"rehearsal/{seed}/key/{name}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(secret)


def public_key(seed: int, name: str) -> str:
    """The same as the site file writes it."""
    raw = private_key(seed, name).public_key().public_bytes_raw()
    return f"ed25519:{base64.b64encode(raw).decode()}"


def people(seed: int) -> list[dict[str, Any]]:
    """The site's people: an engineer, the release commander, a second engineer, the council."""
    listed = (
        ("Rehearsing Engineer", OPERATOR, ["release-engineer", "governance-council"]),
        ("Rehearsing Commander", COMMANDER, ["release-commander"]),
        ("Second Engineer", SECOND, ["release-engineer"]),
        *(("Council Member", account, ["governance-council"]) for account in COUNCILLORS),
    )
    return [
        {"name": name, "account": account, "key": public_key(seed, account), "roles": roles}
        for name, account, roles in listed
    ]


def write_keys(root: Path, seed: int, nodes: Iterable[NodeSpec]) -> None:
    """Everybody's private key as a PEM file: ``keys/NAME.pem``."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    (root / "keys").mkdir()
    for name in (OPERATOR, COMMANDER, SECOND, *COUNCILLORS, *(node.name for node in nodes)):
        pem = private_key(seed, name).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        write_atomically(root / "keys" / f"{name}.pem", pem, 0o600)


def speak(
    network: RehearsalNetwork, verb: Verb, stage: str, start: datetime, end: datetime, plan: str
) -> None:
    """Every operator of the stage's cluster says its word, as a comment; ours by one comment."""
    cluster = STAGE_CLUSTERS[stage]
    nodes = network.world.clusters[cluster].nodes
    for account in dict.fromkeys(node.operator or OPERATOR for node in nodes):
        mine = [node for node in nodes if (node.operator or OPERATOR) == account]
        on = {
            active.name.removeprefix(f"{_FAULTS[verb]}-"): active.node
            for active in network.faults
            if active.name.startswith(f"{_FAULTS[verb]}-") and active.cluster == cluster
            if active.node in {node.name for node in mine}
        }
        _say(network, account, verb, stage, (start, end), plan, on)


def _say(
    network: RehearsalNetwork,
    account: str,
    verb: Verb,
    stage: str,
    window: tuple[datetime, datetime],
    plan: str,
    faults: dict[str, str],
) -> None:
    start, end = window
    release = network.release.version
    line = _line(verb, release, stage, start, end, plan)
    at = datetime.fromtimestamp(network.world.clock.now(), UTC).replace(microsecond=0)
    if "forged" in faults:
        _forge(network, network.world.node(faults["forged"]), verb, stage, line, at)
    elif "late" in faults:
        network.say(account, line, at=start + timedelta(minutes=1))
    elif "other-window" in faults:
        day = timedelta(days=1)
        network.say(account, _line(verb, release, stage, start + day, end + day, plan), at=at)
    elif "other-plan" in faults:
        network.say(account, _line(verb, release, stage, start, end, "sha256:" + "0" * 64), at=at)
    elif "missing" not in faults:
        network.say(account, line, at=at)
    if "withdrawn" in faults:
        network.say(account, f"withdraw {line}", at=at)


def _line(verb: Verb, release: str, stage: str, start: datetime, end: datetime, plan: str) -> str:
    window = f"{_text(start)}/{_text(end)}"
    return f"{verb} {release} {stage} {window} {plan}".rstrip()


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def _forge(
    network: RehearsalNetwork, node: NodeSpec, verb: Verb, stage: str, line: str, at: datetime
) -> None:
    """A file in the validator's name, signed by somebody else."""
    _, release, _, window, *plan = line.split()
    statement = {
        "kind": verb, "release": release, "stage": stage, "window": window,
        "plan": "".join(plan), "validator": node.validator, "at": _text(at),
    }  # fmt: skip
    content = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    signature = base64.b64encode(private_key(network.seed, "mallory").sign(content)).decode()
    document = {"statement": statement, "signature": signature}
    write_atomically(forged_file(network, verb, node.name), json.dumps(document))


def forged_file(network: RehearsalNetwork, verb: Verb, node: str) -> Path:
    return network.root / "words" / network.release.version / f"{verb}-{node}.json"
