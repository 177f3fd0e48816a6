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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, AliasPath, Field, model_validator

from ..canonical import digest_bytes
from ..errors import SourceError, tried
from ..findings import Findings
from ..outcomes import Row, check_row, worst
from ..strict import project_path
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

    ``place`` is where it lies by the site. Where it says nothing that can be read, ``signed`` is why.
    """

    place: str
    about: About | None
    signed: Row

    @property
    def path(self) -> Path:
        return project_path(self.place)

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


def find_bundles(scope: Scope, place: str, keys: Keys) -> list[Bundle]:
    """Every bundle in a folder, or the one it is itself. Raises SourceError for far too many."""
    folder = project_path(place)
    names = scope.listing(folder)
    if len(names) > MAX_BUNDLES:
        raise SourceError(
            folder.name, f"expected at most {MAX_BUNDLES} bundles, got {len(names)} names"
        )
    inside = [place] if "manifest" in names else [f"{place.rstrip('/')}/{name}" for name in names]
    bundles = []
    for each in inside:
        path = project_path(each)
        if "chunks.json" not in scope.listing(path / "manifest"):
            continue
        found = tried(_document, scope, path, ABOUT, About)
        if isinstance(found, SourceError):
            bundles.append(Bundle(each, None, check_row(_name(path), ABOUT, "readable", found)))
        else:
            signed = _signature(scope, path, ABOUT, found[0], keys)
            bundles.append(Bundle(each, found[1], signed))
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


# --- whether a bundle is whole: whose it is, its manifest, every file that it names ---------------


@dataclass(frozen=True)
class Part:
    """A file that a bundle names, and its digest, ``ALGORITHM:HEX``; not each names its size."""

    what: str
    path: Path
    digest: str
    size: int | None = None


def judge_bundle(
    scope: Scope, found: Findings, bundle: Bundle, keys: Keys, chain: str
) -> tuple[str, int] | None:
    """Judge whose a bundle is and of which chain, its manifest, every chunk and pruning proof.

    The manifest's digest and the bytes of all chunks; None where it could not be read.
    """
    name, about = bundle.name, bundle.about
    found.findings.append(bundle.signed)
    if about is not None:
        found.judge(name, "chain", chain, about.chain_id)
    document = tried(_document, scope, bundle.path, MANIFEST, Manifest)
    if isinstance(document, SourceError):
        found.judge(name, "manifest", "readable", document)
        return None
    text, manifest = document
    digest, chunks = digest_bytes(text), bundle.path / "chunks"
    found.findings.append(_signature(scope, bundle.path, MANIFEST, text, keys))
    parts = [
        Part(f"chunk {n}", chunks / n, manifest.expected(each), each.size_bytes)
        for each in manifest.segments
        if (n := each.segment_name)
    ]
    if about is not None:
        what, bound = "manifest named by bundle.json", about.manifest
        found.judge(name, what, bound, digest, waivable=False)
        parts += _pruning(scope, found, bundle, about.height)
    if not (bad := list(wrong_parts(scope, name, parts))):
        what = f"{len(manifest.segments):,} chunks of {manifest.size:,} bytes"
        found.judge(name, "chunks", what, what)
    found.findings += bad[:SHOWN]
    if left := bad[SHOWN:]:
        outcome, waivable = worst(row.outcome for row in left), all(row.waivable for row in left)
        got = f"{len(left):,} are not"
        found.judge(name, "further chunks", "whole", got, outcome, waivable=waivable)
    return digest, manifest.size


def wrong_parts(scope: Scope, name: str, parts: Sequence[Part]) -> Iterator[Row]:
    """A row for each file that is missing, unreadable, or not what it is said to be."""
    folders = {part.path.parent for part in parts}
    there = {folder / each for folder in sorted(folders) for each in scope.listing(folder)}
    for part in parts:
        if part.path not in there:
            yield check_row(name, part.what, "there", "missing", ok=False)
    for algorithm in get_args(Algorithm):
        mine = [p for p in parts if p.path in there and p.digest.startswith(f"{algorithm}:")]
        got = scope.file_digests(list(dict.fromkeys(part.path for part in mine)), algorithm)
        for part in mine:
            what, wanted, size = part.what, part.digest, part.size
            if part.path in got.failed:
                yield check_row(name, what, wanted, got.failed[part.path])
            elif (seen := got[part.path]).size != size and size is not None:
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


class _Checkpoint(Wire):
    height: Annotated[Height, Field(validation_alias=AliasPath("metadata", "height"))]


class _SnapshotManifest(Wire):
    block_height: Height
    proof_file: PlainName
    proof_checksum: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]


def _pruning(scope: Scope, found: Findings, bundle: Bundle, height: int) -> list[Part]:
    """Judge the heights that a bundle's checkpoint and pruning proofs tell; the proofs' files."""
    name, parts = bundle.name, list[Part]()
    with found.reading("pruning data", height, name):
        for file in filter(_CHECKPOINT.fullmatch, scope.listing(bundle.path)):
            said = _document(scope, bundle.path, file, _Checkpoint)[1].height
            ok = said == height and file == f"snapshot-{height}.json"
            found.judge(name, f"pruning checkpoint {file}", height, said, ok)
        for manifests, proofs in PAIRS:
            for file in scope.listing(bundle.path / manifests):
                _, proof = _document(scope, bundle.path, f"{manifests}/{file}", _SnapshotManifest)
                what, at = f"pruning proof {proof.proof_file}", proof.block_height
                if file != f"{at:020d}.json" or at > height:
                    got = f"{at:,}, of {file}"
                    found.judge(name, what, f"its name's height, at most {height:,}", got, ok=False)
                digest = f"sha256:{proof.proof_checksum.lower()}"
                parts.append(Part(what, bundle.path / proofs / proof.proof_file, digest))
    return parts
