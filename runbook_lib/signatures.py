"""Envelopes (DSSE) over statements, and the keys that sign them: Ed25519 and ECDSA P-256.

Signing and verifying are securesystemslib's. Source: DSSE protocol 1.0, https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from .canonical import canonical, load_once
from .errors import ParameterError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
KEY_ENV, PASSPHRASE_ENV = "RUNBOOK_SIGNING_KEY", "RUNBOOK_SIGNING_PASSPHRASE"
"""The file of the private key (PEM), and the passphrase that it is encrypted with."""


def public_key(text: str) -> Any:
    """A key as PEM or ``ed25519:BASE64``, securesystemslib's. Raises ValueError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    try:
        if text.startswith("ed25519:"):
            raw = base64.b64decode(text.removeprefix("ed25519:"), validate=True)
            return SSlibKey.from_crypto(ed25519.Ed25519PublicKey.from_public_bytes(raw))
        key = load_pem_public_key(text.encode())
        p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        if p256 or isinstance(key, ed25519.Ed25519PublicKey):
            return SSlibKey.from_crypto(key)
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise ValueError("expected ed25519:BASE64, or PEM of an Ed25519 or ECDSA P-256 public key")


def _checked(text: str) -> str:
    if text:
        public_key(text)
    return text


SigningKey = AfterValidator(_checked)


def read_signer() -> Any:
    """The signer whose key the environment names, None for none. Raises ParameterError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

    if not (path := os.environ.get(KEY_ENV)):
        return None
    passphrase = os.environ.get(PASSPHRASE_ENV)
    expected = f"{KEY_ENV}: expected a PEM file of an Ed25519 or ECDSA P-256 private key"
    try:
        key = load_pem_private_key(
            Path(path).read_bytes(), passphrase.encode() if passphrase else None
        )
        signer = CryptoSigner(key)
    except OSError as error:
        raise ParameterError(f"{expected}, got: {error.strerror}") from error
    except TypeError as error:
        got = "a passphrase for one that has none" if passphrase else "an encrypted one"
        raise ParameterError(f"{expected}, got {got}; see {PASSPHRASE_ENV}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ParameterError(
            f"{expected} and its passphrase in {PASSPHRASE_ENV}, got another"
        ) from error
    if signer.public_key.scheme not in ("ed25519", "ecdsa-sha2-nistp256"):
        raise ParameterError(f"{expected}, got {signer.public_key.scheme}")
    return signer


class _Signature(BaseModel):
    model_config = ConfigDict(strict=True)  # what others add to it is not ours to refuse
    sig: str


class _Envelope(BaseModel):
    model_config = ConfigDict(strict=True)
    payloadType: Literal["application/vnd.in-toto+json"]
    payload: str
    signatures: list[_Signature]


class Envelope:
    """A payload and the signatures over it; none of an attempt that nobody signed."""

    def __init__(self, payload: bytes, signatures: tuple[bytes, ...] = ()) -> None:
        self.payload, self.signatures = payload, signatures

    def signed(self, signer: Any) -> Envelope:
        """The same payload under one signature, by ``signer``."""
        return Envelope(self.payload, (bytes.fromhex(signer.sign(self.pae()).signature),))

    def is_by(self, key: Any) -> bool:
        """Whether one of its signatures is this key's, whatever key it names."""
        from securesystemslib.exceptions import UnverifiedSignatureError
        from securesystemslib.signer import Signature  # type: ignore[attr-defined]

        for signature in self.signatures:
            try:
                key.verify_signature(Signature(key.keyid, signature.hex()), self.pae())
            except UnverifiedSignatureError:
                continue
            return True
        return False

    def pae(self, kind: str = PAYLOAD_TYPE) -> bytes:
        """What is signed: the payload and its type."""
        from securesystemslib.dsse import Envelope as Dsse

        return Dsse(self.payload, kind, {}).pae()

    def dump(self, keyid: str = "") -> bytes:
        """Its JSON, one line."""
        texts = [{"keyid": keyid, "sig": _base64(signature)} for signature in self.signatures]
        body: Mapping[str, Any] = {"payload": _base64(self.payload), "signatures": texts}
        return canonical({**body, "payloadType": PAYLOAD_TYPE}) + b"\n"


def read_envelope(data: bytes) -> Envelope:
    """An envelope, ours or another's, no signature checked yet. Raises ValueError in one line."""
    try:
        found = _Envelope.model_validate(load_once(data))
        payload = base64.b64decode(found.payload, validate=True)
        signatures = [base64.b64decode(one.sig, validate=True) for one in found.signatures]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"expected an envelope, got: {where}: {first['msg']}") from error
    return Envelope(payload, tuple(signatures))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
