"""Broken notebooks made from the shipped one, and runs of them through the real engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from runbook_lib import notebook
from runbook_lib.engine import Finished, Report

from ..conftest import blank

NAME = "10_development.ipynb"


class Bench:
    """Makes notebooks below ``folder`` and runs them on the practice site."""

    def __init__(self, practice: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.practice, self.folder, self._patch = practice, folder, monkeypatch
        self.out = folder / "out.ipynb"
        self.params = {key: practice.params[key] for key in ("site", "release", "commit", "mode")}

    def book(self, edit: Callable[[Any], Any] = lambda book: None) -> Path:
        """The shipped notebook after ``edit``, without outputs."""
        book = blank(NAME)
        edit(book)
        path = self.folder / "in.ipynb"
        nbformat.write(book, path)
        return path

    def as_shipped(self, path: Path) -> Path:
        """Pretend that ``path`` is what we ship: what its code does must not pass all the same."""
        digests = self.folder / "digests.json"
        digests.write_text(json.dumps({NAME: notebook.code_digest(notebook.read(path))}))
        self._patch.setattr(notebook, "DIGESTS", digests)
        return path

    def run(self, path: Path, output: str | None = None, **changes: Any) -> Report:
        """Run it as papermill does; the engine's report."""
        options = {key: changes.pop(key) for key in ("execution_timeout",) if key in changes}
        try:
            papermill.execute_notebook(
                str(path),
                output or str(self.out),
                parameters={**self.params, **changes},
                engine_name="runbook",
                progress_bar=False,
                **options,
            )
        except Finished as finished:
            assert finished.code == int(finished.report.exit_code)
            return finished.report
        raise AssertionError("the engine leaves by SystemExit, always")

    def executed(self) -> Any:
        return nbformat.read(self.out, as_version=4)

    def card(self) -> str:
        """What the first cell of the executed notebook says."""
        return self.executed().cells[0].outputs[0].data["text/plain"]


@pytest.fixture
def declared() -> None:
    """The kernel runs the whole stage: so do these tests."""


@pytest.fixture
def bench(practice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(practice, tmp_path, monkeypatch)
