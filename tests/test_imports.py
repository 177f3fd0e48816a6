"""Imports point one way, and what is heavy or dangerous stays where it belongs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import runbook_lib

PACKAGE = Path(runbook_lib.__file__).parent
# Each line may import from the lines above it and from its own; lower lines never from higher ones.
LAYERS = (
    ("errors", "outcomes", "verdicts", "canonical", "files"),
    ("package", "signatures"),
    ("playbook", "wording"),
    ("display", "strict", "findings"),
    ("signers",),
    ("params",),
    ("reach",),
    ("site", "plan"),
    ("sources.redact", "sources.process", "sources.http"),
    ("sources.tape", "sources.local"),
    ("sources.scope",),
    ("sources",),
    ("metrics", "notebook"),
    ("machine",),
    ("evidence.events",),
    ("evidence.posts", "evidence.log", "evidence.store", "evidence.status", "evidence.seal"),
    ("evidence.verify",),
    ("evidence.ledger",),
    ("evidence.comment", "evidence.policy"),
    ("evidence.incidents",),
    ("evidence.release",),
    ("session", "taking_back"),
    ("opening", "recording"),
    ("evidence",),
    ("context",),
    ("changes",),
    ("checks",),
    ("next_steps",),
    ("runs",),
    ("stage",),
    ("engine", "launch"),
    ("commands",),
    ("approve", "incident"),
    ("cli", "__init__"),
)
REHEARSAL = PACKAGE.with_name("runbook_rehearsal")


@cache
def modules(package: Path) -> list[str]:
    """Dotted names of a package's modules, without the package's own."""
    paths = (path.relative_to(package).with_suffix("") for path in package.rglob("*.py"))
    return sorted(path.as_posix().replace("/", ".") for path in paths)


MODULES = modules(PACKAGE)


def layer(module: str) -> int:
    """The line of the longest name that covers ``module``."""
    names = {name: number for number, line in enumerate(LAYERS) for name in line}
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in names:
            return names[name]
    raise AssertionError(f"{module}: expected it in LAYERS; say where it belongs")


@cache
def parsed(module: str, package: Path) -> ast.Module:
    return ast.parse((package / f"{module.replace('.', '/')}.py").read_text())


def imports(module: str, package: Path = PACKAGE, *, at_run_time: bool = False) -> Iterator[str]:
    """Dotted names that ``module`` imports, those of its own package as ``.name``."""
    tree = parsed(module, package)
    known = modules(package)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    above = module.split(".")[:-1]
    for node in ast.walk(tree):
        if at_run_time and id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = above[: len(above) - (node.level - 1)]
                base = "." + ".".join([*parents, *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}" if base != "." else f".{alias.name}"
                yield inner if inner.removeprefix(".") in known else base


def outside(module: str, package: Path = PACKAGE) -> set[str]:
    found = imports(module, package)
    return {name.split(".")[0] for name in found if not name.startswith(".")}


def inside(module: str, *, at_run_time: bool = True) -> set[str]:
    found = imports(module, at_run_time=at_run_time)
    return {name.removeprefix(".") for name in found if name.startswith(".") and name != "."}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    """No module imports one of a higher layer; names for type checkers alone do not count."""
    assert {other for other in inside(module) if layer(other) > layer(module)} == set()


def test_no_module_imports_itself_in_a_circle() -> None:
    TopologicalSorter({module: inside(module) & set(MODULES) for module in MODULES}).prepare()


FIGURES = {"metrics.plots"}


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("httpx", lambda m: m.startswith("sources.")),
        ("matplotlib", lambda m: m in FIGURES),
        ("papermill", lambda m: m in ("engine", "launch")),
        ("starlette", lambda m: False),
        ("uvicorn", lambda m: False),
        ("subprocess", lambda m: m in ("sources.process", "commands.running")),
        ("socket", lambda m: False),
    ],
)
def test_a_library_stays_where_it_belongs(library: str, allowed: object) -> None:
    """One place asks the world, one draws, one runs notebooks, one starts processes."""
    assert [m for m in MODULES if library in outside(m) and not allowed(m)] == []  # type: ignore[operator]


def test_nothing_imports_the_rehearsal() -> None:
    """A promotion must not depend on what it is practised on: its command comes by entry point."""
    assert [m for m in MODULES if "runbook_rehearsal" in outside(m)] == []


def test_the_practice_network_imports_none_of_the_judging_code() -> None:
    """It must not know the answers; only its command runs the runbooks against it."""
    users = [m for m in modules(REHEARSAL) if "runbook_lib" in outside(m, REHEARSAL)]

    assert users == ["command", "promote", "rehearse"]


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (
            "from runbook_lib import open_stage\n"
            "from runbook_lib.checks import development, preflight",
            "pandas matplotlib scipy pyarrow papermill starlette uvicorn jinja2",
        ),
        (
            "from runbook_lib import cli\ncli.parser()",
            "pandas matplotlib papermill nbformat httpx starlette jinja2",
        ),
    ],
    ids=["a stage", "the command line"],
)
def test_what_is_opened_pays_for_nothing_heavy(code: str, heavy: str) -> None:
    """What a stage notebook imports before its first check draws nothing and frames nothing."""
    said = f"import sys\n{code}\nprint(sorted(set({heavy.split()}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


def test_the_package_exports_open_stage_alone() -> None:
    """The one name a stage notebook needs; checks come from ``runbook_lib.checks``."""
    assert runbook_lib.__all__ == ["open_stage"]
    assert runbook_lib.open_stage.__module__ == "runbook_lib.stage"
    with pytest.raises(AttributeError, match="close_stage"):
        _ = runbook_lib.close_stage
