"""What attackers do to evidence: keys of others, forged logs and seals, hostile files."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from runbook_lib.canonical import canonical, digest_bytes
from runbook_lib.evidence import seal
from runbook_lib.evidence.log import GENESIS, Log
from runbook_lib.signatures import Envelope
from runbook_lib.signers import Trust

from ..sources.conftest import serve, world

__all__ = ["serve", "world"]
MALLORY = Ed25519PrivateKey.from_private_bytes(b"m" * 32)
BOBS_KEY = ec.derive_private_key(12345, ec.SECP256R1())
ATTESTATION = f"{seal.FOLDER}/0001.alice.json"
Alter = Callable[[Path], object]


def pem(key: Any) -> str:
    how = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return str(key.public_key().public_bytes(*how).decode())


def signer(name: str, key: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "key": pem(key), **more}


def trust(*keys: dict[str, Any], **more: Any) -> Trust:
    return Trust.model_validate({"signers": {"keys": list(keys), **more}})


def chained(folder: Path, alter: Callable[[list[dict[str, Any]]], object]) -> None:
    """The log with altered entries, its chain computed anew, as a forger would."""
    path = folder / "log.jsonl"
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    alter(entries)
    prev, lines = GENESIS, []
    for seq, entry in enumerate(entries):
        line = canonical({**entry, "seq": seq, "prev": prev})
        prev = digest_bytes(line)
        lines.append(line + b"\n")
    path.write_bytes(b"".join(lines))


def attest(folder: Path, payload: bytes, key: Any = None) -> None:
    """The one attestation is of ``payload``, signed by ``key`` if there is one."""
    envelope = Envelope(payload)
    shutil.rmtree(folder / seal.FOLDER, ignore_errors=True)
    (folder / seal.FOLDER).mkdir(parents=True)
    signed = envelope if key is None else envelope.signed(CryptoSigner(key))
    (folder / ATTESTATION).write_bytes(signed.dump())


def resealed(folder: Path, key: Any, **changes: Any) -> None:
    """The folder attested to as it is, with ``changes``."""
    entries = Log(folder / "log.jsonl").events()
    about = seal.statement(entries, seal.file_digests(folder), "")
    about["predicate"][seal.FACTS].update(changes)
    attest(folder, canonical(about), key)


def instead(name: str, make: Alter) -> Alter:
    def alter(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return alter


def zeros(path: Path) -> None:
    path.touch()
    os.truncate(path, 10 * 1024**3)


def to(target: str) -> Alter:
    return lambda path: path.symlink_to(target)


def snapshot(*roots: Path) -> dict[str, Any]:
    """Every name below ``roots`` with what a write or an access by name would alter."""
    found = {}
    for path in sorted(path for root in roots for path in root.rglob("*")):
        about = path.lstat()
        small = stat.S_ISREG(about.st_mode) and about.st_size < 1_000_000
        digest = digest_bytes(path.read_bytes()) if small else ""
        size = about.st_mode, about.st_size, about.st_mtime_ns, about.st_ino
        found[str(path)] = (*size, digest)
    return found
