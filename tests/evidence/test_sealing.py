"""Sealing by hand, rendering and replaying: what a person does with an attempt afterwards."""

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

from runbook_lib.commands.evidence import page_of
from runbook_lib.errors import LogDamaged, NotebookError, StageRefused
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.replay import replay, seal_by_hand
from runbook_lib.evidence.seal import facts_of, seals
from runbook_lib.evidence.sealing import LEAKED
from runbook_lib.opening import prepare_attempt
from runbook_lib.outcomes import Outcome
from runbook_lib.verdicts import ExitCode

from ..conftest import red
from ..events import event

BOOK = "10_development.ipynb"


# --- by hand ----------------------------------------------------------------------------------------


def test_a_stepped_through_attempt_is_judged_by_the_same_rule(practice: Any) -> None:
    """The card comes first in its notebook, and it verifies; sealed twice both are kept."""
    folder = practice.sealed()
    book = nbformat.read(folder / BOOK, as_version=4)
    facts = facts_of(seals(folder)[-1].payload)

    assert "✓ PASS" in book.cells[0].outputs[0].data["text/plain"]
    assert (facts["run"], facts["outcome"], facts["foreign"]) == ("interactive", "PASS", False)
    assert red(folder) == {}

    before = (folder / BOOK).read_bytes()
    seal_by_hand(folder)
    assert (folder / "10_development.run1.ipynb").read_bytes() == before
    assert red(folder) == {}


def test_a_later_try_is_sealed_again_and_the_earlier_kept(practice: Any) -> None:
    """Notebook and attestation of the first seal stand beside the second."""
    stage = practice.open()
    cards = practice.walk(stage, smoke_suites=Outcome.INCONCLUSIVE)
    with pytest.raises(StageRefused):
        stage.enforce()
    practice.write_notebook(cards)
    first = seal_by_hand(practice.folder())
    again = practice.open(attempt=1)
    cards = practice.walk(again)
    again.enforce()
    practice.write_notebook(cards)
    second = seal_by_hand(practice.folder())

    assert (first.exit_code, second.exit_code) == (ExitCode.INCONCLUSIVE, ExitCode.PASSED)
    kept = sorted(path.name for path in (practice.folder() / "attestations").iterdir())
    assert kept == ["0001.alice.json", "0002.alice.json"]
    assert red(practice.folder()) == {}


def test_a_secret_in_an_output_breaks_the_attempt(practice: Any) -> None:
    path = practice.enforced() / BOOK
    book = nbformat.read(path, as_version=4)
    code = next(cell for cell in book.cells if cell.cell_type == "code")
    code.outputs = [nbformat.v4.new_output("stream", text=os.environ["GITHUB_TOKEN"])]
    nbformat.write(book, path)
    verdict = seal_by_hand(practice.folder())

    assert verdict.broken == (LEAKED,)
    assert os.environ["GITHUB_TOKEN"] not in path.read_text()
    assert "a secret stood in an output" in path.read_text()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, f"0001: {BOOK}: expected the notebook to seal, got none; save it"),
        ("{}", f"{BOOK}: expected a notebook, got: "),
        ("no JSON", f"{BOOK}: expected a notebook, got: "),
    ],
)
def test_without_a_notebook_nothing_is_sealed(
    practice: Any, content: str | None, problem: str
) -> None:
    practice.walk(practice.open())
    if content is not None:
        (practice.folder() / BOOK).write_text(content)
    with pytest.raises(NotebookError) as caught:
        seal_by_hand(practice.folder())

    assert str(caught.value).startswith(problem)
    assert practice.events("sealed") == []


def test_a_notebook_that_was_never_run_is_not_sealed(practice: Any) -> None:
    attempt = prepare_attempt("development", practice.params, "params.yaml")
    with pytest.raises(NotebookError) as caught:
        seal_by_hand(attempt.folder)

    assert str(caught.value) == (
        "0001: expected a notebook that was stepped through, got none of its cells run;"
        " run and save it, then seal"
    )


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (None, "expected an opening event, got none"),
        (event("adopting"), "expected an opening event, got none"),
        (event("opened", stage="holiday"), "expected one of our stages, got 'holiday'"),
    ],
)
def test_a_folder_of_another_kind_is_refused(tmp_path: Path, first: Any, said: str) -> None:
    if first is not None:
        Log(tmp_path / "log.jsonl").append(first)
    with pytest.raises((NotebookError, LogDamaged)) as caught:
        seal_by_hand(tmp_path)

    assert str(caught.value) == f"{tmp_path.name}: {said}"


# --- render -----------------------------------------------------------------------------------------


def test_an_executed_notebook_renders_whole(practice: Any) -> None:
    """The cards of its results are all there, and nothing is loaded from elsewhere."""
    page = page_of(practice.sealed() / BOOK)

    assert page.count("preflight.config-drift") >= 2
    assert re.search(r"src=[\"'](?!data:)|<link|@import|url\(", page) is None


# --- replay -----------------------------------------------------------------------------------------


def test_a_replay_shows_what_differs(practice: Any) -> None:
    """A check that judges otherwise today is a FAIL that quotes both; the environment is as it was."""
    folder = practice.sealed()
    rows, _ = replay(folder, practice.replaying(ci_green=Outcome.FAIL))

    assert rows[1].outcome is Outcome.FAIL
    assert rows[1].expected == "PASS (judged): it holds"
    assert str(rows[1].observed).startswith("FAIL (judged): dev-1: height: expected 1, got 2")
    assert "RUNBOOK_REPLAY" not in os.environ


@pytest.mark.parametrize("ran", [True, False])
def test_problems_of_a_replay_are_rows(practice: Any, ran: bool) -> None:
    """One that did not run at all proves nothing."""
    folder, inner = practice.sealed(), practice.replaying()

    def run(stage: str) -> SimpleNamespace:
        if ran:
            inner(stage)
        return SimpleNamespace(problems=["cell 9: it did not run"])

    rows, _ = replay(folder, run)

    assert [row.outcome for row in rows[:-1]] == [Outcome.PASS] * 7 * ran
    assert (rows[-1].outcome, rows[-1].observed) == (Outcome.INCONCLUSIVE, "cell 9: it did not run")


def test_a_folder_without_a_record_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(LogDamaged) as caught:
        replay(tmp_path, lambda stage: None)

    assert str(caught.value) == f"{tmp_path.name}: expected an opening event, got none"
