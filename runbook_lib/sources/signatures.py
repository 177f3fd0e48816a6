"""Signatures of artifacts, judged by sigstore and cryptography alone.

Keyless (a certificate and a log entry) is the library's own procedure from end to end; bundles
over a public key are in ``keyed``. A signature beside a certificate proves nothing once the certificate has expired, so its
log entry must be found; a public key does not expire, so its signature alone is proof.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError, SourceError
from ..markup import visible
from .envelopes import require_in_toto, statement_about
from .files import Whole
from .keyed import by_key
from .keys import Refused, check_signature, key_name, public_key, said
from .roots import trusted_root
from .statements import Statement, parse_object

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.hashes import Hashed
    from sigstore.models import Bundle
    from sigstore_models.bundle.v1 import Bundle as BundleModel

    from .keyless import Keyless

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

    ``root`` is a sigstore trusted root (JSON); empty for the one the library ships.
    """

    identity: str = ""
    issuer: str = ""
    key: bytes = b""
    root: bytes = b""

    def __post_init__(self) -> None:
        keyless = bool(self.identity and self.issuer)
        if keyless == bool(self.key) or (self.key and (self.identity or self.issuer)):
            raise ParameterError("signer: expected a key, or an identity and its issuer")

    def check(self) -> None:
        """Raises ParameterError for a key or trusted root that nothing could be verified by."""
        if self.key:
            public_key(self.key)
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
        model = _bundle_model(material.bundle)
        root = trusted_root(policy.root)
        # A key does not expire: where no log is trusted, its signature alone is proof.
        needed = bool(root._inner.tlogs) or not policy.key
        if needed and not model.verification_material.tlog_entries:
            raise Unproven("no log entry in the bundle: no proof of signing time")
        if policy.key:
            return Signed(policy.signer, by_key(model, hashed, content, policy.key, root))
        return _keyless(lambda: _bundle(model), hashed, content, policy)
    signature = _signature(material.signature)
    if policy.key:
        check_signature(policy.key, signature, hashed, content)
        return Signed(policy.signer)
    return _detached(signature, material.certificate, hashed, policy, find)


# --- keyless: the library's procedure ---------------------------------------------------------------


def _keyless(
    load: Callable[[], Bundle], digest: bytes, content: Whole | None, policy: Policy
) -> Signed:
    from sigstore.verify.policy import Identity

    verifier = _verifier(policy.root)
    who = Identity(identity=policy.identity, issuer=policy.issuer)
    # Hostile material makes the library raise more than its own errors: none of them is proof.
    try:
        bundle = load()
        if bundle._inner.dsse_envelope is None:
            verifier.file(_hashed(digest), bundle, who)
            payload = None
        else:
            kind, payload = verifier.statement(bundle, who)
            require_in_toto(kind)
    except Refused:
        raise
    except Exception as error:
        raise Refused(said(error)) from error
    statement = statement_about(payload, digest, content) if payload is not None else None
    return Signed(policy.signer, statement, commits(bundle.signing_certificate))


def _detached(
    signature: bytes, pem: bytes, digest: bytes, policy: Policy, find: Find | None
) -> Signed:
    """Refute what can be without a log; then the log's entry makes a bundle of the parts."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from sigstore._internal.rekor import _hashedrekord_from_parts
    from sigstore.models import Bundle, TransparencyLogEntry
    from sigstore.verify.policy import Identity

    certificate = _certificate(pem)
    try:
        Identity(identity=policy.identity, issuer=policy.issuer).verify(certificate)
        key = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:
        raise Refused(said(error)) from error
    check_signature(key, signature, digest, None)
    if find is None:
        raise Unproven("no log entry beside a detached signature: no proof of signing time")
    root = trusted_root(policy.root)
    if not root._inner.tlogs:
        raise ParameterError("trusted root: expected a transparency log, got none")
    wanted = _hashedrekord_from_parts(certificate, signature, _hashed(digest))
    try:
        answer = find(root._inner.tlogs[0].base_url, wanted.model_dump(mode="json", by_alias=True))
    except SourceError as error:
        raise Unproven(f"no proof of signing time: {error}") from error
    if not answer:
        raise Unproven("the log has no entry of this signature: no proof of signing time")

    def load() -> Bundle:
        entry = TransparencyLogEntry._from_v1_response(answer)
        return Bundle.from_parts(certificate, signature, entry)

    return _keyless(load, digest, None, policy)


def _verifier(root: bytes) -> Keyless:
    from .keyless import Keyless

    found = trusted_root(root)
    try:
        return Keyless(trusted_root=found)
    except Exception as error:
        raise ParameterError(f"trusted root: expected a usable one, got: {said(error)}") from error


def commits(certificate: Certificate) -> tuple[str, ...]:
    """The commits a Fulcio certificate names, lower case."""
    from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension

    found = set()
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, UnrecognizedExtension) and extension.oid in map(
            ObjectIdentifier, _COMMITS
        ):
            # Text of 40 or 64 characters: as DER it has a tag and one byte of length before it.
            raw = value.value[2:] if value.value[:1] == b"\x0c" else value.value
            found.add(raw.decode("ascii", "replace").lower())
    return tuple(sorted(found))


# --- reading ----------------------------------------------------------------------------------------


def _certificate(data: bytes) -> Certificate:
    """A PEM certificate, or one in base64 as cosign writes it. Raises ParameterError."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        pem = data if b"-----BEGIN" in data else base64.b64decode(data.strip(), validate=True)
        return load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ParameterError(
            f"certificate: expected PEM, or that in base64, got: {said(error)}"
        ) from error


def _signature(data: bytes) -> bytes:
    """A detached signature: base64 as cosign writes it, or raw. Raises ParameterError."""
    if not data.strip():
        raise ParameterError("signature: expected base64 or raw bytes, got an empty file")
    try:
        return base64.b64decode(data.strip(), validate=True)
    except binascii.Error:
        return data


def _bundle_model(data: bytes) -> BundleModel:
    from sigstore_models.bundle.v1 import Bundle as Model

    value = parse_object(data, "bundle")
    material = value.get("verificationMaterial")
    if isinstance(material, dict):  # protobuf leaves empty lists out, the model wants them
        material.setdefault("tlogEntries", [])
    try:
        return Model.from_json(json.dumps(value))
    except (ValueError, RecursionError, OverflowError) as error:
        raise ParameterError(f"bundle: expected sigstore's JSON, got: {said(error)}") from error


def _bundle(model: BundleModel) -> Bundle:
    from sigstore.models import Bundle

    return Bundle(model)


def _hashed(digest: bytes) -> Hashed:
    from sigstore.hashes import Hashed
    from sigstore_models.common.v1 import HashAlgorithm

    return Hashed(algorithm=HashAlgorithm.SHA2_256, digest=digest)
