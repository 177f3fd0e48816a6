"""Public keys, signatures checked by one, and signed statements of people.

Source: cryptography's own loaders and verifiers; ECDSA and RSA (PKCS #1 v1.5) sign a sha256,
Ed25519 signs the content itself.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from ..canonical import canonical, load_once
from ..errors import ParameterError
from ..outcomes import Model
from ..wording import visible
from .wire import complaint

MAX_SIGNED = 64 * 1024
NOT_BY_KEY = "the signature is not this key's over this content"
M = TypeVar("M", bound=BaseModel)


class Refused(Exception):
    """The signature, signer or log entry is disproved."""


Judge = Callable[[bytes], str]
"""What is wrong with a file's content; empty when nothing is."""
Whole = Callable[[str, Judge], str]
"""Judges all of a file's content, under a name of the question; only the answer is kept."""


def check_signature(pem: bytes, signature: bytes, digest: bytes, content: Whole | None) -> None:
    """A signature by a key over what has this sha256. Raises Refused, ParameterError, SourceError."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256

    key, hashed = public_key(pem), Prehashed(SHA256())

    def judge(data: bytes) -> str:
        if hashlib.sha256(data).digest() != digest:
            return "its content changed while it was judged"
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return NOT_BY_KEY
        return ""

    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(hashed))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, digest, padding.PKCS1v15(), hashed)
        elif not isinstance(key, ed25519.Ed25519PublicKey):
            raise ParameterError(f"key: expected ECDSA, RSA or Ed25519, got {type(key).__name__}")
        elif content is None:
            raise ParameterError("artifact: expected the file: an Ed25519 key signs all of it")
        elif problem := content(f"{key_name(key)} {hashlib.sha256(signature).hexdigest()}", judge):
            raise Refused(problem)
    except InvalidSignature:
        raise Refused(NOT_BY_KEY) from None
    except ValueError as error:
        raise Refused(f"the signature cannot be read: {error}") from error


def signed_by(key: str, content: bytes, signature: bytes) -> bool:
    """Whether a key of the site (``ed25519:BASE64``) signed ``content``."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("ed25519:")))
    try:
        public.verify(signature, content)
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True)
class Signed(Generic[M]):
    """A file ``{"statement": {...}, "signature": BASE64}`` as read, its signature not checked yet.

    It is Ed25519 over ``content``, the canonical JSON of the statement.
    """

    statement: M
    content: bytes
    signature: str

    def is_by(self, key: str) -> bool:
        """Whether a key of the site signed it."""
        try:
            return signed_by(key, self.content, base64.b64decode(self.signature, validate=True))
        except ValueError:
            return False


class _Envelope(Model):
    statement: dict[str, Any]
    signature: str


def read_signed(data: bytes, model: type[M]) -> Signed[M]:
    """A signed statement. Raises ValueError, in one line, for anything else."""
    if len(data) > MAX_SIGNED:
        raise ValueError(f"at most {MAX_SIGNED} bytes, got {len(data)}")
    try:
        # A key given twice has one meaning to us and maybe another to who signed it.
        envelope = _Envelope.model_validate_json(json.dumps(load_once(data)))
        statement = model.model_validate_json(json.dumps(envelope.statement))
    except ValidationError as error:
        raise ValueError(visible(complaint(error), 250)) from error
    except ValueError as error:
        raise ValueError(f"Invalid JSON: {visible(str(error), 200)}") from error
    return Signed(statement, canonical(envelope.statement), envelope.signature)


def public_key(pem: bytes) -> Any:
    """A PEM public key. Raises ParameterError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ParameterError(f"key: expected a PEM public key, got: {said(error)}") from error


def key_name(key: Any) -> str:
    """A public key's fingerprint: ``key sha256:HEX`` of its DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"key sha256:{hashlib.sha256(der).hexdigest()}"


def said(error: Exception) -> str:
    """An error of a library as one line: of a model's, the first thing wrong and where."""
    return visible(" ".join(complaint(error).split()) or type(error).__name__, 400)
