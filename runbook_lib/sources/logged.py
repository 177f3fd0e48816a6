"""What an entry of a transparency log says was signed: digest, signature, and by what.

Source: the types of Rekor v1 (hashedrekord and dsse 0.0.1, intoto 0.0.2) and v2 (hashedrekord
and dsse 0.0.2). Any other kind, shape or algorithm is an error: KeyError, TypeError or ValueError.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .keys import Refused, said, spki
from .statements import parse_object

if TYPE_CHECKING:
    from sigstore.models import TransparencyLogEntry


@dataclass(frozen=True)
class Logged:
    """``digest`` is sha256 of what was signed, or (``of_payload``) of an envelope's payload.

    ``verifier`` is the DER of a public key, or of a certificate.
    """

    digest: bytes
    signature: bytes
    verifier: bytes
    of_payload: bool = False


def kind_of(entry: TransparencyLogEntry) -> str:
    """``kind/version`` of an entry."""
    return f"{entry._inner.kind_version.kind}/{entry._inner.kind_version.version}"


def agree(
    entry: TransparencyLogEntry,
    hashed: bytes,
    payload: bytes | None,
    signature: bytes,
    verifier: bytes,
) -> None:
    """That the entry is about this signature by this verifier. Raises Refused.

    ``hashed`` is the sha256 of what was signed; ``payload`` an envelope's, None for a file.
    """
    kind = kind_of(entry)
    try:
        found = read_entry(kind, entry._inner.canonicalized_body, enveloped=payload is not None)
        if payload is not None and found.of_payload:
            hashed = hashlib.sha256(payload).digest()
        same = (found.digest, found.signature, found.verifier) == (hashed, signature, verifier)
    except Exception as error:
        raise Refused(f"log entry {kind}: {said(error)}") from error
    if not same:
        raise Refused("the log entry is about another signature, key or content")


def read_entry(kind: str, body: bytes, *, enveloped: bool) -> Logged:
    """The one signature an entry of ``kind`` holds; some kinds are of envelopes alone."""
    value = parse_object(body, "log entry")
    if f"{value['kind']}/{value['apiVersion']}" != kind:
        raise ValueError(f"expected {kind}, got {value['kind']}/{value['apiVersion']}")
    spec = value["spec"]
    if kind == "hashedrekord/0.0.1":
        signature = spec["signature"]
        verifier = _pem(signature["publicKey"]["content"])
        return Logged(_hex(spec["data"]["hash"]), _bytes(signature["content"]), verifier)
    if kind == "hashedrekord/0.0.2":
        record = spec["hashedRekordV002"]
        signature, verifier = record["signature"], _raw(record["signature"]["verifier"])
        return Logged(_sha2_256(record["data"]), _bytes(signature["content"]), verifier)
    if kind == "dsse/0.0.1" and enveloped:
        (signature,) = spec["signatures"]
        verifier, sig = _pem(signature["verifier"]), _bytes(signature["signature"])
        return Logged(_hex(spec["payloadHash"]), sig, verifier, of_payload=True)
    if kind == "dsse/0.0.2" and enveloped:
        record = spec["dsseV002"]
        (signature,) = record["signatures"]
        return Logged(
            _sha2_256(record["payloadHash"]),
            _bytes(signature["content"]),
            _raw(signature["verifier"]),
            of_payload=True,
        )
    if kind == "intoto/0.0.2" and enveloped:
        content = spec["content"]
        (signature,) = content["envelope"]["signatures"]
        # This kind wraps the envelope's own base64 once more.
        verifier, sig = _pem(signature["publicKey"]), _bytes(_bytes(signature["sig"]))
        return Logged(_hex(content["payloadHash"]), sig, verifier, of_payload=True)
    raise ValueError(f"{kind} of {'an envelope' if enveloped else 'a file'} is not supported")


def _hex(value: dict[str, str]) -> bytes:
    if value["algorithm"] != "sha256":
        raise ValueError(f"expected sha256, got {value['algorithm']!r}")
    return bytes.fromhex(value["value"])


def _sha2_256(value: dict[str, str]) -> bytes:
    if value["algorithm"] != "SHA2_256":
        raise ValueError(f"expected SHA2_256, got {value['algorithm']!r}")
    return _bytes(value["digest"])


def _raw(verifier: dict[str, dict[str, str]]) -> bytes:
    """The DER of a public key or certificate of v2."""
    (key,) = {"publicKey", "x509Certificate"} & set(verifier)
    return _bytes(verifier[key]["rawBytes"])


def _bytes(text: str | bytes) -> bytes:
    return base64.b64decode(text, validate=True)


def _pem(text: str) -> bytes:
    """The DER of a PEM public key or certificate."""
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    pem = _bytes(text)
    if b"BEGIN CERTIFICATE" in pem:
        der: bytes = load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        return der
    return spki(load_pem_public_key(pem))
