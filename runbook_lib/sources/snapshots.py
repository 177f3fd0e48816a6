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

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ..errors import SourceError
from . import wire
from .keys import Refused, signed_by
from .local import Algorithm
from .scope import Scope
from .wire import Wire, decode_once

MANIFEST = "manifest/chunks.json"
ABOUT = "bundle.json"
MAX_SEGMENTS = 100_000
MAX_BUNDLES = 1000
_SIGNED = re.compile(rb"(?:([0-9]{1,9}):)?([0-9A-Za-z+/]{86}==|[0-9A-Fa-f]{128})")
MOST = 2**53 - 1

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


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
    height: Annotated[int, Field(ge=0, le=MOST)]
    created_at: Annotated[int, Field(ge=0, le=253_402_300_799)]
    manifest: Digest
    state_root: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""


@dataclass(frozen=True)
class Bundle:
    """A folder with a manifest in it. What could not be read of it is its error."""

    path: Path
    about: About | SourceError
    signed: str | SourceError | Refused

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


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
    found = [path for path in inside if "chunks.json" in scope.listing(path / "manifest")]
    return [_bundle(scope, path, keys) for path in found]


def _bundle(scope: Scope, path: Path, keys: Keys) -> Bundle:
    try:
        text = scope.read(path / ABOUT)
        about: About | SourceError = wire.decode_once(ABOUT, text, About)
    except SourceError as error:
        return Bundle(path, error, error)
    return Bundle(path, about, signature(scope, path / ABOUT, text, keys))


def read_manifest(scope: Scope, bundle: Bundle) -> tuple[bytes, Manifest]:
    """A bundle's manifest, raw and typed. Raises SourceError."""
    text = scope.read(bundle.path / MANIFEST)
    return text, wire.decode_once(MANIFEST, text, Manifest)


def signature(scope: Scope, path: Path, content: bytes, keys: Keys) -> str | SourceError | Refused:
    """Whose signature lies beside a file: the key's version as text, or what is wrong with it."""
    beside = path.with_name(f"{path.name}.sig")
    try:
        version, raw = parse_signature(scope.read(beside), beside.name)
        return verified_by(content, version, raw, keys)
    except (SourceError, Refused) as error:
        return error


def parse_signature(text: bytes, where: str) -> tuple[int | None, bytes]:
    """Key version (None where it is not said) and the signature's 64 bytes. Raises SourceError."""
    found = _SIGNED.fullmatch(text.strip())
    if found is None or (found[1] and len(found[2]) != 88):
        raise SourceError(
            where, "expected 64 bytes in hex or base64, or VERSION:BASE64, got something else"
        )
    try:
        hexadecimal = len(found[2]) == 128
        raw = bytes.fromhex(found[2].decode()) if hexadecimal else base64.b64decode(found[2])
    except ValueError as error:  # pragma: no cover - the pattern leaves none
        raise SourceError(where, f"expected hex or base64, got: {error}") from error
    return (int(found[1]) if found[1] else None), raw


def verified_by(content: bytes, version: int | None, raw: bytes, keys: Keys) -> str:
    """The version of the key that signed ``content``. Raises Refused, or SourceError for no keys."""
    if not keys:
        raise SourceError("rollback.keys", "expected the public key of snapshots, got none")
    if version is not None and version not in keys:
        known = ", ".join(map(str, sorted(keys)))
        raise Refused(f"signed with key version {version}, expected one of {known}")
    for number in sorted(keys) if version is None else [version]:
        if signed_by(keys[number], content, raw):
            return f"key version {number}"
    raise Refused("the signature is no listed key's over this content")


# --- the chain's own pruning data -----------------------------------------------------------------


PAIRS = (("manifests", "proofs"), ("cf_pruning_snapshots", "cf_pruning_proofs"))
_CHECKPOINT = re.compile(r"snapshot-[0-9]{1,20}\.json")
_MANIFEST = re.compile(r"[0-9]{20}\.json")

Height = Annotated[int, Field(ge=0, le=MOST)]


class _Metadata(Wire):
    height: Height


class _Checkpoint(Wire):
    metadata: _Metadata


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
    text = scope.read(bundle.path / names[0])
    height = decode_once(names[0], text, _Checkpoint).metadata.height
    if names[0] != f"snapshot-{height}.json":
        raise SourceError(names[0], f"expected the height of its name, got {height}")
    return height


def proofs(scope: Scope, bundle: Bundle) -> list[Proof]:
    """Every pruning proof that a manifest names, by height. Raises SourceError."""
    found = []
    for manifests, folder in PAIRS:
        for name in scope.listing(bundle.path / manifests):
            if not _MANIFEST.fullmatch(name):
                raise SourceError(
                    f"{manifests}/{name}", "expected a height of 20 digits, got another name"
                )
            text = scope.read(bundle.path / manifests / name)
            said = decode_once(f"{manifests}/{name}", text, _SnapshotManifest)
            if said.block_height != int(name[:20]):
                problem = f"expected the height of its name, got {said.block_height}"
                raise SourceError(f"{manifests}/{name}", problem)
            digest = f"sha256:{said.proof_checksum.lower()}"
            path = bundle.path / folder / said.proof_file
            found.append(Proof(said.block_height, path, digest))
    if len({proof.path for proof in found}) != len(found):
        raise SourceError(bundle.name, "expected a proof file of its own for every height")
    return sorted(found, key=lambda proof: proof.height)
