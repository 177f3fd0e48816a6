"""preflight.rollback-assets: snapshot bundles, fault by fault."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook_lib.changes import manifests

from .staging import CHUNKS, FAIL, INCONCLUSIVE, ONE, TIP, Staging, again, sha

SEGMENT = {"segment_name": "chunk-0", "size_bytes": 400}
BLAKE = hashlib.blake2b(CHUNKS["chunk-0"], digest_size=32).hexdigest()


@pytest.mark.parametrize(
    "manifest",
    [
        {"checksum_algorithm": "blake2b", "segments": [{**SEGMENT, "checksum": BLAKE}]},
        {"segments": [{**SEGMENT, "sha256": sha(CHUNKS["chunk-0"])[7:].upper()}]},
    ],
)
def test_chunks_are_checked_by_either_algorithm(staging: Staging, manifest: Any) -> None:
    """And by the older key."""
    again(staging, manifest=manifest)
    assert staging.wrong() == []

    (staging.bundle / "chunks" / "chunk-0").write_bytes(b"ZERO" * 100)
    [(_, what, _, outcome)] = staging.wrong()
    assert (what, outcome) == ("chunk chunk-0", FAIL)


AHEAD = "expected an instant of the past, got one 2.0 h ahead"
SAID = {
    "another chain": ({"chain_id": "rpp-mainnet"}, ("chain", "rpp-mainnet", FAIL)),
    "too old": ({"age_h": 30.0}, ("age", 30.0, FAIL)),
    "of the future": ({"age_h": -2.0}, ("age", AHEAD, INCONCLUSIVE)),
    "ahead of the chain": ({"height": TIP + 1}, ("behind the chain", -1, FAIL)),
}


@pytest.mark.parametrize(("changes", "wrong"), SAID.values(), ids=SAID)
def test_what_a_bundle_says_is_held_against_it(staging: Staging, changes: Any, wrong: Any) -> None:
    """Chain, age and height, each in a row of its own."""
    again(staging, **changes)
    [(subject, *row)] = staging.wrong()

    assert (subject, tuple(row)) == (ONE, wrong)


def test_a_bundle_far_behind_the_chain_is_refused(staging: Staging) -> None:
    """Counted from the highest node."""
    staging.heights["dev-2"] = TIP + 20_000

    assert staging.wrong() == [(ONE, "behind the chain", 20_010, FAIL)]


def test_an_unknown_height_proves_no_lag(staging: Staging) -> None:
    """The node that is silent may be the highest."""
    staging.heights["dev-2"] = None

    assert staging.wrong() == [
        ("dev-2", "height", "expected an answer, got none", INCONCLUSIVE),
        (ONE, "behind the chain", "the chain's height is unknown", INCONCLUSIVE),
    ]


@pytest.mark.parametrize(
    ("height", "wrong"),
    [(990, []), (991, [(ONE, "pruning checkpoint", 991, FAIL)])],
)
def test_the_checkpoint_must_agree(staging: Staging, height: int, wrong: object) -> None:
    """The chain's own word on the height, where it is there."""
    path = staging.bundle / f"snapshot-{height}.json"
    path.write_text(json.dumps({"plan": {}, "metadata": {"height": height}}))

    assert staging.wrong() == wrong


def test_pruning_proofs_must_be_whole_and_of_the_past(staging: Staging) -> None:
    """Where the bundle has them: what the chain's restore would refuse half way is refused here."""
    for folder in ("manifests", "proofs"):
        (staging.bundle / folder).mkdir()

    def prune(height: int, proof: bytes, checksum: str) -> None:
        said = {"block_height": height, "proof_file": f"{height}.bin", "proof_checksum": checksum}
        (staging.bundle / "manifests" / f"{height:020d}.json").write_text(json.dumps(said))
        (staging.bundle / "proofs" / f"{height}.bin").write_bytes(proof)

    prune(500, b"proof", sha(b"proof")[7:])
    assert staging.wrong() == []

    prune(501, b"proof", sha(b"other")[7:])
    prune(TIP - 9, b"", sha(b"")[7:])
    (staging.bundle / "proofs" / "500.bin").unlink()
    missing = "expected a readable file, got: No such file or directory"
    assert staging.wrong() == [
        (ONE, "newest pruning proof", TIP - 9, FAIL),
        (ONE, "pruning proof 500.bin", missing, INCONCLUSIVE),
        (ONE, "pruning proof 501.bin", sha(b"proof"), FAIL),
    ]
    (staging.bundle / "manifests" / "notes.txt").touch()
    problem = "expected a height of 20 digits, got another name"
    assert staging.wrong() == [(ONE, "pruning data (manifests/notes.txt)", problem, INCONCLUSIVE)]


def test_a_bundle_bound_to_another_manifest_is_refused(staging: Staging) -> None:
    """A young bundle.json beside an old snapshot."""
    manifest = staging.bundle / "manifest" / "chunks.json"
    staging.sign(manifest, manifest.read_bytes() + b"\n")

    assert [row[1:] for row in staging.wrong()] == [
        ("manifest named by bundle.json", sha(manifest.read_bytes()), FAIL)
    ]


@pytest.mark.parametrize("name", ["manifest/chunks.json", "bundle.json"])
def test_signatures_are_needed_and_must_be_right(staging: Staging, name: str) -> None:
    """Of the manifest, and of what tells its chain: wrong is FAIL, none and unreadable is not."""
    path = staging.bundle / f"{name}.sig"
    path.write_text(Ed25519PrivateKey.from_private_bytes(b"x" * 32).sign(b"").hex())
    forged = "the signature is no listed key's over this content"
    assert staging.wrong() == [(ONE, f"signature of {name}", forged, FAIL)]

    path.write_text("not a signature")
    [(_, _, _, outcome)] = staging.wrong()
    assert outcome is INCONCLUSIVE

    path.unlink()
    missing = "expected a readable file, got: No such file or directory"
    assert staging.wrong() == [(ONE, f"signature of {name}", missing, INCONCLUSIVE)]


def test_damaged_chunks_are_named(staging: Staging) -> None:
    """Missing, short, or of other content."""
    chunks = staging.bundle / "chunks"
    (chunks / "chunk-0").unlink()
    (chunks / "chunk-1").write_bytes(b"one" * 99)
    assert staging.wrong() == [
        (ONE, "chunk chunk-0", "missing", FAIL),
        (ONE, "chunk chunk-1", 297, FAIL),
    ]

    (chunks / "chunk-0").mkdir()
    (chunks / "chunk-1").write_bytes(b"eno" * 100)
    assert staging.wrong() == [
        (ONE, "chunk chunk-0", "expected a readable file, got: not a regular file", INCONCLUSIVE),
        (ONE, "chunk chunk-1", sha(b"eno" * 100), FAIL),
    ]


def test_many_damaged_chunks_are_counted(staging: Staging) -> None:
    """The card stays readable, and the rest still blocks."""
    segments = [
        {"segment_name": f"c{number}", "size_bytes": 1, "checksum": "0" * 64}
        for number in range(50)
    ]
    again(staging, manifest={"segments": segments})
    wrong = staging.wrong()

    assert len(wrong) == manifests.SHOWN + 1
    assert wrong[-1] == (ONE, "further chunks", "30 are not", FAIL)


def test_a_bundle_that_says_nothing_blocks(staging: Staging) -> None:
    """It could be the newest."""
    staging.back_up("two")
    (staging.bundle / "bundle.json").unlink()
    [(subject, what, _, outcome)] = staging.wrong()

    assert (subject, what, outcome) == (
        ONE,
        "chain, height and instant (bundle.json)",
        INCONCLUSIVE,
    )


def test_no_bundles_and_too_few(staging: Staging) -> None:
    """None is no data; fewer than the site wants is a refusal."""
    staging.rollback["at_least"] = 2
    assert staging.wrong() == [("snapshots", "snapshot bundles", 1, FAIL)]

    staging.rollback["snapshots"] = [str(staging.root / "elsewhere")]
    assert staging.wrong()[0] == ("elsewhere", "snapshot bundles", "none", INCONCLUSIVE)


def test_only_the_newest_are_judged_as_many_as_wanted(staging: Staging) -> None:
    """An old one may rot; when two are wanted it may not."""
    staging.back_up("two", height=TIP - 1)
    (staging.bundle / "chunks" / "chunk-0").unlink()
    assert staging.wrong() == []

    staging.rollback["at_least"] = 2
    assert staging.wrong() == [(ONE, "chunk chunk-0", "missing", FAIL)]
