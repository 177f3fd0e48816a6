"""The size of what has to be read: lines, statements, modules, and what a stage notebook loads.

The limits are what is there; they only go down. Lines are those of ``.py``, ``.j2``, ``.sh`` and ``.yaml``
files, docstrings included; statements are counted beside them, so that a longer line buys nothing.
"""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from runbook_lib.playbook import NOTEBOOKS

PROJECT = Path(__file__).resolve().parents[1]
COUNTED = {".py", ".j2", ".sh", ".yaml"}
LIMITS = {  # lines, statements, modules
    "runbook_lib": (29_221, 18_566, 132),
    "runbook_rehearsal": (8_415, 5_101, 44),
    "tests": (32_315, 17_909, 155),
}
LOADED = {"development": 17_793, "testnet": 19_577, "canary": 20_306, "mainnet": 20_189}
"""Lines of ``runbook_lib`` that a stage's notebook has loaded when it ends over its recording."""
LIVE = ("opening", "notebook", "evidence.seal", "evidence.verify")
"""What every live session loads that a replay does not: it opens on what it verifies."""
SESSIONS = {  # what else it loads, and what of a replay it does not
    "first": (
        ("changes.kit",),
        ("recording", "checks.watch", "checks.watch_log", "checks.quiet"),
    ),
    "last": ((), ("recording", "changes.kit", "sources.artifacts", "sources.signatures")),
}  # fmt: skip
"""Of a live mainnet apply: the first writes the kit and verifies artifacts, the last watches. No
other session loads more."""
LOADED_LIVE = 20_583
PRIVATE: dict[str, int] = {}  # names of other packages that may change without notice


def files(package: str) -> list[Path]:
    return [p for p in sorted((PROJECT / package).rglob("*")) if p.suffix in COUNTED]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def statements(path: Path) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(path.read_text())))


@pytest.mark.parametrize("package", LIMITS)
def test_a_package_grows_no_further(package: str) -> None:
    modules = [path for path in files(package) if path.suffix == ".py"]
    size = (sum(map(lines, files(package))), sum(map(statements, modules)), len(modules))

    assert all(now <= limit for now, limit in zip(size, LIMITS[package], strict=True)), size


@pytest.mark.parametrize("stage", LOADED)
def test_a_stage_loads_no_more(stage: str) -> None:
    """Imports are paid at every run, and are what a reader has to follow."""
    notebook = nbformat.read(PROJECT / "notebooks" / NOTEBOOKS[stage], as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    said = "import json, sys; print(json.dumps([[n, m.__file__] for n, m in sys.modules.items()"
    said += " if n.partition('.')[0] == 'runbook_lib']), file=sys.stderr)"
    argv = [sys.executable, "-c", "\n".join([*cells, said])]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=True)
    found = {name: Path(file) for name, file in json.loads(done.stderr.splitlines()[-1])}
    loaded = sum(map(lines, found.values()))

    assert loaded <= LOADED[stage], loaded
    if stage == "mainnet":
        package = PROJECT / "runbook_lib"
        for more, less in SESSIONS.values():
            ours = {n: package / f"{n.replace('.', '/')}.py" for n in (*LIVE, *more)}
            live = {n.removeprefix("runbook_lib."): path for n, path in found.items()} | ours
            size = sum(lines(path) for n, path in live.items() if n not in less)
            assert size <= LOADED_LIVE, size


def own_names(tree: ast.AST) -> set[str]:
    """Names that a module defines: functions, classes, parameters, variables, attributes set."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                names.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def used_names(tree: ast.AST) -> Iterator[str]:
    """Names that a module takes from elsewhere: parts of imports, and attributes read."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (part for alias in names for part in alias.name.split("."))
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from [*module.split("."), *(alias.name for alias in names)]
            case ast.Attribute(attr=name):
                yield name


def test_no_private_name_of_another_package_is_used() -> None:
    """What a library does not promise breaks with its next version."""
    trees = {
        path: ast.parse(path.read_text())
        for package in ("runbook_lib", "runbook_rehearsal")
        for path in files(package)
        if path.suffix == ".py"
    }
    own = set().union(*map(own_names, trees.values()))
    found = Counter(
        str(path.relative_to(PROJECT))
        for path, tree in trees.items()
        for name in used_names(tree)
        if name.startswith("_") and not name.startswith("__") and name not in own
    )

    assert found == PRIVATE


LISTS = re.compile(r"\.(?:r?glob|iterdir|listing)\(|scandir\(|listdir\(")
LISTERS = {
    "evidence/store", "package",  # the store; our own modules
    "changes/targets", "checks/observability", "sources/artifacts", "sources/local",
    "sources/snapshots", "sources/words",  # what a site names, or any folder for a tape
    "evidence/posts", "evidence/seal", "evidence/sealing",  # one attempt's own
}  # fmt: skip


def test_one_module_lists_the_store() -> None:
    """Which attempts, adoptions and incidents there are is asked in one place."""
    package = PROJECT / "runbook_lib"
    paths = [path for path in files("runbook_lib") if LISTS.search(path.read_text())]
    found = {path.relative_to(package).with_suffix("").as_posix() for path in paths}

    assert found == LISTERS
