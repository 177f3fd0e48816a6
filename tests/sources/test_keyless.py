"""Keyless bundles: a good one proves its signer, a bad one is refused, saying why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from runbook_lib.errors import ParameterError
from runbook_lib.sources.signatures import Policy
from runbook_rehearsal.signing import b64, new_key

from .verifying import (
    DATA,
    ENTRY,
    HEX,
    IDENTITY,
    ISSUER,
    OTHER,
    PROOF,
    SIGNED,
    SIGNER,
    Authority,
    envelope,
    one,
    rows,
    statement,
    tamper,
)


def test_a_good_bundle_proves_the_signer(authority: Authority, file: Path, policy: Policy) -> None:
    signed = authority.sign(DATA)

    assert one(file, policy, signed) == ("PASS", SIGNER)
    assert one(f"sha256:{HEX}", policy, signed) == ("PASS", SIGNER)


def test_a_signed_statement_proves_its_subject(
    authority: Authority, file: Path, policy: Policy
) -> None:
    assert one(file, policy, authority.attest(statement(HEX))) == ("PASS", SIGNER)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (lambda a: a.sign(DATA, identity=IDENTITY + "x"), "Certificate's SANs do not match"),
        (lambda a: a.sign(DATA, issuer="https://issuer.example"), "OIDCIssuer does not match"),
        (lambda a: a.sign(DATA, at=SIGNED + timedelta(hours=1)), "not valid at"),
        (lambda a: a.sign(DATA, at=SIGNED - timedelta(hours=1)), "not valid at"),
        (lambda a: a.sign(b"another file"), "Bundle message digest mismatch"),
        (lambda a: a.attest(statement(OTHER)), f"a statement about sha256:{OTHER}, not this"),
        (lambda a: a.attest(statement(HEX), "text/plain"), "envelope of 'text/plain', expected"),
        (lambda a: a.attest(statement(HEX, _type="x")), "_type: expected https://in-toto.io/"),
        (lambda a: a.attest(b"[1]"), "expected one JSON object, got list"),
        (lambda a: a.attest(b"\xff"), "expected one JSON object, got: "),
        (lambda a: a.attest(b"[" * 100_000), "expected one JSON object, got: "),
        (lambda a: a.attest(statement(HEX, subject=[])), "expected a sha256 or sha512 digest"),
        (lambda a: a.attest(statement(HEX, subject=7)), "expected a sha256 or sha512 digest"),
        (lambda a: a.sign_with(new_key(), DATA), "expected certificate in bundle"),
        (lambda a: Authority().sign(DATA), "failed to build timestamp certificate chain"),
    ],
)
def test_a_wrong_bundle_is_refused(
    authority: Authority,
    file: Path,
    policy: Policy,
    made: Callable[[Authority], dict[str, Any]],
    problem: str,
) -> None:
    outcome, observed = one(file, policy, made(authority))

    assert outcome == "FAIL"
    assert problem in observed


@pytest.mark.parametrize(
    "path",
    [
        ("messageSignature", "signature"),
        ("messageSignature", "messageDigest", "digest"),
        ("verificationMaterial", "certificate", "rawBytes"),
        (*ENTRY, "canonicalizedBody"),
        (*ENTRY, "inclusionPromise", "signedEntryTimestamp"),
        (*PROOF, "rootHash"),
        (*PROOF, "hashes", 0),
    ],
)
def test_one_changed_bit_is_refused(
    authority: Authority, file: Path, policy: Policy, path: tuple[str | int, ...]
) -> None:
    assert one(file, policy, tamper(authority.sign(DATA), *path))[0] == "FAIL"


@pytest.mark.parametrize(
    ("trusted", "problem"), [("log_key", "SCT"), ("ct_key", "invalid log entry")]
)
def test_both_logs_must_be_ours(
    authority: Authority, file: Path, policy: Policy, trusted: str, problem: str
) -> None:
    stranger = Authority()
    for name in ("ca", "ca_key", trusted):
        setattr(stranger, name, getattr(authority, name))

    outcome, observed = one(file, policy, stranger.sign(DATA))

    assert (outcome, problem in observed) == ("FAIL", True)


def test_another_signatures_entry_is_refused(
    authority: Authority, file: Path, policy: Policy
) -> None:
    signed, other = authority.sign(DATA), authority.sign(DATA)
    entry = other["verificationMaterial"]["tlogEntries"][0]

    assert one(file, policy, tamper(signed, *ENTRY, value=entry)) == (
        "FAIL",
        "transparency log entry is inconsistent with other materials",
    )


def test_a_bundle_without_a_log_entry_is_no_proof(
    authority: Authority, file: Path, policy: Policy
) -> None:
    signed = tamper(authority.sign(DATA), "verificationMaterial", "tlogEntries", value=[])

    assert one(file, policy, signed) == (
        "INCONCLUSIVE",
        "no log entry in the bundle: no proof of signing time",
    )


def test_an_identity_needs_a_trusted_root(authority: Authority, file: Path) -> None:
    with pytest.raises(ParameterError, match=r"trusted root: .* got none; name it as signing\."):
        one(file, Policy(IDENTITY, ISSUER), authority.sign(DATA))


def test_an_envelope_is_logged_as_one(authority: Authority, file: Path, policy: Policy) -> None:
    about = statement(HEX)
    good, second = authority.attest(about), authority.attest(about)
    entry = second["verificationMaterial"]["tlogEntries"][0]
    payload = b64(statement(HEX, predicate={"more": 1}))

    assert one(file, policy, tamper(good, *ENTRY, value=entry))[0] == "FAIL"
    assert one(file, policy, tamper(good, "dsseEnvelope", "signatures", 0, "sig"))[0] == "FAIL"
    assert one(file, policy, tamper(good, "dsseEnvelope", "payload", value=payload))[0] == "FAIL"
    assert one(file, policy, authority.attest(about, log="hashedrekord/0.0.1")) == (
        "INCONCLUSIVE",
        "an envelope logged as hashedrekord/0.0.1 cannot be verified; log it as dsse/0.0.1 or"
        " hashedrekord/0.0.2",
    )


def test_a_statement_may_name_a_longer_digest(
    authority: Authority, file: Path, policy: Policy
) -> None:
    right, wrong = (
        statement("", subject=[{"digest": {"sha512": hashlib.sha512(data).hexdigest()}}])
        for data in (DATA, b"another file")
    )

    assert one(file, policy, authority.attest(right)) == ("PASS", SIGNER)
    assert one(file, policy, authority.attest(wrong))[0] == "FAIL"
    assert one(f"sha256:{HEX}", policy, authority.attest(right))[0] == "FAIL"


def test_a_chain_holds_no_root(authority: Authority, file: Path, policy: Policy) -> None:
    signed = authority.sign(DATA)
    material = signed["verificationMaterial"]
    leaf, root = (
        material.pop("certificate"),
        {"rawBytes": b64(authority.ca.public_bytes(Encoding.DER))},
    )
    old = {**signed, "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.2"}

    material["x509CertificateChain"] = {"certificates": [leaf]}
    assert one(file, policy, old) == ("PASS", SIGNER)
    material["x509CertificateChain"] = {"certificates": [leaf, root]}
    assert one(file, policy, old) == ("FAIL", "a root certificate in the bundle's chain")


def test_no_timestamp_is_passed_over(
    authority: Authority, file: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that no trusted authority made spoils the bundle, though its promise gives a time."""
    from sigstore.models import TrustedRoot, VerificationMaterial

    stamp = type("Stamp", (), {"tst_info": SimpleNamespace(gen_time=SIGNED)})()
    stamps = SimpleNamespace(rfc3161_timestamps=[stamp])
    monkeypatch.setattr(VerificationMaterial, "timestamp_verification_data", stamps)
    nobody = SimpleNamespace(certificates=lambda allow_expired: [])
    monkeypatch.setattr(TrustedRoot, "get_timestamp_authorities", lambda self: [nobody])
    data = {"rfc3161Timestamps": [{"signedTimestamp": b64(b"any")}]}

    for made in (authority.sign(DATA), authority.attest(statement(HEX))):
        assert one(file, policy, made) == ("PASS", SIGNER)  # the library passes over the stamp
        made["verificationMaterial"]["timestampVerificationData"] = data
        assert one(file, policy, made) == ("FAIL", "not enough sources of verified time")


def test_a_timestamp_that_is_none_is_refused(
    authority: Authority, file: Path, policy: Policy
) -> None:
    data = {"rfc3161Timestamps": [{"signedTimestamp": b64(b"junk")}]}
    signed = authority.sign(DATA)
    signed["verificationMaterial"]["timestampVerificationData"] = data

    assert one(file, policy, signed) == ("FAIL", "Invalid Timestamp Response")


def test_an_envelope_of_a_file_signature_is_refused(
    authority: Authority, file: Path, policy: Policy
) -> None:
    both = authority.sign(DATA) | envelope(statement(HEX), b"x")
    with pytest.raises(ParameterError, match=r"bundle: expected sigstore's JSON, got: "):
        rows(file, policy, both)


EARLY = SIGNED - timedelta(days=30)
LATE = SIGNED + timedelta(days=30)


def instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("part", ["tlogs", "certificateAuthorities"])
@pytest.mark.parametrize(
    ("start", "end", "outcome"),
    [
        (EARLY, LATE, "PASS"),
        (SIGNED, SIGNED, "PASS"),
        (EARLY, SIGNED - timedelta(seconds=1), "FAIL"),
        (SIGNED + timedelta(seconds=1), LATE, "FAIL"),
    ],
)
def test_a_validity_is_closed_and_binds(
    authority: Authority, file: Path, part: str, start: datetime, end: datetime, outcome: str
) -> None:
    root = json.loads(authority.root)
    inner = root[part][0]["publicKey"] if part == "tlogs" else root[part][0]
    inner["validFor"] = {"start": instant(start), "end": instant(end)}
    data = json.dumps(root).encode()

    for signed in (authority.sign(DATA), authority.attest(statement(HEX))):
        assert one(file, Policy(IDENTITY, ISSUER, root=data), signed)[0] == outcome


def test_what_was_not_valid_is_named(authority: Authority, file: Path) -> None:
    root = json.loads(authority.root)
    root["tlogs"][0]["publicKey"]["validFor"]["end"] = instant(EARLY)
    policy = Policy(IDENTITY, ISSUER, root=json.dumps(root).encode())

    assert one(file, policy, authority.sign(DATA)) == (
        "FAIL",
        f"no log of the trusted root was valid at {SIGNED.isoformat()}",
    )


def test_a_validity_needs_its_start(authority: Authority, file: Path) -> None:
    root = json.loads(authority.root)
    del root["tlogs"][0]["publicKey"]["validFor"]["start"]
    with pytest.raises(ParameterError, match="trusted root: expected sigstore's JSON, got: tlogs"):
        one(file, Policy(IDENTITY, ISSUER, root=json.dumps(root).encode()), authority.sign(DATA))
