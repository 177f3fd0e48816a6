"""Many files hashed at once: the digests of hashlib, recorded one by one, errors in their place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runbook_lib.sources.local import FileDigest
from runbook_lib.sources.tape import read_entries

from .conftest import World


@pytest.mark.parametrize("algorithm", ["sha256", "blake2b"])
def test_many_files_are_hashed_and_replayed(world: World, tmp_path: Path, algorithm: str) -> None:
    contents = [b"", b"one", b"x" * 3_000_000, bytes(range(256)) * 999]
    paths = [tmp_path / f"file-{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)

    live = world.scope()
    found = live.file_digests(paths, algorithm)  # type: ignore[arg-type]
    for path in paths:
        path.unlink()
    replay = world.replay()

    size = {"digest_size": 32} if algorithm == "blake2b" else {}
    assert found == [
        FileDigest(
            f"{algorithm}:{getattr(hashlib, algorithm)(content, **size).hexdigest()}", len(content)
        )
        for content in contents
    ]
    assert replay.file_digests(paths, algorithm) == found  # type: ignore[arg-type]
    assert replay.inputs == live.inputs
    assert {entry.body for entry in read_entries(world.folder)} == {
        "sha256:" + hashlib.sha256(b"").hexdigest()
    }
