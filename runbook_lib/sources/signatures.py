"""Signatures of artifacts, judged by sigstore's public API and by cryptography.

Keyless (a certificate and a log entry) is the library's own procedure. It is asked with what was
valid at the time of signing, and once more for each timestamp alone: it passes over one that does
not hold. A signature beside a certificate becomes a bundle with the log's entry. A public key's bundle
or envelope proves what its bare signature does, but for a log that is trusted: its entry cannot be verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import starmap
from typing import TYPE_CHECKING, Annotated, Any, Literal

from httpx import Request, Response
from pydantic import Field, model_validator

from ..canonical import load_once
from ..errors import ParameterError, SourceError, tried
from ..reach import Endpoint
from ..signatures import Envelope, read_envelope
from ..strict import validate
from ..wording import visible
from . import wire
from .http import JSON, make_request
from .keys import NOT_BY_KEY, Refused, Whole, check_signature, key_name, public_key, said
from .wire import Wire

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.verify import Verifier
    from sigstore_models.bundle.v1 import Bundle as Model
    from sigstore_models.trustroot.v1 import TrustedRoot

# What the library remarks on a bundle would stand in a notebook's output; we refuse or say it.
logging.getLogger("sigstore").addHandler(logging.NullHandler())

STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
PROVENANCE = ("https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2")
_SOURCE = re.compile(r"(?:git\+)?\w+://(?:[^@/]*@)?([^/:]+)(?::\d+)?(/.*?)(?:\.git)?(?:@.*|/)?")
LENGTHS = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
"""The digests that we compute, by their length in hex."""
MOST = 200  # attestations in a file
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
IN_TOTO = "application/vnd.in-toto+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_CONFIG = "application/vnd.dev.sigstore.{}+json"
_ENVELOPES = ("dsse/0.0.1", "hashedrekord/0.0.2")
"""Kinds of log entries in which the library finds an envelope."""
_COMMITS = ("1.3.6.1.4.1.57264.1.3", "1.3.6.1.4.1.57264.1.13")
"""Fulcio's extensions of the workflow's commit (raw text) and the source's (DER UTF8String)."""

Find = Callable[[str, dict[str, Any]], dict[str, Any] | None]
"""Log address and proposed entry -> the log's entries by UUID, or None. Raises SourceError."""


class Unproven(Exception):
    """Nothing is disproved, but proof is missing."""


@dataclass(frozen=True)
class Material:
    """A bundle, or a detached signature; with a certificate unless the policy is a key."""

    bundle: bytes = b""
    signature: bytes = b""
    certificate: bytes = b""


@dataclass(frozen=True)
class Policy:
    """Who must have signed: ``key`` (PEM), or ``identity`` and ``issuer``. Nobody by default.

    ``root`` is a sigstore trusted root (JSON); a key's detached signature needs none. Raises
    ParameterError where nothing could be verified by it.
    """

    identity: str = ""
    issuer: str = ""
    key: bytes = b""
    root: bytes = b""

    def __post_init__(self) -> None:
        keyless = bool(self.identity and self.issuer)
        if keyless == bool(self.key) or (self.key and (self.identity or self.issuer)):
            raise ParameterError("signer: expected a key, or an identity and its issuer")
        if self.key:
            public_key(self.key)
        if self.root or not self.key:
            trusted_root(self.root)

    @property
    def signer(self) -> str:
        """Who it is, in words."""
        if self.key:
            return key_name(public_key(self.key))
        return visible(f"{self.identity} ({self.issuer})", 500)


@dataclass(frozen=True)
class Signed:
    """A proven signature: whose, what statement it was over (None: the file itself), commits."""

    signer: str
    statement: Statement | None = None
    commits: tuple[str, ...] = ()


def verify(
    digest: str, content: Whole | None, material: Material, policy: Policy, find: Find | None
) -> Signed:
    """Prove that ``policy`` signed the artifact of ``digest`` (``sha256:HEX``; ``content`` if at hand).

    Raises Refused, Unproven, SourceError, and ParameterError for malformed input.
    """
    hashed = bytes.fromhex(digest.removeprefix("sha256:"))
    if material.bundle:
        bundle = _parse_bundle(material.bundle)
        if policy.key:
            return _by_key(bundle, hashed, content, policy)
        return _keyless(bundle, hashed, content, policy)
    if not (signature := material.signature).strip():
        raise ParameterError("signature: expected base64 or raw bytes, got an empty file")
    with suppress(binascii.Error):  # base64 as cosign writes it, or raw
        signature = _raw(signature.strip())
    if not policy.key:
        return _detached(signature, material.certificate, hashed, policy, find)
    check_signature(policy.key, signature, hashed, content)
    return Signed(policy.signer)


def _by_key(bundle: Model, digest: bytes, content: Whole | None, policy: Policy) -> Signed:
    """What a public key's bundle proves: its signature, as a bare one; never its log entry."""
    if bundle.verification_material.public_key is None:
        raise Refused("a certificate, no public key, in the bundle")
    about, envelope = None, bundle.dsse_envelope
    if (signed := bundle.message_signature) is not None:
        if signed.message_digest is not None and signed.message_digest.digest != digest:
            raise Refused("the bundle's digest is another file's")
        check_signature(policy.key, signed.signature, digest, content)
    elif envelope is not None:
        signed_over = Envelope(envelope.payload).pae(envelope.payload_type)
        hashed = hashlib.sha256(signed_over).digest()
        for each in envelope.signatures:
            with suppress(Refused):
                check_signature(policy.key, each.sig, hashed, lambda _, judge: judge(signed_over))
                break
        else:
            raise Refused(NOT_BY_KEY)
        about = _about(envelope.payload_type, envelope.payload, digest, content)
    if policy.root and trusted_root(policy.root).tlogs:
        what = "the signature is the key's, but a log entry of a public key cannot be verified"
        raise Unproven(f"{what}; trust no log, or publish the detached signature")
    return Signed(policy.signer, about)


# --- keyless: the library's procedure ---------------------------------------------------------------


def _keyless(model: Model, digest: bytes, content: Whole | None, policy: Policy) -> Signed:
    from sigstore.hashes import Hashed
    from sigstore.models import Bundle
    from sigstore.verify.policy import Identity
    from sigstore_models.common.v1 import HashAlgorithm

    root = trusted_root(policy.root)
    if not model.verification_material.tlog_entries:
        raise Unproven("no log entry in the bundle: no proof of signing time")
    _verifier(root)  # one that is unusable at all times is no finding about the bundle
    who = Identity(identity=policy.identity, issuer=policy.issuer)
    hashed, payload = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=digest), b""
    # Hostile material makes the library raise more than its own errors: none of them is proof.
    try:
        bundle = Bundle.from_json(model.to_json())
        _require_verifiable(model)
        # Every time that it says it was signed at; the library verifies them.
        entry = model.verification_material.tlog_entries[0]
        stamps = bundle.verification_material.timestamp_verification_data
        times = [stamp.tst_info.gen_time for stamp in stamps.rfc3161_timestamps] if stamps else []
        if entry.inclusion_promise and entry.integrated_time:
            times.append(datetime.fromtimestamp(entry.integrated_time, UTC))
        verifier = _verifier(_valid_at(root, times))
        for each in (bundle, *map(Bundle.from_json, _stamps_alone(model))):
            if model.dsse_envelope is None:
                verifier.verify_artifact(hashed, each, who)
            else:
                kind, payload = verifier.verify_dsse(each, who)
                if kind != IN_TOTO:
                    raise Refused(f"envelope of {kind!r}, expected {IN_TOTO}")
    except (Refused, Unproven):
        raise
    except Exception as error:
        raise Refused(said(error)) from error
    statement = _about(IN_TOTO, payload, digest, content) if model.dsse_envelope else None
    return Signed(policy.signer, statement, commits(bundle.signing_certificate))


def _about(kind: str, payload: bytes, digest: bytes, content: Whole | None) -> Statement:
    """The signed statement, which must be about the artifact. Raises Refused."""
    if kind != IN_TOTO:
        raise Refused(f"envelope of {kind!r}, expected {IN_TOTO}")
    try:
        what = "signed statement"
        statement = parse_statement(parse_object(payload, what), what)
    except ParameterError as error:
        raise Refused(str(error)) from error
    if not statement.is_about(digest, content):
        raise Refused(f"a statement about {statement.subjects_text}, not this artifact")
    return statement


def _require_verifiable(model: Model) -> None:
    """Raises Refused for a root of the bundle's own, Unproven for an entry the library cannot read."""
    from cryptography.x509 import load_der_x509_certificate

    material = model.verification_material
    chain = material.x509_certificate_chain
    for raw in chain.certificates if chain is not None else ():
        certificate = load_der_x509_certificate(raw.raw_bytes)
        if certificate.issuer == certificate.subject:  # it invites to trust the bundle
            raise Refused("a root certificate in the bundle's chain")
    entry = material.tlog_entries[0].kind_version
    kind = f"{entry.kind}/{entry.version}"
    if model.dsse_envelope is not None and kind not in _ENVELOPES:
        known = " or ".join(_ENVELOPES)
        raise Unproven(f"an envelope logged as {kind} cannot be verified; log it as {known}")


def _stamps_alone(model: Model) -> Iterator[str]:
    """The bundle with one timestamp, and no other source of time, for each that it holds."""
    bundle = json.loads(model.to_json())
    # The version before demands a promise.
    bundle["mediaType"] = bundle["mediaType"].replace("version=0.1", "version=0.2")
    material = bundle["verificationMaterial"]
    for entry in material["tlogEntries"]:
        entry.pop("inclusionPromise", None)
    stamps = (material.get("timestampVerificationData") or {}).get("rfc3161Timestamps") or []
    for stamp in stamps:
        material["timestampVerificationData"] = {"rfc3161Timestamps": [stamp]}
        yield json.dumps(bundle)


def _detached(
    signature: bytes, pem: bytes, digest: bytes, policy: Policy, find: Find | None
) -> Signed:
    """Refute what can be without a log; then the log's entry makes a bundle of the parts."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_pem_x509_certificate
    from sigstore.verify.policy import Identity

    try:  # PEM, or that in base64 as cosign writes it
        pem = pem if b"-----BEGIN" in pem else _raw(pem.strip())
        certificate = load_pem_x509_certificate(pem)
    except ValueError as error:
        problem = f"expected PEM, or that in base64, got: {said(error)}"
        raise ParameterError(f"certificate: {problem}") from error
    try:
        Identity(identity=policy.identity, issuer=policy.issuer).verify(certificate)
        key = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:
        raise Refused(said(error)) from error
    check_signature(key, signature, digest, None)
    if find is None:
        raise Unproven("no log entry beside a detached signature: no proof of signing time")
    root = trusted_root(policy.root)
    if not root.tlogs:
        raise ParameterError("trusted root: expected a transparency log, got none")
    shown = {"content": _b64(certificate.public_bytes(Encoding.PEM))}
    spec = {
        "signature": {"content": _b64(signature), "publicKey": shown},
        "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
    }
    wanted = {"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": spec}
    answer = tried(find, root.tlogs[0].base_url, wanted)
    if isinstance(answer, SourceError):
        raise Unproven(f"no proof of signing time: {answer}")
    if not answer:
        raise Unproven("the log has no entry of this signature: no proof of signing time")
    try:
        bundle = _assembled(certificate.public_bytes(Encoding.DER), signature, answer)
    except Exception as error:
        raise Refused(f"the log's answer is no entry of one: {said(error)}") from error
    return _keyless(bundle, digest, None, policy)


def _assembled(certificate: bytes, signature: bytes, answer: dict[str, Any]) -> Model:
    """A bundle of a certificate (DER), a signature, and a log's answer (API v1)."""
    (entry,) = answer.values()
    body, proof = json.loads(_raw(entry["body"])), entry["verification"]["inclusionProof"]
    promise = {"signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"]}
    logged = {
        "logIndex": str(entry["logIndex"]), "logId": {"keyId": _b64(bytes.fromhex(entry["logID"]))},
        "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
        "integratedTime": str(entry["integratedTime"]), "inclusionPromise": promise,
        "inclusionProof": {
            "logIndex": str(proof["logIndex"]), "rootHash": _b64(bytes.fromhex(proof["rootHash"])),
            "treeSize": str(proof["treeSize"]),
            "hashes": [_b64(bytes.fromhex(each)) for each in proof["hashes"]],
            "checkpoint": {"envelope": proof["checkpoint"]},
        },
        "canonicalizedBody": entry["body"],
    }  # fmt: skip
    material = {"certificate": {"rawBytes": _b64(certificate)}, "tlogEntries": [logged]}
    value = {"mediaType": _BUNDLE, "verificationMaterial": material}
    value["messageSignature"] = {"signature": _b64(signature)}
    return _parse_bundle(json.dumps(value).encode())


LOOKUP, MAX_LOOKUP = "/api/v1/log/entries/retrieve", 4 * 1024 * 1024


def finder(send: Callable[[Request], Response], at: Endpoint | None = None) -> Find:
    """A lookup in a Rekor log (API v1): the one ``at`` or, without, the trusted root's own.

    What it gives is only a hint. A log that did not answer is not asked again.
    """
    silent: list[SourceError] = []

    def ask(log: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        try:
            place = at or Endpoint(url=log)
        except ValueError as error:
            raise SourceError(log, f"expected the http(s) URL of a log, got {log!r}") from error
        url, body = place.url + LOOKUP, json.dumps({"entries": [entry]}).encode()
        headers = (*JSON, ("accept", "application/json"))
        request = make_request("POST", url, place, body=body, headers=headers, max_bytes=MAX_LOOKUP)
        if (answer := send(request)).status_code == 404:
            return None
        found = wire.decode(place.url, wire.content(place.url, answer), list[dict[str, Any]])
        return found[0] if found else None

    def find(log: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        found = silent[0] if silent else tried(ask, log, entry)
        if isinstance(found, SourceError):
            silent.append(found)
            raise found
        return found

    return find


def commits(certificate: Certificate) -> tuple[str, ...]:
    """The commits a Fulcio certificate names, lower case."""
    from cryptography.x509 import UnrecognizedExtension

    found = set()
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, UnrecognizedExtension) and extension.oid.dotted_string in _COMMITS:
            # Text of 40 or 64 characters: as DER it has a tag and one byte of length before it.
            raw = value.value[2:] if value.value[:1] == b"\x0c" else value.value
            found.add(raw.decode("ascii", "replace").lower())
    return tuple(sorted(found))


# --- whom the site trusts ---------------------------------------------------------------------------


def trusted_root(data: bytes) -> TrustedRoot:
    """Which logs, certificate and timestamp authorities count, by sigstore's JSON.

    Raises ParameterError.
    """
    from sigstore_models.trustroot.v1 import TrustedRoot

    if not data:
        raise ParameterError(
            "trusted root: expected sigstore's trusted_root.json, got none; name it as"
            " artifact_signing.trusted_root in the site file, or by --trusted-root"
        )
    empty: dict[str, list[Any]] = {"tlogs": [], "certificateAuthorities": [], "ctlogs": []}
    try:
        return TrustedRoot.from_json(json.dumps(empty | parse_object(data, "trusted root")))
    except (ValueError, OverflowError, RecursionError) as error:
        problem = f"expected sigstore's JSON, got: {said(error)}"
        raise ParameterError(f"trusted root: {problem}") from error


def _valid_at(root: TrustedRoot, times: Sequence[datetime]) -> TrustedRoot:
    """Of a root, the logs and certificate authorities that were valid at all of ``times``.

    The library takes them of any time, and a timestamp authority until before its end; by its
    specification a validity is closed and binds. Raises Refused without a time, or when none is left.
    """
    if not times:
        raise Refused("neither a promise of the log nor a timestamp: no proof of signing time")

    def covers(window: Any) -> bool:
        return window is None or all(window.start <= t <= (window.end or t) for t in times)

    logs = [log for log in root.tlogs if covers(log.public_key.valid_for)]
    issuers = [each for each in root.certificate_authorities if covers(each.valid_for)]
    for what, valid in (("log", logs), ("certificate authority", issuers)):
        if not valid:
            shown = ", ".join(time.isoformat() for time in times)
            raise Refused(f"no {what} of the trusted root was valid at {shown}")
    left = {"tlogs": logs, "certificate_authorities": issuers}
    found = root.model_copy(update=left, deep=True)
    for authority in found.timestamp_authorities:
        if authority.valid_for.end:
            authority.valid_for.end += timedelta.resolution
    return found


def _verifier(root: TrustedRoot) -> Verifier:
    from sigstore.models import ClientTrustConfig
    from sigstore.verify import Verifier

    config = {
        "mediaType": _CONFIG.format("clienttrustconfig.v0.1"),
        "trustedRoot": json.loads(root.to_json()),
        "signingConfig": {"mediaType": _CONFIG.format("signingconfig.v0.2")},
    }
    try:
        trusted = ClientTrustConfig.from_json(json.dumps(config)).trusted_root
        trusted.get_timestamp_authorities()  # read when a timestamp is: a bad one is no finding
        return Verifier(trusted_root=trusted)
    except Exception as error:
        raise ParameterError(f"trusted root: expected a usable one, got: {said(error)}") from error


# --- reading ----------------------------------------------------------------------------------------


def _parse_bundle(data: bytes) -> Model:
    from sigstore_models.bundle.v1 import Bundle as Model

    value = parse_object(data, "bundle")
    if "payload" in value:  # an envelope, as a public key signs it
        by = {"publicKey": {"hint": ""}}
        value = {"mediaType": _BUNDLE, "verificationMaterial": by, "dsseEnvelope": value}
    material = value.get("verificationMaterial")
    if isinstance(material, dict):  # protobuf leaves empty lists out, the model wants them
        material.setdefault("tlogEntries", [])
    try:
        return Model.from_json(json.dumps(value))
    except (ValueError, RecursionError, OverflowError) as error:
        raise ParameterError(f"bundle: expected sigstore's JSON, got: {said(error)}") from error


def _raw(text: str | bytes) -> bytes:
    return base64.b64decode(text, validate=True)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- in-toto statements: v0.1 and v1, with SLSA provenance v0.2 and v1 ------------------------------


class _Subject(Wire, extra="forbid"):
    digest: dict[str, Any] = {}
    name: Any = None
    uri: Any = None
    content: Any = None
    downloadLocation: Any = None
    mediaType: Any = None
    annotations: Any = None

    @property
    def digests(self) -> list[str]:
        return [*filter(None, starmap(named, self.digest.items()))]


class Statement(Wire, extra="forbid"):
    """An in-toto statement about at least one digest; a key that we do not know may change it."""

    kind: Annotated[Literal[STATEMENTS], Field(validation_alias="_type")]  # type: ignore[valid-type]
    subject: list[_Subject]
    predicate_type: Annotated[str, Field(min_length=1, validation_alias="predicateType")]
    predicate: dict[str, Any] = {}

    @model_validator(mode="after")
    def _named(self) -> Statement:
        if not self.subjects:
            raise ValueError("subject: expected a sha256 or sha512 digest, got none")
        return self

    @property
    def subjects(self) -> list[list[str]]:
        """The digests, ``ALGORITHM:HEX``, of each subject that has one we compute."""
        return [digests for each in self.subject if (digests := each.digests)]

    @property
    def subjects_text(self) -> str:
        more = f" and {len(self.subjects) - 3} more" if len(self.subjects) > 3 else ""
        return ", ".join(subject[0] for subject in self.subjects[:3]) + more

    @property
    def is_provenance(self) -> bool:
        return self.predicate_type in PROVENANCE

    def is_about(self, digest: bytes, content: Whole | None) -> bool:
        """Whether a subject has this sha256, or another digest of it, and none of something else."""
        held = ([has(name, digest, content) for name in subject] for subject in self.subjects)
        return any(True in each and False not in each for each in held)

    def commits(self, repository: str) -> set[str]:
        """Those of a repository (``HOST/OWNER/NAME``); without one, of all sources."""
        sources = [  # of SLSA v1 and v0.2
            *objects(inner(self.predicate, "buildDefinition").get("resolvedDependencies")),
            *objects(self.predicate.get("materials")),
            inner(inner(self.predicate, "invocation"), "configSource"),
        ]
        found = set()
        for each in sources:
            at, digest = _SOURCE.fullmatch(str(each.get("uri"))), inner(each, "digest")
            commit = str(digest.get("gitCommit") or digest.get("sha1"))
            if COMMIT.fullmatch(commit) and repository in ("", at and (at[1] + at[2]).lower()):
                found.add(commit)
        return found


def parse_statement(value: dict[str, Any], where: str) -> Statement:
    """An in-toto statement, or the one in an envelope. Raises ParameterError."""
    if "payload" in value:
        try:
            payload = read_envelope(json.dumps(value).encode()).payload
        except ValueError as error:
            raise ParameterError(f"{where}: {error}") from error
        value = parse_object(payload, where)
    return validate(Statement, value, where)


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object in which no key stands twice. Raises ParameterError."""
    try:
        value = load_once(data)
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no text
    except ValueError as error:
        raise ParameterError(f"{where}: expected one JSON object, got: {error}") from error
    if not isinstance(value, dict):
        raise ParameterError(f"{where}: expected one JSON object, got {type(value).__name__}")
    return value


def attestations(data: bytes, where: str) -> list[dict[str, Any]]:
    """Statements, envelopes and bundles of a file: one object, one a line, or as GitHub lists them.

    Raises ParameterError.
    """
    try:
        found = [parse_object(data, where)]
    except ParameterError:
        if not 1 < len(texts := [text for text in data.splitlines() if text.strip()]) <= MOST:
            raise
        found = [parse_object(text, where) for text in texts]
    listed = (objects(each.get("attestations", [{"bundle": each}])) for each in found)
    if not (made := [inner(each, "bundle") for every in listed for each in every]):
        raise ParameterError(f"{where}: attestations: expected at least one, got none")
    return made


def named(kind: str, digest: object) -> str:
    """``ALGORITHM:HEX`` in lower case; empty for an algorithm that we do not compute."""
    kind = re.sub(r"^sha2(?=\d{3})", "sha", kind.lower().replace("-", ""))
    text = str(digest).lower()
    return f"{kind}:{text}" if re.fullmatch(f"[0-9a-f]{{{LENGTHS.get(kind, -1)}}}", text) else ""


def has(name: str, digest: bytes, content: Whole | None) -> bool | None:
    """Whether what has this sha256 has that digest (``named``); None where that proves nothing.

    So it is of a weak one that agrees, and where the content is not at hand.
    """
    kind, _, wanted = name.partition(":")
    if kind == "sha256" or content is None:
        return wanted == digest.hex() if kind == "sha256" else None

    def judge(data: bytes) -> str:
        same = hashlib.sha256(data).digest() == digest
        return "" if same and hashlib.new(kind, data).hexdigest() == wanted else "another"

    return False if content(name, judge) else kind in ("sha384", "sha512") or None


def inner(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def objects(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
