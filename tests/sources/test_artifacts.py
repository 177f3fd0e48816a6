"""Good material is accepted, bad material never, and nothing ends in a traceback."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook_lib import cli
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.outcomes import Row
from runbook_lib.rehearsal.authority import SHA256, b64, hashedrekord, new_key, pem, v1_answer
from runbook_lib.sources.artifacts import Request, examine
from runbook_lib.sources.roots import trusted_root
from runbook_lib.sources.signatures import Find, Material, Policy

from .sigstore_authority import (
    COMMIT,
    IDENTITY,
    ISSUER,
    SIGNED,
    Authority,
    bundle,
    envelope,
    message,
    statement,
)

DATA = b"a release artifact\n"
HEX = hashlib.sha256(DATA).hexdigest()
SIGNER = f"{IDENTITY} ({ISSUER})"
ROOT = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"


OTHER = hashlib.sha256(b"another file").hexdigest()
ENVELOPE_LOGS = ("dsse/0.0.1", "intoto/0.0.2", "hashedrekord/0.0.1")
KEYED_LOGS = (*ENVELOPE_LOGS, "hashedrekord/0.0.2", "dsse/0.0.2")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "rpp-node-x86_64.tar.gz"
    path.write_bytes(DATA)
    return path


@pytest.fixture(scope="module")
def policy(authority: Authority) -> Policy:
    return Policy(IDENTITY, ISSUER, root=authority.root)


def rows(
    file: Path | str, policy: Policy, material: dict[str, Any] | bytes | Material, **more: Any
) -> list[Row]:
    if isinstance(material, dict):
        material = json.dumps(material).encode()
    if isinstance(material, bytes):
        material = Material(bundle=material)
    return examine(Request(str(file), material, policy, **more))


def one(*args: Any, **more: Any) -> tuple[str, str]:
    """Outcome and observed value of the one row."""
    (row,) = rows(*args, **more)
    return row.outcome.value, str(row.observed)


# --- keyless bundles --------------------------------------------------------------------------------


def test_a_good_bundle_proves_the_signer(authority: Authority, file: Path, policy: Policy) -> None:
    """Over the file, and over nothing but its digest."""
    signed = authority.sign(DATA)

    assert one(file, policy, signed) == ("PASS", SIGNER)
    assert one(f"sha256:{HEX}", policy, signed) == ("PASS", SIGNER)


def test_a_signed_statement_proves_its_subject(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """An envelope whose statement names the artifact."""
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
    """Wrong signer, time, content, statement, kind or authority: FAIL, and it says which."""
    outcome, observed = one(file, policy, made(authority))

    assert outcome == "FAIL"
    assert problem in observed


def tamper(signed: dict[str, Any], *path: str | int, value: Any = None) -> dict[str, Any]:
    """A copy in which one byte of the base64 value at ``path`` is another, or ``value`` is there."""
    changed = copy.deepcopy(signed)
    inner: Any = changed
    for step in path[:-1]:
        inner = inner[step]
    if value is None:
        raw = bytearray(base64.b64decode(inner[path[-1]]))
        raw[len(raw) // 2] ^= 1
        value = b64(bytes(raw))
    inner[path[-1]] = value
    return changed


ENTRY = ("verificationMaterial", "tlogEntries", 0)
PROOF = (*ENTRY, "inclusionProof")


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
    """Wherever it is: signature, digest, certificate, entry, promise or proof."""
    assert one(file, policy, tamper(authority.sign(DATA), *path))[0] == "FAIL"


def test_the_certificate_must_be_in_its_log(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """A timestamp of another certificate log is none."""
    stranger = Authority()
    stranger.ca, stranger.ca_key = authority.ca, authority.ca_key
    stranger.log_key = authority.log_key

    outcome, observed = one(file, policy, stranger.sign(DATA))

    assert (outcome, "SCT" in observed) == ("FAIL", True)


def test_the_log_must_be_ours(authority: Authority, file: Path, policy: Policy) -> None:
    """A right certificate with an entry of a log that nobody trusts."""
    stranger = Authority()
    stranger.ca, stranger.ca_key = authority.ca, authority.ca_key
    stranger.ct_key = authority.ct_key

    outcome, observed = one(file, policy, stranger.sign(DATA))

    assert (outcome, "invalid log entry" in observed) == ("FAIL", True)


def test_another_signatures_entry_is_refused(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """A genuine entry of the same file that records another certificate."""
    signed, other = authority.sign(DATA), authority.sign(DATA)
    entry = other["verificationMaterial"]["tlogEntries"][0]

    assert one(file, policy, tamper(signed, *ENTRY, value=entry)) == (
        "FAIL",
        "transparency log entry is inconsistent with other materials",
    )


def test_a_bundle_without_a_log_entry_is_no_proof(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """INCONCLUSIVE: nothing is disproved."""
    signed = tamper(authority.sign(DATA), "verificationMaterial", "tlogEntries", value=[])

    assert one(file, policy, signed) == (
        "INCONCLUSIVE",
        "no log entry in the bundle: no proof of signing time",
    )


def test_the_shipped_root_does_not_know_a_throwaway(authority: Authority, file: Path) -> None:
    """Without --trusted-root the one sigstore embeds counts, with no network."""
    assert one(file, Policy(IDENTITY, ISSUER), authority.sign(DATA))[0] == "FAIL"


@pytest.mark.parametrize("log", ENVELOPE_LOGS)
def test_an_envelope_may_be_logged_in_several_kinds(
    authority: Authority, file: Path, policy: Policy, log: str
) -> None:
    """Each is compared with signature, certificate and content; another's entry is refused."""
    about = statement(HEX)
    good, second = authority.attest(about, log=log), authority.attest(about, log=log)
    entry = second["verificationMaterial"]["tlogEntries"][0]

    assert one(file, policy, good) == ("PASS", SIGNER)
    assert one(file, policy, authority.attest(statement(OTHER), log=log))[0] == "FAIL"
    assert one(file, policy, tamper(good, *ENTRY, value=entry))[0] == "FAIL"
    assert one(file, policy, tamper(good, "dsseEnvelope", "signatures", 0, "sig"))[0] == "FAIL"
    payload = b64(statement(HEX, predicate={"more": 1}))
    assert one(file, policy, tamper(good, "dsseEnvelope", "payload", value=payload))[0] == "FAIL"


def test_an_entry_of_another_content_is_refused(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """A hashedrekord of an envelope is about its encoding, not about its payload alone."""
    about = statement(HEX)
    good = authority.attest(about, log="hashedrekord/0.0.1")
    raw = good["verificationMaterial"]["certificate"]["rawBytes"]
    lines = "\n".join(raw[n : n + 64] for n in range(0, len(raw), 64))
    verifier = f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n".encode()
    signature = base64.b64decode(good["dsseEnvelope"]["signatures"][0]["sig"])
    entry = authority.file_entry(verifier, signature, about)

    assert one(file, policy, tamper(good, *ENTRY, value=entry)) == (
        "FAIL",
        "the log entry is about another signature, key or content",
    )


def test_a_statement_may_name_a_longer_digest(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """By sha512 alone, which takes the file itself."""
    right, wrong = (
        statement("", subject=[{"digest": {"sha512": hashlib.sha512(data).hexdigest()}}])
        for data in (DATA, b"another file")
    )

    assert one(file, policy, authority.attest(right)) == ("PASS", SIGNER)
    assert one(file, policy, authority.attest(wrong))[0] == "FAIL"
    assert one(f"sha256:{HEX}", policy, authority.attest(right))[0] == "FAIL"


def test_a_chain_holds_no_root(authority: Authority, file: Path, policy: Policy) -> None:
    """Bundles of older kinds carry a chain; who is trusted is not theirs to say."""
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

    data = SimpleNamespace(rfc3161_timestamps=[object()])
    monkeypatch.setattr(VerificationMaterial, "timestamp_verification_data", data)
    nobody = SimpleNamespace(certificates=lambda allow_expired: [])
    monkeypatch.setattr(TrustedRoot, "get_timestamp_authorities", lambda self: [nobody])

    for log in ("dsse/0.0.1", "intoto/0.0.2"):
        assert one(file, policy, authority.attest(statement(HEX), log=log)) == (
            "FAIL",
            "a timestamp is of no authority that the trusted root knows at its time",
        )


# --- validity ---------------------------------------------------------------------------------------

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
    """A log and an authority count at times at which the trusted root says so, ends included."""
    root = json.loads(authority.root)
    inner = root[part][0]["publicKey"] if part == "tlogs" else root[part][0]
    inner["validFor"] = {"start": instant(start), "end": instant(end)}
    data = json.dumps(root).encode()
    key = new_key()

    for signed in (authority.sign(DATA), authority.attest(statement(HEX), log="intoto/0.0.2")):
        assert one(file, Policy(IDENTITY, ISSUER, root=data), signed)[0] == outcome
    keyed = one(file, Policy(key=pem(key), root=data), authority.sign_with(key, DATA))
    assert keyed[0] == (outcome if part == "tlogs" else "PASS")


def test_what_was_not_valid_is_named(authority: Authority, file: Path) -> None:
    """And when it would have had to be."""
    root = json.loads(authority.root)
    root["tlogs"][0]["publicKey"]["validFor"]["end"] = instant(EARLY)
    policy = Policy(IDENTITY, ISSUER, root=json.dumps(root).encode())

    assert one(file, policy, authority.sign(DATA)) == (
        "FAIL",
        f"no log of the trusted root was valid at {SIGNED.isoformat()}",
    )


def test_a_validity_needs_its_start(authority: Authority, file: Path) -> None:
    """A trusted root that leaves it out is malformed, not unbounded."""
    root = json.loads(authority.root)
    del root["tlogs"][0]["publicKey"]["validFor"]["start"]
    with pytest.raises(ParameterError, match="trusted root: expected sigstore's JSON, got: tlogs"):
        one(file, Policy(IDENTITY, ISSUER, root=json.dumps(root).encode()), authority.sign(DATA))


def test_a_timestamp_at_its_authoritys_end_is_in_time(authority: Authority) -> None:
    """The library compares with "before the end"; the end it is given lies just behind."""
    root = json.loads(authority.root)
    issuer = root["certificateAuthorities"][0]
    window = {"start": instant(EARLY), "end": instant(SIGNED)}
    root["timestampAuthorities"] = [{**issuer, "validFor": window}]

    (found,) = trusted_root(json.dumps(root).encode()).get_timestamp_authorities()

    assert found.validity_period_end == SIGNED + timedelta(microseconds=1)


# --- public keys ------------------------------------------------------------------------------------


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


# --- a detached signature with its certificate --------------------------------------------------------


class Detached:
    """A signature and certificate as the chain publishes them, and a log that knows them."""

    def __init__(self, authority: Authority, data: bytes = DATA, **certificate: str) -> None:
        made = authority.detach(data, **certificate)
        self.pem, self.signature, self.entry = made.certificate, made.signature, made.entry
        self.asked: list[str] = []

    @property
    def material(self) -> Material:
        return Material(signature=b64(self.signature).encode(), certificate=self.pem)

    def find(self, log: str, entry: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(f"{log} {entry['spec']['data']['hash']['value']}")
        return v1_answer(self.entry)


def test_a_detached_signature_with_its_log_entry_is_proof(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """The log is asked for the artifact's digest; the certificate may be in base64, too."""
    made = Detached(authority)
    encoded = Material(signature=made.signature, certificate=b64(made.pem).encode())

    assert one(file, policy, made.material, find=made.find) == ("PASS", SIGNER)
    assert one(file, policy, encoded, find=made.find) == ("PASS", SIGNER)
    assert made.asked == [f"https://log.example {HEX}"] * 2


def _down(log: str, entry: dict[str, Any]) -> None:
    raise SourceError(log, "expected the log's answer, got ConnectError: refused")


@pytest.mark.parametrize(
    ("find", "problem"),
    [
        (None, "no log entry beside a detached signature: no proof of signing time"),
        (
            lambda log, entry: None,
            "the log has no entry of this signature: no proof of signing time",
        ),
        (
            _down,
            "no proof of signing time: https://log.example: expected the log's answer, got "
            "ConnectError: refused",
        ),
    ],
)
def test_a_detached_signature_without_its_log_entry_is_no_proof(
    authority: Authority, file: Path, policy: Policy, find: Find | None, problem: str
) -> None:
    """Offline, unknown to the log, or the log does not answer: INCONCLUSIVE."""
    made = Detached(authority)

    assert one(file, policy, made.material, find=find) == ("INCONCLUSIVE", problem)


@pytest.mark.parametrize(
    "answer",
    [
        {"x": {}},
        {"x": None},
        {"x": {"body": 7}},
        {"a": {}, "b": {}},
    ],
)
def test_what_a_log_answers_is_not_believed(
    authority: Authority, file: Path, policy: Policy, answer: dict[str, Any]
) -> None:
    """Nonsense is refused, as is a genuine entry of another signature."""
    made, other = Detached(authority), Detached(authority)

    assert one(file, policy, made.material, find=lambda log, entry: answer)[0] == "FAIL"
    assert one(file, policy, made.material, find=other.find)[0] == "FAIL"


def test_what_is_wrong_offline_is_refused_offline(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """Another signer, issuer or file needs no log to be disproved."""
    for made in (
        Detached(authority, identity="https://x.example"),
        Detached(authority, issuer="https://x.example"),
        Detached(authority, b"another file"),
    ):
        assert one(file, policy, made.material)[0] == "FAIL"


# --- provenance, commit, SBOM -----------------------------------------------------------------------


def write(folder: Path, name: str, data: bytes, signed: dict[str, Any] | None = None) -> Path:
    path = folder / name
    path.write_bytes(data)
    if signed is not None:
        path.with_name(f"{name}.sigstore.json").write_text(json.dumps(signed))
    return path


def sbom(schema: str = "1.5", **component: Any) -> dict[str, Any]:
    return {
        "bomFormat": "CycloneDX",
        "specVersion": schema,
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "rpp-node", **component}},
        "components": [],
    }


def outcomes(found: list[Row]) -> list[tuple[str, str]]:
    return [(row.what, row.outcome.value) for row in found[1:]]


def test_the_commit_is_the_certificates(authority: Authority, file: Path, policy: Policy) -> None:
    """Right, wrong, and unknown where the signature itself is not proven."""
    good, other = authority.sign(DATA), authority.sign(b"another file")

    assert outcomes(rows(file, policy, good, commit=COMMIT)) == [("commit", "PASS")]
    assert outcomes(rows(file, policy, good, commit="f" * 40)) == [("commit", "FAIL")]
    assert outcomes(rows(file, policy, other, commit=COMMIT)) == [("commit", "INCONCLUSIVE")]


def test_a_provenance_must_be_signed_and_about_the_artifact(
    authority: Authority, file: Path, policy: Policy, tmp_path: Path
) -> None:
    """The chain publishes a plain statement with its signature beside it; a bundle does as well."""
    good, about, wrong = authority.sign(DATA), statement(HEX), statement(OTHER)

    def judged(data: bytes, signed: dict[str, Any] | None) -> list[str]:
        path = write(tmp_path, f"{len(list(tmp_path.iterdir()))}.intoto.jsonl", data, signed)
        return [row.outcome.value for row in rows(file, policy, good, provenance=path)[1:]]

    assert judged(about, authority.sign(about)) == ["PASS", "PASS"]
    assert judged(about, None) == ["PASS", "INCONCLUSIVE"]
    assert judged(about, authority.sign(wrong)) == ["PASS", "FAIL"]
    assert judged(wrong, authority.sign(wrong)) == ["FAIL", "PASS"]
    assert judged(json.dumps(authority.attest(about)).encode(), None) == ["PASS"]
    assert judged(json.dumps(authority.attest(wrong)).encode(), None) == ["FAIL"]
    assert judged(json.dumps(good).encode(), None) == ["FAIL"]


def test_a_document_may_be_signed_as_the_chain_signs(
    authority: Authority, file: Path, policy: Policy, tmp_path: Path
) -> None:
    """A signature and a certificate beside it: proof with the log's entry, none without."""
    about = statement(HEX)
    path, made = write(tmp_path, "node.intoto.jsonl", about), Detached(authority, about)
    write(tmp_path, "node.intoto.jsonl.sig", made.signature)
    write(tmp_path, "node.intoto.jsonl.pem", made.pem)

    def judged(**more: Any) -> list[str]:
        found = rows(file, policy, authority.sign(DATA), provenance=path, **more)
        return [row.outcome.value for row in found[1:]]

    assert judged(find=made.find) == ["PASS", "PASS"]
    assert judged() == ["PASS", "INCONCLUSIVE"]


@pytest.mark.parametrize("document", [{"bomFormat": "SPDX"}, sbom("1.1"), sbom("9.9")])
def test_another_kind_of_sbom_is_named(
    authority: Authority, file: Path, policy: Policy, tmp_path: Path, document: dict[str, Any]
) -> None:
    """Older than 1.2, newer than the schemas at hand, or no CycloneDX."""
    path = write(tmp_path, "sbom.json", json.dumps(document).encode())
    with pytest.raises(ParameterError) as caught:
        rows(file, policy, authority.sign(DATA), sbom=path)

    version = document.get("specVersion")
    known = "1.2, 1.3, 1.4, 1.5, 1.6, 1.7"
    assert str(caught.value) == f"sbom.json: expected CycloneDX JSON {known}, got {version!r}"


@pytest.mark.parametrize("commit", [COMMIT, "f" * 40])
def test_a_key_learns_the_commit_from_a_signed_provenance(
    authority: Authority, file: Path, tmp_path: Path, commit: str
) -> None:
    """Its own signature is detached; an unsigned one says nothing."""
    key = new_key()
    sources = [{"uri": "git+https://x.example", "digest": {"gitCommit": COMMIT}}]
    data = statement(HEX, predicate={"buildDefinition": {"resolvedDependencies": sources}})
    path = write(tmp_path, "node.intoto.jsonl", data)
    material = Material(signature=key.sign(DATA, SHA256))
    policy = Policy(key=pem(key))

    def judged() -> str:
        return rows(file, policy, material, provenance=path, commit=commit)[-1].outcome.value

    assert judged() == "INCONCLUSIVE"
    write(tmp_path, "node.intoto.jsonl.sig", key.sign(data, SHA256))
    assert judged() == ("PASS" if commit == COMMIT else "FAIL")


def hashes(hex_digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": hex_digest}]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        *((sbom(f"1.{n}", version="1"), ["PASS", "PASS", "PASS"]) for n in range(2, 8)),
        (sbom(hashes=hashes(HEX)), ["PASS", "PASS", "PASS"]),
        (sbom(hashes=hashes(OTHER)), ["PASS", "PASS", "FAIL"]),
        (sbom(name="rpp-wallet"), ["PASS", "PASS", "FAIL"]),
        (sbom(name="rpp"), ["PASS", "PASS", "PASS"]),
        (sbom(type="holiday"), ["FAIL", "PASS", "PASS"]),
        (sbom() | {"more": 1}, ["FAIL", "PASS", "PASS"]),
        ({**sbom(), "metadata": {}}, ["PASS", "PASS", "INCONCLUSIVE"]),
    ],
)
def test_an_sbom_is_valid_signed_and_about_the_artifact(
    authority: Authority,
    file: Path,
    policy: Policy,
    tmp_path: Path,
    document: dict[str, Any],
    expected: list[str],
) -> None:
    """By the schema of its own version, from 1.2 to the newest."""
    data = json.dumps(document).encode()
    path = write(tmp_path, "sbom.json", data, authority.sign(data))

    found = rows(file, policy, authority.sign(DATA), sbom=path)

    assert [row.outcome.value for row in found[1:]] == expected


def test_an_unsigned_sbom_is_no_proof(
    authority: Authority, file: Path, policy: Policy, tmp_path: Path
) -> None:
    """Anybody could have written it."""
    path = write(tmp_path, "sbom.json", json.dumps(sbom()).encode())

    assert outcomes(rows(file, policy, authority.sign(DATA), sbom=path)) == [
        ("CycloneDX schema", "PASS"),
        ("signature", "INCONCLUSIVE"),
        ("is about", "PASS"),
    ]


# --- hostile input ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(*path, key) for key, _ in inner]
    nested = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in nested:
        if isinstance(each, dict | list):
            found += places(each, (*path, key))
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_mutation_passes_or_escapes(
    authority: Authority, file: Path, policy: Policy, data: st.DataObject
) -> None:
    """Any one value of a bundle replaced: refused, unproven or malformed, never a traceback."""
    key = new_key()
    good, judge = data.draw(
        st.sampled_from(
            [
                (authority.sign(DATA), policy),
                (authority.attest(statement(HEX)), policy),
                (authority.sign_with(key, DATA), Policy(key=pem(key), root=authority.root)),
            ]
        )
    )
    path = data.draw(st.sampled_from(places(good)))
    value = data.draw(JSON)
    # What the log does not sign and no step reads may be anything: a hint, a key id, a position.
    free = ("hint", "keyid", "logIndex", "keyId", "publicKey", "messageDigest", "inclusionPromise")
    mutated = tamper(good, *path, value=value if value is not None else {})
    try:
        outcome, _ = one(file, judge, mutated)
    except ParameterError:
        return
    if path[-1] not in free:
        assert outcome != "PASS"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON)
def test_no_document_escapes(
    authority: Authority, file: Path, policy: Policy, tmp_path: Path, value: Any
) -> None:
    """A bundle, provenance, SBOM or root of any JSON is an error of ours or a row."""
    good, junk = authority.sign(DATA), json.dumps(value).encode()
    path = write(tmp_path, "junk.json", junk)
    for call in (
        lambda: rows(file, policy, junk),
        lambda: rows(file, policy, good, provenance=path),
        lambda: rows(file, policy, good, sbom=path),
        lambda: rows(file, Policy(IDENTITY, ISSUER, root=junk), good),
    ):
        with pytest.raises(ParameterError):
            call()


def test_what_cannot_be_shown_is_escaped(
    authority: Authority, policy: Policy, tmp_path: Path
) -> None:
    """Control characters and broken text in names and documents reach no terminal."""
    odd = tmp_path / "no\udcffde\x1b[2J"
    odd.write_bytes(DATA)
    document = json.dumps(sbom(name="\x1b[2J")).encode()
    path = write(tmp_path, "sbom.json", document, authority.sign(document))

    found = rows(odd, policy, authority.sign(DATA), sbom=path)

    assert found[0].subject == r"no\udcffde\x1b[2J"
    assert found[-1].observed == r"\x1b[2J"
    broken = write(tmp_path, "broken.json", json.dumps(sbom(name="\ud800")).encode())
    with pytest.raises(ParameterError, match="surrogates not allowed"):
        rows(odd, policy, authority.sign(DATA), sbom=broken)


# --- the command ------------------------------------------------------------------------------------


class Shell:
    """Files of a release in one folder, and the command on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys, self.out, self.err = folder, capsys, "", ""

    def write(self, **files: bytes) -> None:
        for name, data in files.items():
            (self.folder / name).write_bytes(data)

    def run(self, *argv: str) -> int:
        code = cli.main(["verify-artifact", *argv])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def shell(
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    monkeypatch.chdir(tmp_path)
    made = Shell(tmp_path, capsys)
    detached = Detached(authority)
    made.write(
        node=DATA,
        bundle=json.dumps(authority.sign(DATA)).encode(),
        other=json.dumps(authority.sign(b"another file")).encode(),
        root=authority.root,
        sig=detached.signature,
        pem=detached.pem,
        junk=b"{",
        deep=b"[" * 100_000,
        empty=b"",
    )
    return made


WHO = ("--identity", IDENTITY, "--issuer", ISSUER, "--trusted-root", "root", "--offline")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("--artifact", "node", "--bundle", "bundle", *WHO), 0),
        (("--artifact", f"sha256:{HEX}", "--bundle", "bundle", *WHO), 0),
        (("--artifact", "node", "--bundle", "other", *WHO), 1),
        (("--artifact", f"sha256:{OTHER}", "--bundle", "bundle", *WHO), 1),
        (("--artifact", "node", "--signature", "sig", "--certificate", "pem", *WHO), 2),
        (("--artifact", "node", "--bundle", "junk", *WHO), 3),
        (("--artifact", "node", "--bundle", "deep", *WHO), 3),
        (("--artifact", "node", "--bundle", "empty", *WHO), 3),
        (("--artifact", "node", "--bundle", "none", *WHO), 3),
        (("--artifact", "none", "--bundle", "bundle", *WHO), 3),
        (("--artifact", ".", "--bundle", "bundle", *WHO), 3),
        (("--artifact", "sha256:12", "--bundle", "bundle", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle"), 3),
        (("--artifact", "node", "--bundle", "bundle", "--identity", IDENTITY), 3),
        (("--artifact", "node", "--bundle", "bundle", "--issuer", ISSUER), 3),
        (("--artifact", "node", "--bundle", "bundle", "--key", "pem", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", "--key", "junk"), 3),
        (("--artifact", "node", "--signature", "sig", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", "--commit", "v1", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", *WHO[:4], "--trusted-root", "junk"), 3),
        (("--artifact", "node", "--signature", "sig", "--certificate", "junk", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", *WHO, "--sbom", "junk"), 3),
        (("--artifact", "node", "--bundle", "bundle", *WHO, "--provenance", "junk"), 3),
    ],
)
def test_the_command_ends_with_what_it_found(
    shell: Shell, argv: tuple[str, ...], code: int
) -> None:
    """0 verified, 1 refused, 2 no proof, 3 malformed or wrong usage, said on stderr."""
    assert shell.run(*argv) == code
    assert ("expected" in shell.err) == (code == 3)
    assert "Traceback" not in shell.err + shell.out


def test_the_command_prints_one_document(shell: Shell) -> None:
    """With --json: the outcome and every row."""
    shell.run("--artifact", "node", "--bundle", "bundle", *WHO, "--commit", COMMIT, "--json")
    document = json.loads(shell.out)

    assert document["outcome"] == "PASS"
    assert [row["what"] for row in document["rows"]] == ["signature", "commit"]


def test_an_envelope_of_a_file_signature_is_refused(
    authority: Authority, file: Path, policy: Policy
) -> None:
    """A bundle holds one of the two: with both it is malformed."""
    both = authority.sign(DATA) | envelope(statement(HEX), b"x")
    with pytest.raises(ParameterError, match=r"bundle: expected sigstore's JSON, got: "):
        rows(file, policy, both)
