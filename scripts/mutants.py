"""Draw mutants of the modules that decide, and count how many the tests kill: 95 % must be."""

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

PROJECT = Path(__file__).parent.parent
LEAVE = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", ".rehearsal")
GROUPS = {
    "outcomes": (
        "outcomes verdicts evidence/status",
        "test_outcomes evidence/test_status changes/test_good test_runs test_stage",
    ),
    "prerequisites": (
        "runs evidence/ledger opening",
        "test_runs evidence/test_ledger test_stage evidence/test_incidents evidence/test_status",
    ),
    "judge": (
        "metrics/judge metrics/judge_files metrics/intervals metrics/compare",
        "metrics/test_judge metrics/test_intervals metrics/test_compare test_judge_command",
    ),
    "executor": (
        "stage changes/apply changes/roll changes/back runs",
        "test_runs changes/test_apply changes/test_roll"
        " changes/test_undone test_replaying test_stage",
    ),
    "lock": (
        "evidence/store:cluster_lock evidence/store:lost evidence/store:_opened"
        " stage:cluster_lock stage:_require_free",
        "changes/test_takeover evidence/test_store test_runs",
    ),
    "redaction": ("sources/redact", "sources/test_redact sources/test_tape"),
}
"""Modules (of one, functions) by what they decide, and the quick tests that go with them."""
NET = ("net/test_matrix", "net/test_kill_points", "stages/test_recovery")
"""What is asked of those that survive the quick tests."""
LIMIT_S = 7200.0
PAIRS = ("Lt LtE", "Gt GtE", "Eq NotEq", "Is IsNot", "In NotIn", "And Or")
FLIPPED = {getattr(ast, a): getattr(ast, b) for p in PAIRS for a, b in permutations(p.split())}
SWAPPED = {"PASS": "INCONCLUSIVE", "INCONCLUSIVE": "PASS"}


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What a mutant may have in the place of ``node``."""
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                ops = [*node.ops[:i], FLIPPED[type(op)](), *node.ops[i + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(FLIPPED[type(node.op)](), node.values)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.Constant(value=bool() as truth):
            yield ast.Constant(not truth)
        case ast.Constant(value=(int() | float()) as number):
            yield ast.Constant(number + 1)
        case ast.Attribute(value=ast.Name(id="Outcome"), attr="PASS" | "INCONCLUSIVE"):
            yield ast.Attribute(node.value, SWAPPED[node.attr])
        case ast.Return(value=(ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not())) as test):
            yield ast.Return(ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield ast.Pass()


def sites(node: ast.AST) -> Iterator[tuple[ast.AST, str, int, ast.AST]]:
    """Field, index and mutant of all below but messages, annotations, decorators, assertions."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            match child:
                case ast.JoinedStr() | ast.Assert() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    pass
                case ast.AST():
                    yield from ((node, name, index, new) for new in variants(child))
                    yield from sites(child)


def draw(modules: str, count: int, seed: int) -> Iterator[tuple[Path, str, str]]:
    """``count`` mutants of a group: the module, what was changed, and its text with the change."""
    every = []
    for path, _, function in (one.partition(":") for one in modules.split()):
        file = PROJECT / "runbook_lib" / f"{path}.py"
        tree = ast.parse(file.read_text("utf-8"))
        named = (node for node in ast.walk(tree) if getattr(node, "name", "") == function)
        every += [(file, tree, *site) for site in sites(next(named) if function else tree)]
    for file, tree, parent, name, index, new in random.Random(seed).sample(every, count):
        value = getattr(parent, name)
        old = value[index] if isinstance(value, list) else value
        instead = [*value[:index], new, *value[index + 1 :]] if isinstance(value, list) else new
        setattr(parent, name, instead)
        text = ast.unparse(ast.fix_missing_locations(tree))
        setattr(parent, name, value)
        change = " -> ".join(" ".join(ast.unparse(one).split()) for one in (old, new))
        yield file, f"{file.relative_to(PROJECT)}:{old.lineno}  {change}", text


def killed_by(stages: Sequence[tuple[str, ...]], file: Path | None = None, text: str = "") -> str:
    """The first test that fails in a copy of the project where ``file`` is ``text``, if any does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(PROJECT, Path(folder, "copy"), ignore=LEAVE)
        if file is not None:
            (copy / file.relative_to(PROJECT)).write_text(text, "utf-8")
        where = "import importlib.util as u, sys; sys.exit(u.find_spec('runbook_lib').origin)"
        origin = fails(copy, ["-c", where], 60)
        if not origin.startswith(str(copy)):
            raise SystemExit(f"expected the tests to import {copy}, got {origin}")
        for names in stages:
            tests = [f"tests/{name}.py" for name in names]
            pytest = ["-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests]
            if found := fails(copy, pytest, LIMIT_S):
                return found
    return ""


def quick(group: str) -> tuple[str, ...]:
    return tuple(GROUPS[group][1].split())


def fails(copy: Path, arguments: list[str], limit: float) -> str:
    """What failed, of a Python that imports the copy; that it did not end is a failure too."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=copy, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"no end within {limit:g} s"
        output.seek(0)
        lines = output.read().splitlines() or ["no output"]
    named = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return (named or lines)[-1] if process.returncode else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", default=(), help="of those drawn, by number")
    args = parser.parse_args()
    drawn = []
    for n, (group, (modules, _)) in enumerate(GROUPS.items()):
        share = args.count // len(GROUPS) + (n < args.count % len(GROUPS))
        drawn += [(group, *one) for one in draw(modules, share, args.seed)]
    numbered = [one for one in enumerate(drawn, 1) if not args.only or one[0] in args.only]

    def run(one: tuple[int, tuple[str, Path, str, str]]) -> bool:
        number, (group, file, change, text) = one
        found = killed_by((quick(group), NET), file, text)
        print(f"{number:3} {change}: {found or 'SURVIVED'}", flush=True)
        return bool(found)

    with ThreadPoolExecutor(2) as pool:
        green = [(quick(group),) for group in sorted({group for _, (group, *_) in numbered})]
        if red := [found for found in pool.map(killed_by, [(NET,), *green]) if found]:
            raise SystemExit(f"expected green tests without a mutant, got {red}")
        killed = sum(pool.map(run, numbered))
    print(f"{len(numbered)} mutants, {killed} killed, {len(numbered) - killed} survived")
    return 0 if killed >= 0.95 * len(numbered) else 1


if __name__ == "__main__":
    raise SystemExit(main())
