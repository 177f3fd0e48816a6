"""Wrong usage, a missing file and an interrupt end with 3, in one sentence."""

import argparse
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib import cli
from runbook_lib.commands import evidence

from ..conftest import Terminal

DEVELOPMENT = "development"


@pytest.mark.parametrize(
    "words",
    ["", "holiday", "run", "run moon", "run development -p release", "verify", "adopt --site x",
     "schema metrics", "status v1"],
)  # fmt: skip
def test_wrong_usage_ends_with_3(terminal: Terminal, words: str) -> None:
    """2 means inconclusive here; what is wrong goes to stderr."""
    assert terminal.run(*words.split()) == 3
    assert terminal.out == ""
    assert "usage: runbook" in terminal.err
    assert "error: " in terminal.err


def test_help_is_no_error(terminal: Terminal) -> None:
    assert terminal.run("--help") == 0
    for verb in ("run", "lab", "rehearse", "adopt", "verify", "replay", "seal", "render"):
        assert f"\n    {verb} " in terminal.out


def test_every_option_says_what_it_is_for() -> None:
    commands = next(a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    silent = [
        f"{name} {'/'.join(action.option_strings) or action.dest}"
        for name, command in commands.choices.items()
        for action in command._actions
        if not action.help
    ]

    assert len(commands.choices) > 15
    assert silent == []


FOLDER = "expected a file or folder that can be used, got: "
MISSING = {
    f"lab {DEVELOPMENT} -f none.yaml": f"none.yaml: {FOLDER}No",
    f"lab {DEVELOPMENT}": "command line: site: expected a site file, got none",
    f"run {DEVELOPMENT} --continue -p site none.yaml": "release: expected a value",
    "adopt --site none.yaml --cluster x": "none.yaml: expected a site file",
    "verify none": "none: expected the folder of an attempt, got none",
    "replay none": "none: expected the folder of an attempt, got none",
    "seal none": "none: expected the folder of an attempt, got none",
    "render .": "expected one executed notebook, got 0",
    "rehearse --fault rpc-500@moon": (
        "fault rpc-500@moon: expected a stage of development, testnet, canary, mainnet, got 'moon'"
    ),
    "rehearse --servers real": "expected prometheus and alertmanager on PATH; install",
    "rehearse --until testnet --fault slashing": (
        "fault slashing: expected a stage of development, testnet, got 'canary'"
    ),
}


@pytest.mark.parametrize(("words", "problem"), MISSING.items())
def test_what_is_missing_is_named(
    terminal: Terminal, words: str, problem: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """On stderr; with --json the one document says it, too. Exit 3."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # neither server is installed
    assert terminal.run(*words.split()) == 3
    assert problem in terminal.err
    assert "Traceback" not in terminal.err

    document = terminal.json(*words.split())

    assert terminal.code == 3
    assert problem in document["error"]
    assert (document["outcome"], document["exit_code"]) == ("INCONCLUSIVE", 3)


def test_a_cancelled_command_says_so(terminal: Terminal, monkeypatch: Any) -> None:
    """Ctrl-C is exit 3 without a traceback."""

    monkeypatch.setattr(evidence, "verify", Mock(side_effect=KeyboardInterrupt))
    assert terminal.run("verify", "x") == 3
    assert terminal.err == "runbook: cancelled\n"


def test_faults_are_listed(terminal: Terminal) -> None:
    document = terminal.json("rehearse", "--list-faults")
    found = {row["name"]: row for row in document}

    assert terminal.code == 0
    assert found["ci-red"]["item"] == "development.ready.ci-green"
    assert found["ci-red"]["outcome"] == "FAIL"
    assert terminal.run("rehearse", "--list-faults") == 0
    assert "gate-flipped" in terminal.out
