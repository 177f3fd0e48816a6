"""The seam of the net: the shipped notebooks' code cells, run in process, and what they came to.

A fault is switched on just before its item's cell, and cleared once the notebook has ended. What is
read back is what a reader of the executed notebook has: the cards' JSON, and the exit code that
``enforce()`` raises. Nothing of ``runbook_lib`` is imported but by the cells themselves, and the
command line by its entry point.
"""

import ast
import contextlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import nbformat

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOKS = PROJECT / "notebooks"
VARIES = r"(?<=silence )[-0-9a-f]{8,}|(?<=backup-)\d+|(?<=comment )\d+"
CARD = "application/vnd.rpp-runbook.v1+json"
FIGURE = r"stage\.plot\("
"""A cell that draws what was recorded, and judges nothing."""


def command(*argv: object) -> tuple[int, str]:
    """``runbook ...`` in this process: its exit code and what it printed."""
    (script,) = entry_points(group="console_scripts", name="runbook")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = script.load()([str(word) for word in argv])
        except SystemExit as left:
            code = int(left.code or 0)
    return code, said.getvalue()


def bundle(shown: Any) -> dict[str, Any]:
    """What Jupyter would keep of what a cell shows, by MIME type."""
    if not hasattr(shown, "_repr_mimebundle_"):
        return {}
    found = shown._repr_mimebundle_()
    return dict(found[0] if isinstance(found, tuple) else found)


@dataclass(frozen=True)
class Cell:
    """A code cell; ``item`` is the last word of the item it checks or changes, else empty."""

    code: str
    tags: tuple[str, ...]
    item: str


@dataclass
class Run:
    """What a notebook came to, as far as its reader can tell."""

    stage: str
    exit_code: int
    verdict: dict[str, Any]
    folder: Path
    shown: list[dict[str, Any]]

    @property
    def items(self) -> dict[str, dict[str, Any]]:
        return {item["item"]: item for item in self.verdict["items"]}

    @property
    def attempt(self) -> int:
        return int(self.verdict["attempt"])

    @property
    def return_at(self) -> datetime | None:
        """When a run that only waits goes on, by its findings."""
        found = []
        for item in self.items if self.exit_code == 4 else ():
            result = self.card(item).get("status", {}).get("result") or {}
            found += [row.get("return_at") for row in result.get("rows", ())]
        instants = [datetime.fromisoformat(at) for at in found if at]
        return max(instants, default=None)

    @property
    def plan(self) -> str:
        """The digest of the plan, as its card names it."""
        plans = (data[CARD] for data in self.shown if data.get(CARD, {}).get("kind") == "plan")
        return str(next(plans)["digest"])

    def card(self, item: str) -> dict[str, Any]:
        """The JSON of an item's card; empty where its cell did not run."""
        for data in self.shown:
            if data.get(CARD, {}).get("status", {}).get("item") == item:
                return dict(data[CARD])
        return {}

    def outcome(self, item: str) -> str:
        """PASS, FAIL or INCONCLUSIVE of an item that was judged; else its state."""
        found = self.items.get(item, {"state": "unknown"})
        return str(found["outcome"] if found["state"] == "judged" else found["state"])

    @property
    def blocking(self) -> str:
        """The first item that did not pass."""
        return next((item for item in self.items if self.outcome(item) != "PASS"), "")

    @property
    def waits(self) -> tuple[str, ...]:
        """The first item that did not pass, and the finding that decides it."""
        return self.blocking, *(self.subject(self.blocking, key) for key in ("subject", "what"))

    def reason(self, item: str) -> str:
        return str(self.items[item].get("reason", ""))

    def deciding(self, item: str, what: str = "subject") -> list[str]:
        """Of each finding that decides: those that are as bad as the item, in the card's order."""
        result = self.card(item).get("status", {}).get("result") or {}
        return [
            re.sub(VARIES, "*", str(row[what]))
            for row in result.get("rows", ())
            if row["outcome"] == result["outcome"] != "PASS"
        ]

    def subject(self, item: str, what: str = "subject") -> str:
        """Of the first finding that decides."""
        return next(iter(self.deciding(item, what)), "")


@cache
def cells(stage: str) -> tuple[Path, tuple[Cell, ...]]:
    """The shipped notebook of a stage (``canary``, ``canary_recovery``), and its code cells."""
    (path,) = NOTEBOOKS.glob(f"[0-9][0-9]_{stage}.ipynb")
    book = nbformat.read(path, as_version=4)
    found = [
        Cell(cell.source, tuple(cell.metadata.get("tags", ())), _item(cell.source))
        for cell in book.cells
        if cell.cell_type == "code"
    ]
    return path, tuple(found)


def _item(code: str) -> str:
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Call(ast.Attribute(attr="check" | "change"), [ast.Attribute(attr=item)]):
                return item
    return ""


def short(item: str) -> str:
    """The name that an item's cell uses for it."""
    return item.rpartition(".")[2].replace("-", "_")


def play(source: str, names: dict[str, Any]) -> Any:
    """Run one cell; what its last expression comes to."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None


def run(
    stage: str, params: Mapping[str, Any], item: str = "", begin: Callable[[], object] = int,
    *, without: Sequence[str] = (), told: bool = True, twice: bool = False,
) -> Run:  # fmt: skip
    """The cells of a stage's notebook with ``params``; ``begin`` is called before ``item``'s cell,
    and what is run for one item's sake draws no figures. ``twice``: each of its items' cells.

    ``without`` cells in which one of these stands; unless ``told`` nobody looks at the cards. What
    refuses to open or breaks a cell ends the run with its exit code, as ``refused``.
    """
    _, found = cells(stage)
    passed_over = [*without, *([FIGURE] if item else ())]
    space: dict[str, Any] = {"__name__": "__main__"}
    shown: list[dict[str, Any]] = []
    code, opened, refused = -1, None, ""
    try:
        for cell in found:
            if any(re.search(each, cell.code) for each in passed_over):
                shown.append({})
                continue
            if cell.item and cell.item == short(item):
                begin()
            try:
                value = play(cell.code, space)
                if twice and cell.item:
                    value = play(cell.code, space)
                code = 0 if "enforce" in cell.tags else code
            except Exception as error:
                # What is no error of ours breaks the cell, and ends a headless run with 3.
                value, code = None, int(getattr(error, "exit_code", 3))
                if "enforce" not in cell.tags or not hasattr(error, "exit_code"):
                    refused = f"{type(error).__name__}: {error}"
                    break
            if "parameters" in cell.tags:
                space |= params
            elif opened is None:
                opened = value
            shown.append(bundle(value) if told else {})
        if opened is None or refused:
            return Run(stage, code, {"items": [], "refused": refused}, Path(), shown)
        verdict = json.loads(json.dumps(bundle(opened)[CARD]["verdict"]))
        folder = Path(opened.folder)
    finally:
        if opened is not None:
            opened.close()
    return Run(stage, code, verdict, folder, shown)


def save(run: Run) -> None:
    """The notebook in the attempt's folder, as JupyterLab would, so that ``runbook seal`` can seal it."""
    path, _ = cells(run.stage)
    book = nbformat.read(path, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    for number, (cell, data) in enumerate(zip(code, run.shown, strict=True), start=1):
        kept = {kind: text for kind, text in data.items() if not kind.startswith("image/")}
        cell.execution_count = number
        cell.outputs = [nbformat.v4.new_output("display_data", kept)] if kept else []
    nbformat.write(book, run.folder / path.name)
