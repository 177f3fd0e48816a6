"""Many files hashed at once: the digests of hashlib, recorded one by one, errors in their place."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from runbook_lib.errors import SourceError
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


def test_what_cannot_be_read_is_an_error_in_its_place(world: World, tmp_path: Path) -> None:
    there, gone, pipe, folder = (tmp_path / name for name in ("there", "gone", "pipe", "folder"))
    there.write_bytes(b"content")
    os.mkfifo(pipe)
    folder.mkdir()

    found = world.scope().file_digests([there, gone, pipe, folder])

    assert found[0] == FileDigest("sha256:" + hashlib.sha256(b"content").hexdigest(), 7)
    assert [str(error) for error in found[1:]] == [
        f"{gone}: expected a readable file, got: No such file or directory",
        f"{pipe}: expected a readable file, got: not a regular file",
        f"{folder}: expected a readable file, got: not a regular file",
    ]
    assert all(isinstance(error, SourceError) for error in found[1:])


def test_the_same_file_twice_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be told apart on the tape$"):
        world.scope().file_digests([tmp_path, tmp_path])
