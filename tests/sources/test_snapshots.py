"""Snapshot bundles: their manifests, both spellings of signatures, and what they say of themselves."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import SourceError
from runbook_lib.findings import Findings
from runbook_lib.outcomes import Outcome
from runbook_lib.sources import snapshots
from runbook_lib.sources.keys import Refused
from runbook_lib.sources.snapshots import About, Manifest, verified_by
from runbook_lib.sources.wire import decode

from ..conftest import named, not_passed
from ..messages import saying
from .conftest import World

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
HEX = "ab" * 32
KEYS = {1: named(KEY), 2: named(OTHER)}
FAIL, UNKNOWN = Outcome.FAIL, Outcome.INCONCLUSIVE


def segments(**changes: Any) -> list[dict[str, Any]]:
    return [{"segment_name": "chunk-0", "size_bytes": 7, "checksum": HEX, **changes}]


def manifest(**changes: Any) -> bytes:
    return json.dumps({"version": 1, "segments": segments(), **changes}).encode()


# --- manifests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 2}, "version: expected 1, got 2"),
        ({"segments": []}, "segments: expected List should have at least 1 item after validation, not 0, got a list"),
        ({"checksum_algorithm": "md5"}, "checksum_algorithm: expected 'sha256' or 'blake2b', got 'md5'"),
        ({"segments": segments(segment_name="../../etc/passwd")}, "segments.0.segment_name: expected a plain file name, got '../../etc/passwd'"),
        ({"segments": segments(segment_name="..")}, "segments.0.segment_name: expected a plain file name, got '..'"),
        ({"segments": segments(segment_name="a\0b")}, r"segments.0.segment_name: expected a plain file name, got 'a\x00b'"),
        ({"segments": segments(checksum="ab")}, "segments.0: expected a checksum of 64 hex digits, got another"),
        ({"segments": segments(size_bytes=-1)}, "segments.0.size_bytes: expected greater than or equal to 0, got -1"),
        ({"segments": segments(size_bytes=True)}, "segments.0.size_bytes: expected a valid integer, got True"),
        ({"segments": segments() * 2}, "expected every segment_name once, got one twice"),
    ],
)  # fmt: skip
def test_a_manifest_of_another_shape_is_refused(changes: dict[str, Any], problem: str) -> None:
    with saying(SourceError, f"m: {problem}"):
        decode("m", manifest(**changes), Manifest, once=True)


def test_a_key_that_stands_twice_and_deep_nesting_are_refused() -> None:
    for twice in (b'"version": 1, "version": 1', b'"Version": 2, "version": 1'):
        text = manifest().replace(b'"version": 1', twice)
        with pytest.raises(SourceError, match=r"^m: expected every key once, got one twice$"):
            decode("m", text, Manifest, once=True)
    with pytest.raises(SourceError):  # not the end of the interpreter
        decode("m", b'{"version": 1, "x": ' + b"[" * 100_000, Manifest, once=True)


# --- signatures -----------------------------------------------------------------------------------


@given(content=st.binary(max_size=50), spelling=st.sampled_from(["hex", "HEX", "base64", "1:"]))
def test_both_spellings_of_a_signature_are_read(content: bytes, spelling: str) -> None:
    """snapshot-verify's, and the node's with the key's version before it."""
    raw = KEY.sign(content)
    encoded = base64.b64encode(raw).decode()
    text = {"hex": raw.hex(), "HEX": raw.hex().upper(), "base64": encoded, "1:": f"1:{encoded}"}

    assert verified_by(content, text[spelling].encode() + b"\n", "s", KEYS) == "key version 1"


@given(content=st.binary(min_size=1, max_size=50), flip=st.integers(0, 511))
def test_no_altered_signature_or_content_is_accepted(content: bytes, flip: int) -> None:
    raw = bytearray(KEY.sign(content))
    raw[flip // 8] ^= 1 << flip % 8
    with pytest.raises(Refused):
        verified_by(content, raw.hex().encode(), "s", KEYS)
    with pytest.raises(Refused):
        verified_by(content + b"x", KEY.sign(content).hex().encode(), "s", KEYS)


def test_a_signature_counts_for_the_version_it_names() -> None:
    raw = base64.b64encode(OTHER.sign(b"content"))

    assert verified_by(b"content", b"2:" + raw, "s", KEYS) == "key version 2"
    with pytest.raises(Refused, match=r"^the signature is no listed key's over this content$"):
        verified_by(b"content", b"1:" + raw, "s", KEYS)
    with pytest.raises(Refused, match=r"^signed with key version 7, expected one of 1, 2$"):
        verified_by(b"content", b"7:" + raw, "s", KEYS)
    for text in (b"1:" + b"ab" * 64, b"-1:" + b"A" * 86 + b"=="):
        with pytest.raises(SourceError, match="expected 64 bytes in hex or base64"):
            verified_by(b"content", text, "s", KEYS)


# --- folders --------------------------------------------------------------------------------------


def write(folder: Path, **about: Any) -> Path:
    """A signed bundle."""
    (folder / "manifest").mkdir(parents=True)
    (folder / "manifest" / "chunks.json").write_bytes(manifest())
    said = {
        "version": 1, "chain_id": "c", "height": 5, "created_at": 9, "manifest": f"sha256:{HEX}",
    }  # fmt: skip
    text = json.dumps({**said, **about}).encode()
    (folder / "bundle.json").write_bytes(text)
    (folder / "bundle.json.sig").write_text(KEY.sign(text).hex())
    return folder


def test_bundles_are_found_in_a_folder_or_are_it(world: World, tmp_path: Path) -> None:
    one = write(tmp_path / "all" / "one")
    (tmp_path / "all" / "notes").mkdir()
    [found] = snapshots.find_bundles(world.scope(), f"{tmp_path}/all/", KEYS)
    [itself] = snapshots.find_bundles(world.scope(), str(one), KEYS)

    assert found == itself
    assert (found.name, found.signed.observed) == ("all/one", "key version 1")
    assert isinstance(found.about, About)
    assert (found.about.chain_id, found.about.height) == ("c", 5)
    assert snapshots.find_bundles(world.scope(), str(tmp_path / "none"), KEYS) == []


def test_what_a_bundle_lacks_is_its_error(world: World, tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "bundle.json.sig").unlink()
    write(tmp_path / "b", height="5")
    write(tmp_path / "c")
    (tmp_path / "c" / "bundle.json").write_bytes(b"{}")
    unsigned, shape, empty = snapshots.find_bundles(world.scope(), str(tmp_path), KEYS)

    signed = unsigned.signed
    assert (signed.outcome, signed.waivable) == (Outcome.INCONCLUSIVE, False)
    assert shape.signed.observed == "height: expected a valid integer, got '5'"
    assert empty.about is None


PROOF = {
    "layout_version": 1,
    "block_height": 5,
    "proof_file": "5.bin",
    "proof_checksum": HEX.upper(),
}
NAME, AT_5 = f"{5:020d}.json", {"plan": {}, "metadata": {"height": 5, "timestamp": 1}}
BESIDE = f"manifests/{NAME}"


@pytest.mark.parametrize(
    ("files", "parts", "wrong"),
    [
        ({}, [], []),
        ({"snapshot-5.json": AT_5}, [], []),
        ({"snapshot-6.json": AT_5}, [], [("pruning checkpoint snapshot-6.json", 5, FAIL)]),
        ({"snapshot-5.json": []}, [], [("pruning data", "snapshot-5.json: expected an object, got a list", UNKNOWN)]),
        # As Firewood keeps them, and as its backup script copies them.
        *(({f"{of}/{NAME}": PROOF}, [(f"{folder}/5.bin", f"sha256:{HEX}")], []) for of, folder in snapshots.PAIRS),
        ({BESIDE: PROOF | {"block_height": 6}}, [("proofs/5.bin", f"sha256:{HEX}")], [("pruning proof 5.bin", f"6, of {NAME}", FAIL)]),
        ({BESIDE: PROOF | {"proof_file": "../x"}}, [], [("pruning data", f"{BESIDE}: proof_file: expected a plain file name, got '../x'", UNKNOWN)]),
        ({BESIDE: PROOF | {"proof_checksum": "ab"}}, [], [("pruning data", f"{BESIDE}: proof_checksum: expected text matching '^[0-9a-fA-F]{{64}}$', got 'ab'", UNKNOWN)]),
        ({"manifests/notes.txt": "5"}, [], [("pruning data", "manifests/notes.txt: expected an object, got '5'", UNKNOWN)]),
    ],
)  # fmt: skip
def test_pruning_data_tells_its_heights_or_why_not(
    world: World, tmp_path: Path, files: dict[str, Any], parts: list[Any], wrong: list[Any]
) -> None:
    one, scope, found = write(tmp_path / "x" / "one"), world.scope(), Findings()
    for name, content in files.items():
        (one / name).parent.mkdir(exist_ok=True)
        (one / name).write_text(json.dumps(content))
    [bundle] = snapshots.find_bundles(scope, str(one), KEYS)
    made = snapshots._pruning(scope, found, bundle, 5)

    assert [(str(each.path.relative_to(one)), each.digest) for each in made] == parts
    assert not_passed(found.findings, "what", "observed", "outcome") == wrong
