"""Notebooks and parameters that are refused before a cell runs: exit 3, and nothing is opened."""

from collections.abc import Callable
from typing import Any

import nbformat
import pytest

from runbook_lib import notebook
from runbook_lib.strict import PROJECT
from runbook_lib.verdicts import ExitCode

Edit = Callable[[Any], Any]
Refused = Callable[..., list[str]]
code = nbformat.v4.new_code_cell


def cell(book: Any, text: str) -> Any:
    """The first code cell that starts with ``text``."""
    return next(c for c in book.cells if c.cell_type == "code" and c.source.startswith(text))


def find(book: Any, text: str) -> int:
    return int(book.cells.index(cell(book, text)))


def insert(text: str, source: str, **metadata: Any) -> Edit:
    def edit(book: Any) -> None:
        book.cells.insert(find(book, text), code(source, metadata=metadata))

    return edit


def replace(text: str, old: str, new: str) -> Edit:
    def edit(book: Any) -> None:
        found = cell(book, text)
        assert old in found.source
        found.source = found.source.replace(old, new)

    return edit


def tag(text: str, name: str) -> Edit:
    def edit(book: Any) -> None:
        cell(book, text).metadata.setdefault("tags", []).append(name)

    return edit


def remove(text: str) -> Edit:
    return lambda book: book.cells.pop(find(book, text))


@pytest.fixture
def refused(bench: Any, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The problems of a run that must be refused: said once on stderr, no output, no attempt."""

    def run(edit: Edit = lambda book: None, **options: Any) -> list[str]:
        report = bench.run(bench.book(edit), **options)
        assert report.exit_code is ExitCode.BROKEN
        assert (report.verdict, report.folder, report.output) == (None, None, None)
        assert list((bench.practice.root / "store").iterdir()) == []
        assert capsys.readouterr().err.strip() == "\n".join(report.problems)
        return list(report.problems)

    return run


ALTERED = "10_development.ipynb: expected the development notebook as shipped, got altered code"
NO_STAGE = 'notebook: expected open_stage("STAGE", globals()), got none'
ONE_TAGGED = "notebook: expected one cell tagged"
LITERAL = "parameters cell: expected `name: type = literal`, got"
EDITS: dict[str, tuple[Edit, str]] = {
    "shell line": (insert("stage.plan", "!exit 4"), ALTERED),
    "magic": (
        insert("from runbook_lib", "%matplotlib inline"),
        "notebook: expected Python in every code cell, got: invalid syntax",
    ),
    "enforce removed": (remove("stage.enforce"), ALTERED),
    "parameter fixed": (
        replace("from runbook_lib", "globals()", "{**globals(), 'issue': 1}"),
        ALTERED,
    ),
    **{
        name: (tag("stage.check", name), f"notebook: expected no cell tagged {name}, got one")
        for name in ("raises-exception", "skip-execution")
    },
    "no parameters cell": (
        lambda book: cell(book, "site: str").metadata.update(tags=[]),
        f"{ONE_TAGGED} parameters, got 0",
    ),
    "two parameters cells": (tag("stage.check", "parameters"), f"{ONE_TAGGED} parameters, got 2"),
    "expression": (
        replace("site: str", "baseline_hours: float = 1.0", "baseline_hours: float = 1.0 * 2"),
        "parameters cell: baseline_hours: expected a literal, got an expression",
    ),
    "without a type": (
        replace("site: str", 'as_of: str = ""', 'as_of = ""'),
        f"{LITERAL} `as_of = ''`",
    ),
    "code among parameters": (
        replace("site: str", 'as_of: str = ""', 'as_of: str = ""\nimport os'),
        f"{LITERAL} `import os`",
    ),
    "another stage": (
        replace("from runbook_lib", '"development"', '"moon"'),
        "notebook: expected one of preflight, development, development_recovery, testnet,"
        " testnet_recovery, canary, canary_recovery, mainnet, mainnet_recovery, report",
    ),
    "no stage": (replace("from runbook_lib", '"development"', "str()"), NO_STAGE),
    "never opened": (remove("from runbook_lib"), NO_STAGE),
    "code injected late": (
        insert("stage.plan", "import os", tags=["injected-parameters"]),
        f"{ONE_TAGGED} injected-parameters, right after the parameters",
    ),
}


@pytest.mark.parametrize(("edit", "problem"), EDITS.values(), ids=EDITS)
def test_an_altered_notebook_is_refused(refused: Refused, edit: Edit, problem: str) -> None:
    """Whatever was added, removed, moved, tagged or rewritten: none of its cells runs."""
    (said,) = refused(edit)

    assert said.startswith(problem)


@pytest.mark.parametrize(
    ("position", "source", "problem"),
    [
        ("stage.plan", "mode = 1", "right after the parameters cell"),
        ("site: str", "mode = 1", "right after the parameters cell"),
        (
            "from runbook_lib",
            "import os; os._exit(0)",
            "expected `name = literal`, got `import os`",
        ),
        ("from runbook_lib", "mode = print()", "mode: expected a literal, got an expression"),
        ("from runbook_lib", "stage = None", "expected `name = literal`, got `stage = None`"),
    ],
)
def test_an_injected_cell_holds_values_alone(
    bench: Any, refused: Refused, position: str, source: str, problem: str
) -> None:
    """A cell that calls itself injected is no way past the digest, nor to overwritten values."""
    bench.params = {}
    bench.practice.patch.setenv("RUNBOOK_REPLAY_OK", "1")
    bench.practice.patch.setattr("runbook_lib.engine.recording", lambda stage: bench.folder)

    assert problem in refused(insert(position, source, tags=["injected-parameters"]))[0]


def test_an_engineers_own_markdown_is_allowed(bench: Any) -> None:
    """Notes between the cells, and values of the parameters cell, are no code."""

    def edit(book: Any) -> None:
        book.cells.insert(3, nbformat.v4.new_markdown_cell("I was here."))
        cell(book, "site: str").source = cell(book, "site: str").source.replace(
            'release: str = ""', 'release: str = "v1"'
        )

    changed = notebook.code_digest(notebook.read(bench.book(edit)))

    assert changed == notebook.known_digests()["10_development.ipynb"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"site": "nowhere.yaml"}, f"{PROJECT}/nowhere.yaml: expected a site file, got: No such"),
        ({"output": "-"}, "output: expected a file that is saved after each cell, got none"),
        ({"relase": "v1"}, "relase: expected no such key; remove it or correct its spelling"),
        ({"release": 3}, "release: expected text in quotes, got 3"),
        ({"issue": True}, "issue: expected a whole number, got True"),
        ({"baseline_hours": "high"}, "baseline_hours: expected a number, got 'high'"),
        ({"waivers": "none"}, "waivers: expected a valid list, got 'none'"),
        ({"baseline_hours": 0.5}, "baseline_hours: expected greater than or equal to 1"),
        ({"commit": "main"}, "commit: expected 40 lowercase hex digits of a commit, got 'main'"),
        ({"release": "../v1"}, "release: expected a name of letters, digits"),
    ],
)
def test_wrong_parameters_are_refused(
    refused: Refused, given: dict[str, Any], problem: str
) -> None:
    """Misspelt, mistyped, laxer than the playbook: said by name, where papermill only warns."""
    said = "" if given.keys() & {"site", "output"} else "development parameters: "

    assert refused(**given)[0].startswith(f"{said}{problem}")


def test_a_replay_that_was_not_asked_for_is_refused(bench: Any, refused: Refused) -> None:
    """A job that forgets its parameters must not be green on the shipped recording."""
    bench.params = {}

    assert refused() == [
        "development parameters: site: expected a site file, got none; pass -f PARAMS, or export"
        " RUNBOOK_REPLAY_OK=1 to replay a recording on purpose"
    ]


def test_notebooks_without_their_digests_are_refused(bench: Any, refused: Refused) -> None:
    bench.practice.patch.setattr("runbook_lib.notebook.DIGESTS", bench.folder / "digests.json")

    assert refused()[0].startswith("digests.json: expected it beside the notebooks, got: ")
