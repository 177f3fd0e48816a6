"""Bundles of every kind by the practice network's authority, and what an examination says of them."""

import copy
import hashlib
import json
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from subprocess import run
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rfc3161_client import decode_timestamp_response

from runbook_lib.commands.files import examine
from runbook_lib.outcomes import Row
from runbook_lib.sources.scope import live_scope
from runbook_lib.sources.signatures import Material, Policy
from runbook_rehearsal import signing
from runbook_rehearsal.signing import SHA256, b64, hashedrekord, new_key, pem, v1_answer

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


class Authority(signing.Authority):
    """Signs and attests for one identity unless told otherwise."""

    def __init__(self, signed: datetime = SIGNED) -> None:
        super().__init__(signed, "https://log.example")

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


class TimestampAuthority:
    """``openssl ts`` as a timestamp authority (RFC 3161), below the certificate authority's root."""

    def __init__(self, above: signing.Authority, folder: Path) -> None:
        self._folder, key = folder, new_key()
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(above.ca_key.public_key())
        stamping = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.TIME_STAMPING])
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(above.ca.subject)
            .public_key(key.public_key())
            .serial_number(2)
            .not_valid_before(above.ca.not_valid_before_utc)
            .not_valid_after(above.ca.not_valid_after_utc)
            .add_extension(stamping, critical=True)
            .add_extension(issuer, critical=False)
            .sign(above.ca_key, SHA256.algorithm)  # type: ignore[arg-type]
        )
        self._chain = {"certificates": [_raw(leaf), _raw(above.ca)]}
        clear = (PrivateFormat.PKCS8, NoEncryption())
        (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, *clear))
        (folder / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        (folder / "serial").write_text("01")
        said = ("[tsa]", "default_tsa=one", "[one]", "serial=serial", "default_policy=1.2.3",
                "digests=sha256", "signer_digest=sha256", "ess_cert_id_alg=sha256")  # fmt: skip
        (folder / "ts.conf").write_text("\n".join(said))

    def stamp(self, signed: Json) -> datetime:
        """Lay a timestamp of now beside the signature of a bundle; its time."""
        (self._folder / "data").write_bytes(b64decode(signed["messageSignature"]["signature"]))
        query = ["ts", "-query", "-data", "data", "-sha256", "-cert", "-out", "query"]
        reply = ["ts", "-reply", "-config", "ts.conf", "-queryfile", "query", "-out", "reply"]
        for argv in (query, [*reply, "-inkey", "key.pem", "-signer", "leaf.pem"]):
            run(["openssl", *argv], cwd=self._folder, check=True, capture_output=True)
        found = (self._folder / "reply").read_bytes()
        stamps = {"rfc3161Timestamps": [{"signedTimestamp": b64(found)}]}
        signed["verificationMaterial"]["timestampVerificationData"] = stamps
        return decode_timestamp_response(found).tst_info.gen_time

    def in_root(self, start: datetime, end: datetime, *, chain: bool = True) -> Json:
        """Itself, as a trusted root names one."""
        listed = self._chain if chain else {"certificates": []}
        valid = {"start": start.isoformat(), "end": end.isoformat()}
        subject = {"organization": "stamps", "commonName": "stamps"}
        return {"subject": subject, "certChain": listed, "validFor": valid}


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


DATA = b"a release artifact\n"
HEX = hashlib.sha256(DATA).hexdigest()
SIGNER = f"{IDENTITY} ({ISSUER})"
ROOT = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
AUTHORITY = Authority()
POLICY = Policy(IDENTITY, ISSUER, root=AUTHORITY.root)

OTHER = hashlib.sha256(b"another file").hexdigest()


def rows(
    file: Path | str, policy: Policy, material: dict[str, Any] | bytes | Material, **more: Any
) -> list[Row]:
    if isinstance(material, dict):
        material = json.dumps(material).encode()
    if isinstance(material, bytes):
        material = Material(bundle=material)
    with live_scope("test") as scope:
        return examine(scope, str(file), material, policy, **more)


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
        raw = bytearray(b64decode(inner[path[-1]]))
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
