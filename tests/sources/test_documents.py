"""What comes beside an artifact: its provenance, its commit, its SBOM, its checksum."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import ParameterError
from runbook_lib.outcomes import Row
from runbook_lib.sources.artifacts import parse_checksums
from runbook_lib.sources.signatures import Material, Policy
from runbook_rehearsal.signing import SHA256, new_key, pem

from ..messages import saying
from .verifying import COMMIT, DATA, HEX, OTHER, Authority, Detached, rows, sbom, statement, write


def outcomes(found: list[Row]) -> list[tuple[str, str]]:
    return [(row.what, row.outcome.value) for row in found[1:]]


def test_the_commit_is_the_certificates(authority: Authority, file: Path, policy: Policy) -> None:
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
    data = json.dumps(document).encode()
    path = write(tmp_path, "sbom.json", data, authority.sign(data))

    found = rows(file, policy, authority.sign(DATA), sbom=path)
    unsigned = rows(file, policy, authority.sign(DATA), sbom=write(tmp_path, "plain.json", data))

    assert [row.outcome.value for row in found[1:]] == expected
    schema, _, about = expected
    assert [row.outcome.value for row in unsigned[1:]] == [schema, "INCONCLUSIVE", about]


def test_an_sbom_with_a_broken_link_is_not_valid() -> None:
    """Its schema says that a reference outside is a link; asked in a process as a kernel's."""
    urls = ("https://forge.example/\u00e9", "no link")
    links = ([{"type": "vcs", "url": url}] for url in urls)
    code = (
        "import sys\nfrom runbook_lib.sources.artifacts import parse_sbom\n"
        "for line in sys.stdin.buffer: print(parse_sbom(line, 'sbom.json').problem == '')"
    )
    text = "".join(json.dumps(sbom() | {"externalReferences": link}) + "\n" for link in links)
    argv = [sys.executable, "-c", code]
    found = subprocess.run(argv, input=text, capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["True", "False"]


# --- lines of sha256sum ---------------------------------------------------------------------------

A, B = "a" * 64, "b" * 64


def test_a_line_is_about_the_last_name_of_its_path() -> None:
    text = f"{A}  dist/artifacts/x86/node.tar.gz\n{B.upper()} *wallet.json\r\n\n{B}  node.tar.gz\n"

    assert parse_checksums(text.encode(), "SUMS") == {
        "node.tar.gz": {f"sha256:{A}", f"sha256:{B}"},
        "wallet.json": {f"sha256:{B}"},
    }


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "expected lines of sha256sum, got an empty file"),
        (b"\n \n", "expected lines of sha256sum, got an empty file"),
        (b"\xff", "expected lines of sha256sum, got: 'utf-8' codec can't decode byte 0xff in"
                  " position 0: invalid start byte"),
        (f"{A}  a\nno digest\n".encode(),
         "line 2: expected DIGEST  PATH of sha256sum, got 'no digest'"),
        (f"{A}".encode(), f"line 1: expected DIGEST  PATH of sha256sum, got '{A}'"),
        (f"\\{A}  a\\nb".encode(),
         f"line 1: expected DIGEST  PATH of sha256sum, got {(chr(92) + A + '  a' + chr(92) + 'nb')[:80]!r}"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes, problem: str) -> None:
    with saying(ParameterError, f"SUMS: {problem}"):
        parse_checksums(data, "SUMS")


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_content_escapes(data: bytes) -> None:
    try:
        found = parse_checksums(data, "SUMS")
    except ParameterError:
        return
    assert all(len(text) == 71 for digests in found.values() for text in digests)
