"""Bundles of every kind, good and bad, by the rehearsal's throwaway authority."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from runbook_rehearsal.release import authority
from runbook_rehearsal.release.authority import SHA256, b64, der, hashedrekord, new_key, pem

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
        """A keyless bundle over a statement, logged in one of three kinds."""
        key = new_key()
        found = self.certificate(key)
        signature = key.sign(pae(payload, kind), SHA256)
        verifier = found.public_bytes(Encoding.PEM)
        entry = self.envelope_entry(log, verifier, signature, payload, kind)
        return bundle({"certificate": _raw(found)}, entry) | envelope(payload, signature, kind)

    def envelope_entry(
        self, log: str, verifier: bytes, signature: bytes, payload: bytes, kind: str = IN_TOTO
    ) -> Json:
        """The entry of an envelope signed by a certificate or key (PEM)."""
        specs: dict[str, Json] = {
            "dsse/0.0.1": dsse(verifier, signature, payload),
            "intoto/0.0.2": intoto(verifier, signature, payload),
            "hashedrekord/0.0.1": hashedrekord(verifier, signature, pae(payload, kind)),
        }
        return self.entry(log, specs[log])

    def sign_with(self, key: Any, data: bytes) -> Json:
        """A bundle over a file by a public key."""
        signature = key.sign(data, SHA256)
        entry = self.file_entry(pem(key), signature, data, SIGNED)
        return bundle({"publicKey": {"hint": "x"}}, entry) | message(signature, data)

    def attest_with(self, key: Any, payload: bytes, log: str) -> Json:
        """A bundle over a statement by a public key, logged in one of five kinds."""
        signature = key.sign(pae(payload), SHA256)
        specs = {"hashedrekord/0.0.2": hashedrekord_v2, "dsse/0.0.2": dsse_v2}
        if log in specs:
            signed = payload if log == "dsse/0.0.2" else pae(payload)
            entry = self.entry(log, specs[log](der(key), signature, signed))
        else:
            entry = self.envelope_entry(log, pem(key), signature, payload)
        return bundle({"publicKey": {"hint": "x"}}, entry) | envelope(payload, signature)


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


def hashedrekord_v2(key: bytes, signature: bytes, data: bytes) -> Json:
    verifier = {"publicKey": {"rawBytes": b64(key)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    return {
        "hashedRekordV002": {
            "data": {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(data).digest())},
            "signature": {"content": b64(signature), "verifier": verifier},
        }
    }


def dsse_v2(key: bytes, signature: bytes, payload: bytes) -> Json:
    verifier = {"publicKey": {"rawBytes": b64(key)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
    hashed = {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(payload).digest())}
    signatures = [{"content": b64(signature), "verifier": verifier}]
    return {"dsseV002": {"payloadHash": hashed, "signatures": signatures}}


def dsse(verifier: bytes, signature: bytes, payload: bytes) -> Json:
    return {
        "envelopeHash": _hash(payload + b"envelope"),
        "payloadHash": _hash(payload),
        "signatures": [{"signature": b64(signature), "verifier": b64(verifier)}],
    }


def intoto(verifier: bytes, signature: bytes, payload: bytes) -> Json:
    signed = {"publicKey": b64(verifier), "sig": b64(b64(signature).encode())}
    return {
        "content": {
            "envelope": {"payloadType": IN_TOTO, "signatures": [signed]},
            "hash": _hash(payload + b"envelope"),
            "payloadHash": _hash(payload),
        }
    }


def _hash(data: bytes) -> Json:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def _raw(certificate: x509.Certificate) -> Json:
    return {"rawBytes": b64(certificate.public_bytes(Encoding.DER))}
