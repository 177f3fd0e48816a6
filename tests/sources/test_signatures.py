"""Signatures, keyless and by keys: a good one proves its signer, a bad one says why not."""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding

from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.sources.signatures import Find, Material, Policy
from runbook_rehearsal.signing import SHA256, b64, new_key, pem

from .verifying import (
    AUTHORITY,
    DATA,
    ENTRY,
    HEX,
    IDENTITY,
    IN_TOTO,
    ISSUER,
    OTHER,
    POLICY,
    ROOT,
    SIGNED,
    SIGNER,
    Authority,
    Detached,
    TimestampAuthority,
    envelope,
    one,
    pae,
    statement,
    tamper,
)


def with_entry_of(signed: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return tamper(signed, *ENTRY, value=other["verificationMaterial"]["tlogEntries"][0])


STAMPS = {"rfc3161Timestamps": [{"signedTimestamp": b64(b"junk")}]}
STAMPED = ("verificationMaterial", "timestampVerificationData")
LOGGED_AS = (
    "an envelope logged as hashedrekord/0.0.1 cannot be verified; log it as dsse/0.0.1 or"
    " hashedrekord/0.0.2"
)


@pytest.mark.parametrize(
    ("made", "outcome", "observed"),
    [
        (lambda a: a.sign(DATA), "PASS", SIGNER),
        (lambda a: a.attest(statement(HEX)), "PASS", SIGNER),
        (lambda a: a.sign(DATA, identity=IDENTITY + "x"), "FAIL",
         "Certificate's SANs do not match"),
        (lambda a: a.sign(DATA, issuer="https://issuer.example"), "FAIL",
         "OIDCIssuer does not match"),
        (lambda a: a.sign(DATA, at=SIGNED + timedelta(hours=1)), "FAIL", "not valid at"),
        (lambda a: a.sign(DATA, at=SIGNED - timedelta(hours=1)), "FAIL", "not valid at"),
        (lambda a: a.sign(b"another file"), "FAIL", "Bundle message digest mismatch"),
        (lambda a: a.attest(statement(OTHER)), "FAIL",
         f"a statement about sha256:{OTHER}, not this"),
        (lambda a: a.attest(statement(HEX), "text/plain"), "FAIL",
         "envelope of 'text/plain', expected"),
        (lambda a: a.attest(statement(HEX, _type="x")), "FAIL",
         "_type: expected 'https://in-toto.io/"),
        (lambda a: a.attest(b"[" * 100_000), "FAIL", "expected one JSON object, got: "),
        (lambda a: a.attest(statement(HEX, subject=7)), "FAIL", "subject: expected a valid list, got 7"),
        (lambda a: a.sign_with(new_key(), DATA), "FAIL", "expected certificate in bundle"),
        (lambda a: Authority().sign(DATA), "FAIL", "failed to build timestamp certificate chain"),
        # A genuine entry of the same content that records another certificate, or none at all.
        (lambda a: with_entry_of(a.sign(DATA), a.sign(DATA)), "FAIL",
         "transparency log entry is inconsistent with other materials"),
        (lambda a: with_entry_of(a.attest(statement(HEX)), a.attest(statement(HEX))), "FAIL", ""),
        (lambda a: tamper(a.sign(DATA), *ENTRY[:-1], value=[]), "INCONCLUSIVE",
         "no log entry in the bundle: no proof of signing time"),
        (lambda a: a.attest(statement(HEX), log="hashedrekord/0.0.1"), "INCONCLUSIVE", LOGGED_AS),
        (lambda a: tamper(a.attest(statement(HEX)), "dsseEnvelope", "signatures", 0, "sig"), "FAIL",
         ""),
        (lambda a: tamper(a.attest(statement(HEX)), "dsseEnvelope", "payload",
         value=b64(statement(HEX, predicate={"more": 1}))), "FAIL", ""),
        (lambda a: tamper(a.sign(DATA), *STAMPED, value=STAMPS), "FAIL", "Invalid Timestamp Response"),
    ],
)  # fmt: skip
def test_a_bundle_proves_its_signer_or_says_why_not(
    file: Path, made: Callable[[Authority], dict[str, Any]], outcome: str, observed: str
) -> None:
    found = one(file, POLICY, made(AUTHORITY))

    assert (found[0], observed in found[1]) == (outcome, True)


def test_what_can_be_no_bundle_or_no_root_is_malformed(file: Path) -> None:
    signed, root = AUTHORITY.sign(DATA), json.loads(AUTHORITY.root)
    del root["tlogs"][0]["publicKey"]["validFor"]["start"]
    unbounded = json.dumps(root).encode()
    both = signed | envelope(statement(HEX), b"x")
    for given, bundle, problem in (
        (b"", signed, r"trusted root: .* got none; name it as artifact_signing\."),
        (unbounded, signed, "trusted root: expected sigstore's JSON, got: tlogs"),
        (AUTHORITY.root, both, "bundle: expected sigstore's JSON, got: "),
    ):
        with pytest.raises(ParameterError, match=problem):
            one(file, Policy(IDENTITY, ISSUER, root=given), bundle)


@pytest.mark.parametrize(
    ("trusted", "problem"), [("log_key", "SCT"), ("ct_key", "invalid log entry")]
)
def test_both_logs_must_be_ours(file: Path, trusted: str, problem: str) -> None:
    stranger = Authority()
    for name in ("ca", "ca_key", trusted):
        setattr(stranger, name, getattr(AUTHORITY, name))

    outcome, observed = one(file, POLICY, stranger.sign(DATA))

    assert (outcome, problem in observed) == ("FAIL", True)


def test_a_statement_may_name_a_longer_digest(file: Path) -> None:
    right, wrong = (
        statement("", subject=[{"digest": {"sha512": hashlib.sha512(data).hexdigest()}}])
        for data in (DATA, b"another file")
    )

    assert one(file, POLICY, AUTHORITY.attest(right)) == ("PASS", SIGNER)
    assert one(file, POLICY, AUTHORITY.attest(wrong))[0] == "FAIL"
    assert one(f"sha256:{HEX}", POLICY, AUTHORITY.attest(right))[0] == "FAIL"


def test_a_chain_holds_no_root(file: Path) -> None:
    signed = AUTHORITY.sign(DATA)
    material = signed["verificationMaterial"]
    leaf, root = (
        material.pop("certificate"),
        {"rawBytes": b64(AUTHORITY.ca.public_bytes(Encoding.DER))},
    )
    old = {**signed, "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.2"}

    material["x509CertificateChain"] = {"certificates": [leaf]}
    assert one(file, POLICY, old) == ("PASS", SIGNER)
    material["x509CertificateChain"] = {"certificates": [leaf, root]}
    assert one(file, POLICY, old) == ("FAIL", "a root certificate in the bundle's chain")


def test_no_timestamp_is_passed_over(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no trusted authority made spoils the bundle, though its promise gives a time."""
    from sigstore.models import TrustedRoot, VerificationMaterial

    stamp = type("Stamp", (), {"tst_info": SimpleNamespace(gen_time=SIGNED)})()
    stamps = SimpleNamespace(rfc3161_timestamps=[stamp])
    monkeypatch.setattr(VerificationMaterial, "timestamp_verification_data", stamps)
    nobody = SimpleNamespace(certificates=lambda allow_expired: [])
    monkeypatch.setattr(TrustedRoot, "get_timestamp_authorities", lambda self: [nobody])
    data = {"rfc3161Timestamps": [{"signedTimestamp": b64(b"any")}]}

    for made in (AUTHORITY.sign(DATA), AUTHORITY.attest(statement(HEX))):
        assert one(file, POLICY, made) == ("PASS", SIGNER)  # the library passes over the stamp
        made["verificationMaterial"]["timestampVerificationData"] = data
        assert one(file, POLICY, made) == ("FAIL", "not enough sources of verified time")


EARLY = SIGNED - timedelta(days=30)
LATE = SIGNED + timedelta(days=30)


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
    file: Path, part: str, start: datetime, end: datetime, outcome: str
) -> None:
    root = json.loads(AUTHORITY.root)
    inner = root[part][0]["publicKey"] if part == "tlogs" else root[part][0]
    inner["validFor"] = {"start": start.isoformat(), "end": end.isoformat()}
    data = json.dumps(root).encode()

    for signed in (AUTHORITY.sign(DATA), AUTHORITY.attest(statement(HEX))):
        found = one(file, Policy(IDENTITY, ISSUER, root=data), signed)
        assert found[0] == outcome
        if outcome == "FAIL" and part == "tlogs":
            why = f"no log of the trusted root was valid at {SIGNED.isoformat()}"
            assert found[1] == why


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make timestamps")
def test_the_validity_of_a_timestamp_authority_is_closed_and_its_own(
    file: Path, tmp_path: Path
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    authority, second = Authority(now), timedelta(seconds=1)
    stamps, signed = TimestampAuthority(authority, tmp_path), authority.sign(DATA, at=now)
    at = stamps.stamp(signed)
    right, late = stamps.in_root(at, at), stamps.in_root(at - 2 * second, at - second)
    unread = stamps.in_root(at - second, at + second, chain=False)

    def judged(*authorities: dict[str, Any]) -> tuple[str, str]:
        root = json.loads(authority.root) | {"timestampAuthorities": authorities}
        return one(file, Policy(IDENTITY, ISSUER, root=json.dumps(root).encode()), signed)

    assert judged(right) == judged(late, right) == ("PASS", SIGNER)
    for wrong in (late, stamps.in_root(at + second, at + 2 * second)):
        assert judged(wrong) == ("FAIL", "not enough sources of verified time")
    # One without certificates lends its validity to nobody: such a root is not usable.
    for others in ((late, unread), (right, unread)):
        with pytest.raises(ParameterError, match="trusted root: expected a usable one"):
            judged(*others)


# --- a signature beside its certificate -----------------------------------------------------------


def test_a_detached_signature_with_its_log_entry_is_proof(file: Path) -> None:
    made = Detached(AUTHORITY)
    encoded = Material(signature=made.signature, certificate=b64(made.pem).encode())

    assert one(file, POLICY, made.material, find=made.find) == ("PASS", SIGNER)
    assert one(file, POLICY, encoded, find=made.find) == ("PASS", SIGNER)
    assert made.asked == [f"https://log.example {HEX}"] * 2


def down(log: str, entry: dict[str, Any]) -> None:
    raise SourceError(log, "expected the log's answer, got ConnectError: refused")


NO_PROOF = "no proof of signing time"


@pytest.mark.parametrize(
    ("find", "problem"),
    [
        (None, f"no log entry beside a detached signature: {NO_PROOF}"),
        (lambda log, entry: None, f"the log has no entry of this signature: {NO_PROOF}"),
        (
            down,
            f"{NO_PROOF}: https://log.example: expected the log's answer, got ConnectError: refused",
        ),
    ],
)
def test_a_detached_signature_without_its_log_entry_is_no_proof(
    file: Path, find: Find | None, problem: str
) -> None:
    assert one(file, POLICY, Detached(AUTHORITY).material, find=find) == ("INCONCLUSIVE", problem)


def test_what_a_log_answers_is_not_believed_and_what_is_wrong_needs_no_log(file: Path) -> None:
    made, other = Detached(AUTHORITY), Detached(AUTHORITY)
    answers = ({"x": {}}, {"x": None}, {"x": {"body": 7}}, {"a": {}, "b": {}})
    judged = [one(file, POLICY, made.material, find=lambda log, entry, a=a: a) for a in answers]  # type: ignore[misc]
    judged.append(one(file, POLICY, made.material, find=other.find))
    wrong = {"identity": "https://x.example"}, {"issuer": "https://x.example"}
    judged += [one(file, POLICY, Detached(AUTHORITY, **each).material) for each in wrong]
    judged.append(one(file, POLICY, Detached(AUTHORITY, b"another file").material))

    assert {outcome for outcome, _ in judged} == {"FAIL"}


# --- by public keys: detached, in bundles and over envelopes --------------------------------------


NO_LOGS = json.dumps({"mediaType": ROOT}).encode()


def dsse(key: Any, payload: bytes, kind: str = IN_TOTO) -> dict[str, Any]:
    return envelope(payload, key.sign(pae(payload, kind), SHA256), kind)


def test_a_keys_bundle_proves_what_its_signature_does(file: Path) -> None:
    key = new_key()
    with_entry, without = AUTHORITY.sign_with(key, DATA), AUTHORITY.sign_with(key, DATA)
    del without["verificationMaterial"]["tlogEntries"]
    problem = "the signature is the key's, but a log entry of a public key cannot be verified; trust no log, or publish the detached signature"
    for root, found in ((AUTHORITY.root, ("INCONCLUSIVE", problem)), (NO_LOGS, None), (b"", None)):
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
def test_a_wrong_bundle_of_a_key_is_refused(file: Path, root: bytes) -> None:
    key = new_key()
    policy, signed = Policy(key=pem(key), root=root), AUTHORITY.sign_with(key, DATA)
    signed["messageSignature"]["messageDigest"]["digest"] = b64(bytes(32))
    bad = {
        "the signature is not this key's over this content": AUTHORITY.sign_with(new_key(), DATA),
        "the bundle's digest is another file's": AUTHORITY.sign_with(key, b"another file"),
        "a certificate, no public key, in the bundle": AUTHORITY.sign(DATA),
    }

    assert [one(file, policy, each) for each in bad.values()] == [("FAIL", why) for why in bad]
    assert one(file, policy, signed) == ("FAIL", "the bundle's digest is another file's")


@pytest.mark.parametrize(
    ("key", "how"),
    [
        (new_key(), (SHA256,)),
        (rsa.generate_private_key(65537, 2048), (PKCS1v15(), hashes.SHA256())),
        (ed25519.Ed25519PrivateKey.generate(), ()),
    ],
    ids=["ecdsa", "rsa", "ed25519"],
)
def test_a_detached_signature_by_a_key(file: Path, key: Any, how: tuple[Any, ...]) -> None:
    signature = key.sign(DATA, *how)
    policy, wrong = Policy(key=pem(key)), Policy(key=pem(new_key()))

    assert one(file, policy, Material(signature=signature)) == ("PASS", policy.signer)
    in_text = Material(signature=b64(signature).encode() + b"\n")
    assert one(file, policy, in_text) == ("PASS", policy.signer)
    assert one(file, wrong, in_text)[0] == "FAIL"
    assert one(file, policy, Material(signature=b"\0" + signature))[0] == "FAIL"
    if not how:
        problem = r"^artifact: expected the file: an Ed25519 key signs all of it$"
        with pytest.raises(ParameterError, match=problem):
            one(f"sha256:{HEX}", policy, Material(signature=signature))
