"""preflight.rollback-assets: the previous release, snapshot bundles, and what each node can fetch."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbook_lib.checks import rollback
from runbook_lib.checks.rollback import rollback_assets
from runbook_lib.sources import snapshots

from . import staging as files
from .conftest import offline
from .staging import BUILD, CANDIDATE, CHUNKS, FAIL, INCONCLUSIVE, ONE, PASS, PREVIOUS, TIP, Staging

sha, again = files.sha, files.again
Spoil = Callable[[Staging], Any]
GONE = "expected a readable file, got: No such file or directory"
NO_ASSET = ("dev-2", "fetchable", "no asset", INCONCLUSIVE)
SEGMENT = {"segment_name": "chunk-0", "size_bytes": 400}
CHANGED = b"ZERO" * 100
BLAKE = hashlib.blake2b(CHUNKS["chunk-0"], digest_size=32).hexdigest()


def manifest(staging: Staging) -> str:
    return sha((staging.bundle / "manifest" / "chunks.json").read_bytes())


def laid(path: str, content: bytes | None) -> Spoil:
    """A file of the bundle with other content, or gone."""

    def spoil(staging: Staging) -> None:
        file = staging.bundle / path
        file.unlink() if content is None else file.write_bytes(content)

    return spoil


def chunk(number: int, content: bytes | None) -> Spoil:
    return laid(f"chunks/chunk-{number}", content)


def signature(name: str, text: str | None) -> Spoil:
    return laid(f"{name}.sig", None if text is None else text.encode())


def bind_another(staging: Staging) -> None:
    """A manifest that is signed, and not the one that bundle.json names."""
    path = staging.bundle / "manifest" / "chunks.json"
    staging.sign(path, path.read_bytes() + b"\n")


def prune(staging: Staging, height: int, proof: bytes, checksum: str) -> None:
    for folder in ("manifests", "proofs"):
        (staging.bundle / folder).mkdir(exist_ok=True)
    said = {"block_height": height, "proof_file": f"{height}.bin", "proof_checksum": checksum}
    (staging.bundle / "manifests" / f"{height:020d}.json").write_text(json.dumps(said))
    (staging.bundle / "proofs" / f"{height}.bin").write_bytes(proof)


def checkpoint(height: int) -> Spoil:
    said = json.dumps({"plan": {}, "metadata": {"height": height}})
    return lambda s: (s.bundle / f"snapshot-{height}.json").write_text(said)


def test_everything_there_passes_and_is_replayed_from_its_tape(staging: Staging) -> None:
    context = staging.context()
    live = rollback_assets(context)
    for path in (staging.release, staging.artifact, *staging.bundle.rglob("*.*")):
        path.unlink()
    replay = offline(context)
    replay.__dict__["fleet"] = files.Fleet(staging.heights)

    said = "1 build and 1 snapshot staged whole, signed, and fetchable by 2 nodes"
    assert (live.outcome, live.reason) == (PASS, said)
    assert live.data["releases"] == [sha(PREVIOUS)]
    assert rollback_assets(replay).rows == live.rows


FORGED = Ed25519PrivateKey.from_private_bytes(b"x" * 32).sign(b"").hex()
UNLISTED = "the signature is no listed key's over this content"
CASES: dict[str, tuple[Spoil, list[tuple[Any, ...]]]] = {
    # --- the previous release
    "its artifact is not known": (
        lambda s: s.good("dev-2", build=b""),
        [("dev-2", "artifact of the last good state",
          "the artifact of its binary is not known; `runbook adopt --artifact FILE` tells it",
          INCONCLUSIVE), NO_ASSET]),
    "a third build has none": (
        lambda s: s.good("dev-2", build=b"a third build"),
        [("release", "artifact of the last good state of dev-2", sha(PREVIOUS), FAIL)]),
    "a node of no good state must be adopted": (
        lambda s: [s.heights.update({"dev-3": TIP}), s.probe("dev-3")],
        [("dev-3", "last good state", "none; take development over with `runbook adopt`", INCONCLUSIVE),
         ("dev-3", "fetchable", "no asset", INCONCLUSIVE)]),
    "a good build that is the candidate's": (lambda s: s.good("dev-2", build=CANDIDATE), []),
    "a good build that is the candidate's, which cannot be fetched": (
        lambda s: [s.good("dev-2", build=CANDIDATE),
                   s.probe("dev-2", fetchable=[sha(PREVIOUS), manifest(s)])],
        [("dev-2", "fetchable", "not rpp-node", FAIL)]),
    # --- snapshots
    **{f"chunks by {name}, {what}": (
        lambda s, said=said, wrong=wrong: [again(s, manifest=said), wrong and chunk(0, CHANGED)(s)],  # type: ignore[misc]
        [(ONE, "chunk chunk-0", digest, FAIL)] if wrong else [])
       for name, said, digest in (
        ("blake2b", {"checksum_algorithm": "blake2b", "segments": [{**SEGMENT, "checksum": BLAKE}]},
         f"blake2b:{hashlib.blake2b(CHANGED, digest_size=32).hexdigest()}"),
        ("sha256", {"checksum_algorithm": "blake2b",
                    "segments": [{**SEGMENT, "sha256": sha(CHUNKS["chunk-0"])[7:].upper()}]}, sha(CHANGED)))
       for what, wrong in (("whole", False), ("changed", True))},
    "many damaged chunks are counted": (
        lambda s: again(s, manifest={"segments": [
            {"segment_name": f"c{n}", "size_bytes": 1, "checksum": "0" * 64} for n in range(50)]}),
        [*((ONE, f"chunk c{n}", "missing", FAIL) for n in range(snapshots.SHOWN)),
         (ONE, "further chunks", "30 are not", FAIL)]),
    "of the future": (
        lambda s: again(s, age_h=-2.0),
        [(ONE, "age", "expected an instant of the past, got one 2.0 h ahead", INCONCLUSIVE)]),
    "ahead of the chain": (lambda s: again(s, height=TIP + 1), [(ONE, "behind the chain", -1, FAIL)]),
    "far behind the highest node": (
        lambda s: s.heights.update({"dev-2": TIP + 20_000}),
        [(ONE, "behind the chain", 20_010, FAIL)]),
    "a node is silent: it may be the highest": (
        lambda s: s.heights.update({"dev-2": None}),
        [("dev-2", "height", "expected an answer, got none", INCONCLUSIVE),
         (ONE, "behind the chain", "the chain's height is unknown", INCONCLUSIVE)]),
    "a checkpoint that agrees": (checkpoint(TIP - 10), []),
    "a checkpoint of another height": (
        checkpoint(991), [(ONE, "pruning checkpoint snapshot-991.json", 991, FAIL)]),
    "a bundle that says nothing could be the newest": (
        lambda s: [s.back_up("two"), (s.bundle / "bundle.json").unlink()],
        [(ONE, "bundle.json", GONE, INCONCLUSIVE)]),
    "fewer than wanted": (
        lambda s: s.rollback.update(at_least=2), [("snapshots", "snapshot bundles", 1, FAIL)]),
    "a folder in a chunk's place": (
        lambda s: [chunk(0, None)(s), (s.bundle / "chunks" / "chunk-0").mkdir()],
        [(ONE, "chunk chunk-0", "expected a readable file, got: not a regular file", INCONCLUSIVE)]),
    # --- from where each node is
    "no room, by one byte": (
        lambda s: s.probe("dev-2", free_bytes=len(PREVIOUS) + 699),
        [("dev-2", "free space", len(PREVIOUS) + 699, FAIL)]),
    "room, to the byte": (lambda s: s.probe("dev-2", free_bytes=len(PREVIOUS) + 700), []),
    "no settings": (
        lambda s: s.rollback.clear(),
        [("rollback assets", "settings", "none; set clusters.development.rollback", INCONCLUSIVE)]),
} | {
    f"{what} of {name}": (signature(name, text), [(ONE, f"signature of {name}", got, outcome)])
    for name in ("manifest/chunks.json", "bundle.json")
    for what, text, got, outcome in (
        ("a forged signature", FORGED, UNLISTED, FAIL),
        ("no signature", None, GONE, INCONCLUSIVE),
        ("an unreadable signature", "no signature",
         "expected 64 bytes in hex or base64, or VERSION:BASE64, got something else", INCONCLUSIVE),
    )
} | {
    f"a probe's answer: {problem}": (
        lambda s, answer=answer: (s.root / "probe" / "dev-2").write_text(answer),  # type: ignore[misc]
        [("dev-2", "fetchable", problem, INCONCLUSIVE)])
    for answer, problem in (
        ("", "expected JSON, got: EOF while parsing a value at line 1 column 0"),
        ('{"node": "dev-1", "fetchable": [], "free_bytes": 1}', "expected 'dev-2', got 'dev-1'"),
        ('{"node": "dev-2", "fetchable": [], "free_bytes": -1}',
         "free_bytes: expected greater than or equal to 0, got -1"),
        ('{"node": "dev-2", "fetchable": ["x"], "free_bytes": 1}',
         "fetchable.0: expected text matching '^sha256:[0-9a-f]{64}$', got 'x'"),
    )
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "wrong"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_a_row_of_its_own(
    staging: Staging, spoil: Spoil, wrong: list[tuple[Any, ...]]
) -> None:
    spoil(staging)

    assert staging.wrong() == wrong


# --- the previous release -----------------------------------------------------------------------


def test_an_image_must_be_fetchable_by_digest(staging: Staging) -> None:
    del staging.rollback["release"]
    assert staging.wrong() == []

    staging.probe("dev-2", fetchable=[manifest(staging)])
    assert staging.wrong() == [("dev-2", "fetchable", f"not image {sha(PREVIOUS)[:19]}", FAIL)]


def test_without_a_candidate_nothing_is_told_from_it(staging: Staging) -> None:
    staging.context()
    staging.artifact.unlink()

    assert staging.wrong()[0][1:] == ("digest of the candidate", GONE, INCONCLUSIVE)


def test_each_good_build_has_an_archive_of_its_own(staging: Staging) -> None:
    staging.good("dev-2", build=b"a third build")
    staging.rollback["release"] = str(staging.root / "staged" / "{digest}")
    for node, build in (("dev-1", PREVIOUS), ("dev-2", b"a third build")):
        (staging.root / "staged" / sha(build)[7:]).write_bytes(build)
        staging.probe(node, fetchable=[sha(build), manifest(staging)])

    assert staging.wrong() == []


# --- snapshots ----------------------------------------------------------------------------------


def test_pruning_proofs_must_be_whole_and_of_the_past(staging: Staging) -> None:
    prune(staging, 500, b"proof", sha(b"proof")[7:])
    assert staging.wrong() == []

    prune(staging, 501, b"proof", sha(b"other")[7:])
    prune(staging, TIP - 9, b"", sha(b"")[7:])
    (staging.bundle / "proofs" / "500.bin").unlink()
    assert staging.wrong() == [
        (ONE, "pruning proof 991.bin", f"{TIP - 9}, of {TIP - 9:020d}.json", FAIL),
        (ONE, "pruning proof 500.bin", "missing", FAIL),
        (ONE, "pruning proof 501.bin", sha(b"proof"), FAIL),
    ]


def test_only_the_newest_are_judged_as_many_as_wanted(staging: Staging) -> None:
    staging.back_up("two", height=TIP - 1)
    chunk(0, None)(staging)
    assert staging.wrong() == []

    staging.rollback["at_least"] = 2
    assert staging.wrong() == [(ONE, "chunk chunk-0", "missing", FAIL)]

    staging.rollback["snapshots"] = [str(staging.root / "elsewhere")]
    assert staging.wrong()[0] == ("elsewhere", "snapshot bundles", "none", INCONCLUSIVE)


# --- thresholds and waivers ---------------------------------------------------------------------


def test_what_is_expected_names_the_limits(staging: Staging) -> None:
    what = "previous release and snapshots are staged, whole, signed and fetchable by every node"
    assert rollback.expected(staging.context()) == (what, "1 of at most 24 h and 17,280 blocks")

    staging.rollback.clear()
    missing = "clusters.development.rollback in the site file: missing"
    assert rollback.expected(staging.context()) == (what, missing)


@pytest.mark.parametrize(
    ("spoil", "never"),
    [
        (lambda s: s.release.write_bytes(CANDIDATE), [BUILD]),
        (lambda s: s.release.write_bytes(b"another"), [BUILD]),
        (signature("bundle.json", None), ["signature of bundle.json"]),
        (signature("manifest/chunks.json", "1:" + "A" * 88), ["signature of manifest/chunks.json"]),
        (bind_another, ["manifest named by bundle.json"]),
        (chunk(1, b"eno" * 100), ["chunk chunk-1"]),
        (chunk(1, b"one"), ["chunk chunk-1"]),
        (lambda s: s.release.unlink(), []),
        (chunk(0, None), []),
        (lambda s: s.heights.update({"dev-2": None}), []),
        (lambda s: s.probe("dev-1", free_bytes=0), []),
    ],
)
def test_a_wrong_signature_or_digest_is_never_waivable(
    staging: Staging, spoil: Spoil, never: list[str]
) -> None:
    staging.context()
    spoil(staging)

    assert staging.wrong()
    assert staging.never() == never
