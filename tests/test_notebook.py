"""Our notebooks are read with ``ast`` and known by the digest of their code."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import engine, notebook
from runbook_lib.errors import NotebookError
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.playbook import NOTEBOOKS
from runbook_lib.strict import PROJECT, parse_yaml

CHECK = {"cell_type": "code", "source": "stage.check(x)", "metadata": {}}
OPEN = {**CHECK, "source": 'stage = open_stage("development", globals())'}


def parameters(source: str = "a: int = 1", tag: str = "parameters") -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "metadata": {"tags": [tag]}}


def book(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": list(cells)}


def test_parameters_are_read_whole() -> None:
    """Several lines, nested values and comments; papermill's own inference loses some of them."""
    source = (
        "a: int = 1  # one\nb: list[str] = [\n    'x',  # why\n    'y',\n]\n"
        "c: dict = {'k': [1, 2]}\nd: float = -0.5\ne: str = ''\n"
    )
    found = notebook.parameters(book(parameters(source)))

    assert [(p.name, p.type, p.default) for p in found] == [
        ("a", "int", 1),
        ("b", "list", ["x", "y"]),
        ("c", "dict", {"k": [1, 2]}),
        ("d", "float", -0.5),
        ("e", "str", ""),
    ]


@pytest.mark.parametrize(
    "line",
    ["a = 1", "a: int", "import os", "a: int = b", "a: dict = dict(x=1)", "a: int = 1 + 1j * f()",
     "a.b: int = 1", "a: list = [*x]", "a: dict = {[]: 1}", "a: int = (", "a: str = '\0'",
     "a: int = " + "(" * 10_000],
    ids=lambda line: line[:20],
)  # fmt: skip
def test_anything_but_annotated_literals_is_refused(line: str) -> None:
    """Derived defaults keep the old value when a parameter is passed: there are none."""
    with pytest.raises(NotebookError):
        notebook.parameters(book(parameters(line)))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.one_of(st.integers(), st.booleans(), st.text(max_size=9), st.lists(st.integers())),
        min_size=1,
    )
)
def test_what_is_written_is_what_is_read(values: dict[str, Any]) -> None:
    values = {f"p_{name}": value for name, value in values.items()}
    lines = [f"{name}: {type(value).__name__} = {value!r}" for name, value in values.items()]
    made = book(parameters("\n".join(lines)))

    assert {p.name: p.default for p in notebook.parameters(made)} == values


@pytest.mark.parametrize("runbook", NOTEBOOKS)
def test_the_parameters_cell_is_the_stages_model(runbook: str) -> None:
    """The same names, defaults and kinds of value; a file of ours gives no others."""
    fields = STAGE_PARAMS[runbook].model_fields
    shipped = notebook.parameters(notebook.read(notebook.NOTEBOOKS / NOTEBOOKS[runbook]))
    file = PROJECT / "params" / f"{runbook}.yaml"
    given = parse_yaml(file.read_bytes(), file.name) if file.exists() else {}

    assert {p.name: p.default for p in shipped} == {n: f.default for n, f in fields.items()}
    assert all(p.type == type(p.default).__name__ for p in shipped)
    assert given.keys() <= fields.keys()


def test_the_digest_is_of_the_code_alone() -> None:
    """Values, Markdown, outputs, an injected cell of values and the verdict's cell leave it alone."""
    plain = notebook.code_digest(book(parameters(), OPEN, CHECK))
    verdict = parameters(notebook.VERDICT_SOURCE, "verdict")
    text = {"cell_type": "markdown", "source": "# Note", "metadata": {}}
    values = parameters("# Parameters\na = 2\n", "injected-parameters")
    more = book(verdict, text, parameters("a: int = 7"), values, OPEN, CHECK, text)

    assert notebook.code_digest(more) == plain
    lines = {**CHECK, "source": ["stage.", "check(x)"]}
    assert notebook.code_digest(book(parameters(), OPEN, lines)) == plain
    for other in (
        book(parameters(), OPEN),
        book(parameters(), CHECK, OPEN),
        book(parameters("b: int = 1"), OPEN, CHECK),
        book(parameters("a: str = '1'"), OPEN, CHECK),
        book(parameters(), OPEN, {**CHECK, "source": "stage.check(y)"}),
        book(parameters(), OPEN, {**CHECK, "metadata": {"tags": ["enforce"]}}),
        book({**verdict, "source": "import os"}, parameters(), OPEN, CHECK),
    ):
        assert notebook.code_digest(other) != plain


def test_the_shipped_notebooks_are_their_digests() -> None:
    for stage, name in NOTEBOOKS.items():
        shipped = notebook.read(notebook.NOTEBOOKS / name)
        engine.require_ours(shipped, stage, name)
        assert notebook.stage_of(shipped) == stage


def test_a_shipped_notebook_reads_like_the_playbook() -> None:
    """Small cells, no machinery: parameters, open, one item a cell, enforce last."""
    for name in NOTEBOOKS.values():
        cells = notebook.code_cells(notebook.read(notebook.NOTEBOOKS / name))
        for cell in cells[1:]:
            assert len(notebook.source(cell).splitlines()) <= 5
        for cell in cells[2:]:
            for word in ("def ", "for ", "try:", "print(", "import ", "%", "!"):
                assert word not in notebook.source(cell)
        # The preflight has a parameter named ``stage``.
        assert notebook.source(cells[-1]).strip() in ("stage.enforce()", "run.enforce()")
        assert notebook.ENFORCE in notebook.tags(cells[-1])
