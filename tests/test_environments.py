"""Environments that are broken: the right exit code, one sentence that names what, nothing lost."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .conftest import Practice, unmeasured

REPLAY = ("run", "development_recovery")
LIVE, PARAMS = (("run", "preflight", "-f", name) for name in ("params.yaml", "p.yaml"))
RUNBOOK = Path(sys.executable).with_name("runbook")
GONE = "mkdir gone && cd gone && rmdir ../gone && {}"
NOWHERE = "https://nowhere.invalid"
CELL = {"cell_type": "markdown", "id": "a b!", "metadata": {}, "source": ""}
BOOK = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CELL]})


@dataclass
class Broken:
    """``said`` is all of stderr, as a pattern; an empty variable is none; {} is the command."""

    code: int
    said: str = ""
    argv: tuple[str, ...] = REPLAY
    env: dict[str, str] = field(default_factory=dict)
    shell: str = "{}"
    prepare: Callable[[Practice], object] = lambda practice: None


def telemetry(**prometheus: str) -> Callable[[Practice], None]:
    """A site whose Prometheus and Alertmanager are elsewhere."""
    there = {"prometheus": {"url": NOWHERE, **prometheus}, "alertmanager": {"url": NOWHERE}}
    return lambda practice: practice.write_site(telemetry={**there, "backends": ["prometheus"]})


def write(name: str, data: bytes) -> Callable[[Practice], object]:
    return lambda practice: (practice.root / name).write_bytes(data)


def foreign_kernel(practice: Practice) -> None:
    folder = practice.root / "kernels" / "runbook"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "x"}')


def mount(practice: Practice, options: str) -> None:
    argv = ["mount", "-t", "tmpfs", "-o", f"mode=2775,{options}", "tmpfs", "store"]
    if subprocess.run(argv, cwd=practice.root, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")


def full(practice: Practice, left: int = 0) -> None:
    """A store on a disk of 400 kB of which so many bytes are left."""
    mount(practice, "size=400k")
    (practice.root / "store" / "fill").write_bytes(b"x" * (400 * 1024 - left))


def store_is_a_file(practice: Practice) -> None:
    shutil.rmtree(practice.root / "store")
    (practice.root / "store").write_text("")


def of(name: str, why: str) -> str:
    return f".*{name}: expected a file or folder that can be used, got: {why}"


UNREADABLE = r"p.yaml: expected (YAML|at most 1000000 bytes|a mapping of names), got.*"
ENVIRONMENTS = {
    "no HOME, stdout in Latin-1": Broken(0, env={"HOME": "", "PYTHONIOENCODING": "latin-1"}),
    "HOME that nobody can write to, LANG=C": Broken(
        0, env={"HOME": "/proc", "IPYTHONDIR": "/proc/x", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0",
                "TMPDIR": "/none"}),
    "JSON of odd letters": Broken(3, r"\\udcff: .*", ("verify", "\udcff", "--json")),
    "all warnings are errors, umask 0777": Broken(
        0, env={"PYTHONWARNINGS": "error"}, shell="umask 0777; {}"),
    "no assertions, no plots": Broken(0, env={"PYTHONOPTIMIZE": "2", "MPLBACKEND": "x"}),
    "no terminal, one column": Broken(0, "", ("--help",), {"COLUMNS": "1", "TERM": ""}),
    "stdin and stdout closed": Broken(0, shell="{} <&- >&-"),
    "stderr closed": Broken(3, argv=("verify", "none"), shell="{} 2>&-"),
    "stdout on a full disk": Broken(3, "stdout: .*No space left.*", ("schema", "site"), shell="{} >/dev/full"),
    "a run's stdout on a full disk": Broken(3, "stdout: .*No space left.*", shell="{} >/dev/full"),
    "deleted working directory": Broken(3, "working directory: .*No such file.*", shell=GONE),
    "deleted working directory, not needed": Broken(0, argv=("schema", "site"), shell=GONE),
    "another kernel of our name": Broken(
        3, "kernel runbook: .*/kernels/runbook; .*JUPYTER_PATH", env={"JUPYTER_PATH": "."},
        prepare=foreign_kernel),
    "few open files": Broken(3, "ulimit -n: .* got 24", shell="ulimit -n 24; {}"),
    "no file may be written": Broken(3, "this machine: .*No usable temporary.*", shell="ulimit -f 0; {}"),
    "no memory": Broken(3, "this machine: .*(thread|MemoryError).*", shell="ulimit -v 190000; {}"),
    "output that is a folder": Broken(3, "[.]: expected NAME.ipynb .*", (*REPLAY, "-o", ".")),
    "missing notebook": Broken(3, "x.ipynb: expected a notebook.*No such.*", ("render", "x.ipynb")),
    "invalid cell id": Broken(
        3, "x.ipynb: expected a valid notebook, got: 'a b!' .*", ("render", "x.ipynb"),
        prepare=write("x.ipynb", BOOK.encode())),
    "parameters: folder": Broken(
        3, of("p.yaml", "Is a directory"), PARAMS, prepare=lambda p: (p.root / "p.yaml").mkdir()),
    "parameters: none": Broken(3, of("p.yaml", "No such.*"), PARAMS),
    **{f"parameters: {name}": Broken(3, UNREADABLE, PARAMS, prepare=write("p.yaml", data))
       for name, data in (("binary", b"\xfa\0\1"), ("empty", b""), ("Latin-1", b"site: caf\xe9\n"),
                          ("20 MB", b"#" * 20_000_000))},
    "parameters: endless": Broken(
        3, UNREADABLE, PARAMS, prepare=lambda p: (p.root / "p.yaml").symlink_to("/dev/zero")),
    "no site file": Broken(3, ".*x.yaml: expected a site file.*", ("status", "v1", "--site", "/x.yaml")),
    "store that is a file": Broken(3, ".*practice: store: expected a directory.*", LIVE, prepare=store_is_a_file),
    "status of a store that is none": Broken(
        3, ".*/store: expected the folder.*", ("status", "v1", "--site", "SITE"), prepare=store_is_a_file),
    "store that is read only": Broken(
        3, ".*/store: .*Read-only.*", LIVE, prepare=lambda p: mount(p, "ro")),
    "store on a full disk": Broken(3, of("log.jsonl", "No space.*"), LIVE, prepare=full),
    "store that fills up": Broken(
        3, "seal: " + of("00_preflight.ipynb", "No space.*"), LIVE, prepare=lambda p: full(p, 40_000)),
    "private CA that is missing": Broken(
        3, ".*: /none.pem: .*No such.*", LIVE, prepare=telemetry(ca="/none.pem")),
    "dead DNS": Broken(2, "", LIVE, prepare=telemetry()),
    "SOCKS proxy": Broken(2, "", LIVE, {"ALL_PROXY": "socks5://127.0.0.1:9"}, prepare=telemetry()),
    "clock an hour off": Broken(2, "", LIVE, prepare=lambda p: p.wind(3600)),
}  # fmt: skip


@pytest.fixture
def started(practice: Practice) -> Iterator[Callable[..., Any]]:
    """Starts the command in the practice's folder."""
    keys = ("site", "release", "commit")
    given = {"stage": "development", **{key: practice.params[key] for key in keys}}
    (practice.root / "params.yaml").write_text(json.dumps(given))
    there = {"SITE": str(practice.site)}

    def start(broken: Broken, **more: Any) -> Any:
        env = {**unmeasured(), "RUNBOOK_REPLAY_OK": "1", "GITHUB_TOKEN": "t", **broken.env}
        env = {name: value for name, value in env.items() if value}
        argv = ["sh", "-c", broken.shell.format('exec "$@"'), "sh", RUNBOOK]
        argv += [there.get(word, word) for word in broken.argv]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.run(argv, cwd=practice.root, env=env, timeout=120, **streams)

    yield start
    subprocess.run(["umount", str(practice.root / "store")], capture_output=True)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_broken_environment_is_named(practice: Practice, started: Any, name: str) -> None:
    (broken := ENVIRONMENTS[name]).prepare(practice)
    ended = started(broken)

    said = ended.stderr.decode().strip()
    assert (ended.returncode, bool(re.fullmatch(broken.said, said))) == (broken.code, True), said
    assert b"Traceback" not in ended.stdout
    if "--json" in broken.argv:
        assert json.loads(ended.stdout)["exit_code"] == broken.code


def test_a_run_whose_reader_went_away_is_sealed(practice: Practice, started: Any) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    ended = started(Broken(3, argv=LIVE), stdout=writes)
    os.close(writes)

    assert (ended.returncode, ended.stderr) == (3, b"")
    assert list(practice.root.glob("store/v1.4.0/preflight/0001/attestations/*"))
