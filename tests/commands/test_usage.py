"""Wrong usage, a missing file and an interrupt end with 3, in one sentence."""

import argparse
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib import cli
from runbook_lib.commands import evidence
from runbook_lib.strict import PROJECT
from runbook_rehearsal import rehearse

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


# --- `runbook rehearse`: its options, and how a network that is up is used ------------------------


@pytest.mark.parametrize(
    ("name", "near"), [("gate-fliped", "gate-flipped"), ("holiday", "none like it")]
)
def test_a_misspelt_fault_is_answered_with_those_like_it(
    terminal: Terminal, name: str, near: str
) -> None:
    assert terminal.run("rehearse", "--fault", name) == 3
    assert terminal.err == (
        f"fault: expected one of `runbook rehearse --list-faults`, got {name!r}; near: {near}\n"
    )


def test_a_folder_that_will_not_do_is_named(terminal: Terminal, tmp_path: Path) -> None:
    """One in use, a file, and one that cannot be made; nothing in it is touched."""
    (tmp_path / "mine").write_text("x")
    for root, got in (
        (tmp_path, "one in use"),
        (tmp_path / "mine", "File exists"),
        (tmp_path / "mine" / "net", "Not a directory"),
    ):
        for words in (["rehearse"], ["rehearse", "--serve"]):
            assert terminal.run(*words, "--root", root) == 3
            assert terminal.err == (
                f"{root}: expected a new or empty folder for the network, got: {got};"
                " name another with --root\n"
            )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_rehearsal_saves_memory_unless_told_otherwise(monkeypatch: Any) -> None:
    """All that it starts has the environment; what is set already stays."""
    monkeypatch.setattr(rehearse.os, "environ", {"GOGC": "100"})
    rehearse._save_memory()
    assert rehearse.os.environ == {**rehearse.LEAN, "GOGC": "100"}


@pytest.mark.parametrize("mine", [True, False])
def test_a_network_that_is_up_keeps_its_folder(
    terminal: Terminal, tmp_path: Path, monkeypatch: Any, mine: bool
) -> None:
    """A second one would move the first one's site file away from under it, whoever started that."""

    def kill(pid: int, number: int) -> None:
        if not mine:
            raise PermissionError

    monkeypatch.setattr(rehearse.os, "kill", kill)
    served = tmp_path / "network"
    served.mkdir()
    (served / "network.json").write_text(json.dumps({"pid": os.getpid()}))
    monkeypatch.setattr(rehearse, "SERVED", served)
    monkeypatch.chdir(tmp_path)

    assert terminal.run("rehearse", "--serve") == 3
    assert terminal.err == (
        f"network: expected no network up, got the one of process {os.getpid()}; stop it, or name"
        " another folder with --root\n"
    )
    assert served.exists()


def test_a_network_that_was_killed_gives_its_folder_up(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"pid": 999999999}'):
        (tmp_path / "network.json").write_text(text)
        rehearse._require_down(tmp_path)


def test_the_three_ways_to_run_a_stage_are_named(tmp_path: Path, monkeypatch: Any) -> None:
    """To be pasted from where the network was started, whatever folder that was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearse.sys, "prefix", str(tmp_path / "no venv"))
    network: Any = SimpleNamespace(
        root=tmp_path / "net work",
        site=tmp_path / "net work" / "site.yaml",
        params={"development": tmp_path / "net work" / "d.yaml"},
        release=SimpleNamespace(version="v1.4.0"),
    )
    notebook = os.path.relpath(PROJECT / "notebooks" / "10_development.ipynb")

    assert rehearse._how_to_use(network) == "\n".join(
        [
            "the rehearsal network is up in 'net work'; stop it with Ctrl-C. In another shell, from"
            " here:",
            "  . 'net work/env.sh'",
            "  runbook lab development -f 'net work/d.yaml'    # in JupyterLab, step by step",
            f"  papermill --engine runbook {notebook} out.ipynb -f 'net work/d.yaml'",
            "  runbook run development -f 'net work/d.yaml'",
            "  runbook status v1.4.0 --site 'net work/site.yaml'",
        ]
    )
