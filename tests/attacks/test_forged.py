"""Nobody who can write the store makes a FAIL a PASS, and no key that may not sign opens a stage."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from runbook_lib.canonical import canonical
from runbook_lib.errors import LogDamaged, NotebookError, ParameterError
from runbook_lib.evidence import seal, sealing
from runbook_lib.evidence.ledger import Ledger
from runbook_lib.evidence.publish import publish
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.store import Store
from runbook_lib.evidence.verify import verify
from runbook_lib.outcomes import Outcome, check_row
from runbook_lib.signatures import Envelope, read_envelope, read_signer
from runbook_lib.signers import Signing, Trust
from runbook_lib.verdicts import ExitCode

from ..conftest import ALICES, ALICES_KEY, as_pem, named, red
from ..sources.verifying import pae
from .conftest import ATTESTATION, BOBS_KEY, MALLORY, attest, chained, pem, resealed, signer, trust

SEALED = datetime(2026, 11, 1, tzinfo=UTC)


def rewritten(folder: Path, change: Callable[[list[dict[str, Any]]], None], key: Any) -> None:
    """The whole log changed and chained anew, and what follows from it attested by ``key``."""
    chained(folder, change)
    resealed(folder, key)


def passed(entries: list[dict[str, Any]]) -> None:
    """Every result a PASS, and the seal too."""
    for entry in entries:
        if entry["kind"] == "result":
            result = entry["result"]
            result["outcome"] = "PASS"
            result["rows"] = [{**row, "outcome": "PASS"} for row in result["rows"]]
        elif entry["kind"] == "sealed":
            entry |= {"outcome": "PASS", "exit_code": 0}


@pytest.mark.parametrize("key", [None, MALLORY, BOBS_KEY], ids=["nobody", "a stranger", "P-256"])
def test_a_log_rewritten_with_its_whole_chain_lacks_the_signature(practice: Any, key: Any) -> None:
    """Log, seal and statement computed anew: verify names it first, and the next stage stays closed."""
    stage = practice.open()
    practice.write_notebook(practice.walk(stage, smoke_suites=Outcome.FAIL), None)
    seal_by_hand(practice.folder())
    rewritten(practice.folder(), passed, key)
    found = red(practice.folder())
    store, commit = Store(practice.root / "store"), practice.params["commit"]
    problem = Ledger(store).earlier("v1.4.0", commit, "testnet", "rehearsal", ALICES).problem

    unsigned = "; it is unsigned: `runbook seal --sign FOLDER` signs it" if key is None else ""
    assert found["2 signers"] == f"no signature of a listed key{unsigned}"
    assert problem


def test_an_old_signature_does_not_hold_over_a_new_payload(practice: Any) -> None:
    folder = practice.sealed()
    path = folder / ATTESTATION
    body = json.loads(path.read_bytes())
    payload = json.loads(base64.b64decode(body["payload"]))
    payload["predicate"]["result"] = "WARNED"
    body["payload"] = base64.b64encode(canonical(payload)).decode()
    path.write_text(json.dumps(body))

    assert red(folder)["2 signers"] == "no signature of a listed key"


ALICE_MAY: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
    ({"stages": ["testnet"]}, {}, "alice may not sign development"),
    ({"revoked": True}, {}, "alice is revoked: have another sign"),
    ({"since": "2090-01-01T00:00:00Z"}, {}, "alice signed before 2090-01-01T00:00:00Z"),
    ({"until": "2020-01-01T00:00:00Z"}, {}, "alice signed after 2020-01-01T00:00:00Z"),
    ({"person": "alice"}, {"threshold": 2}, "alice"),
    ({"person": "alice"}, {"ci": ["development"]}, "alice"),
)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        *((trust(signer("alice", ALICES_KEY, **k), **m), said) for k, m, said in ALICE_MAY),
        (trust(signer("mallory", MALLORY)), "no signature of a listed key"),
        (None, "no keys to compare with; name the trusted ones: --trust FILE"),
    ],
    ids=["stage", "revoked", "early", "late", "threshold", "CI", "stranger", "nobody"],
)
def test_a_signature_counts_only_for_who_may_sign(
    practice: Any, by: Trust | None, said: str
) -> None:
    """Another stage, outside its validity, revoked, too few, not CI, a stranger, nobody to trust."""
    assert red(practice.sealed(), by) == {"2 signers": said}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([("../../alice", ALICES_KEY)], "expected a name of letters, digits"),
        ([("alice", ALICES_KEY), ("bob", ALICES_KEY)], "expected every name and every key once"),
        ([("alice", ALICES_KEY), ("alice", BOBS_KEY)], "expected every name and every key once"),
    ],
    ids=["a path", "a key twice", "a name twice"],
)
def test_a_signer_is_one_name_with_one_key(keys: list[tuple[str, Any]], said: str) -> None:
    """A name becomes a file's; one key under two names would be two persons."""
    with pytest.raises(ValueError, match=said):
        trust(*(signer(name, key, person=name) for name, key in keys))


def test_what_promotes_nothing_is_signed_by_whoever_signs_a_stage() -> None:
    (alice,) = trust(signer("alice", ALICES_KEY, stages=["testnet"])).signers.keys

    assert [alice.problem(stage, SEALED) for stage in ("preflight", "testnet", "canary")] == [
        "",
        "",
        "alice may not sign canary",
    ]


def test_keys_of_one_person_are_one_person(practice: Any) -> None:
    """A second key of Alice's is no second pair of eyes; Bob's is, and two of CI are one."""
    folder = practice.sealed()
    second = Ed25519PrivateKey.from_private_bytes(b"A" * 32)
    mine = signer("alice", ALICES_KEY, person="alice"), signer("a2", second, person="Alice")
    sealing.countersign(folder, Signing("a2", CryptoSigner(second)))
    alone = red(folder, trust(*mine, threshold=2))
    sealing.countersign(folder, Signing("bob", CryptoSigner(BOBS_KEY)))

    assert alone == {"2 signers": "alice"}
    assert red(folder, trust(*mine, signer("bob", BOBS_KEY, person="bob"), threshold=2)) == {}
    assert red(folder, trust(signer("c1", ALICES_KEY), signer("c2", second), threshold=2)) == {
        "2 signers": "c1"
    }
    with pytest.raises(NotebookError, match=r"0001.bob.json: expected no such attestation yet"):
        sealing.countersign(folder, Signing("bob", CryptoSigner(BOBS_KEY)))


def test_a_site_without_signers_says_unsigned(practice: Any) -> None:
    """It works, and says so where it is read."""
    practice.write_site(signing="none", signers=None)
    folder = practice.sealed()
    rows, _ = verify(folder, Trust(signing="none"))

    assert {row.outcome for row in rows} == {Outcome.PASS}
    assert rows[1].observed == "unsigned: the site asks for no signature"
    assert "Unsigned" in (folder / "10_development.ipynb").read_text()
    assert [path.name for path in (folder / seal.FOLDER).iterdir()] == ["0001.unsigned.json"]


def test_a_row_that_passed_against_its_own_numbers_is_named(practice: Any) -> None:
    """What a live kernel was made to record: exit code 101 where 0 was expected."""
    folder = practice.sealed()

    def lie(entries: list[dict[str, Any]]) -> None:
        row = next(e for e in entries if e["kind"] == "result")["result"]["rows"][0]
        row |= {"what": "exit code", "expected": 0, "observed": 101}

    rewritten(folder, lie, ALICES_KEY)

    assert red(folder)["7 findings"] == "PASS with 101"


def test_what_a_fresh_kernel_judges_otherwise_breaks_the_run(practice: Any) -> None:
    """Functions replaced in the live kernel leave a result that its own tape does not give."""
    folder = practice.enforced()
    item = "development.activate.smoke-suites"
    again = [check_row(item, "result", "PASS (judged): all passed", "FAIL (judged): 101", ok=False)]
    verdict = seal_by_hand(folder, again)

    assert verdict.exit_code is ExitCode.BROKEN
    assert verdict.broken == (
        f"judged again: {item}: result: expected PASS (judged): all passed, got FAIL (judged): 101",
    )


@pytest.mark.parametrize("kind", ["removed", "older put back", "gap"])
def test_seals_are_numbered_and_chained(practice: Any, kind: str) -> None:
    """A later seal names the payload before it; the head handed over tells when the last is gone."""
    folder = practice.sealed()
    first = seal.seals(folder)[0].digest
    practice.open(attempt=1)
    seal_by_hand(folder)
    head, path = seal.seals(folder)[-1].digest, folder / seal.FOLDER / "0002.alice.json"
    assert red(folder, head=head).keys() <= {"8 completeness", "10 verdict"}
    match kind:
        case "removed":
            path.unlink()
            assert red(folder, head=head)["12 head"] == (
                f"{first}; a seal is missing, or was replaced"
            )
        case "older put back":
            shutil.copy(folder / ATTESTATION, path)
            assert red(folder)["4 seals"] == ""
        case "gap":
            (folder / ATTESTATION).unlink()
            assert red(folder)["1 attestations"] == (
                "attestations: expected seals 1 to 1 without a gap, got [2]; one was removed: restore it"
            )


# --- the envelope, and other people's tools ---------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("key", [ALICES_KEY, BOBS_KEY], ids=["Ed25519", "ECDSA P-256"])
def test_openssl_verifies_our_envelope(tmp_path: Path, key: Any) -> None:
    body = json.loads(Envelope(b'{"a": 1}').signed(CryptoSigner(key)).dump())
    payload, files = base64.b64decode(body["payload"]), ("message", "signature", "key")
    said = (pae(payload), base64.b64decode(body["signatures"][0]["sig"]), pem(key).encode())
    for name, data in zip(files, said, strict=True):
        (tmp_path / name).write_bytes(data)
    argv = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key", "-rawin", "-in", "message"]
    argv += ["-sigfile", "signature"] + ["-digest", "sha256"] * (key is BOBS_KEY)
    ended = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout.strip()) == (0, "Signature Verified Successfully")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "unreadable: ValueError: expected a"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "unreadable: ValueError: expected a"),
        ({"predicate": {"result": "PASSED"}}, "unreadable: KeyError"),
    ],
)
def test_an_envelope_by_other_hands_is_read_and_judged(
    practice: Any, change: dict[str, Any], said: str | None
) -> None:
    """Other spacing, order and no key id: the right predicate holds, a wrong one is refused."""
    folder = practice.sealed()
    path = folder / ATTESTATION
    about = json.loads(seal.seals(folder)[0].payload) | change
    payload = json.dumps(dict(reversed(about.items())), indent=3).encode()
    signature = {"sig": base64.b64encode(ALICES_KEY.sign(pae(payload))).decode(), "cert": "x"}
    body = {"payload": base64.b64encode(payload).decode(), "signatures": [signature]}
    path.write_text(json.dumps({"payloadType": "application/vnd.in-toto+json", **body}, indent=2))
    found = red(folder)

    if said is None:
        assert found == {}
    else:
        assert found["1 attestations"].startswith(said)


@pytest.mark.parametrize(
    ("payload", "got"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"predicate":' * 100_000, "nested too deeply"),
        (b'{"_type": 1, "_type": 2}', "expected every key once, got one twice"),
    ],
)
def test_a_statement_that_cannot_be_read_is_named_by_verify_and_publish(
    practice: Any, payload: bytes, got: str
) -> None:
    """Signed by whoever may sign: nested without end, or read by two readers in two ways."""
    practice.params["issue"] = 3
    folder = practice.sealed()
    attest(folder, payload, ALICES_KEY)

    assert red(folder)["1 attestations"] == f"unreadable: ValueError: {got}"
    with pytest.raises(LogDamaged) as caught:
        publish(folder)
    wanted = "0001: expected a sealed attempt"
    assert str(caught.value) == f"{wanted}, got: ValueError({got!r}); seal it first"


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{}", b"[" * 99_999, b'{"payload": "!", "payloadType": "x", "signatures": []}',
        b'{"payload": "", "payload": "", "payloadType": "application/vnd.in-toto+json"}',
    ],
)  # fmt: skip
def test_what_is_no_envelope_is_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        read_envelope(text)

    assert "\n" not in str(caught.value)


# --- our own key ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "passphrase", "given", "said"),
    [
        (ALICES_KEY, b"", "", None),
        (BOBS_KEY, b"sesame", "sesame", None),
        (BOBS_KEY, b"sesame", "", ", got an encrypted one; see RUNBOOK_SIGNING_PASSPHRASE"),
        (BOBS_KEY, b"sesame", "wrong", " and its passphrase in RUNBOOK_SIGNING_PASSPHRASE, got another"),
        (ALICES_KEY, b"", "sesame", ", got a passphrase for one that has none; see"
         " RUNBOOK_SIGNING_PASSPHRASE"),
        (rsa.generate_private_key(65537, 2048), b"", "", ", got rsassa-pss-sha256"),
        (ec.derive_private_key(9, ec.SECP384R1()), b"", "", ", got ecdsa-sha2-nistp384"),
        (None, b"", "", ", got: No such file or directory"),
    ],
    ids=["plain", "encrypted", "no passphrase", "another", "needless", "RSA", "P-384", "no file"],
)  # fmt: skip
def test_the_key_comes_from_a_file_and_its_passphrase_from_the_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: Any,
    passphrase: bytes,
    given: str,
    said: str | None,
) -> None:
    monkeypatch.setenv("RUNBOOK_SIGNING_KEY", str(tmp_path / "key.pem"))
    monkeypatch.setenv("RUNBOOK_SIGNING_PASSPHRASE", given)
    if key is not None:
        (tmp_path / "key.pem").write_bytes(as_pem(key, passphrase))
    if said is None:
        assert Envelope(b"x").signed(read_signer()).signatures
        return
    with pytest.raises(ParameterError) as caught:
        read_signer()

    expected = "RUNBOOK_SIGNING_KEY: expected a PEM file of an Ed25519 or ECDSA P-256 private key"
    assert str(caught.value) == expected + said


def test_a_key_that_nobody_listed_signs_nothing(practice: Any) -> None:
    practice.pem.write_bytes(as_pem(MALLORY))
    folder = practice.enforced()
    with pytest.raises(ParameterError) as caught:
        seal_by_hand(folder)

    said = "RUNBOOK_SIGNING_KEY: expected the key of a signer (alice), got another"
    assert str(caught.value) == said
    assert named(MALLORY) not in practice.site.read_text()
