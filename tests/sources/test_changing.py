"""Placeholders, and the commands that change the world."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.sources.process import Ended
from runbook_lib.sources.running import fill
from runbook_lib.sources.stage_commands import Provisioned, provisioned
from runbook_lib.sources.tape import read_entries

from .conftest import World, commands, says

DIGEST = "sha256:" + "d" * 64


def test_placeholders_are_filled_once_and_only_known_ones() -> None:
    """A value that looks like a placeholder stays text; an unknown one is the user's mistake."""
    assert fill("commands.x", ["{a}-{b}", "{}", '{"k": 1}'], a="{b}", b="2") == [
        "{b}-2",
        "{}",
        '{"k": 1}',
    ]
    with pytest.raises(ParameterError) as caught:
        fill("commands.x", ["{c}"], b="2", a="1")
    assert str(caught.value) == "site: commands.x: expected placeholders among {a}, {b}, got {c}"
    with pytest.raises(ParameterError) as caught:
        fill("commands.x", ["{c}"])
    assert str(caught.value) == "site: commands.x: expected placeholders among none, got {c}"


def test_changes_are_marked_as_such_and_return_how_they_ended(world: World, tmp_path: Path) -> None:
    """Their failure is for the journal to write down, not an exception."""
    words = ["{node}", "{artifact}", "{digest}", "{config}"]
    asked = commands(
        world,
        deploy=says("done", "", 0, *words),
        restart=says("", "no", 3),
        provision=says(
            '{"node": "n9", "url": "http://127.0.0.9:1/"}', "", 0, "{cluster}{name}{config}"
        ),
        deprovision=says(),
    )
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    end = {"lock": lock, "outputs": tmp_path / "step"}
    ended = [
        asked.deploy("n1", Path("/artifact"), DIGEST, Path("/config"), **end),
        asked.restart("n1", **end),
        asked.provision("dev", "n9", Path("/config"), **end),
        asked.deprovision("dev", "n9", **end),
    ]
    os.close(lock)
    assert [each.code for each in ended] == [0, 3, 0, 0]
    assert ended[1].stderr == b"no"
    entries = read_entries(world.folder)
    assert {entry.purpose for entry in entries} == {"change"}
    assert entries[0].key.endswith(f'"n1", "/artifact", "{DIGEST}", "/config"]')
    assert provisioned("n9", ended[2]) == Provisioned(node="n9", url="http://127.0.0.9:1")


@pytest.mark.parametrize(
    ("ended", "problem"),
    [
        (Ended(1, b"", b"no quota"), "expected exit code 0, got 1: no quota"),
        (Ended(None, b"", b"", "still at work after 5 s (process 7)"), "expected exit code 0, got still at work after 5 s (process 7)"),
        (Ended(0, b'{"node": "n9", "url": "ftp://x"}', b""), "url: expected an http(s) URL without credentials, query or fragment, got 'ftp://x'"),
    ],
)  # fmt: skip
def test_a_node_that_was_not_provisioned_is_an_error(ended: Ended, problem: str) -> None:
    """The journal holds how the command ended; this says what it means."""
    with pytest.raises(SourceError) as caught:
        provisioned("n9", ended)
    assert str(caught.value) == f"provision n9: {problem}"
