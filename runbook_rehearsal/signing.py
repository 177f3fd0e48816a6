"""The release as the chain's pipeline publishes it, signed by a throwaway authority.

``Authority`` is CA, certificate log and transparency log, with its trusted root: written from the
formats' own specifications (RFC 6962, signed notes, Rekor entries, sigstore's bundle), not from the
code that verifies them. Its keys live as long as its process.
Beside the artifact lie provenance, SBOM and checksums; the log entries of their signatures are at
``POST /api/v1/log/entries/retrieve``, as Rekor's.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes as digests
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .faults.table import FaultBoard
from .files import write_atomically
from .layout import IDENTITY, ISSUER, Release
from .loopback import Listener, Loopback

_SIGNS = (True, False, False, False, False, False, False, False, False)
_ISSUES = (False, False, False, False, False, True, True, False, False)
"""Key usages, in the order of RFC 5280: digital signatures; certificates and revocations."""
SHA256 = ec.ECDSA(digests.SHA256())
Json = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def pretty(value: Json) -> str:
    return json.dumps(value, indent=2) + "\n"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def der(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


@dataclass(frozen=True)
class Detached:
    """A signature, its certificate (PEM), and the entry of both in the log."""

    signature: bytes
    certificate: bytes
    entry: Json


class Authority:
    """Issues certificates and log entries at the instant ``signed``; ``root`` is what a verifier
    must be told to trust it, ``log`` the URL of its transparency log."""

    def __init__(self, signed: datetime, log: str) -> None:
        self._signed, self._log = signed, log
        self.ca_key, self.ct_key, self.log_key = new_key(), new_key(), new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throwaway")])
        public = self.ca_key.public_key()
        self.ca = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(1)
            .not_valid_before(self._signed - timedelta(days=30))
            .not_valid_after(self._signed + timedelta(days=3000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(x509.KeyUsage(*_ISSUES), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.ca_key, digests.SHA256())
        )

    @property
    def root(self) -> bytes:
        start = (self._signed - timedelta(days=30)).astimezone(UTC).replace(microsecond=0)
        since = {"start": start.isoformat().replace("+00:00", "Z")}
        logs = [
            {
                "baseUrl": self._log,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(der(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": since,
                },
                "logId": {"keyId": b64(_key_id(key))},
            }
            for key in (self.log_key, self.ct_key)
        ]
        authority = {
            "subject": {"organization": "throwaway", "commonName": "throwaway"},
            "uri": "https://ca.example",
            "certChain": {"certificates": [{"rawBytes": b64(self.ca.public_bytes(Encoding.DER))}]},
            "validFor": since,
        }
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": logs[:1],
                "certificateAuthorities": [authority],
                "ctlogs": logs[1:],
                "timestampAuthorities": [],
            }
        ).encode()

    def certificate(self, key: Any, identity: str, issuer: str, commit: str) -> x509.Certificate:
        """Ten minutes long, with a signed certificate timestamp of the certificate log."""
        who = x509.UniformResourceIdentifier(identity)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key())
        der_commit = b"\x0c" + bytes([len(commit)]) + commit.encode()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._signed - timedelta(minutes=5))
            .not_valid_after(self._signed + timedelta(minutes=5))
            .add_extension(x509.SubjectAlternativeName([who]), critical=True)
            .add_extension(x509.KeyUsage(*_SIGNS), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(signer, critical=False)
            .add_extension(_fulcio("1.1", issuer.encode()), critical=False)
        )
        for number, value in (("1.3", commit.encode()), ("1.13", der_commit)) if commit else ():
            builder = builder.add_extension(_fulcio(number, value), critical=False)
        unlogged = builder.sign(self.ca_key, digests.SHA256())
        timestamp = self._timestamp(unlogged.tbs_certificate_bytes)
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
        extension = x509.UnrecognizedExtension(oid, timestamp)
        return builder.add_extension(extension, critical=False).sign(self.ca_key, digests.SHA256())

    def _timestamp(self, tbs: bytes) -> bytes:
        """RFC 6962 section 3.2 and 3.3: the list of one timestamp as a DER octet string."""
        at = struct.pack("!Q", int(self._signed.timestamp() * 1000))
        entry = _key_id(self.ca_key) + len(tbs).to_bytes(3) + tbs
        signature = self.ct_key.sign(b"\0\0" + at + b"\0\1" + entry + b"\0\0", SHA256)
        one = b"\0" + _key_id(self.ct_key) + at + b"\0\0" + b"\4\3" + _sized(signature)
        listed = _sized(_sized(one))
        return b"\x04" + bytes([len(listed)]) + listed

    def entry(self, kind: str, body: Json, at: datetime | None = None) -> Json:
        """A log entry: second of two leaves, with proof, checkpoint and promise."""
        name, version = kind.split("/")
        seconds = int((at or self._signed).timestamp())
        raw = canonical({"kind": name, "apiVersion": version, "spec": body})
        sibling = hashlib.sha256(b"\0another entry").digest()
        top = hashlib.sha256(b"\1" + sibling + hashlib.sha256(b"\0" + raw).digest()).digest()
        log = _key_id(self.log_key)
        note = f"log.example - 1\n2\n{b64(top)}\n".encode()
        seal = b64(log[:4] + self.log_key.sign(note, SHA256))
        promise = canonical(
            {"body": b64(raw), "integratedTime": seconds, "logID": log.hex(), "logIndex": 1}
        )
        return {
            "logIndex": "1",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": name, "version": version},
            "integratedTime": str(seconds),
            "inclusionPromise": {"signedEntryTimestamp": b64(self.log_key.sign(promise, SHA256))},
            "inclusionProof": {
                "logIndex": "1",
                "rootHash": b64(top),
                "treeSize": "2",
                "hashes": [b64(sibling)],
                "checkpoint": {"envelope": f"{note.decode()}\n— log.example {seal}\n"},
            },
            "canonicalizedBody": b64(raw),
        }

    def file_entry(
        self, verifier: bytes, signature: bytes, data: bytes, at: datetime | None = None
    ) -> Json:
        return self.entry("hashedrekord/0.0.1", hashedrekord(verifier, signature, data), at)

    def detach(self, data: bytes, **certificate: str) -> Detached:
        key = new_key()
        found = self.certificate(key, **certificate).public_bytes(Encoding.PEM)
        signature = key.sign(data, SHA256)
        return Detached(signature, found, self.file_entry(found, signature, data))


def hashedrekord(verifier: bytes, signature: bytes, data: bytes) -> Json:
    return {
        "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}},
        "signature": {"content": b64(signature), "publicKey": {"content": b64(verifier)}},
    }


def v1_answer(entry: Json) -> Json:
    proof = entry["inclusionProof"]
    return {
        "24296fb24b8ad77a": {
            "body": entry["canonicalizedBody"],
            "integratedTime": int(entry["integratedTime"]),
            "logID": base64.b64decode(entry["logId"]["keyId"]).hex(),
            "logIndex": int(entry["logIndex"]),
            "verification": {
                "inclusionProof": {
                    "checkpoint": proof["checkpoint"]["envelope"],
                    "hashes": [base64.b64decode(each).hex() for each in proof["hashes"]],
                    "logIndex": int(proof["logIndex"]),
                    "rootHash": base64.b64decode(proof["rootHash"]).hex(),
                    "treeSize": int(proof["treeSize"]),
                },
                "signedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
            },
        }
    }


def _key_id(key: Any) -> bytes:
    return hashlib.sha256(der(key)).digest()


def _sized(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _fulcio(number: str, value: bytes) -> x509.UnrecognizedExtension:
    oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.{number}")
    return x509.UnrecognizedExtension(oid, value)


class SignedRelease:
    """A release's artifact, what lies beside it, and the log of its signatures."""

    def __init__(self, release: Release, faults: FaultBoard, loopback: Loopback) -> None:
        self.follow(release)
        self._faults = faults
        self._entries: dict[tuple[str, str], Json] = {}
        routes = [Route("/api/v1/log/entries/retrieve", self._retrieve, methods=["POST"])]
        self.listener = Listener(loopback, Starlette(routes=routes))
        self.log, self.close_log = self.listener.url, self.listener.stop
        self.authority = Authority(datetime.now(UTC), self.log)

    def follow(self, release: Release) -> None:
        self.artifact, self.commit = release.artifact, release.commit
        folder, name = self.artifact.parent, self.artifact.name
        self.manifest = folder / "SHA256SUMS.txt"
        self.provenance = folder / f"{name}.intoto.jsonl"
        self.sbom = folder / f"sbom-{name.partition('.')[0]}.json"

    # --- what is published ----------------------------------------------------------------------

    def publish(self, trusted_root: Path) -> None:
        trusted_root.parent.mkdir(parents=True, exist_ok=True)
        trusted_root.write_bytes(self.authority.root)
        self.sign(self.artifact)
        self.write_provenance()
        self.write_sbom()
        self.write_manifest()

    @staticmethod
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def write_manifest(self, **other: str) -> None:
        """Checksums by file name, under the paths of the build; some ``other`` ones, empty for none."""
        found = {path.name: self.digest(path) for path in (self.artifact, self.sbom)} | other
        lines = [f"{found[name]}  dist/artifacts/{name}\n" for name in sorted(found) if found[name]]
        self.write(self.manifest, "".join(lines))

    def write_provenance(self, text: Callable[[Json], str] = pretty, **other: Any) -> None:
        """A statement as the pipeline writes it, with no commit in it; but for what is ``other``."""
        kind, digest = "https://slsa.dev/provenance/v1", self.digest(self.artifact)
        build = {"buildType": f"{kind}#generic", "externalParameters": {}, "internalParameters": {},
                 "resolvedDependencies": []}  # fmt: skip
        run = {"builder": {"id": IDENTITY}, "metadata": {"invocationId": "1/1"}}
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": self.artifact.name, "digest": {"sha256": digest}}],
            "predicateType": kind,
            "predicate": {"buildDefinition": build, "runDetails": run},
        }
        self.write(self.provenance, text(statement | other))

    def write_sbom(self, **component: Any) -> None:
        hashes = [{"alg": "SHA-256", "content": self.digest(self.artifact)}]
        about = {"type": "application", "name": "rpp-node", "hashes": hashes, **component}
        document = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {"component": about},
            "components": [{"type": "library", "name": "tokio", "version": "1.43.0"}],
        }
        self.write(self.sbom, pretty(document))

    def sign(self, path: Path, **certificate: str) -> None:
        """Sign a file as cosign leaves it: base64 of the signature, and of the certificate."""
        who = {"identity": IDENTITY, "issuer": ISSUER, "commit": self.commit, **certificate}
        data = path.read_bytes()
        made = self.authority.detach(data, **who)
        key = (hashlib.sha256(data).hexdigest(), b64(made.signature))
        self._entries[key] = v1_answer(made.entry)
        signature, pem = beside(path)
        write_atomically(signature, b64(made.signature) + "\n")
        write_atomically(pem, base64.b64encode(made.certificate))

    def write(self, path: Path, text: str) -> None:
        """A file with its signature."""
        write_atomically(path, text)
        self.sign(path)

    async def _retrieve(self, request: Request) -> Response:
        """The entries that hold a digest and a signature; of unknown ones, none."""
        try:
            (asked,) = json.loads(await request.body())["entries"]
            spec = asked["spec"]
            key = (spec["data"]["hash"]["value"], spec["signature"]["content"])
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"code": 400, "message": "expected one proposed entry"}, 400)
        known = key in self._entries and not self._faults.is_on("log-entry-missing")
        return JSONResponse([self._entries[key]] if known else [])


def beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.sig"), path.with_name(f"{path.name}.pem")
