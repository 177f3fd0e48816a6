"""Files a person writes: every problem of YAML named, nothing that crashes, paths from the root."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import ParameterError
from runbook_lib.files import is_left_of, replace_file
from runbook_lib.strict import PROJECT, parse_instant, parse_yaml, project_path

from .messages import saying


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a: 1\na: 2\n", " line 2: expected YAML, got: key 'a' is given twice"),
        (b"a: &x 1\nb: *x\n", " line 2: expected YAML, got: an alias; write it out"),
        (b"a: [\n", " line 2: expected YAML, got: did not find expected node content"),
        (b"- 1\n", " expected a mapping of names, got list"),
        (b"", " expected a mapping of names, got an empty file"),
        (b"1: 2\n", " expected a mapping of names, got dict"),
        (
            b"a: \xff\n",
            " expected YAML, got: unacceptable character #x00ff: invalid leading UTF-8 octet in"
            ' "<byte string>", position 3',
        ),
        (b"a: " + b"[" * 100_000, " line 1: expected YAML, got: nesting deeper than 50"),
        (b"a: " + b"x" * 1_000_000, " expected at most 1000000 bytes, got 1000003"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused(text: bytes, problem: str) -> None:
    """File and line are named; the last of two equal keys does not silently win."""
    with saying(ParameterError, f"p.yaml:{problem}"):
        parse_yaml(text, "p.yaml")


@given(st.binary(max_size=60))
def test_no_bytes_end_in_a_traceback(text: bytes) -> None:
    try:
        assert isinstance(parse_yaml(text, "p.yaml"), dict)
    except ParameterError as error:
        assert str(error).startswith("p.yaml:")


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=5).map(lambda text: f"k{text}"),
        st.one_of(st.integers(), st.booleans(), st.text("ab c'\"\n#:", max_size=9)),
    )
)
def test_what_is_written_is_read_again(values: dict[str, Any]) -> None:
    assert parse_yaml(yaml.safe_dump(values).encode(), "p.yaml") == values


def test_instants_are_utc_and_paths_start_at_the_project() -> None:
    """Whatever the offset written, and whatever the working directory."""
    expected = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_instant("2026-01-31T14:00:00+02:00") == expected
    assert project_path("params") == PROJECT / "params"
    assert str(project_path("/srv/store")) == "/srv/store"


# --- ours are replaced in one step, and outlast a power cut ---------------------------------------


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
