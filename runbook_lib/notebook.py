"""Our notebooks as files: their parameters read with ``ast``, their code known by digest.

papermill's own parameter inference is a regular expression that loses ``dict(...)`` and several
lines, and a misspelt parameter only warns there.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .canonical import digest
from .errors import NotebookError
from .sources.local import recorded
from .strict import PROJECT

NOTEBOOKS = PROJECT / "notebooks"
DIGESTS = NOTEBOOKS / "digests.json"
KERNEL = "runbook"
"""Our kernel spec (``kernels/``): it imports nothing from the folder it works in."""
PARAMETERS, INJECTED, ENFORCE, VERDICT = "parameters", "injected-parameters", "enforce", "verdict"
VERDICT_SOURCE = "# The verdict, written by the engine after the run."


MAX_BOOK = 256 * 1024 * 1024
Cell = Mapping[str, Any]
Notebook = Mapping[str, Any]


class Parameter(NamedTuple):
    """One line of the parameters cell."""

    name: str
    type: str
    default: Any


def tags(cell: Cell) -> frozenset[str]:
    return frozenset(cell.get("metadata", {}).get("tags", ()))


def source(cell: Cell) -> str:
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def read(path: Path) -> Any:
    """A notebook file as nbformat 4. Raises NotebookError for what is none."""
    import nbformat

    try:
        return nbformat.reads(recorded(path, MAX_BOOK).decode(), as_version=4)
    except Exception as error:  # nbformat raises many kinds for what is no notebook
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotebookError(f"{path.name}: expected a notebook, got: {first[:200]}") from error


def code_cells(notebook: Notebook) -> list[Cell]:
    """Code cells that are part of the notebook: without injected parameters and verdict card."""
    return [
        cell
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        and INJECTED not in tags(cell)
        and not (VERDICT in tags(cell) and source(cell) == VERDICT_SOURCE)
    ]


def parameters(notebook: Notebook) -> list[Parameter]:
    """The parameters cell, line by line. Raises NotebookError unless it is all annotated literals."""
    cells = [cell for cell in code_cells(notebook) if PARAMETERS in tags(cell)]
    if len(cells) != 1:
        raise NotebookError(f"notebook: expected one cell tagged parameters, got {len(cells)}")
    found = []
    for node in _parse(source(cells[0])).body:
        match node:
            case ast.AnnAssign(ast.Name(name), note, ast.expr() as value):
                kind = ast.unparse(note).split("[")[0]
                found.append(Parameter(name, kind, _literal(name, value)))
            case _:
                raise NotebookError(
                    f"parameters cell: expected `name: type = literal`, got `{ast.unparse(node)}`"
                )
    return found


def stage_of(notebook: Notebook) -> str:
    """The stage the notebook opens. Raises NotebookError."""
    for cell in code_cells(notebook):
        for node in ast.walk(_parse(source(cell))):
            match node:
                case ast.Call(ast.Name("open_stage"), [ast.Constant(str(stage)), _]):
                    return stage
    raise NotebookError('notebook: expected open_stage("STAGE", globals()), got none')


def code_digest(notebook: Notebook) -> str:
    """The digest of the code; parameter *values* left out, Markdown and outputs too.

    Raises NotebookError when the injected cell holds more than values, or none would use them.
    """
    _check_injected(notebook)
    cells: list[Any] = [
        [[p.name, p.type] for p in parameters(notebook)]
        if PARAMETERS in tags(cell)
        else [sorted(tags(cell)), source(cell).strip()]
        for cell in code_cells(notebook)
    ]
    return digest(cells)


def _check_injected(notebook: Notebook) -> None:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    injected = tag_positions(code, INJECTED)
    if not injected:
        return
    if injected != [position + 1 for position in tag_positions(code, PARAMETERS)]:
        raise NotebookError(
            f"notebook: expected one cell tagged {INJECTED}, right after the parameters cell"
        )
    known = {parameter.name for parameter in parameters(notebook)}
    for node in _parse(source(code[injected[0]])).body:
        match node:
            case ast.Assign([ast.Name(name)], value) if name in known:
                _literal(name, value)
            case _:
                raise NotebookError(
                    f"injected parameters: expected `name = literal`, got `{ast.unparse(node)}`"
                )


def known_digests() -> dict[str, str]:
    """Notebook file -> digest of its code, as ``make notebooks`` wrote them."""
    try:
        return dict(json.loads(DIGESTS.read_bytes()))
    except (OSError, ValueError) as error:
        said = f"{DIGESTS.name}: expected it beside the notebooks, got: {error}"
        raise NotebookError(said) from error


def filled_in(path: Path, values: Mapping[str, Any]) -> bytes:
    """A notebook of ours without outputs and with ``values`` as its parameters.

    As papermill injects them, without papermill: a change that begins cannot wait for it.
    """
    book = json.loads(path.read_bytes())
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    (after,) = [at for at, cell in enumerate(book["cells"]) if PARAMETERS in tags(cell)]
    injected: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": INJECTED,
        "metadata": {"tags": [INJECTED]},
        "outputs": [],
        "source": "\n".join(["# Parameters", *(f"{key} = {values[key]!r}" for key in values)]),
    }
    book["cells"].insert(after + 1, injected)
    return json.dumps(book, ensure_ascii=False, indent=1).encode() + b"\n"


def tag_positions(cells: Sequence[Cell], tag: str) -> list[int]:
    return [number for number, cell in enumerate(cells) if tag in tags(cell)]


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        said = f"notebook: expected Python in every code cell, got: {error}"
        raise NotebookError(said) from error


def _literal(name: str, value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        said = f"parameters cell: {name}: expected a literal, got an expression"
        raise NotebookError(said) from error
