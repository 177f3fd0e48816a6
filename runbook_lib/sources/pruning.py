"""The chain's own pruning data in a snapshot bundle: what it says of height, and its proofs.

    snapshot-<height>.json                   a pruning checkpoint: {"plan", "metadata": {"height"}}
    manifests/<20 digits>.json, proofs/      what backup_snapshot.sh copies out of Firewood's
                                             cf_pruning_snapshots/ and cf_pruning_proofs/ (these
                                             names are read as well): {"block_height", "proof_file",
                                             "proof_checksum" (sha256, hex)}

A bundle may hold either, both or none of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..errors import SourceError
from .scope import Scope
from .snapshots import MOST, Bundle, PlainName
from .wire import Wire, decode_once

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
