"""What a rollback needs, staged for each cluster: the previous release's artifact, and a snapshot.

    rollback/<cluster>/<digest>.tar.gz    the previous release, as it was published
    snapshots/<cluster>/backup-<height>/    manifest, chunks, pruning checkpoint, bundle.json, signed

The key is a throwaway made from the seed. The backup runs again whenever time is wound forward.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..chain.timeline import state_at
from ..chain.world import World
from ..files import digest_of, private_key, public_key, write_atomically
from . import storage

if TYPE_CHECKING:
    from ..faults.table import FaultBoard

CHUNKS, CHUNK_BYTES = 3, 4096
KEY_VERSION = 1
BACKUP_S = 3600.0


def section(world: World, cluster: str, shown: Callable[[Path], str]) -> dict[str, Any]:
    return {
        "release": shown(world.root / "rollback" / cluster / "{digest}.tar.gz"),
        "snapshots": [shown(world.root / "snapshots" / cluster)],
        "keys": [{"version": KEY_VERSION, "key": public_key(key(world.seed))}],
    }


def key(seed: int) -> Ed25519PrivateKey:
    return private_key(f"rehearsal/{seed}/snapshots")


class Assets:
    """The staged files of a network; ``previous`` is the artifact of the release before."""

    def __init__(self, world: World, previous: Path, candidate: Path) -> None:
        self._world, self._previous, self.candidate = world, previous, candidate
        self._key = key(world.seed)
        self.backed_up: dict[str, float] = {}

    def write(self, cluster: str) -> None:
        folder = self.archive(cluster).parent
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.write_archive(cluster, self._previous)
        self.back_up(cluster)

    def write_archive(self, cluster: str, artifact: Path) -> None:
        write_atomically(self.archive(cluster), artifact.read_bytes())

    def archive(self, cluster: str) -> Path:
        name = digest_of(self._previous).removeprefix("sha256:")
        return self._world.root / "rollback" / cluster / f"{name}.tar.gz"

    def bundle(self, cluster: str) -> Path:
        """The cluster's one bundle. Raises StopIteration when there is none."""
        return next((self._world.root / "snapshots" / cluster).iterdir())

    def fetchable(self, cluster: str) -> list[str]:
        files = [*self.archive(cluster).parent.glob("*.tar.gz"), self.candidate]
        files += self._world.root.glob(f"snapshots/{cluster}/*/manifest/chunks.json")
        return [digest_of(path) for path in files]

    def back_up_when_due(self, cluster: str) -> None:
        """A bundle an hour, as operators' schedules make them."""
        if self._world.clock.now() - self.backed_up.get(cluster, 0.0) >= BACKUP_S:
            self.back_up(cluster)

    def back_up(self, cluster: str, **about: Any) -> None:
        """A bundle of this instant in place of the last; ``about`` says otherwise."""
        now = self.backed_up[cluster] = self._world.clock.now()
        height = state_at(self._world, cluster, now).height
        chain = self._world.clusters[cluster].chain_id
        key_ = storage.key_of(self._world.seed, chain)
        folder = self._world.root / "snapshots" / cluster
        scratch = folder.with_name(f".{cluster}")
        shutil.rmtree(folder, ignore_errors=True)
        manifest = self._write_chunks(cluster, scratch / f"backup-{height}")
        written = {
            "version": 1,
            "chain_id": chain,
            "height": height,
            "created_at": int(now),
            "manifest": "sha256:" + hashlib.sha256(manifest).hexdigest(),
            "state_root": storage.root_of(key_, height),
            **about,
        }
        bundle = scratch / f"backup-{height}"
        storage.pruning(bundle / "manifests", bundle / "proofs", key_, height)
        self.sign(bundle / "bundle.json", json.dumps(written).encode(), versioned=True)
        metadata = {"height": written["height"], "timestamp": int(now), "backend": "firewood"}
        checkpoint = json.dumps({"plan": {"chunks": []}, "metadata": metadata}).encode()
        self.sign(bundle / f"snapshot-{written['height']}.json", checkpoint, versioned=True)
        scratch.rename(folder)

    def _write_chunks(self, cluster: str, bundle: Path) -> bytes:
        (bundle / "chunks").mkdir(parents=True)
        (bundle / "manifest").mkdir()
        segments = []
        for number in range(CHUNKS):
            seed = f"{self._world.seed}/{cluster}/{number}".encode()
            content = hashlib.shake_128(seed).digest(CHUNK_BYTES)
            name = f"chunk-{number:05d}.bin"
            (bundle / "chunks" / name).write_bytes(content)
            checksum = hashlib.sha256(content).hexdigest()
            segments.append(
                {"segment_name": name, "size_bytes": len(content), "checksum": checksum}
            )
        document = {"version": 1, "checksum_algorithm": "sha256", "segments": segments}
        manifest = json.dumps(document, indent=1).encode()
        self.sign(bundle / "manifest" / "chunks.json", manifest, versioned=False)
        return manifest

    def verified(self, bundle: Path, faults: FaultBoard, node: str) -> dict[str, Any]:
        """What snapshot-verify says of a bundle as a node has it, and its exit code."""
        report: dict[str, Any] = {"manifest": str(bundle / "manifest" / "chunks.json")}
        errors, code = list[str](), 0
        try:
            text = (bundle / "manifest" / "chunks.json").read_bytes()
            signature = bytes.fromhex((bundle / "manifest" / "chunks.json.sig").read_text())
            segments = json.loads(text)["segments"]
            if faults.is_on("snapshot-verify-breaks", node=node):
                raise OSError("input/output error")
        except (OSError, ValueError) as error:
            return {**report, "errors": [f"fatal: {error}"], "exit_code": 1}
        try:
            self._key.public_key().verify(signature, text)
            if faults.is_on("snapshot-forged-at-node", node=node):
                raise InvalidSignature
        except InvalidSignature:
            errors, code = ["manifest signature is invalid"], 2
        for segment in segments:
            path = bundle / "chunks" / segment["segment_name"]
            good = path.exists() and digest_of(path) == f"sha256:{segment['checksum']}"
            if not good or faults.is_on("snapshot-corrupt-at-node", node=node):
                errors.append(f"chunk {path.name}: checksum mismatch")
                code = 3
        return {**report, "errors": errors, "exit_code": code}

    def sign(self, path: Path, content: bytes, *, versioned: bool) -> None:
        """A file and its signature, spelt for the node (``versioned``) or for snapshot-verify."""
        signature = self._key.sign(content)
        text = f"{KEY_VERSION}:{base64.b64encode(signature).decode()}"
        path.write_bytes(content)
        path.with_name(f"{path.name}.sig").write_text(text if versioned else signature.hex())
