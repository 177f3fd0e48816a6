"""Public keys, and a signature checked by one; what is wrong in words.

Source: cryptography's own loaders and verifiers; ECDSA and RSA (PKCS #1 v1.5) sign a sha256,
Ed25519 signs the content itself.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ..errors import ParameterError
from ..markup import visible
from .files import Whole


class Refused(Exception):
    """The signature, signer or log entry is disproved."""


def check_signature(pem: bytes, signature: bytes, digest: bytes, content: Whole | None) -> None:
    """A signature by a key over what has this sha256. Raises Refused, ParameterError, SourceError."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256

    key, hashed = public_key(pem), Prehashed(SHA256())
    wrong = "the signature is not this key's over this content"

    def judge(data: bytes) -> str:
        if hashlib.sha256(data).digest() != digest:
            return "its content changed while it was judged"
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return wrong
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
        raise Refused(wrong) from None
    except ValueError as error:
        raise Refused(f"the signature cannot be read: {error}") from error


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
    from pydantic import ValidationError

    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        text = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    return visible(" ".join(text.split()) or type(error).__name__, 400)
