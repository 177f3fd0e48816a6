"""What the rehearsal stages for a rollback: real shapes, really signed, kept young."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from runbook_rehearsal.files import digest_of

from ..conftest import Visitor

CLUSTERS = ("development", "testnet", "mainnet")


def section(visitor: Visitor, cluster: str) -> dict[str, Any]:
    found: dict[str, Any] = visitor.site["clusters"][cluster]["rollback"]
    return found


def bundle(visitor: Visitor, cluster: str) -> Path:
    [folder] = section(visitor, cluster)["snapshots"]
    [found] = Path(folder).iterdir()
    return found


def fetchable(visitor: Visitor, node: str) -> dict[str, Any]:
    done = visitor.command("assets", node=node)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_archive_is_the_release_before(visitor: Visitor, cluster: str) -> None:
    """Byte for byte; the binary in it is the one that runs."""
    before = visitor.network.release.previous_artifact
    digest = digest_of(before).removeprefix("sha256:")
    archive = Path(section(visitor, cluster)["release"].format(digest=digest))

    assert archive.read_bytes() == before.read_bytes()
    with tarfile.open(archive) as opened:
        binary = opened.extractfile(visitor.site["binary_member"])
        assert binary is not None
        found = hashlib.sha256(binary.read()).hexdigest()
    assert f"sha256:{found}" == visitor.network.release.previous.digest


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_snapshot_is_whole_and_signed(visitor: Visitor, cluster: str) -> None:
    """Chunks as the manifest says; the manifest is signed raw, what lies beside it with a version."""
    folder = bundle(visitor, cluster)
    [listed] = section(visitor, cluster)["keys"]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(listed["key"][8:]))
    text = (folder / "manifest" / "chunks.json").read_bytes()
    about = json.loads((folder / "bundle.json").read_bytes())
    checkpoint = folder / f"snapshot-{about['height']}.json"

    for segment in json.loads(text)["segments"]:
        chunk = (folder / "chunks" / segment["segment_name"]).read_bytes()
        assert (segment["size_bytes"], segment["checksum"]) == (
            len(chunk),
            hashlib.sha256(chunk).hexdigest(),
        )
    key.verify(bytes.fromhex((folder / "manifest" / "chunks.json.sig").read_text()), text)
    for path in (folder / "bundle.json", checkpoint):
        version, _, signature = Path(f"{path}.sig").read_text().partition(":")
        key.verify(base64.b64decode(signature), path.read_bytes())
        assert version == str(listed["version"])
    assert about["manifest"] == "sha256:" + hashlib.sha256(text).hexdigest()
    assert about["chain_id"] == visitor.site["clusters"][cluster]["chain_id"]
    assert json.loads(checkpoint.read_bytes())["metadata"]["height"] == about["height"]


def test_nodes_say_what_they_can_fetch(visitor: Visitor) -> None:
    """Archive, candidate and manifest by digest; the other clusters' are not theirs."""
    folder, network = bundle(visitor, "development"), visitor.network
    wanted = {digest_of(network.assets.archive("development")), digest_of(network.release.artifact)}
    wanted.add(digest_of(folder / "manifest" / "chunks.json"))

    found = fetchable(visitor, "dev-1")

    assert (found["node"], set(found["fetchable"])) == ("dev-1", wanted)
    assert found["free_bytes"] > 10**9
    assert set(fetchable(visitor, "main-7")["fetchable"]) & wanted == {
        digest_of(network.release.artifact),
        *(wanted & {digest_of(network.assets.archive("mainnet"))}),
    }


def test_the_backup_runs_while_time_passes(visitor: Visitor) -> None:
    """After days the newest snapshot is as young as before, and as near to the chain's tip."""
    before = json.loads((bundle(visitor, "testnet") / "bundle.json").read_bytes())
    visitor.network.fast_forward(3 * 86400)
    after = json.loads((bundle(visitor, "testnet") / "bundle.json").read_bytes())
    status = visitor.rpc("test-1", "/status/node").json()

    assert after["created_at"] - before["created_at"] >= 3 * 86400
    assert 0 <= status["height"] - after["height"] <= 2
    assert after["manifest"] in fetchable(visitor, "test-1")["fetchable"]


def test_a_backup_does_not_repair_what_a_fault_broke(visitor: Visitor) -> None:
    """Only clearing it does; the other clusters go on."""
    visitor.network.fault("snapshot-too-old@development")
    broken = (bundle(visitor, "development") / "bundle.json").read_bytes()
    other = (bundle(visitor, "testnet") / "bundle.json").read_bytes()
    visitor.network.fast_forward(3600)

    assert (bundle(visitor, "development") / "bundle.json").read_bytes() == broken
    assert (bundle(visitor, "testnet") / "bundle.json").read_bytes() != other
    visitor.network.clear("snapshot-too-old")
    healed = json.loads((bundle(visitor, "development") / "bundle.json").read_bytes())
    assert abs(healed["created_at"] - visitor.network.world.clock.now()) < 60
