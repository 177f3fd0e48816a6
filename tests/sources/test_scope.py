"""What a run may ask: files, commands, requests and the clock, by names that stay the same."""

import hashlib
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.canonical import digest_bytes
from runbook_lib.errors import SourceError
from runbook_lib.reach import Clock, Command
from runbook_lib.sources.http import make_request
from runbook_lib.sources.local import FileDigest
from runbook_lib.sources.tape import read_entries

from ..messages import saying
from .conftest import World

PING = make_request("GET", "http://node/ping")


def test_a_command_says_a_folder_it_was_told_by_its_name(world: World, tmp_path: Path) -> None:
    live = world.scope(aliases=((str(tmp_path), "attempt"),))
    told = Command(argv=["echo", f"testing {tmp_path}/a.yaml"])
    untold = Command(argv=["sh", "-c", 'echo "$(dirname /elsewhere/a)"'])

    assert live.run(told).stdout == b"testing {attempt}/a.yaml\n"
    assert live.run(untold).stdout == b"/elsewhere\n"
    replay = world.replay(aliases=(("/elsewhere", "attempt"),))
    assert replay.run(Command(argv=["echo", "testing /elsewhere/a.yaml"])).stdout == (
        b"testing {attempt}/a.yaml\n"
    )


def test_identical_concurrent_requests_are_refused(world: World, tmp_path: Path) -> None:
    """Their answers could change places between the run and its replay."""
    asked: tuple[Any, ...] = (
        lambda scope: scope.http([PING, PING]),
        lambda scope: scope.file_digests([tmp_path, tmp_path]),
    )
    for ask in asked:
        with pytest.raises(ValueError, match=r"cannot be told apart on the tape$"):
            ask(world.scope())


def test_files_that_cannot_be_read_are_source_errors(world: World, tmp_path: Path) -> None:
    aliases = ((str(tmp_path), "store"),)
    gone = r"^{store}/none: expected a readable file, got: No such file or directory$"
    for make in (world.scope, world.replay):
        with pytest.raises(SourceError, match=gone):
            make(aliases=aliases).read(tmp_path / "none")
    with pytest.raises(SourceError, match=gone):
        world.scope(aliases=aliases).file_digest(tmp_path / "none")
    # One is read whole or not at all.
    (tmp_path / "file").write_bytes(b"12345")
    assert world.scope().read(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(SourceError, match="expected at most 4 bytes, got 5"):
        world.scope().read(tmp_path / "file", limit=4)


def test_what_is_no_file_is_not_waited_for(world: World, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    scope = world.scope(aliases=((str(tmp_path), "store"),))
    for name in ("pipe", "."):
        for ask in (scope.read, scope.file_digest):
            with pytest.raises(SourceError, match="got: not a regular file"):
                ask(tmp_path / name)
    with pytest.raises(SourceError, match="expected a readable file, got: Too many levels"):
        scope.read(tmp_path / "link", follow=False)
    # Of several at once an error stands in its place, and hides no other.
    (tmp_path / "there").write_bytes(b"content")
    found = scope.file_digests([tmp_path / name for name in ("there", "gone", "pipe", ".")])
    assert found.known == {tmp_path / "there": FileDigest(digest_bytes(b"content"), 7)}
    assert [error.problem for error in found.failed.values()] == [
        "expected a readable file, got: No such file or directory",
        "expected a readable file, got: not a regular file",
        "expected a readable file, got: not a regular file",
    ]


# --- many files at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "blake2b"])
def test_many_files_are_hashed_and_replayed(world: World, tmp_path: Path, algorithm: str) -> None:
    contents = [b"", b"one", b"x" * 3_000_000, bytes(range(256)) * 999]
    paths = [tmp_path / f"file-{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)

    live = world.scope()
    found = list(live.file_digests(paths, algorithm).values())  # type: ignore[arg-type]
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
    assert list(replay.file_digests(paths, algorithm).values()) == found  # type: ignore[arg-type]
    assert replay.inputs == live.inputs
    assert {entry.body for entry in read_entries(world.folder)} == {
        "sha256:" + hashlib.sha256(b"").hexdigest()
    }


# --- the site's clock -----------------------------------------------------------------------------


def test_the_clock_is_read_once_per_try_and_a_rehearsals_runs_ahead_by_its_file(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "clock.json"
    file.write_text(json.dumps({"offset_s": 86_400.5}))
    scope = world.scope(clock=Clock(source="offset-file", path=str(file)))
    assert scope.now() == scope.now() <= scope.reread()
    assert [entry.key for entry in read_entries(world.folder)] == ["CLOCK", "CLOCK"]
    ahead = scope.now() - world.scope(item="other").now()
    assert timedelta(hours=23) < ahead < timedelta(hours=25)
    assert scope.offset == timedelta(seconds=86_400.5)
    replay = world.replay()
    assert (replay.now(), replay.offset) == (scope.now(), scope.offset)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("{}", "KeyError('offset_s')"),
        ('{"offset_s": true}', "ValueError(True)"),
        ('{"offset_s": NaN}', "ValueError(nan)"),
        ('{"offset_s": "5"}', "TypeError('must be real number, not str')"),
        ("[]", "TypeError('list indices must be integers or slices, not str')"),
    ],
)
def test_an_unreadable_clock_is_a_source_error(
    world: World, tmp_path: Path, text: str, got: str
) -> None:
    file = tmp_path / "clock.json"
    file.write_text(text)
    with saying(SourceError, f"clock: {file}: expected {{offset_s: SECONDS}}, got: {got}"):
        world.scope(clock=Clock(source="offset-file", path=str(file))).now()
