"""Runs with a real kernel that papermill alone would call a success: the engine judges them.

The notebooks are broken ones that pretend to be shipped, so that the second line of defence is
tested and not the first.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import nbformat
import papermill
import pytest
import yaml

from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.sealing import LEAKED
from runbook_lib.launch import run_stage
from runbook_lib.verdicts import ExitCode
from runbook_lib.wording import progress

from ..conftest import red, trust_of

OPEN, ENFORCE = "from runbook_lib", "stage.enforce"


def after_open(*sources: str) -> Callable[[Any], None]:
    """Keep parameters, open and enforce; ``sources`` are the cells between."""

    def edit(book: Any) -> None:
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        opening, last = code[1], code[-1]
        assert opening.source.startswith(OPEN)
        assert last.source.startswith(ENFORCE)
        between = [nbformat.v4.new_code_cell(source) for source in sources]
        book.cells = [code[0], opening, *between, last]

    return edit


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (
            "import os, sys\nprint('token', os.environ['GITHUB_TOKEN'])\nsys.exit(0)",
            "cell 4 (`import os, sys`): SystemExit: 0",
        ),
        ("import os\nos._exit(0)", "run: the kernel died"),
        (
            "import time\ntime.sleep(60)",
            "run: a cell took longer than its limit and was interrupted",
        ),
    ],
    ids=["sys.exit", "dead kernel", "timeout"],
)
def test_a_run_that_stopped_is_broken_and_says_where(
    bench: Any, capfd: pytest.CaptureFixture[str], cell: str, problem: str
) -> None:
    """Exit 3; the executed notebook is kept, with a card that says so, and the log as far; a secret
    in an output is taken out, and somebody must find out how."""
    path = bench.as_shipped(bench.book(after_open(cell)))
    report = bench.run(path, execution_timeout=5)
    folder = bench.practice.folder()

    assert report.exit_code is ExitCode.BROKEN
    assert report.problems[0] == problem
    assert problem in capfd.readouterr().err
    assert (report.folder, report.output) == (folder, bench.out)
    assert "BROKEN" in bench.card()
    assert problem.replace("`", "") in bench.card()
    text = bench.out.read_text()
    assert os.environ["GITHUB_TOKEN"] not in text
    assert ("token [redacted]" in text) is (report.problems[-1] == LEAKED) is ("print" in cell)
    assert LEAKED in bench.card() or "print" not in cell
    assert (folder / "10_development.ipynb").read_bytes() == bench.out.read_bytes()
    assert [e.kind for e in bench.practice.events()][-1] == "sealed"
    assert "8 completeness" in red(folder, trust_of(folder))


def test_a_stage_that_never_opened_is_broken(bench: Any) -> None:
    """The executed notebook is kept and says why, without a traceback."""
    site = yaml.safe_load(bench.practice.site.read_text())
    bench.practice.write_site(people=site["people"][1:])
    report = bench.run(bench.book())
    text = nbformat.writes(bench.executed())

    assert report.exit_code is ExitCode.BROKEN
    assert (report.verdict, report.folder, report.output) == (None, None, bench.out)
    assert report.problems[0].startswith("cell 3 (`from runbook_lib import open_stage`): Parameter")
    assert "got 'alice'; export RUNBOOK_OPERATOR" in report.problems[0]
    assert "BROKEN: the stage was never opened" in bench.card()
    assert "Traceback" not in text
    assert "session.py" not in text


def test_the_shipped_notebook_is_judged_and_sealed(bench: Any) -> None:
    """Against a world that does not answer: INCONCLUSIVE, complete, verified, and no secret in it."""
    shown: list[str] = []
    report = run_stage("development", bench.params, shown=shown.append)
    folder = bench.practice.folder()
    text = (folder / "10_development.ipynb").read_text()

    assert report.problems == []
    assert report.exit_code is ExitCode.INCONCLUSIVE
    assert report.verdict is not None
    states = [item.state for item in report.verdict.items]
    assert states == ["judged"] * 6 + ["not-reached"] * 5
    assert (report.verdict.run, report.output) == ("headless", folder / "10_development.ipynb")
    assert shown == [progress(item) for item in report.verdict.items]
    assert red(folder, trust_of(folder)) == {}
    assert bench.practice.mutations() == []
    assert os.environ["GITHUB_TOKEN"] not in text
    assert "Traceback" not in text


def test_plain_papermill_runs_it_unsealed(bench: Any) -> None:
    """Its output is evidence of nothing until it is sealed, and then judged by the same rule."""
    with pytest.raises(papermill.PapermillExecutionError, match="StageRefused"):
        papermill.execute_notebook(
            str(bench.book()), str(bench.out), parameters=bench.params, progress_bar=False
        )
    folder = bench.practice.folder()

    assert bench.practice.events("session")[0].run == "interactive"
    assert "1 attestations" in red(folder, trust_of(folder))

    (folder / "10_development.ipynb").write_bytes(bench.out.read_bytes())
    assert seal_by_hand(folder).exit_code is ExitCode.INCONCLUSIVE
    assert red(folder, trust_of(folder)) == {}


def test_an_interrupted_run_is_judged_and_sealed(bench: Any) -> None:
    """Exit 3, also where it was started as a background shell does, with SIGINT ignored."""
    go_on = bench.folder / "fifo"
    os.mkfifo(go_on)
    bench.practice.write_site(
        commands={"revision": {"argv": ["/bin/cat", str(go_on)], "timeout_s": 60}}
    )
    params = bench.folder / "params.yaml"
    params.write_text(yaml.safe_dump(bench.params))
    argv = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    argv += [sys.executable, "-m", "papermill", "--engine", "runbook", "--no-progress-bar"]
    argv += [str(bench.book()), str(bench.out), "-f", str(params)]
    temporary = bench.folder / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment)
    with go_on.open("w"):  # opens once the check's command reads from it
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]

    assert (process.returncode, "Traceback" in error) == (3, False)
    assert "run: it was cancelled before its end" in error
    assert bench.practice.events()[-1].kind == "sealed"
    assert "run: it was cancelled before its end" in bench.card()
    assert list(temporary.rglob("*")) == []
    folder = bench.practice.folder()
    assert "8 completeness" in red(folder, trust_of(folder))
