"""What an entry of a transparency log says was signed: digest, signature, public key.

Source: the types of Rekor v1 (hashedrekord and dsse 0.0.1, intoto 0.0.2) and v2 (hashedrekord
0.0.2). Any other kind, shape or algorithm is an error: KeyError, TypeError or ValueError.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from .statements import parse_object


@dataclass(frozen=True)
class Logged:
    """``digest`` is sha256 of the file, of the envelope's payload, or of its encoding (v2)."""

    digest: bytes
    signature: bytes
    key: Any


def read_entry(kind: str, body: bytes, *, enveloped: bool) -> Logged:
    """The one signature an entry of ``kind`` holds; files and envelopes have kinds of their own."""
    value = parse_object(body, "log entry")
    if f"{value['kind']}/{value['apiVersion']}" != kind:
        raise ValueError(f"expected {kind}, got {value['kind']}/{value['apiVersion']}")
    spec = value["spec"]
    if kind == "hashedrekord/0.0.1" and not enveloped:
        signature = spec["signature"]
        key = _pem(signature["publicKey"]["content"])
        return Logged(_hex(spec["data"]["hash"]), _bytes(signature["content"]), key)
    if kind == "hashedrekord/0.0.2":
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        record = spec["hashedRekordV002"]
        if record["data"]["algorithm"] != "SHA2_256":
            raise ValueError(f"expected SHA2_256, got {record['data']['algorithm']!r}")
        signature = record["signature"]
        key = load_der_public_key(_bytes(signature["verifier"]["publicKey"]["rawBytes"]))
        return Logged(_bytes(record["data"]["digest"]), _bytes(signature["content"]), key)
    if kind == "dsse/0.0.1" and enveloped:
        (signature,) = spec["signatures"]
        key = _pem(signature["verifier"])
        return Logged(_hex(spec["payloadHash"]), _bytes(signature["signature"]), key)
    if kind == "intoto/0.0.2" and enveloped:
        content = spec["content"]
        (signature,) = content["envelope"]["signatures"]
        key = _pem(signature["publicKey"])
        # This kind wraps the envelope's own base64 once more.
        return Logged(_hex(content["payloadHash"]), _bytes(_bytes(signature["sig"])), key)
    raise ValueError(f"{kind} of {'an envelope' if enveloped else 'a file'} is not supported")


def _hex(value: dict[str, str]) -> bytes:
    if value["algorithm"] != "sha256":
        raise ValueError(f"expected sha256, got {value['algorithm']!r}")
    return bytes.fromhex(value["value"])


def _bytes(text: str | bytes) -> bytes:
    return base64.b64decode(text, validate=True)


def _pem(text: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(_bytes(text))
