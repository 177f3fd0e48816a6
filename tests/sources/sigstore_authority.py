"""Bundles of every kind, good and bad, by the rehearsal's throwaway authority."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from runbook_rehearsal.release import authority
from runbook_rehearsal.release.authority import SHA256, b64, hashedrekord, new_key, pem

IDENTITY = "https://github.com/owner/chain/.github/workflows/release.yml@refs/tags/v1.2.0"
ISSUER = "https://token.actions.githubusercontent.com"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
SIGNED = datetime(2026, 3, 1, 12, tzinfo=UTC)
Json = dict[str, Any]


def pae(payload: bytes, kind: str = IN_TOTO) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def statement(digest: str, **more: Any) -> bytes:
    value = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "node.tar.gz", "digest": {"sha256": digest}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {},
    }
    return json.dumps(value | more).encode()


class Authority(authority.Authority):
    """Signs and attests for one identity unless told otherwise."""

    def __init__(self) -> None:
        super().__init__(SIGNED, "https://log.example")

    def certificate(
        self, key: Any, identity: str = IDENTITY, issuer: str = ISSUER, commit: str = COMMIT
    ) -> x509.Certificate:
        return super().certificate(key, identity, issuer, commit)

    def sign(self, data: bytes, *, at: datetime = SIGNED, **certificate: str) -> Json:
        """A keyless bundle over a file."""
        key = new_key()
        found = self.certificate(key, **certificate)
        signature = key.sign(data, SHA256)
        entry = self.file_entry(found.public_bytes(Encoding.PEM), signature, data, at)
        return bundle({"certificate": _raw(found)}, entry) | message(signature, data)

    def attest(self, payload: bytes, kind: str = IN_TOTO, log: str = "dsse/0.0.1") -> Json:
        """A keyless bundle over a statement, logged as an envelope or as a file."""
        key = new_key()
        found = self.certificate(key)
        signature = key.sign(pae(payload, kind), SHA256)
        verifier = found.public_bytes(Encoding.PEM)
        spec = dsse(verifier, signature, payload)
        if log != "dsse/0.0.1":
            spec = hashedrekord(verifier, signature, pae(payload, kind))
        made = bundle({"certificate": _raw(found)}, self.entry(log, spec))
        return made | envelope(payload, signature, kind)

    def sign_with(self, key: Any, data: bytes) -> Json:
        """A bundle over a file by a public key."""
        signature = key.sign(data, SHA256)
        entry = self.file_entry(pem(key), signature, data, SIGNED)
        return bundle({"publicKey": {"hint": "x"}}, entry) | message(signature, data)


def bundle(verifier: Json, entry: Json) -> Json:
    return {
        "mediaType": BUNDLE,
        "verificationMaterial": {**verifier, "tlogEntries": [entry]},
    }


def message(signature: bytes, data: bytes) -> Json:
    digest = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(data).digest())}
    return {"messageSignature": {"messageDigest": digest, "signature": b64(signature)}}


def envelope(payload: bytes, signature: bytes, kind: str = IN_TOTO) -> Json:
    signed = [{"sig": b64(signature), "keyid": ""}]
    return {"dsseEnvelope": {"payload": b64(payload), "payloadType": kind, "signatures": signed}}


def dsse(verifier: bytes, signature: bytes, payload: bytes) -> Json:
    return {
        "envelopeHash": _hash(payload + b"envelope"),
        "payloadHash": _hash(payload),
        "signatures": [{"signature": b64(signature), "verifier": b64(verifier)}],
    }


def _hash(data: bytes) -> Json:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def _raw(certificate: x509.Certificate) -> Json:
    return {"rawBytes": b64(certificate.public_bytes(Encoding.DER))}
