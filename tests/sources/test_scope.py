"""What a try may ask: files, commands and requests, under names that are the same everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runbook_lib.errors import SourceError
from runbook_lib.reach import Command
from runbook_lib.sources.http import Request

from .conftest import World

PING = Request("GET", "http://node/ping")


def test_a_command_says_a_folder_it_was_told_by_its_name(world: World, tmp_path: Path) -> None:
    """The same elsewhere; a path that it was not told stands as it was said."""
    live = world.scope(aliases=((str(tmp_path), "attempt"),))
    told = Command(argv=["echo", f"testing {tmp_path}/a.yaml"])
    untold = Command(argv=["sh", "-c", 'echo "$(dirname /elsewhere/a)"'])

    assert live.run(told).stdout == b"testing {attempt}/a.yaml\n"
    assert live.run(untold).stdout == b"/elsewhere\n"
    replay = world.replay(aliases=(("/elsewhere", "attempt"),))
    assert replay.run(Command(argv=["echo", "testing /elsewhere/a.yaml"])).stdout == (
        b"testing {attempt}/a.yaml\n"
    )


def test_identical_concurrent_requests_are_refused(world: World) -> None:
    """Their answers could change places between the run and its replay."""
    with pytest.raises(ValueError) as caught:
        world.scope().http([PING, PING])
    assert str(caught.value) == ("identical concurrent requests cannot be told apart on the tape")


def test_files_that_cannot_be_read_are_source_errors(world: World, tmp_path: Path) -> None:
    """Live and in replay, and under the name that is the same everywhere."""
    aliases = ((str(tmp_path), "store"),)
    for make in (world.scope, world.replay):
        with pytest.raises(SourceError) as caught:
            make(aliases=aliases).read(tmp_path / "none")
        assert str(caught.value) == (
            "{store}/none: expected a readable file, got: No such file or directory"
        )
    with pytest.raises(SourceError) as caught:
        world.scope(aliases=aliases).file_digest(tmp_path / "none")
    assert str(caught.value) == (
        "{store}/none: expected a readable file, got: No such file or directory"
    )


def test_what_is_no_file_is_not_waited_for(world: World, tmp_path: Path) -> None:
    """A pipe would never end, a folder has no content, and a link may be refused."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    scope = world.scope(aliases=((str(tmp_path), "store"),))
    for name in ("pipe", "."):
        for ask in (scope.read, scope.file_digest):
            with pytest.raises(SourceError, match="got: not a regular file"):
                ask(tmp_path / name)
    with pytest.raises(SourceError, match="expected a readable file, got: Too many levels"):
        scope.read(tmp_path / "link", follow=False)


def test_a_file_is_read_whole_or_not_at_all(world: World, tmp_path: Path) -> None:
    """At its limit it still is."""
    (tmp_path / "file").write_bytes(b"12345")
    scope = world.scope()
    assert scope.read(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(SourceError, match="expected at most 4 bytes, got 5"):
        scope.read(tmp_path / "file", limit=4)
