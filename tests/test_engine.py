"""The engine's own parts: limits, what did not run, and a seal that cannot be written."""

import os
import signal
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import papermill
import pytest
from nbformat import v4

from runbook_lib import engine
from runbook_lib.evidence.log import Log
from runbook_lib.sources.redact import Redactor
from runbook_lib.verdicts import ExitCode

from .events import event

assert papermill.__version__  # it loads the engine: the other way round is a circle


def ran(source: str, count: int | None, error: str = "") -> Any:
    cell = v4.new_code_cell(source, execution_count=count)
    if error:
        cell.outputs = [v4.new_output("error", ename=error, evalue="why", traceback=[])]
    return cell


def _handed(folder: Path) -> Any:
    return lambda: nullcontext(lambda: engine.Handed(folder, 0))


def run() -> engine.Run:
    return engine.Run("development", Redactor())


def test_cells_that_ran_in_order_are_no_problem() -> None:
    """Empty cells, Markdown, the verdict and enforce's own refusal are none either."""
    verdict = v4.new_code_cell("# verdict", metadata={"tags": ["verdict"]})
    book = v4.new_notebook(
        cells=[verdict, ran("a", 1), v4.new_markdown_cell("x"), ran(" ", None), ran("b", 2),
               ran("stage.enforce()", 3, "StageRefused")]
    )  # fmt: skip

    assert engine.unexecuted(book) == []


@pytest.mark.parametrize(
    ("cells", "problems"),
    [
        (
            [ran("a", 1), ran("b", None), ran("c", None)],
            ["cell 2 (`b`): expected it to run, it did not, nor did any after it"],
        ),
        ([ran("a", 1), ran("b", 3)], ["cell 2 (`b`): expected it to run as number 2, got 3"]),
        (
            [ran("first\nsecond", 1, "ValueError"), ran("b", None)],
            ["cell 1 (`first`): ValueError: why"],
        ),
        ([ran("a", 1, "ValueError"), ran("b", 2)], ["cell 1 (`a`): ValueError: why"]),
    ],
)
def test_execution_counts_say_what_did_not_run(cells: list[Any], problems: list[str]) -> None:
    """papermill marks cells that never ran as completed: its word is not asked."""
    assert engine.unexecuted(v4.new_notebook(cells=cells)) == problems


def test_a_cell_has_a_limit_unless_a_caller_sets_another() -> None:
    assert engine._limits({})["execution_timeout"] == 2 * 3600
    assert engine._limits({"execution_timeout": 5})["execution_timeout"] == 5
    assert engine._limits({})["shutdown_kernel"] == "immediate"


class DeadKernelError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (DeadKernelError("x"), "run: the kernel died"),
        (SystemExit(0), "run: expected every cell to run, got SystemExit(0)"),
        (KeyboardInterrupt(), "run: it was cancelled before its end"),
        (ValueError("one\ntwo"), "run: ValueError: one"),
        (ValueError(), "run: ValueError: "),
    ],
)
def test_how_the_cells_ended_is_said_in_words(error: BaseException, problem: str) -> None:
    def execute() -> None:
        raise error

    assert engine._execute(execute) == [problem]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_cancel_and_the_handlers_are_put_back(number: signal.Signals) -> None:
    before, said = signal.getsignal(number), ["run: it was cancelled before its end"]

    assert engine._execute(lambda: os.kill(os.getpid(), number)) == said
    assert signal.getsignal(number) is before


def test_a_run_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RUN_LIMIT_S", 0.05)

    assert engine._execute(signal.pause) == [
        "run: expected an end within 0.05 s, got none; it was stopped"
    ]


def test_a_seal_that_cannot_be_written_is_broken(
    practice: Any, tmp_path: Path, capsys: Any
) -> None:
    """A damaged log or a full disk is exit 3 and a sentence, not a traceback and exit 1."""
    practice.open()
    folder = practice.folder()
    (folder / "log.jsonl").write_text("garbage\n")

    practice.patch.setattr(engine, "prepare", lambda *given: run())
    practice.patch.setattr(engine, "_execute", lambda execute: [])
    practice.patch.setattr(engine, "_handoff", _handed(folder))
    with pytest.raises(engine.Finished) as caught:
        engine.RunbookEngine.execute_notebook(
            v4.new_notebook(), "python3", str(tmp_path / "out.ipynb")
        )

    assert caught.value.code == int(ExitCode.BROKEN) == 3
    assert caught.value.report.problems[0].startswith("seal: log.jsonl: line 1: expected an")
    assert capsys.readouterr().err.startswith("seal: log.jsonl: line 1: ")


@pytest.mark.parametrize("kept", [True, False])
def test_what_has_run_so_far_is_saved_where_somebody_looks(
    kept: bool, practice: Any, tmp_path: Path
) -> None:
    """Around every cell; a launcher whose output is only a folder of scratch asks for none."""
    practice.open()
    output, found = tmp_path / "out.ipynb", []

    class Quick(engine.RunbookEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> None:
            found.append(output.exists())

    practice.patch.setattr(engine, "prepare", lambda *given: run())
    practice.patch.setattr(engine, "_handoff", _handed(practice.folder()))
    book = v4.new_notebook(metadata={"papermill": {}})
    with pytest.raises(engine.Finished):
        Quick.execute_notebook(book, "python3", str(output), progress_bar=False, keep_partial=kept)

    assert found == [kept]


def test_items_that_end_and_the_hourly_lines_of_a_watch_are_shown(tmp_path: Path) -> None:
    """Those of this run alone."""
    log = Log(tmp_path / "log.jsonl")
    log.append(event("status", text="said before"))
    log.append(event("look"))
    log.append(event("status", text="height 7"))
    log.append(event("started", item="mainnet.activate.watch", number=1))
    log.append(event("not-reached", item="mainnet.activate.watch"))
    done, shown = threading.Event(), list[str]()
    done.set()

    engine.follow(lambda: engine.Handed(tmp_path, 1), done, shown.append)

    assert [line.split() for line in shown] == [
        ["height", "7"],
        ["–", "NOT", "REACHED", "mainnet.activate.watch:", "not", "reached"],
    ]
