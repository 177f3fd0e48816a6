"""Signatures by public keys: in bundles of every kind of log entry, and detached."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from runbook_lib.errors import ParameterError
from runbook_lib.sources.signatures import Material, Policy
from runbook_rehearsal.release.authority import SHA256, b64, hashedrekord, new_key, pem

from .sigstore_authority import (
    IDENTITY,
    ISSUER,
    Authority,
    bundle,
    message,
    statement,
)
from .verifying import (
    DATA,
    HEX,
    KEYED_LOGS,
    OTHER,
    ROOT,
    one,
)


def test_a_bundle_of_the_right_key_is_proof(authority: Authority, file: Path) -> None:
    """Over a file, and over a statement however it was logged."""
    key = new_key()
    policy = Policy(key=pem(key), root=authority.root)

    assert one(file, policy, authority.sign_with(key, DATA)) == ("PASS", policy.signer)
    for log in KEYED_LOGS:
        signed = authority.attest_with(key, statement(HEX), log)
        assert one(file, policy, signed) == ("PASS", policy.signer)


@pytest.mark.parametrize("log", KEYED_LOGS)
def test_a_keyed_statement_is_judged_like_any(authority: Authority, file: Path, log: str) -> None:
    """Another subject, type or key is refused in each kind of entry."""
    key = new_key()
    policy = Policy(key=pem(key), root=authority.root)
    bad = (
        authority.attest_with(key, statement(OTHER), log),
        authority.attest_with(key, statement(HEX, _type=""), log),
        authority.attest_with(new_key(), statement(HEX), log),
        authority.sign(DATA),
        Authority().attest_with(key, statement(HEX), log),
    )

    assert [one(file, policy, each)[0] for each in bad] == ["FAIL"] * 5


def test_the_entry_of_a_key_must_agree_with_its_bundle(authority: Authority, file: Path) -> None:
    """Another signature, another key, another file or another kind in the entry is refused."""
    key = new_key()
    policy = Policy(key=pem(key), root=authority.root)
    signature = key.sign(DATA, SHA256)
    second = key.sign(DATA, SHA256)
    entries = (
        authority.entry("hashedrekord/0.0.1", hashedrekord(pem(key), second, DATA)),
        authority.entry("hashedrekord/0.0.1", hashedrekord(pem(new_key()), signature, DATA)),
        authority.entry("hashedrekord/0.0.1", hashedrekord(pem(key), signature, b"another")),
        authority.entry("hashedrekord/0.0.1", {"data": []}),
        authority.entry("hashedrekord/0.0.2", {"hashedRekordV002": None}),
        authority.entry("rekord/0.0.1", hashedrekord(pem(key), signature, DATA)),
    )

    for entry in entries:
        signed = bundle({"publicKey": {"hint": "x"}}, entry) | message(signature, DATA)
        assert one(file, policy, signed)[0] == "FAIL"


def test_a_key_needs_no_certificate_authority(authority: Authority, file: Path) -> None:
    """A trusted root of a log alone is enough for a key, and is no root for an identity."""
    root = json.loads(authority.root) | {"certificateAuthorities": [], "ctlogs": []}
    alone, key = json.dumps(root).encode(), new_key()

    assert one(file, Policy(key=pem(key), root=alone), authority.sign_with(key, DATA))[0] == "PASS"
    with pytest.raises(ParameterError, match="trusted root: expected a usable one"):
        one(file, Policy(IDENTITY, ISSUER, root=alone), authority.sign(DATA))


def test_a_bundle_of_two_log_entries_is_refused(authority: Authority, file: Path) -> None:
    """Nobody says which of them counts."""
    key = new_key()
    signed = authority.sign_with(key, DATA)
    signed["verificationMaterial"]["tlogEntries"] *= 2

    assert one(file, Policy(key=pem(key), root=authority.root), signed) == (
        "FAIL",
        "2 log entries in the bundle, expected 1",
    )


def test_the_digest_in_a_keyed_bundle_must_be_the_files(authority: Authority, file: Path) -> None:
    """Even where the signature would hold."""
    key = new_key()
    signed = authority.sign_with(key, DATA)
    signed["messageSignature"]["messageDigest"]["digest"] = b64(bytes(32))

    assert one(file, Policy(key=pem(key), root=authority.root), signed) == (
        "FAIL",
        "the bundle's digest is another file's",
    )


def test_a_keyed_bundle_needs_its_log_entry(authority: Authority, file: Path) -> None:
    """As a keyless one does."""
    key = new_key()
    signed = authority.sign_with(key, DATA)
    signed["verificationMaterial"]["tlogEntries"] = []

    assert one(file, Policy(key=pem(key), root=authority.root), signed)[0] == "INCONCLUSIVE"


def test_where_no_log_is_trusted_a_keys_signature_is_proof(file: Path) -> None:
    """A root that names no log: there is none whose entry could be missing."""
    key, root = new_key(), json.dumps({"mediaType": ROOT}).encode()
    authority, policy = Authority(), Policy(key=pem(key), root=root)
    for signed in (
        authority.sign_with(key, DATA),
        authority.attest_with(key, statement(HEX), "dsse/0.0.1"),
    ):
        with_entry = copy.deepcopy(signed)
        del signed["verificationMaterial"]["tlogEntries"]

        assert one(file, policy, signed) == ("PASS", policy.signer)
        assert one(file, Policy(key=pem(new_key()), root=root), signed)[0] == "FAIL"
        assert one(file, policy, with_entry)[0] == "FAIL"
    keyless = authority.sign(DATA)
    keyless["verificationMaterial"]["tlogEntries"] = []
    assert one(file, Policy(IDENTITY, ISSUER, root=root), keyless)[0] == "INCONCLUSIVE"


def test_an_envelope_holds_one_signature(authority: Authority, file: Path) -> None:
    """A second one could be anybody's."""
    key = new_key()
    signed = authority.attest_with(key, statement(HEX), "dsse/0.0.1")
    signatures = signed["dsseEnvelope"]["signatures"]
    signatures.append(signatures[0])

    assert one(file, Policy(key=pem(key), root=authority.root), signed) == (
        "FAIL",
        "2 signatures in the envelope, expected 1",
    )


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
def test_a_detached_signature_by_a_key(file: Path, kind: str) -> None:
    """Raw or in base64; a key does not expire, so no log is asked."""
    key: Any = {
        "ecdsa": new_key,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }[kind]()
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256 as Sha256

    how: dict[str, tuple[Any, ...]] = {"ecdsa": (SHA256,), "rsa": (PKCS1v15(), Sha256())}
    signature = key.sign(DATA, *how.get(kind, ()))
    policy, wrong = Policy(key=pem(key)), Policy(key=pem(new_key()))

    assert one(file, policy, Material(signature=signature)) == ("PASS", policy.signer)
    in_text = Material(signature=b64(signature).encode() + b"\n")
    assert one(file, policy, in_text) == ("PASS", policy.signer)
    assert one(file, wrong, in_text)[0] == "FAIL"
    assert one(file, policy, Material(signature=b"\0" + signature))[0] == "FAIL"


def test_an_ed25519_signature_needs_the_file() -> None:
    """It is over all of it, not over a digest."""
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(ParameterError) as caught:
        one(f"sha256:{HEX}", Policy(key=pem(key)), Material(signature=key.sign(DATA)))

    assert str(caught.value) == "artifact: expected the file: an Ed25519 key signs all of it"
