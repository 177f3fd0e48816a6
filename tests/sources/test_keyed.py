"""Signatures by public keys: detached, in bundles and over envelopes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from runbook_lib.errors import ParameterError
from runbook_lib.sources.signatures import Material, Policy
from runbook_rehearsal.signing import SHA256, b64, new_key, pem

from .verifying import DATA, HEX, IN_TOTO, OTHER, ROOT, Authority, envelope, one, pae, statement

NO_LOGS = json.dumps({"mediaType": ROOT}).encode()


def dsse(key: Any, payload: bytes, kind: str = IN_TOTO) -> dict[str, Any]:
    return envelope(payload, key.sign(pae(payload, kind), SHA256), kind)


def test_a_keys_bundle_proves_what_its_signature_does(authority: Authority, file: Path) -> None:
    key = new_key()
    with_entry, without = authority.sign_with(key, DATA), authority.sign_with(key, DATA)
    del without["verificationMaterial"]["tlogEntries"]
    problem = "the signature is the key's, but a log entry of a public key cannot be verified; trust no log, or publish the detached signature"
    for root, found in ((authority.root, ("INCONCLUSIVE", problem)), (NO_LOGS, None), (b"", None)):
        policy = Policy(key=pem(key), root=root)
        judged = {one(file, policy, each) for each in (with_entry, without)}
        assert judged == {found or ("PASS", policy.signer)}
    del without["messageSignature"]
    no, other = "the signature is not this key's over this content", dsse(key, statement(OTHER))
    for made, outcome, observed in [
        (dsse(key, statement(HEX)), "PASS", policy.signer),
        (dsse(new_key(), statement(HEX)), "FAIL", no),
        (envelope(statement(HEX), b"x"), "FAIL", no),
        (other, "FAIL", f"a statement about sha256:{OTHER}, not this artifact"),
        (dsse(key, statement(HEX), "text/plain"), "FAIL", f"envelope of 'text/plain', expected {IN_TOTO}"),
    ]:  # fmt: skip
        assert one(file, policy, without | made) == (outcome, observed)
        assert one(file, policy, made["dsseEnvelope"]) == (outcome, observed)


@pytest.mark.parametrize("root", [NO_LOGS, b""])
def test_a_wrong_bundle_of_a_key_is_refused(authority: Authority, file: Path, root: bytes) -> None:
    key = new_key()
    policy, signed = Policy(key=pem(key), root=root), authority.sign_with(key, DATA)
    signed["messageSignature"]["messageDigest"]["digest"] = b64(bytes(32))
    bad = {
        "the signature is not this key's over this content": authority.sign_with(new_key(), DATA),
        "the bundle's digest is another file's": authority.sign_with(key, b"another file"),
        "a certificate, no public key, in the bundle": authority.sign(DATA),
    }

    assert [one(file, policy, each) for each in bad.values()] == [("FAIL", why) for why in bad]
    assert one(file, policy, signed) == ("FAIL", "the bundle's digest is another file's")


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
def test_a_detached_signature_by_a_key(file: Path, kind: str) -> None:
    key: Any = {
        "ecdsa": new_key,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    how: dict[str, tuple[Any, ...]] = {
        "ecdsa": (SHA256,),
        "rsa": (PKCS1v15(), hashes.SHA256()),
    }
    signature = key.sign(DATA, *how.get(kind, ()))
    policy, wrong = Policy(key=pem(key)), Policy(key=pem(new_key()))

    assert one(file, policy, Material(signature=signature)) == ("PASS", policy.signer)
    in_text = Material(signature=b64(signature).encode() + b"\n")
    assert one(file, policy, in_text) == ("PASS", policy.signer)
    assert one(file, wrong, in_text)[0] == "FAIL"
    assert one(file, policy, Material(signature=b"\0" + signature))[0] == "FAIL"
    if kind == "ed25519":
        problem = r"^artifact: expected the file: an Ed25519 key signs all of it$"
        with pytest.raises(ParameterError, match=problem):
            one(f"sha256:{HEX}", policy, Material(signature=signature))
