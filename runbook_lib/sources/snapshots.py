"""Snapshot bundles: their files, what they say of themselves, and whose signature is on them.

A bundle is a folder as the chain's own tools read it, and two files of the site's backup:

    manifest/chunks.json      {"version": 1, "checksum_algorithm"?, "segments": [{"segment_name",
                              "size_bytes", "checksum" (or "sha256")}]}
    manifest/chunks.json.sig  Ed25519 over the manifest's bytes
    chunks/<segment_name>
    snapshot-<height>.json    a pruning checkpoint, if any: {"plan", "metadata": {"height"}}
    manifests/<20 digits>.json, proofs/    if any, what backup_snapshot.sh copies out of Firewood's
                              cf_pruning_snapshots/ and cf_pruning_proofs/ (names read as well):
                              {"block_height", "proof_file", "proof_checksum" (sha256, hex)}
    bundle.json               {"version": 1, "chain_id", "height", "created_at" (unix s), "manifest":
                              "sha256:HEX of chunks.json", "state_root"?: 64 hex digits}
    bundle.json.sig           Ed25519 over its bytes

Neither the manifest nor a checkpoint names a chain, and a manifest has no height or instant. So
the backup must say them in ``bundle.json``, bound to its manifest by digest and signed by the same
key; what it does not say is not provable. Signatures come in the chain's two spellings: hex or
base64 of 64 bytes (``snapshot-verify`` reads these), and ``VERSION:BASE64`` (the node reads this).
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, AliasPath, Field, model_validator

from ..canonical import digest_bytes
from ..errors import SourceError, tried
from ..findings import Findings
from ..outcomes import Row, check_row, worst
from . import wire
from .keys import Refused, signed_by
from .local import Algorithm
from .scope import Scope
from .wire import MOST, Digest, Height, Wire

MANIFEST = "manifest/chunks.json"
ABOUT = "bundle.json"
MAX_SEGMENTS = 100_000
MAX_BUNDLES = 1000
SHOWN = 20
"""Wrong chunks with a row of their own."""
_SIGNED = re.compile(rb"(?:([0-9]{1,9}):)?([0-9A-Za-z+/]{86}==|[0-9A-Fa-f]{128})")


def _plain(name: str) -> str:
    if name in ("", ".", "..") or not name.isprintable() or {*name} & {"/", "\\"}:
        raise ValueError(f"expected a plain file name, got {name!r}")
    return name


PlainName = Annotated[str, Field(max_length=255), AfterValidator(_plain)]


class Segment(Wire):
    """One chunk: a plain file name, its bytes, and its checksum as hex."""

    segment_name: PlainName
    size_bytes: Annotated[int, Field(ge=0, le=MOST)]
    checksum: str = ""
    sha256: str = ""

    @model_validator(mode="after")
    def _checksum(self) -> Self:
        if not re.fullmatch("[0-9a-fA-F]{64}", self.checksum or self.sha256):
            raise ValueError("expected a checksum of 64 hex digits, got another")
        return self


class Manifest(Wire):
    """The chunks of a snapshot; without ``checksum_algorithm`` they are sha256, the node's default."""

    version: Literal[1]
    checksum_algorithm: Algorithm = "sha256"
    segments: Annotated[list[Segment], Field(min_length=1, max_length=MAX_SEGMENTS)]

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len({segment.segment_name for segment in self.segments}) != len(self.segments):
            raise ValueError("expected every segment_name once, got one twice")
        return self

    @property
    def size(self) -> int:
        """Bytes of all chunks."""
        return sum(segment.size_bytes for segment in self.segments)

    def expected(self, segment: Segment) -> str:
        """A chunk's digest as ``ALGORITHM:HEX``; the older key is always sha256."""
        if segment.checksum:
            return f"{self.checksum_algorithm}:{segment.checksum.lower()}"
        return f"sha256:{segment.sha256.lower()}"


class About(Wire):
    """What the backup says of its bundle; ``created_at`` in unix seconds."""

    version: Literal[1]
    chain_id: Annotated[str, Field(min_length=1, max_length=200)]
    height: Height
    created_at: Annotated[int, Field(ge=0, le=253_402_300_799)]
    manifest: Digest
    state_root: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""


@dataclass(frozen=True)
class Bundle:
    """A folder with a manifest in it, what it says of itself, and whose signature is on that.

    Where it says nothing that can be read, ``signed`` is why.
    """

    path: Path
    about: About | None
    signed: Row

    @property
    def name(self) -> str:
        return _name(self.path)

    @property
    def newness(self) -> tuple[int, int]:
        """Height and instant, to sort by; of one that tells neither, below all others."""
        about = self.about
        return (about.height, about.created_at) if about else (-1, -1)


T = TypeVar("T", bound=Wire)
Keys = Mapping[int, str]
"""Public keys, ``ed25519:BASE64``, by the version that the chain numbers them with."""


def find_bundles(scope: Scope, folder: Path, keys: Keys) -> list[Bundle]:
    """Every bundle in ``folder``, or the one it is itself. Raises SourceError for far too many."""
    names = scope.listing(folder)
    if len(names) > MAX_BUNDLES:
        raise SourceError(
            folder.name, f"expected at most {MAX_BUNDLES} bundles, got {len(names)} names"
        )
    inside = [folder] if "manifest" in names else [folder / name for name in names]
    bundles = []
    for path in [path for path in inside if "chunks.json" in scope.listing(path / "manifest")]:
        found = tried(_document, scope, path, ABOUT, About)
        if isinstance(found, SourceError):
            bundles.append(Bundle(path, None, check_row(_name(path), ABOUT, "readable", found)))
        else:
            signed = _signature(scope, path, ABOUT, found[0], keys)
            bundles.append(Bundle(path, found[1], signed))
    return bundles


def _document(scope: Scope, folder: Path, name: str, model: type[T]) -> tuple[bytes, T]:
    """A JSON file of a bundle, as it is and as read. Raises SourceError."""
    text = scope.read(folder / name)
    return text, wire.decode(name, text, model, once=True)


def _signature(scope: Scope, folder: Path, file: str, content: bytes, keys: Keys) -> Row:
    """Whose signature lies beside a file of a bundle."""
    # Nor is one that is not there waived: whoever cannot forge it could take it away.
    row = partial(
        check_row, _name(folder), f"signature of {file}", "a listed key's", waivable=False
    )
    beside = f"{file}.sig"
    try:
        signer = tried(lambda: verified_by(content, scope.read(folder / beside), beside, keys))
        return row(signer, ok=True)
    except Refused as refused:
        return row(str(refused), ok=False)


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


# --- whether a bundle is whole: its manifest, whose signature is on it, every chunk ---------------


def whole(scope: Scope, found: Findings, bundle: Bundle, keys: Keys) -> tuple[str, int] | None:
    """Judge the manifest, whose it is, and every chunk it names.

    The manifest's digest and the bytes of all chunks; None where it could not be read.
    """
    name = bundle.name
    document = tried(_document, scope, bundle.path, MANIFEST, Manifest)
    if isinstance(document, SourceError):
        found.judge(name, "manifest", "readable", document)
        return None
    text, manifest = document
    digest = digest_bytes(text)
    found.findings.append(_signature(scope, bundle.path, MANIFEST, text, keys))
    if bundle.about:
        what, bound = "manifest named by bundle.json", bundle.about.manifest
        found.judge(name, what, bound, digest, waivable=False)
    bad = list(wrong_chunks(scope, bundle, manifest))
    if not bad:
        what = f"{len(manifest.segments):,} chunks of {manifest.size:,} bytes"
        found.judge(name, "chunks", what, what)
    found.findings += bad[:SHOWN]
    if left := bad[SHOWN:]:
        outcome, waivable = worst(row.outcome for row in left), all(row.waivable for row in left)
        got = f"{len(left):,} are not"
        found.judge(name, "further chunks", "whole", got, outcome, waivable=waivable)
    return digest, manifest.size


def wrong_chunks(scope: Scope, bundle: Bundle, manifest: Manifest) -> Iterator[Row]:
    """A row for each chunk that is missing, unreadable, or not what the manifest says."""
    name, folder = bundle.name, bundle.path / "chunks"
    there = set(scope.listing(folder))
    for segment in manifest.segments:
        if segment.segment_name not in there:
            yield check_row(name, f"chunk {segment.segment_name}", "there", "missing", ok=False)
    for algorithm in get_args(Algorithm):
        mine = {
            folder / one.segment_name: one
            for one in manifest.segments
            if one.segment_name in there and manifest.expected(one).startswith(f"{algorithm}:")
        }
        got = scope.file_digests(list(mine), algorithm)
        for at, segment in mine.items():
            what, wanted = f"chunk {segment.segment_name}", manifest.expected(segment)
            if at in got.failed:
                yield check_row(name, what, wanted, got.failed[at])
            elif (seen := got[at]).size != (size := segment.size_bytes):
                yield check_row(name, what, size, seen.size, ok=False, unit="bytes", waivable=False)
            elif seen.digest != wanted:
                yield check_row(name, what, wanted, seen.digest, ok=False, waivable=False)


def verified_by(content: bytes, signature: bytes, where: str, keys: Keys) -> str:
    """The version of the key whose ``signature`` over ``content`` is read from ``where``.

    Raises Refused, and SourceError for no signature or no keys.
    """
    found = _SIGNED.fullmatch(signature.strip())
    if found is None or (found[1] and len(found[2]) != 88):
        raise SourceError(
            where, "expected 64 bytes in hex or base64, or VERSION:BASE64, got something else"
        )
    if not keys:
        raise SourceError("rollback.keys", "expected the public key of snapshots, got none")
    text = found[2].decode()
    raw = bytes.fromhex(text) if len(text) == 128 else base64.b64decode(text)
    if found[1] and int(found[1]) not in keys:
        known = ", ".join(map(str, sorted(keys)))
        raise Refused(f"signed with key version {int(found[1])}, expected one of {known}")
    for number in [int(found[1])] if found[1] else sorted(keys):
        if signed_by(keys[number], content, raw):
            return f"key version {number}"
    raise Refused("the signature is no listed key's over this content")


# --- the chain's own pruning data -----------------------------------------------------------------


PAIRS = (("manifests", "proofs"), ("cf_pruning_snapshots", "cf_pruning_proofs"))
_CHECKPOINT = re.compile(r"snapshot-[0-9]{1,20}\.json")
_MANIFEST = re.compile(r"[0-9]{20}\.json")


class _Checkpoint(Wire):
    height: Annotated[Height, Field(validation_alias=AliasPath("metadata", "height"))]


class _SnapshotManifest(Wire):
    block_height: Height
    proof_file: PlainName
    proof_checksum: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]


@dataclass(frozen=True)
class Proof:
    """One pruned height: its proof's file and that file's ``sha256:HEX``."""

    height: int
    path: Path
    digest: str


def checkpoint_height(scope: Scope, bundle: Bundle) -> int | None:
    """The height of the pruning checkpoint beside the chunks, if there is one. Raises SourceError."""
    names = [name for name in scope.listing(bundle.path) if _CHECKPOINT.fullmatch(name)]
    if not names:
        return None
    if len(names) > 1:
        raise SourceError(bundle.name, f"expected one pruning checkpoint, got {', '.join(names)}")
    height = _document(scope, bundle.path, names[0], _Checkpoint)[1].height
    if names[0] != f"snapshot-{height}.json":
        raise SourceError(names[0], f"expected the height of its name, got {height}")
    return height


def proofs(scope: Scope, bundle: Bundle) -> list[Proof]:
    """Every pruning proof that a manifest names, by height. Raises SourceError."""
    found = []
    for manifests, folder in PAIRS:
        for name in scope.listing(bundle.path / manifests):
            where = f"{manifests}/{name}"
            if not _MANIFEST.fullmatch(name):
                raise SourceError(where, "expected a height of 20 digits, got another name")
            _, said = _document(scope, bundle.path, where, _SnapshotManifest)
            if said.block_height != int(name[:20]):
                raise SourceError(
                    where, f"expected the height of its name, got {said.block_height}"
                )
            path, digest = bundle.path / folder / said.proof_file, said.proof_checksum.lower()
            found.append(Proof(said.block_height, path, f"sha256:{digest}"))
    if len({proof.path for proof in found}) != len(found):
        raise SourceError(bundle.name, "expected a proof file of its own for every height")
    return sorted(found, key=lambda proof: proof.height)
