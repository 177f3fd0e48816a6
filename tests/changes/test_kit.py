"""The recovery kit: rendered from a plan, quoted for a shell, and run by one with nothing of ours."""

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.canonical import digest_bytes
from runbook_lib.changes.kit import (
    Kit,
    KitNode,
    files_of,
    page,
    put_files,
    quoted,
    target_name,
)
from runbook_lib.plan import Artifact, NodePlan, NodeState
from runbook_lib.reach import Command
from runbook_lib.site import Commands, Site
from runbook_lib.sources.commands import NodeConfig

from ..conftest import path_of, ran, until
from .plans import node, phase, plan

TOOLS = ("sh", "dirname", "date", "tr", "cut", "tail", "cat", "mkdir", "rmdir", "rm", "sleep")
FAKE = """#!/bin/sh
# Stands in for a site's automation: says what it was asked; files make it fail, or wait.
if rm "$0.hold-$1" 2>/dev/null; then
  : >"$0.at-$1"
  n=0
  until [ -e "$0.go" ] || [ $n -ge 400 ]; do sleep 0.05; n=$((n + 1)); done
fi
for word in "$@"; do printf '<%s>' "$word" >>"$0.ledger"; done
echo >>"$0.ledger"
if [ -e "$0.fail-$2" ]; then echo "no route to $2" >&2; exit 7; fi
"""


def state(config: bytes, binary: bytes = b"build", *, on: bool = False) -> NodeState:
    gates = {"timetoke_rewards": on, "witness_network": on}
    made = {"binary": digest_bytes(binary), "config": digest_bytes(config)}
    return NodeState(gates=gates, channel="canary", **made)


@dataclass
class Made:
    """A kit on disk, for nodes of these names, and a shell that has no Python."""

    root: Path
    names: tuple[str, ...]
    theirs: tuple[str, ...] = ()
    stage: str = "canary"
    tools: tuple[str, ...] = (*TOOLS, "sha256sum", "timeout")
    kit: Kit = field(init=False)
    held: subprocess.CompletedProcess[str] = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.automation = self.root / "it's $(automation)"
        self.automation.write_text(FAKE)
        self.automation.chmod(0o755)
        self.artifact = self.root / "a build; $HOME"
        self.artifact.write_bytes(b"build")
        self.folder = self.root / "kit `of` it"
        nodes = [self.plan_of(name) for name in (*self.names, *self.theirs)]
        digest = digest_bytes(b"build")
        artifact = Artifact(path=str(self.artifact), digest=digest, binary="sha256:b")
        gates = phase("canary.activate.rewards-gate", "gates", nodes)
        made = plan(gates, stage=self.stage, release="v1.4.0", artifact=artifact)
        texts = {name: f"before {name}".encode() for name in self.names}
        files = {name: NodeConfig(text, digest_bytes(text)) for name, text in texts.items()}
        kept = tuple(KitNode(name, file, artifact) for name, file in files.items())
        self.kit = Kit("v1.4.0/canary/0002", made, kept)
        words = [str(self.automation)]
        deploy = Command(argv=[*words, "deploy", "{node}", "{artifact}", "--config={config}"])
        restart = Command(argv=[*words, "restart", "{node}"])
        site = Site.model_construct(commands=Commands(deploy=deploy, restart=restart))
        put_files(self.folder, files_of(self.kit, site), os.getgid())

    def plan_of(self, name: str) -> NodePlan:
        operator = "op+1" if name in self.theirs else ""
        before, after = state(f"before {name}".encode()), state(b"after", on=True)
        control = "operator" if operator else "ours"
        return node(name, before, after, control=control, operator=operator)

    def call(self, *options: str) -> dict[str, Any]:
        """How the script is started, with the tools alone on its PATH."""
        path = path_of(self.root / "tools", *self.tools)
        argv = [str(shutil.which("sh")), self.folder / "recover.sh", *options]
        return {"args": argv, "env": {"PATH": path}, "cwd": self.root}

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        given = self.call(*options)
        return ran(*given.pop("args"), **given)

    def beside(self, name: str) -> Path:
        """A file by which the automation is told something, or tells it."""
        return self.automation.with_name(f"{self.automation.name}.{name}")

    def killed_during(self, verb: str) -> None:
        """A run is killed in the middle of a command, which goes on until ``go``."""
        self.beside(f"hold-{verb}").touch()
        with subprocess.Popen(**self.call(), stdout=subprocess.DEVNULL) as process:
            try:
                until(self.beside(f"at-{verb}").exists, "the command to be at work")
                self.held = self.run()
            finally:
                process.kill()

    @property
    def asked(self) -> list[str]:
        path = self.beside("ledger")
        return path.read_text().splitlines() if path.exists() else []

    @property
    def journal(self) -> list[tuple[str, ...]]:
        lines = (self.folder / "journal.tsv").read_text().splitlines()
        return [tuple(line.split("\t")[1:]) for line in lines]


def done(node: str) -> list[tuple[str, ...]]:
    return [
        (node, step, phase, code)
        for step in ("deliver", "restart")
        for phase, code in (("intent", "-"), ("done", "0"))
    ]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "made", ("main-1", "main-2"))


# --- quoting --------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_the_shell_reads_back_every_word(words: list[str]) -> None:
    line = "kit=/nowhere; printf '%s\\0' " + " ".join(map(quoted, words))
    found = subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout

    assert found.decode().split("\0")[:-1] == words


def test_hostile_names_and_paths_are_words_to_the_script(tmp_path: Path) -> None:
    """Folders with quotes and dollars are handed on whole; no node is named like a command."""
    hostile = "it's; $(touch pwned)\n`touch pwned` *"
    made = Made(tmp_path / hostile, ("main+1",))
    found = made.run()

    assert (found.returncode, found.stderr) == (0, "")
    assert not list(tmp_path.rglob("pwned"))
    config = f"<--config={made.folder}/targets/main+1.toml>"
    asked = f"<deploy><main+1><{made.artifact}>{config}".replace("\n", "")
    assert asked in "".join(made.asked).replace("\n", "")
    for name in (hostile, "../up", "-x"):
        with pytest.raises(ValueError, match="expected a name of letters, digits"):
            made.plan_of(name)


# --- the script -----------------------------------------------------------------------------------


def test_it_is_a_script_of_any_posix_shell(made: Made) -> None:
    path = made.folder / "recover.sh"
    for shell in ("sh", "dash", "bash", "ksh", "busybox"):
        if program := shutil.which(shell):
            words = [program, "sh"] if shell == "busybox" else [program]
            subprocess.run([*words, "-n", path], check=True)
    assert "[[" not in path.read_text() and "python" not in path.read_text()


def test_every_node_is_delivered_and_restarted_in_order_and_once(made: Made) -> None:
    found = made.run()

    assert (found.returncode, found.stderr) == (0, "")
    assert made.journal == [*done("main-1"), *done("main-2")]
    config = f"<--config={made.folder}/targets/main-1.toml>"
    assert made.asked[:2] == [f"<deploy><main-1><{made.artifact}>{config}", "<restart><main-1>"]
    assert found.stdout.splitlines()[-2:] == ["back      main-1", "back      main-2"]
    before = made.asked, made.journal
    again = made.run()
    assert (again.returncode, made.asked, made.journal) == (0, *before)
    assert "main-1: deliver: done already" in again.stdout


def test_a_node_that_fails_is_passed_over_and_tried_once_more(made: Made) -> None:
    failing = made.beside("fail-main-1")  # while it is there, that node is not reached
    failing.touch()
    found = made.run()
    failing.unlink()
    later = made.run()

    failed = [("main-1", "deliver", "intent", "-"), ("main-1", "deliver", "failed", "7")]
    assert found.returncode == 2
    assert "main-1: deliver: failed, exit 7: no route to main-1" in found.stdout
    assert found.stdout.splitlines()[-2:] == ["NOT BACK  main-1", "back      main-2"]
    assert later.returncode == 0
    assert made.journal == [*failed, *done("main-2"), *failed, *done("main-1")]


def test_chosen_nodes_alone_are_put_back_and_wrong_usage_does_nothing(made: Made) -> None:
    for options in (("--nodes",), ("--nodes", ""), ("--nodes", "main-1", "x"), ("--all",)):
        assert made.run(*options).returncode == 3
    wrong = made.run("--nodes", "main-1,main-9")
    problem = "recover.sh: main-9: expected one of: main-1 main-2\n"
    assert (wrong.returncode, wrong.stderr, made.asked) == (3, problem, [])
    assert (made.run("--nodes", "main-2").returncode, made.journal) == (0, done("main-2"))


@pytest.mark.parametrize("what", ["target", "artifact", "missing"])
def test_files_that_are_not_what_was_kept_are_not_delivered(made: Made, what: str) -> None:
    path = made.artifact if what == "artifact" else made.folder / target_name("main-1")
    wanted = digest_bytes(path.read_bytes())
    if what == "missing":
        path.unlink()
        said = f"{path}: expected a readable file, got none"
    else:
        path.write_bytes(b"tampered")
        said = f"{path}: expected {wanted}, got {digest_bytes(b'tampered').partition(':')[2]}"
    found = made.run("--nodes", "main-1")

    assert (found.returncode, made.asked) == (2, [])
    assert f"main-1: deliver: failed, exit 65: {said}" in found.stdout


def test_without_a_way_to_compute_a_digest_nothing_is_delivered(tmp_path: Path) -> None:
    other = Made(tmp_path / "shasum", ("main-1",), tools=(*TOOLS, "shasum"))
    none = Made(tmp_path / "none", ("main-1",), tools=TOOLS)

    assert (other.run().returncode, len(other.asked)) == (0, 2)
    found = none.run()
    assert (found.returncode, none.asked) == (2, [])
    assert "got neither sha256sum nor shasum" in found.stdout


def test_a_run_that_was_killed_keeps_the_lock_until_somebody_looked(made: Made) -> None:
    """What it had begun may still be at work; a step that was cut off is done again."""
    made.killed_during("restart")
    made.beside("go").touch()

    assert (made.held.returncode, made.run().returncode) == (3, 3)
    assert f"If all is gone: rmdir '{made.folder}/lock.d'" in made.held.stderr
    (made.folder / "lock.d").rmdir()
    assert made.run("--nodes", "main-1").returncode == 0
    assert made.journal == [*done("main-1")[:3], *done("main-1")[2:]]


def test_a_step_that_was_cut_off_is_done_again(made: Made) -> None:
    at = "2026-01-31T12:00:00Z"
    (made.folder / "journal.tsv").write_text(f"{at}\tmain-1\tdeliver\tintent\t-\n{at}\tmai")
    assert made.run("--nodes", "main-1").returncode == 0
    assert made.journal == [("main-1", "deliver", "intent", "-"), ("mai",), *done("main-1")]


# --- what lies beside it --------------------------------------------------------------------------


def test_the_page_says_what_it_does_and_what_it_cannot(tmp_path: Path) -> None:
    made = Made(tmp_path / "made", ("main-2", "main-1"), theirs=("main-7",), stage="mainnet")
    text = page(made.kit)

    assert text.index("`main-2`") < text.index("`main-1`")
    assert "gates off on every node" in text and "## What it cannot do" in text
    before = digest_bytes(b"before main-7")
    assert f"| `op+1` | `main-7` | `{digest_bytes(b'build')}` | `{before}` | `none` |" in text
    assert "gates off on every node" not in page(Made(tmp_path / "other", ("main-1",)).kit)


def test_an_unwritable_folder_is_said(made: Made) -> None:
    if os.geteuid() == 0:
        (made.folder / "journal.tsv").mkdir()
    else:
        made.folder.chmod(0o500)
    found = made.run()
    made.folder.chmod(0o700)

    assert (found.returncode, made.asked) == (3, [])
    assert "expected a folder that can be written" in found.stderr


def test_a_kit_outlasts_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names too, of its files and its own: the log says next that it is there."""
    synced, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    folder = tmp_path / "kits" / "v1-canary-0001"
    put_files(folder, {"recover.sh": b"", "targets/main-1.toml": b"[a]"}, os.getgid())

    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    places = [*(path for path in folder.rglob("*")), folder, folder.parent]
    assert {path.stat().st_ino for path in places} == set(synced)
    assert synced[-1] == folder.parent.stat().st_ino
