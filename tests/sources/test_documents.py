"""What comes beside an artifact: its provenance, its commit, its SBOM, its checksum."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import ParameterError
from runbook_lib.outcomes import Row
from runbook_lib.sources.artifacts import (
    Examination,
    Trust,
    parse_checksums,
    parse_sbom,
    read_artifact,
)
from runbook_lib.sources.scope import Scope
from runbook_lib.sources.signatures import PROVENANCE, Material, Policy
from runbook_lib.sources.tape import LiveTape
from runbook_rehearsal.signing import SHA256 as CURVE
from runbook_rehearsal.signing import new_key, pem

from ..conftest import Terminal
from ..messages import saying
from .verifying import (
    AUTHORITY,
    COMMIT,
    DATA,
    HEX,
    IDENTITY,
    ISSUER,
    OTHER,
    POLICY,
    Detached,
    envelope,
    pae,
    rows,
    sbom,
    statement,
    write,
)

SCAN = "https://cosign.sigstore.dev/attestation/vuln/v1"
TOOL = ("git+https://forge.example/tools/rust@v1", "f" * 40)
OURS = "https://forge.example/owner/chain"


def examination(file: Path, policy: Policy, *of: str) -> Examination:
    tape = LiveTape(file.parent / "tape")
    scope = Scope(tape, "test", 1)
    return Examination(read_artifact(str(file), scope), Trust(policy, scope), *of)


def outcomes(found: list[Row]) -> list[tuple[str, str]]:
    return [(row.what, row.outcome.value) for row in found[1:]]


def test_the_commit_is_the_certificates(file: Path) -> None:
    good, other = AUTHORITY.sign(DATA), AUTHORITY.sign(b"another file")

    assert outcomes(rows(file, POLICY, good, commit=COMMIT)) == [("commit", "PASS")]
    assert outcomes(rows(file, POLICY, good, commit="f" * 40)) == [("commit", "FAIL")]
    assert outcomes(rows(file, POLICY, other, commit=COMMIT)) == [("commit", "INCONCLUSIVE")]


def test_a_provenance_must_be_signed_and_about_the_artifact(file: Path, tmp_path: Path) -> None:
    """The chain publishes a plain statement with its signature beside it; a bundle does as well."""
    good, about, wrong = AUTHORITY.sign(DATA), statement(HEX), statement(OTHER)

    def judged(data: bytes, signed: dict[str, Any] | None) -> list[str]:
        path = write(tmp_path, f"{len(list(tmp_path.iterdir()))}.intoto.jsonl", data, signed)
        return [row.outcome.value for row in rows(file, POLICY, good, provenance=path)[1:]]

    assert judged(about, AUTHORITY.sign(about)) == ["PASS", "PASS"]
    assert judged(about, None) == ["PASS", "INCONCLUSIVE"]
    assert judged(about, AUTHORITY.sign(wrong)) == ["PASS", "FAIL"]
    assert judged(wrong, AUTHORITY.sign(wrong)) == ["FAIL", "PASS"]
    assert judged(json.dumps(AUTHORITY.attest(about)).encode(), None) == ["PASS"]
    assert judged(json.dumps(AUTHORITY.attest(wrong)).encode(), None) == ["FAIL"]
    assert judged(json.dumps(good).encode(), None) == ["FAIL"]


def test_a_document_may_be_signed_as_the_chain_signs(file: Path, tmp_path: Path) -> None:
    about = statement(HEX)
    path, made = write(tmp_path, "node.intoto.jsonl", about), Detached(AUTHORITY, about)
    write(tmp_path, "node.intoto.jsonl.sig", made.signature)
    write(tmp_path, "node.intoto.jsonl.pem", made.pem)

    def judged(**more: Any) -> list[str]:
        found = rows(file, POLICY, AUTHORITY.sign(DATA), provenance=path, **more)
        return [row.outcome.value for row in found[1:]]

    assert judged(find=made.find) == ["PASS", "PASS"]
    assert judged() == ["PASS", "INCONCLUSIVE"]


@pytest.mark.parametrize("kind", [SCAN, "https://cyclonedx.org/bom", f"{PROVENANCE[0]}x"])
def test_another_predicate_is_no_provenance(file: Path, tmp_path: Path, kind: str) -> None:
    about = statement(HEX, predicateType=kind)
    for data in (about, json.dumps(AUTHORITY.attest(about)).encode()):
        path = write(tmp_path, "p.jsonl", data, AUTHORITY.sign(data))
        row = rows(file, POLICY, AUTHORITY.sign(DATA), provenance=path)[-1]
        assert (row.what, row.outcome.value, row.observed) == ("predicate type", "FAIL", kind)


@pytest.mark.parametrize("keyed", [False, True])
def test_attestations_are_read_as_tools_write_them(file: Path, tmp_path: Path, keyed: bool) -> None:
    key = new_key()
    mine = Policy(key=pem(key)) if keyed else POLICY
    material = Material(signature=key.sign(DATA, CURVE)) if keyed else AUTHORITY.sign(DATA)

    def bare(payload: bytes) -> Any:
        return envelope(payload, key.sign(pae(payload), CURVE))["dsseEnvelope"]

    def judged(text: str) -> set[str]:
        data, signed = text.encode(), None if keyed else AUTHORITY.sign(text.encode())
        path = write(tmp_path, "p.jsonl", data, signed)
        write(tmp_path, "p.jsonl.sig", key.sign(data, CURVE))
        return {r.outcome.value for r in rows(file, mine, material, provenance=path)}

    said = statement(HEX, predicateType=SCAN), statement(OTHER), statement(HEX)
    scan, wrong, right = (bare(each) if keyed else AUTHORITY.attest(each) for each in said)
    lines = [json.dumps(each) for each in (scan, wrong, right)]
    listed = [{"bundle": each, "repository_id": 1} for each in (wrong, right)]
    for text in ("\n".join(lines), "\r\n\r\n".join(lines), json.dumps({"attestations": listed}),
                 json.dumps(bare(said[2])), lines[2]):  # fmt: skip
        assert judged(text) == {"PASS"}
    for text in ("\n".join(lines[:2]), json.dumps({"attestations": listed[:1]})):
        assert "FAIL" in judged(text)


@pytest.mark.parametrize(
    ("sources", "outcome"),
    [
        ([("git+https://forge.example/Owner/chain.git@refs/tags/v1", COMMIT), TOOL], "PASS"),
        ([("ssh://git@forge.example/owner/chain", COMMIT)], "PASS"),
        ([TOOL, (OURS, "f" * 40)], "FAIL"), ([(TOOL[0], COMMIT)], "INCONCLUSIVE"),
        ([(f"{OURS}-tools", COMMIT)], "INCONCLUSIVE"), ([(OURS, COMMIT), (OURS, "f" * 40)], "INCONCLUSIVE"),
        ([("https://other.example/owner/chain", COMMIT)], "INCONCLUSIVE"),
    ],
)  # fmt: skip
def test_a_commit_is_that_of_our_repository(
    file: Path, tmp_path: Path, sources: list[tuple[str, str]], outcome: str
) -> None:
    key = new_key()
    given = [{"uri": uri, "digest": {"gitCommit": commit}} for uri, commit in sources]
    data = statement(HEX, predicate={"buildDefinition": {"resolvedDependencies": given}})
    found = examination(file, Policy(key=pem(key)), "", OURS.removeprefix("https://"))
    path = write(tmp_path, "p.jsonl", data)
    unsigned = found.provenance(path)[-1].outcome.value, found.commit(COMMIT).outcome.value
    assert unsigned == ("INCONCLUSIVE", "INCONCLUSIVE")
    write(tmp_path, "p.jsonl.sig", key.sign(data, CURVE))
    assert {row.outcome.value for row in found.provenance(path)} == {"PASS"}
    assert found.commit(COMMIT).outcome.value == outcome


def hashes(hex_digest: str, kind: str = "SHA-256") -> list[dict[str, str]]:
    return [{"alg": kind, "content": hex_digest}]


SHA256 = hashes(HEX)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        *((sbom(f"1.{n}", version="1", hashes=SHA256), ["PASS"] * 3) for n in range(2, 8)),
        (sbom(type="holiday", hashes=SHA256), ["FAIL", "PASS", "PASS"]),
        (sbom(hashes=SHA256) | {"more": 1}, ["FAIL", "PASS", "PASS"]),
        *((sbom(**each), ["PASS", "PASS", outcome]) for outcome, each in [
            ("INCONCLUSIVE", {}), ("INCONCLUSIVE", {"name": "rpp"}), ("FAIL", {"name": "rpp-wallet"}),
            ("FAIL", {"hashes": hashes(OTHER)}), ("FAIL", {"hashes": hashes(OTHER * 2, "SHA-512")}),
            ("FAIL", {"hashes": hashes(OTHER[:40], "SHA-1")}), ("FAIL", {"hashes": SHA256 + hashes(OTHER[:32], "MD5")}),
            ("PASS", {"hashes": hashes(hashlib.sha512(DATA).hexdigest(), "SHA-512")}),
            ("INCONCLUSIVE", {"hashes": hashes(hashlib.sha1(DATA).hexdigest(), "SHA-1")}),
            ("INCONCLUSIVE", {"hashes": hashes(HEX, "BLAKE3")}),
        ]),
        ({**sbom(), "metadata": {}}, ["PASS", "PASS", "INCONCLUSIVE"]),
    ],
)  # fmt: skip
def test_an_sbom_is_valid_signed_and_about_the_artifact(
    file: Path, tmp_path: Path, document: dict[str, Any], expected: list[str]
) -> None:
    data = json.dumps(document).encode()
    for signed, covered in ((AUTHORITY.sign(data), expected[1]), (None, "INCONCLUSIVE")):
        path = write(tmp_path, f"{covered}.json", data, signed)
        found = rows(file, POLICY, AUTHORITY.sign(DATA), sbom=path)
        assert [row.outcome.value for row in found[1:]] == [expected[0], covered, expected[2]]


@pytest.mark.parametrize(
    ("version", "outcome"),
    [("v1.4.0+linux", "PASS"), ("", "PASS"), ("0.9.0", "FAIL"), ("1.4.0-rc.1", "FAIL")],
)
def test_an_sbom_is_of_the_release(file: Path, tmp_path: Path, version: str, outcome: str) -> None:
    data = json.dumps(sbom(version=version, hashes=SHA256)).encode()
    path = write(tmp_path, "sbom.json", data, AUTHORITY.sign(data))
    row = examination(file, POLICY, "v1.4.0").sbom(path)[-1]
    assert (row.what, row.outcome.value) == ("is about", outcome)
    assert outcome == "PASS" or (row.expected, row.observed) == ("v1.4.0", f"rpp-node {version}")


@pytest.mark.parametrize(
    ("url", "valid"), [("https://forge.example/\u00e9", True), ("no link", False)]
)
def test_the_links_of_a_valid_sbom_are_links(url: str, valid: bool) -> None:
    document = sbom() | {"externalReferences": [{"type": "vcs", "url": url}]}
    assert (parse_sbom(json.dumps(document).encode(), "s").problem == "") is valid


# --- lines of sha256sum ---------------------------------------------------------------------------

A, B = "a" * 64, "b" * 64


def test_a_line_is_about_the_last_name_of_its_path() -> None:
    text = f"{A}  dist/artifacts/x86/node.tar.gz\n{B.upper()} *wallet.json\r\n\n{B}  node.tar.gz\n"

    assert parse_checksums(text.encode(), "SUMS") == {
        "node.tar.gz": {f"sha256:{A}", f"sha256:{B}"},
        "wallet.json": {f"sha256:{B}"},
    }


@pytest.mark.parametrize(
    ("text", "digests"),
    [
        (f"SHA256 (dist/f) = {A}\n", {f"sha256:{A}"}),
        (f"SHA2-256(f)= {A}", {f"sha256:{A}"}),
        (f"\ufeff# by release.sh\r\n{A}  f\r\n", {f"sha256:{A}"}),
        (f"{A}  f\n{A}{A}  f\nSHA1 (f) = {A[:40]}", {f"sha256:{A}", f"sha512:{A}{A}", f"sha1:{A[:40]}"}),
        (f"{A}  f\u2028{B}  g\x0c\x85", None),
    ],
)  # fmt: skip
def test_checksum_files_are_read_as_tools_write_them(text: str, digests: set[str] | None) -> None:
    found = parse_checksums(text.encode(), "SUMS")
    assert found == {"f": digests} if digests else len(found) == 1 and "f" not in found


LONG, SHORT = hashlib.sha512(DATA).hexdigest(), hashlib.sha1(DATA).hexdigest()


@pytest.mark.parametrize(
    ("outcome", "digests"),
    [("PASS", [HEX]), ("PASS", [HEX, LONG]), ("PASS", [LONG]), ("INCONCLUSIVE", [SHORT]), ("FAIL", [OTHER]),
     ("INCONCLUSIVE", [HEX, OTHER]), ("INCONCLUSIVE", [HEX, OTHER * 2]), ("FAIL", [OTHER[:40]])],
)  # fmt: skip
def test_every_digest_of_a_line_must_hold(file: Path, outcome: str, digests: list[str]) -> None:
    text = "".join(f"{each}  {file.name}\n" for each in digests)
    row = examination(file, POLICY).listed(parse_checksums(text.encode(), "SUMS"), "SUMS")
    assert row.outcome.value == outcome


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "expected lines of sha256sum, got an empty file"),
        (b"\xff", "expected lines of sha256sum, got: 'utf-8' codec can't decode byte 0xff in"
                  " position 0: invalid start byte"),
        (f"{A}  a\nno digest\n".encode(),
         "line 2: expected DIGEST  PATH of sha256sum, got 'no digest'"),
        (f"BLAKE2s (a) = {A}".encode(), f"line 1: expected DIGEST  PATH of sha256sum, got {f'BLAKE2s (a) = {A}'[:80]!r}"),
        (f"\\{A}  a\\nb".encode(),
         f"line 1: expected DIGEST  PATH of sha256sum, got {(chr(92) + A + '  a' + chr(92) + 'nb')[:80]!r}"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes, problem: str) -> None:
    with saying(ParameterError, f"SUMS: {problem}"):
        parse_checksums(data, "SUMS")


# --- The command: 0 verified, 1 refused, 2 no proof, 3 malformed or wrong usage -------------------


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: Any, capsys: Any) -> Terminal:
    """In a folder with the files of a release."""
    monkeypatch.chdir(tmp_path)
    detached = Detached(AUTHORITY)
    files = {
        "node": DATA, "bundle": json.dumps(AUTHORITY.sign(DATA)).encode(),
        "other": json.dumps(AUTHORITY.sign(b"another file")).encode(), "root": AUTHORITY.root,
        "sig": detached.signature, "pem": detached.pem, "junk": b"{",
        "empty": b"",
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return Terminal(capsys)


WHO = ("--identity", IDENTITY, "--issuer", ISSUER, "--trusted-root", "root", "--offline")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("--artifact", "node", "--bundle", "bundle", *WHO), 0),
        (("--artifact", f"sha256:{HEX}", "--bundle", "bundle", *WHO), 0),
        (("--artifact", "node", "--bundle", "other", *WHO), 1),
        (("--artifact", "node", "--signature", "sig", "--certificate", "pem", *WHO), 2),
        (("--artifact", "node", "--bundle", "junk", *WHO), 3),
        (("--artifact", "node", "--bundle", "empty", *WHO), 3),
        (("--artifact", "none", "--bundle", "bundle", *WHO), 3),
        (("--artifact", "node", "--bundle", "bundle", "--identity", IDENTITY), 3),
        (("--artifact", "node", "--bundle", "bundle", *WHO[:4], "--offline"), 3),
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
    terminal: Terminal, argv: tuple[str, ...], code: int
) -> None:
    assert terminal.run("verify-artifact", *argv) == code
    assert ("expected" in terminal.err) == (code == 3)
    assert "Traceback" not in terminal.err + terminal.out


def test_the_command_prints_one_document(terminal: Terminal) -> None:
    argv = ("--artifact", "node", "--bundle", "bundle", *WHO, "--commit", COMMIT)
    document = terminal.json("verify-artifact", *argv)
    assert document["outcome"] == "PASS" and [row["what"] for row in document["rows"]] == [
        "signature",
        "commit",
    ]
