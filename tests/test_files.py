"""Files are replaced in one step, and outlast a power cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runbook_lib.files import is_left_of, replace_file


def test_a_write_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk shows at the latest when it is synced."""
    path = tmp_path / "a.toml"
    replace_file(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        replace_file(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_synced_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses power must not find the name on an empty file."""
    path = tmp_path / "a.toml"
    seen: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.exists()))
    replace_file(path, b"new", lasting=False)
    assert seen == []
    path.unlink()
    replace_file(path, b"new")

    assert seen == [False]


def test_what_a_killed_write_leaves_is_told_from_any_other_file(tmp_path: Path) -> None:
    """Evidence passes over the one, and must not over the other."""
    made: list[str] = []

    class Killed(BaseException):
        pass

    def killed(self: Path, target: Path) -> Path:
        made.append(self.name)
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", killed)
        replace_file(tmp_path / "manifest.json", b"{}")

    assert [is_left_of(name, "manifest.json") for name in made] == [True]
    for name in (
        ".manifest.json",
        ".manifest.json.html",
        "manifest.json.1.2",
        ".manifestXjson.1.2",
    ):
        assert not is_left_of(name, "manifest.json")
