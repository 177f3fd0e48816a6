"""`runbook rehearse`: what is wrong with its options, and how a network that is up is used."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbook_lib.strict import PROJECT
from runbook_rehearsal import rehearse

from ..conftest import Terminal


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
