"""What the binary verification says of a good release, and of each way in which one is not ours."""

import shutil
from collections.abc import Iterator
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from runbook_lib.checks import binary
from runbook_lib.checks.binary import binary_verification
from runbook_lib.context import Context
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.sources.tape import read_entries
from runbook_rehearsal.faults.bad_releases import BREAKS
from runbook_rehearsal.faults.table import FAULTS
from runbook_rehearsal.files import MEMBER, pack
from runbook_rehearsal.layout import IDENTITY, ISSUER, Release
from runbook_rehearsal.loopback import Loopback
from runbook_rehearsal.nodes.fleet import Build
from runbook_rehearsal.signing import SHA256, SignedRelease, beside, new_key, pem

from ..conftest import mutations, not_passed
from .conftest import offline

ITEM = "preflight.binary-verification"
GOOD = [
    ("checkout", "commit under test"), ("checkout", "tree under test"),
    ("rpp-node", "listed in SHA256SUMS.txt"), ("SHA256SUMS.txt", "signature"),
    ("rpp-node", "signature"), ("rpp-node.intoto.jsonl", "subject"),
    ("rpp-node.intoto.jsonl", "signature"), ("rpp-node", "commit"),
    ("sbom-rpp-node.json", "CycloneDX schema"), ("sbom-rpp-node.json", "signature"),
    ("sbom-rpp-node.json", "is about"),
]  # fmt: skip


class Candidate:
    """A signed release below the folder of a practice site, and the check of it."""

    def __init__(self, practice: Any, loopback: Loopback) -> None:
        self.practice, self.faults = practice, set[str]()
        self.commit: str = practice.params["commit"]
        artifact = practice.root / "artifacts" / "v1.4.0" / "rpp-node"
        artifact.parent.mkdir(parents=True)
        artifact.write_bytes(b"a release artifact\n")
        release = Release(self.commit, artifact, Build("sha256:0", "0" * 40, "v1.3.0"))
        board: Any = SimpleNamespace(is_on=lambda name: name in self.faults)
        self.signed = SignedRelease(release, board, loopback)
        self.signed.publish(practice.root / "trusted_root.json")
        self.revision, self.status = self.commit, ""

    @property
    def digest(self) -> str:
        return f"sha256:{self.signed.digest(self.signed.artifact)}"

    def site(
        self, artifacts: dict[str, str] | None = None, member: str = "", **signing: Any
    ) -> None:
        folder = self.practice.root / "artifacts" / "{release}"
        wanted = {
            "identity": IDENTITY, "issuer": ISSUER,
            "trusted_root": str(self.practice.root / "trusted_root.json"),
            "log": {"url": self.signed.log}, "manifest": f"{folder}/SHA256SUMS.txt",
            "provenance": "{path}.intoto.jsonl", "sbom": f"{folder}/sbom-rpp-node.json", **signing,
        }  # fmt: skip
        self.practice.write_site(
            artifacts={"node": f"{folder}/rpp-node"} if artifacts is None else artifacts,
            binary_member=member,
            artifact_signing={key: value for key, value in wanted.items() if value is not None},
            commands={
                "revision": {"argv": ["echo", self.revision]},
                "tree_status": {"argv": ["printf", "%s", self.status]},
            },
        )

    def sign_by(self, key: Any, *how: Any) -> None:
        """Everything signed by a key in place of certificates; the site says which."""
        public = self.practice.root / "release.pub"
        public.write_bytes(pem(key))
        self.site(key=str(public), identity=None, issuer=None)
        signed = self.signed
        for path in (signed.artifact, signed.manifest, signed.provenance, signed.sbom):
            signature, certificate = beside(path)
            signature.write_bytes(key.sign(path.read_bytes(), *how))
            certificate.unlink()

    def context(self) -> Context:
        found: Context = self.practice.open().context(ITEM, 1)
        return found

    def judge(self) -> CheckResult:
        return binary_verification(self.context())


@pytest.fixture
def candidate(practice: Any, loopback: Loopback) -> Iterator[Candidate]:
    made = Candidate(practice, loopback)
    made.site()
    yield made
    made.signed.close_log()


def bad(result: CheckResult) -> list[tuple[Any, ...]]:
    return not_passed(result.rows, "subject", "what", "outcome", "observed")


# --- a good release -----------------------------------------------------------------------------


def test_a_good_release_passes_and_names_its_digests(candidate: Candidate) -> None:
    result = candidate.judge()

    assert [(row.subject, row.what) for row in result.rows] == GOOD
    assert bad(result) == []
    assert result.reason == f"signed by {IDENTITY}, of the commit under test: 1 artifact"
    assert result.data == {"digests": {"node": candidate.digest}, "commit": candidate.commit}
    assert binary.expected(candidate.context()) == (
        "checksum, signer, provenance, commit and SBOM of each release artifact",
        "node",
    )


@pytest.mark.parametrize("member", [MEMBER, "bin/another"])
def test_the_binary_in_an_archive_is_looked_at(candidate: Candidate, member: str) -> None:
    candidate.signed.artifact.write_bytes(pack(b"binary"))
    candidate.signed.publish(candidate.practice.root / "trusted_root.json")
    candidate.site(member=member)
    result = candidate.judge()
    (row,) = [row for row in result.rows if row.what == "binary"]

    if member == MEMBER:
        got = (f"{MEMBER} in it", f"sha256:{sha256(b'binary').hexdigest()}", Outcome.PASS)
        assert (row.expected, row.observed, row.outcome) == got
        assert result.outcome is Outcome.PASS
    else:
        assert f"none of that name: {member}" in str(row.observed)
        assert (row.outcome, result.data["digests"]) == (Outcome.INCONCLUSIVE, {})


def test_a_replay_finds_the_same_with_nothing_left(candidate: Candidate) -> None:
    context = candidate.context()
    live = binary_verification(context)
    candidate.signed.close_log()
    shutil.rmtree(candidate.practice.root / "artifacts")

    replayed = binary_verification(offline(context))

    assert (replayed.rows, replayed.data, replayed.inputs) == (live.rows, live.data, live.inputs)
    assert live.outcome is Outcome.PASS
    entries = read_entries(context.folder / "tape")
    assert mutations(entries) == []
    assert len([e for e in entries if e.key.startswith(f"POST {candidate.signed.log}")]) == 4


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519"])
def test_a_key_may_sign_in_place_of_an_identity(candidate: Candidate, kind: str) -> None:
    if kind == "ecdsa":
        candidate.sign_by(new_key(), SHA256)
    else:
        candidate.sign_by(ed25519.Ed25519PrivateKey.generate())
    context = candidate.context()

    live = binary_verification(context)
    candidate.signed.artifact.unlink()

    unknown = "neither a proven certificate nor a signed provenance names one"
    assert bad(live) == [("rpp-node", "commit", "INCONCLUSIVE", unknown)]
    assert binary_verification(offline(context)).rows == live.rows


def test_a_bundle_beside_a_file_counts_before_its_signature(candidate: Candidate) -> None:
    path = candidate.signed.artifact
    path.with_name(f"{path.name}.sigstore.json").write_bytes(b"{}")

    problem = "bundle: expected sigstore's JSON, got: mediaType: expected a value, got none"
    found = ("rpp-node", "signature", "INCONCLUSIVE", f"{problem} (and 1 more)")
    assert found in bad(candidate.judge())


# --- not ours -----------------------------------------------------------------------------------

NONE = "expected a readable file, got: No such file or directory"


@pytest.mark.parametrize("name", BREAKS)
def test_of_a_bad_release_no_digest_is_verified(candidate: Candidate, name: str) -> None:
    """Which row says why, and in which words, is frozen with the outcomes of all faults."""
    BREAKS[name](candidate.signed)
    result = candidate.judge()

    assert result.outcome.value == FAULTS[name].outcome
    assert bool(result.data["digests"]) is (result.outcome is Outcome.PASS)


# --- no proof -----------------------------------------------------------------------------------


def test_a_silent_log_is_asked_about_one_file_only(candidate: Candidate) -> None:
    candidate.signed.close_log()
    context = candidate.context()

    found = [row for row in bad(binary_verification(context)) if row[1] == "signature"]

    start = f"no proof of signing time: {candidate.signed.log}: expected an answer, got"
    assert len(found) == 4
    assert all(row[2] == "INCONCLUSIVE" and row[3].startswith(start) for row in found)
    entries = read_entries(context.folder / "tape")
    assert len([e for e in entries if e.key.startswith("POST")]) == 3


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"identity": None, "issuer": None}, ("site", "signing", "expected artifact_signing.identity with"
         " its issuer, or artifact_signing.key in the site file, got neither")),
        ({"trusted_root": "none.json"}, ("site", "signing", NONE)),
        ({"trusted_root": "site.yaml"}, ("site", "signing",
         "trusted root: expected one JSON object, got: Expecting value")),
        ({"trusted_root": None}, ("site", "signing",
         "trusted root: expected sigstore's trusted_root.json")),
        ({"artifacts": {}}, ("site", "artifacts", "expected artifacts in the site file, got none")),
        ({"artifacts": {"node": "/none"}}, ("node", "artifact", NONE)),
        *(({key: None}, ("rpp-node", key, f"expected artifact_signing.{key} in the site file, got none"))
          for key in ("manifest", "provenance", "sbom")),
    ],
)  # fmt: skip
def test_what_the_site_does_not_say_is_no_proof(
    candidate: Candidate, change: dict[str, Any], row: tuple[str, ...]
) -> None:
    if root := change.get("trusted_root"):
        change = {"trusted_root": str(candidate.practice.root / root)}
    candidate.site(**change)

    result = candidate.judge()

    assert result.outcome is Outcome.INCONCLUSIVE
    (found,) = bad(result)
    assert (found[:2], row[2] in found[3]) == (row[:2], True)
    assert result.data["digests"] == {}


def test_a_commit_under_test_that_cannot_be_read_is_no_proof(candidate: Candidate) -> None:
    candidate.revision = "fatal"
    candidate.site()

    problem = "revision: expected 40 hex digits, got 'fatal'"
    assert bad(candidate.judge()) == [("checkout", "commit under test", "INCONCLUSIVE", problem)]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("SHA256SUMS.txt", b"\xff", "manifest"),
        ("rpp-node.intoto.jsonl", b"[" * 100_000, "provenance"),
        ("sbom-rpp-node.json", b'{"bomFormat": "SPDX"}', "sbom"),
        ("rpp-node.pem", b"junk", "signature"),
    ],
)
def test_a_document_that_cannot_be_read_is_no_proof(
    candidate: Candidate, name: str, content: bytes, what: str
) -> None:
    (candidate.signed.artifact.parent / name).write_bytes(content)

    found = bad(candidate.judge())

    assert ("rpp-node", what, "INCONCLUSIVE") in [row[:3] for row in found]
    assert all("expected" in row[3] or row[1] == "commit" for row in found)
