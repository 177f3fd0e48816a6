"""Signatures of artifacts, judged by sigstore and cryptography alone.

Keyless (a certificate and a log entry) is the library's own procedure from end to end. For a
public key, which the library does not cover, its log and this module's numbered steps are put
together. A signature beside a certificate proves nothing once the certificate has expired, so its
log entry must be found; a public key does not expire, so its signature alone is proof.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ParameterError, SourceError
from ..markup import visible
from .statements import Statement, parse_statement

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.hashes import Hashed
    from sigstore.models import Bundle, TransparencyLogEntry, TrustedRoot
    from sigstore.verify import Verifier
    from sigstore_models.bundle.v1 import Bundle as BundleModel

IN_TOTO = "application/vnd.in-toto+json"
_PRODUCTION = "https://tuf-repo-cdn.sigstore.dev"
_COMMITS = ("1.3.6.1.4.1.57264.1.3", "1.3.6.1.4.1.57264.1.13")
"""Fulcio's extensions of the workflow's commit (raw text) and the source's (DER UTF8String)."""

Find = Callable[[str, dict[str, Any]], dict[str, Any] | None]
"""Log address and proposed entry -> the log's entries by UUID, or None. Raises SourceError."""


class Refused(Exception):
    """The signature, signer or log entry is disproved."""


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
    digest: str, path: Path | None, material: Material, policy: Policy, find: Find | None
) -> Signed:
    """Prove that ``policy`` signed the artifact of ``digest`` (``sha256:HEX``; ``path`` if at hand).

    Raises Refused, Unproven, and ParameterError for malformed input.
    """
    hashed = bytes.fromhex(digest.removeprefix("sha256:"))
    if material.bundle:
        model = _bundle_model(material.bundle)
        if not model.verification_material.tlog_entries:
            raise Unproven("no log entry in the bundle: no proof of signing time")
        if policy.key:
            return _by_key(model, digest, path, policy)
        return _keyless(lambda: _bundle(model), hashed, policy)
    signature = _signature(material.signature)
    if policy.key:
        _check(policy.key, signature, hashed, path)
        return Signed(policy.signer)
    return _detached(signature, material.certificate, hashed, policy, find)


# --- keyless: the library's procedure ---------------------------------------------------------------


def _keyless(load: Callable[[], Bundle], digest: bytes, policy: Policy) -> Signed:
    from sigstore.verify.policy import Identity

    verifier = _verifier(policy.root)
    who = Identity(identity=policy.identity, issuer=policy.issuer)
    # Hostile material makes the library raise more than its own errors: none of them is proof.
    try:
        bundle = load()
        if bundle._inner.dsse_envelope is None:
            verifier.verify_artifact(_hashed(digest), bundle, who)
            payload = None
        else:
            kind, payload = verifier.verify_dsse(bundle, who)
            _is_in_toto(kind)
    except Refused:
        raise
    except Exception as error:
        raise Refused(_said(error)) from error
    statement = _statement_about(payload, digest) if payload is not None else None
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
        raise Refused(_said(error)) from error
    _check(key, signature, digest, None)
    if find is None:
        raise Unproven("no log entry beside a detached signature: no proof of signing time")
    root = trusted_root(policy.root)
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

    return _keyless(load, digest, policy)


def _verifier(root: bytes) -> Verifier:
    from sigstore.verify import Verifier

    found = trusted_root(root)
    try:
        return Verifier(trusted_root=found)
    except Exception as error:
        raise ParameterError(f"trusted root: expected a usable one, got: {_said(error)}") from error


def trusted_root(data: bytes) -> TrustedRoot:
    """A sigstore trusted root; of no bytes, the one embedded in the library: no network, no cache."""
    from sigstore._utils import read_embedded
    from sigstore.models import TrustedRoot
    from sigstore_models.trustroot.v1 import TrustedRoot as Model

    try:
        root = TrustedRoot(Model.from_json(data or read_embedded("trusted_root.json", _PRODUCTION)))
        root.get_fulcio_certs()
        if not root._inner.tlogs:
            raise ValueError("no transparency log")
    except Exception as error:
        raise ParameterError(
            f"trusted root: expected sigstore's JSON, got: {_said(error)}"
        ) from error
    return root


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


# --- a public key -----------------------------------------------------------------------------------


def _by_key(model: BundleModel, digest: str, path: Path | None, policy: Policy) -> Signed:
    """A bundle that names a public key: (1) log, (2) signature, (3) entry and signature agree."""
    from sigstore._internal.trust import KeyringPurpose
    from sigstore.models import TransparencyLogEntry

    if model.verification_material.public_key is None:
        raise Refused("a certificate, no public key, in the bundle")
    if len(model.verification_material.tlog_entries) != 1:
        raise Refused("more than one log entry in the bundle")
    root = trusted_root(policy.root)
    try:  # (1) inclusion proof, checkpoint and promise, by the library
        entry = TransparencyLogEntry(model.verification_material.tlog_entries[0])
        entry._verify(root.rekor_keyring(KeyringPurpose.VERIFY))
    except Exception as error:
        raise Refused(_said(error)) from error
    hashed = bytes.fromhex(digest.removeprefix("sha256:"))
    statement = None
    if (envelope := model.dsse_envelope) is not None:
        from sigstore.dsse import _pae

        if len(envelope.signatures) != 1:
            raise Refused(f"{len(envelope.signatures)} signatures in the envelope, expected 1")
        _is_in_toto(envelope.payload_type)
        pae = _pae(envelope.payload_type, envelope.payload)
        signature, signed = envelope.signatures[0].sig, hashlib.sha256(pae).digest()
        _check(policy.key, signature, signed, pae)  # (2)
        statement = _statement_about(envelope.payload, hashed)
        logged = {signed, hashlib.sha256(envelope.payload).digest()}
    else:
        assert model.message_signature is not None
        signature, said = model.message_signature.signature, model.message_signature.message_digest
        if said is not None and said.digest != hashed:
            raise Refused("the bundle's digest is another file's")
        _check(policy.key, signature, hashed, path)  # (2)
        logged = {hashed}
    _agrees(entry, logged, signature, policy.key, enveloped=envelope is not None)  # (3)
    return Signed(policy.signer, statement)


def _agrees(
    entry: TransparencyLogEntry,
    digests: set[bytes],
    signature: bytes,
    pem: bytes,
    *,
    enveloped: bool,
) -> None:
    """The log's entry is about this content, this signature and this key. Raises Refused."""
    from .logged import read_entry

    inner = entry._inner
    kind = f"{inner.kind_version.kind}/{inner.kind_version.version}"
    try:
        found = read_entry(kind, inner.canonicalized_body, enveloped=enveloped)
        same = (
            found.digest in digests
            and found.signature == signature
            and spki(found.key) == spki(public_key(pem))
        )
    except Exception as error:
        raise Refused(f"log entry {kind}: {_said(error)}") from error
    if not same:
        raise Refused("the log entry is about another signature, key or content")


def _check(pem: bytes, signature: bytes, digest: bytes, content: bytes | Path | None) -> None:
    """A signature by a key over what has this sha256. Raises Refused, ParameterError."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256

    key, hashed = public_key(pem), Prehashed(SHA256())
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(hashed))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, digest, padding.PKCS1v15(), hashed)
        elif isinstance(key, ed25519.Ed25519PublicKey):
            if content is None:
                raise ParameterError("artifact: expected the file: an Ed25519 key signs all of it")
            key.verify(signature, content.read_bytes() if isinstance(content, Path) else content)
        else:
            raise ParameterError(f"key: expected ECDSA, RSA or Ed25519, got {type(key).__name__}")
    except InvalidSignature:
        raise Refused("the signature is not this key's over this content") from None
    except ValueError as error:
        raise Refused(f"the signature cannot be read: {error}") from error


# --- reading ----------------------------------------------------------------------------------------


def public_key(pem: bytes) -> Any:
    """A PEM public key. Raises ParameterError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ParameterError(f"key: expected a PEM public key, got: {_said(error)}") from error


def spki(key: Any) -> bytes:
    """A public key's DER, the one spelling two keys are compared in."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def key_name(key: Any) -> str:
    """A public key's fingerprint: ``key sha256:HEX`` of its DER."""
    return f"key sha256:{hashlib.sha256(spki(key)).hexdigest()}"


def _certificate(data: bytes) -> Certificate:
    """A PEM certificate, or one in base64 as cosign writes it. Raises ParameterError."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        pem = data if b"-----BEGIN" in data else base64.b64decode(data.strip(), validate=True)
        return load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ParameterError(
            f"certificate: expected PEM, or that in base64, got: {_said(error)}"
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

    try:
        return Model.from_json(data)
    except (ValueError, RecursionError, OverflowError) as error:
        raise ParameterError(f"bundle: expected sigstore's JSON, got: {_said(error)}") from error


def _bundle(model: BundleModel) -> Bundle:
    from sigstore.models import Bundle

    return Bundle(model)


def _hashed(digest: bytes) -> Hashed:
    from sigstore.hashes import Hashed
    from sigstore_models.common.v1 import HashAlgorithm

    return Hashed(algorithm=HashAlgorithm.SHA2_256, digest=digest)


def _is_in_toto(kind: str) -> None:
    if kind != IN_TOTO:
        raise Refused(f"envelope of {kind!r}, expected {IN_TOTO}")


def _statement_about(payload: bytes, digest: bytes) -> Statement:
    """The signed statement, which must name this artifact. Raises Refused."""
    try:
        statement = parse_statement(payload, "signed statement")
    except ParameterError as error:
        raise Refused(str(error)) from error
    if f"sha256:{digest.hex()}" not in statement.subjects:
        raise Refused(f"a statement about {statement.subjects_text}, not this artifact")
    return statement


def _said(error: Exception) -> str:
    """An error of a library as one line: of a model's, the first thing wrong and where."""
    from pydantic import ValidationError

    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        text = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    return visible(" ".join(text.split()) or type(error).__name__, 200)
