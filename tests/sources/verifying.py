"""An artifact, and what an examination says of it and the material a test made."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from runbook_lib.outcomes import Row
from runbook_lib.sources.artifacts import Request, examine
from runbook_lib.sources.signatures import Material, Policy
from runbook_rehearsal.release.authority import b64, v1_answer

from .sigstore_authority import (
    IDENTITY,
    ISSUER,
    Authority,
)

DATA = b"a release artifact\n"
HEX = hashlib.sha256(DATA).hexdigest()
SIGNER = f"{IDENTITY} ({ISSUER})"
ROOT = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"


OTHER = hashlib.sha256(b"another file").hexdigest()


def rows(
    file: Path | str, policy: Policy, material: dict[str, Any] | bytes | Material, **more: Any
) -> list[Row]:
    if isinstance(material, dict):
        material = json.dumps(material).encode()
    if isinstance(material, bytes):
        material = Material(bundle=material)
    return examine(Request(str(file), material, policy, **more))


def one(*args: Any, **more: Any) -> tuple[str, str]:
    """Outcome and observed value of the one row."""
    (row,) = rows(*args, **more)
    return row.outcome.value, str(row.observed)


def tamper(signed: dict[str, Any], *path: str | int, value: Any = None) -> dict[str, Any]:
    """A copy in which one byte of the base64 value at ``path`` is another, or ``value`` is there."""
    changed = copy.deepcopy(signed)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    if value is None:
        raw = bytearray(base64.b64decode(inner[path[-1]]))
        raw[len(raw) // 2] ^= 1
        value = b64(bytes(raw))
    inner[path[-1]] = value
    return changed


ENTRY = ("verificationMaterial", "tlogEntries", 0)
PROOF = (*ENTRY, "inclusionProof")


class Detached:
    """A signature and certificate as the chain publishes them, and a log that knows them."""

    def __init__(self, authority: Authority, data: bytes = DATA, **certificate: str) -> None:
        made = authority.detach(data, **certificate)
        self.pem, self.signature, self.entry = made.certificate, made.signature, made.entry
        self.asked: list[str] = []

    @property
    def material(self) -> Material:
        return Material(signature=b64(self.signature).encode(), certificate=self.pem)

    def find(self, log: str, entry: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(f"{log} {entry['spec']['data']['hash']['value']}")
        return v1_answer(self.entry)


def write(folder: Path, name: str, data: bytes, signed: dict[str, Any] | None = None) -> Path:
    path = folder / name
    path.write_bytes(data)
    if signed is not None:
        path.with_name(f"{name}.sigstore.json").write_text(json.dumps(signed))
    return path


def sbom(schema: str = "1.5", **component: Any) -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX",
        "specVersion": schema,
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "rpp-node", **component}},
        "components": [],
    }
