"""Environments that are broken: the right exit code, one sentence that names what, nothing lost."""

from __future__ import annotations

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
import yaml

from .conftest import Practice, unmeasured

REPLAY = ("run", "development_recovery")
LIVE = ("run", "preflight", "-f", "params.yaml")
RUNBOOK = Path(sys.executable).with_name("runbook")
PRELUDE = "mkdir gone && cd gone && rmdir ../gone && "
NOWHERE = "https://nowhere.invalid"
CELL = {"cell_type": "code", "id": "a b!", "metadata": {}, "source": "", "outputs": [],
        "execution_count": None}  # fmt: skip
BOOK = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [CELL]})


@dataclass
class Broken:
    """``said`` is all of stderr, as a pattern; ``first`` is what the shell does before the command."""

    code: int
    said: str = ""
    argv: tuple[str, ...] = REPLAY
    env: dict[str, str] = field(default_factory=dict)
    first: str = ""
    last: str = ""
    prepare: Callable[[Practice], object] = lambda practice: None
    without: tuple[str, ...] = ()


def telemetry(**prometheus: str) -> Callable[[Practice], None]:
    """A site whose Prometheus and Alertmanager are elsewhere."""
    there = {"prometheus": {"url": NOWHERE, **prometheus}, "alertmanager": {"url": NOWHERE}}
    return lambda practice: practice.write_site(telemetry={**there, "backends": ["prometheus"]})


def write(name: str, data: bytes | str) -> Callable[[Practice], object]:
    raw = data.encode() if isinstance(data, str) else data
    return lambda practice: (practice.root / name).write_bytes(raw)


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


PARAMS = ("run", "preflight", "-f", "p.yaml")
UNREADABLE = r"p.yaml: expected (YAML|at most 1000000 bytes|a mapping of names), got.*"
ENVIRONMENTS = {
    "no HOME": Broken(0, without=("HOME",)),
    "HOME that nobody can write to": Broken(0, env={"HOME": "/proc", "IPYTHONDIR": "/proc/x"}),
    "stdout in Latin-1": Broken(0, env={"PYTHONIOENCODING": "latin-1"}),
    "LANG=C": Broken(0, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "JSON of odd letters": Broken(3, r"\\udcff: .*", ("verify", "\udcff", "--json")),
    "all warnings are errors": Broken(0, env={"PYTHONWARNINGS": "error"}),
    "PYTHONOPTIMIZE, a backend of no plots": Broken(
        0, env={"PYTHONOPTIMIZE": "2", "MPLBACKEND": "x"}
    ),
    "no terminal, one column": Broken(0, "", ("--help",), {"COLUMNS": "1"}, without=("TERM",)),
    "umask 0777": Broken(0, first="umask 0777; "),
    "stdin and stdout closed": Broken(0, last=" <&- >&-"),
    "stderr closed": Broken(3, argv=("verify", "none"), last=" 2>&-"),
    "stdout on a full disk": Broken(3, "stdout: .*No space left.*", ("schema", "site"), last=" >/dev/full"),
    "a run's stdout on a full disk": Broken(3, "stdout: .*No space left.*", last=" >/dev/full"),
    "stderr on a full disk": Broken(3, argv=("verify", "none"), last=" 2>/dev/full"),
    "deleted working directory": Broken(3, "working directory: .*No such file.*", first=PRELUDE),
    "deleted working directory, not needed": Broken(0, argv=("schema", "site"), first=PRELUDE),
    "another kernel of our name": Broken(
        3, "kernel runbook: .*/kernels/runbook; .*JUPYTER_PATH", env={"JUPYTER_PATH": "."},
        prepare=foreign_kernel),
    "few open files": Broken(3, "ulimit -n: .* got 24", first="ulimit -n 24; "),
    "no file may be written": Broken(3, "this machine: .*No usable temporary.*", first="ulimit -f 0; "),
    "TMPDIR that is none": Broken(0, env={"TMPDIR": "/none"}),
    "no memory": Broken(3, "this machine: .*thread.*", first="ulimit -v 300000; "),
    "output in no folder": Broken(3, "none/x.ipynb: expected .*", (*REPLAY, "-o", "none/x.ipynb")),
    "output that is a folder": Broken(3, "[.]: expected NAME.ipynb .*", (*REPLAY, "-o", ".")),
    "missing notebook": Broken(3, "x.ipynb: expected a notebook.*No such.*", ("render", "x.ipynb")),
    "invalid cell id": Broken(
        3, "x.ipynb: expected a valid notebook, got: 'a b!' .*", ("render", "x.ipynb"),
        prepare=write("x.ipynb", BOOK)),
    "parameters: folder": Broken(
        3, of("p.yaml", "Is a directory"), PARAMS, prepare=lambda p: (p.root / "p.yaml").mkdir()),
    "parameters: none": Broken(3, of("p.yaml", "No such.*"), PARAMS),
    **{f"parameters: {name}": Broken(3, UNREADABLE, PARAMS, prepare=write("p.yaml", data))
       for name, data in (("binary", b"\xfa\0\1"), ("empty", ""), ("Latin-1", b"site: caf\xe9\n"),
                          ("20 MB", "#" * 20_000_000))},
    "parameters: endless": Broken(
        3, UNREADABLE, PARAMS, prepare=lambda p: (p.root / "p.yaml").symlink_to("/dev/zero")),
    "no site file": Broken(3, ".*x.yaml: expected a site file.*", ("status", "v1", "--site", "/x.yaml")),
    "store that is a file": Broken(3, ".*practice: store: expected a directory.*", LIVE, prepare=store_is_a_file),
    "status of a store that is none": Broken(
        3, ".*/store: expected the folder.*", ("status", "v1", "--site", "SITE"), prepare=store_is_a_file),
    "store that is read only": Broken(
        3, ".*/store: .*Read-only.*", LIVE, prepare=lambda p: mount(p, "ro")),
    "store on a full disk": Broken(3, of("record.jsonl", "No space.*"), LIVE, prepare=full),
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
    keys = {"stage": "development", "site": str(practice.site), "release": "v1.4.0"}
    given = {**keys, "commit": practice.params["commit"]}
    (practice.root / "params.yaml").write_text(yaml.safe_dump(given))
    there = {"SITE": str(practice.site)}

    def start(broken: Broken, **more: Any) -> Any:
        env = {**unmeasured(), "RUNBOOK_REPLAY_OK": "1", "GITHUB_TOKEN": "t", **broken.env}
        for name in broken.without:
            env.pop(name, None)
        argv = ["sh", "-c", f'{broken.first}exec "$@"{broken.last}', "sh", RUNBOOK]
        argv += [there.get(word, word) for word in broken.argv]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.run(argv, cwd=practice.root, env=env, timeout=120, **streams)

    yield start
    subprocess.run(["umount", str(practice.root / "store")], capture_output=True)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_broken_environment_is_named(practice: Practice, started: Any, name: str) -> None:
    broken = ENVIRONMENTS[name]
    broken.prepare(practice)

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
