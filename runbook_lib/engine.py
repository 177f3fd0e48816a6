"""The ``runbook`` papermill engine: a verdict that cannot be green by accident.

papermill's exit code and metadata are not evidence: a ``sys.exit(0)`` in a cell, a failed shell
line and a dead kernel all look like success there. So this engine validates before, watches
during, judges afterwards by the log and by execution counts, seals, publishes, and leaves by
SystemExit, always: a normal return would let papermill save once more over what was sealed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from nbformat import from_dict
from papermill.engines import NBClientEngine
from papermill.iorw import write_ipynb

from . import display, notebook
from .errors import NotebookError, ParameterError, RunbookError, guarded
from .evidence import publish, sealing
from .evidence.events import Status
from .evidence.log import Log
from .evidence.replay import environment
from .evidence.status import FINAL, item_status
from .machine import require_kernel
from .next_steps import verdict_card
from .params import stage_params
from .playbook import NOTEBOOKS
from .recording import recording
from .signatures import KEY_ENV, PASSPHRASE_ENV
from .signers import Signing
from .site import read_site
from .sources.redact import Redactor
from .verdicts import ExitCode, Verdict
from .wording import progress

CELL_LIMIT_S = 2 * 3600
RUN_LIMIT_S = 6 * 3600
PUBLISH_LIMIT_S = 300
POLL_S = 0.2


class Finished(SystemExit):
    """How a run ended: the exit code, and the report a launcher prints."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__(int(report.exit_code))


@dataclass
class Report:
    """What a run came to. ``folder`` is the attempt's, None when none was opened."""

    exit_code: ExitCode
    output: Path | None = None
    folder: Path | None = None
    verdict: Verdict | None = None
    problems: list[str] = field(default_factory=list)


@dataclass
class Run:
    """What is known of a run before its first cell."""

    stage: str
    redactor: Redactor
    replayed: bool = True
    signing: Signing = field(default_factory=Signing)


class RunbookEngine(NBClientEngine):  # type: ignore[misc] # papermill has no types
    """``papermill --engine runbook``."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        keep_partial: bool = True,
        params_file: str = "",
        shown: Callable[[str], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run and judge a parametrised notebook. Always raises Finished (a SystemExit).

        Whatever ``kernel_name`` it was given or names itself: only ours imports nothing beside it.
        ``keep_partial``: save what has run so far around every cell, for whoever looks there.
        ``params_file``: where its parameters come from. ``shown`` gets lines of progress.
        """
        try:
            run = prepare(nb, output_path, params_file)
        except RunbookError as error:
            print(error, file=sys.stderr)  # noqa: T201 - the command's error output
            raise Finished(Report(ExitCode.BROKEN, problems=[str(error)])) from None
        assert output_path is not None

        def execute() -> Any:
            require_kernel()
            partial = output_path if keep_partial else None
            return super(RunbookEngine, cls).execute_notebook(
                nb, notebook.KERNEL, output_path=partial, **_limits(kwargs)
            )

        with _handoff() as handoff:
            with _followed(handoff, shown):
                problems = _execute(execute)
            try:
                with guarded():
                    opened = handoff()
                    folder = opened.folder if opened else None
                    report = _conclude(run, nb, Path(output_path), folder, problems)
            except RunbookError as error:
                report = Report(ExitCode.BROKEN, problems=[*problems, f"seal: {error}"])
        for problem in report.problems:
            print(problem, file=sys.stderr)  # noqa: T201
        raise Finished(report)


# --- before -----------------------------------------------------------------------------------


def prepare(nb: Any, output_path: str | None, params_file: str = "") -> Run:
    """Validate parameters and notebook. Raises ParameterError or NotebookError; nothing has run."""
    if output_path is None or output_path == "-":
        raise ParameterError(
            "output: expected a file that is saved after each cell, got none; name one, and leave"
            " out --no-request-save-on-cell-execute"
        )
    stage = notebook.stage_of(nb)
    if stage not in NOTEBOOKS:
        raise NotebookError(f"notebook: expected one of {', '.join(NOTEBOOKS)}, got {stage!r}")
    given = nb.metadata.get("papermill", {}).get("parameters", {})
    where = params_file or f"{stage} parameters"
    values = {p.name: p.default for p in notebook.parameters(nb)} | dict(given)
    params = stage_params(stage, values, where)
    require_ours(nb, stage, NOTEBOOKS[stage])
    if params.site and os.environ.get("RUNBOOK_REPLAY"):
        raise ParameterError(
            f"{where}: site: expected none while RUNBOOK_REPLAY is exported, got {params.site}:"
            " nothing would be asked of it; unset RUNBOOK_REPLAY, or run without a site"
        )
    if os.environ.get("RUNBOOK_REPLAY") or not params.site:
        _require_replay_asked(stage)
        return Run(stage, Redactor())
    site = read_site(params.site)
    return Run(stage, Redactor(site.secret_names()), False, site.trust.own())


def _require_replay_asked(stage: str) -> None:
    if os.environ.get("RUNBOOK_REPLAY_OK") != "1":
        raise ParameterError(
            f"{stage} parameters: site: expected a site file, got none; pass -f PARAMS, or export"
            " RUNBOOK_REPLAY_OK=1 to replay a recording on purpose"
        )
    if not os.environ.get("RUNBOOK_REPLAY"):
        recording(stage)


def _limits(given: dict[str, Any]) -> dict[str, Any]:
    # A kernel that ignores a polite shutdown would hold up the verdict by seconds; and it warns of
    # TCP at each start, though it listens on loopback, behind a key of its own.
    ours = {"shutdown_kernel": "immediate", "extra_arguments": ["--log-level=40"]}
    return ours | given | {"execution_timeout": given.get("execution_timeout") or CELL_LIMIT_S}


# --- during ----------------------------------------------------------------------------------------


class _TooLong(KeyboardInterrupt):
    pass


def _execute(execute: Any) -> list[str]:
    """Run the cells; what went wrong beside their own errors, in words."""
    try:
        with _signals(RUN_LIMIT_S):
            execute()
    except RunbookError as error:
        return [str(error)]
    except _TooLong:
        return [f"run: expected an end within {RUN_LIMIT_S} s, got none; it was stopped"]
    except KeyboardInterrupt:
        return ["run: it was cancelled before its end"]
    except SystemExit as left:
        return [f"run: expected every cell to run, got SystemExit({left.code})"]
    except Exception as error:
        name, (first, *_) = type(error).__name__, [*str(error).strip().splitlines(), ""]
        known = {
            "DeadKernelError": "the kernel died",
            "CellTimeoutError": "a cell took longer than its limit and was interrupted",
        }
        return [f"run: {known.get(name, f'{name}: {first}')}"]
    return []


@contextmanager
def _signals(limit: float) -> Iterator[None]:
    """SIGTERM, SIGINT (ignored in a background shell's job) and the run's time limit interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TooLong if number == signal.SIGALRM else KeyboardInterrupt

    before = {
        s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    }
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Handed:
    """Which attempt the kernel opened, and how many events its log had then."""

    folder: Path
    entries: int


Handoff = Callable[[], Handed | None]


@contextmanager
def _handoff() -> Iterator[Handoff]:
    """Environment that tells the kernel where to say which attempt is its, and where to scribble."""
    with tempfile.TemporaryDirectory(prefix="runbook-run-") as scratch:
        note = Path(scratch) / "attempt.json"
        ours = {"HANDOFF": str(note), "HEADLESS": "1", "SCRATCH": scratch}
        given = {f"RUNBOOK_{name}": value for name, value in ours.items()}
        # No start-up script of a user's profile judges, nor does a kernel need a home.
        given |= {"IPYTHONDIR": scratch, "MPLBACKEND": "agg"}

        def handed() -> Handed | None:
            if not note.exists():
                return None
            said = json.loads(note.read_bytes())
            return Handed(Path(said["folder"]), said["entries"])

        # What the kernel runs is judged; it must not sign.
        with environment(**given, **dict.fromkeys((KEY_ENV, PASSPHRASE_ENV), "")):
            yield handed


@contextmanager
def _followed(handoff: Handoff, shown: Callable[[str], None] | None) -> Iterator[None]:
    """Tell ``shown`` of progress while the kernel works."""
    if shown is None:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=follow, args=(handoff, done, shown), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def follow(handoff: Handoff, done: threading.Event, shown: Callable[[str], None]) -> None:
    """Tell ``shown`` of every item that ends, and of what the run says meanwhile, until ``done``."""
    opened, seen = None, 0
    last_round = False
    while not last_round:
        last_round = done.wait(POLL_S)
        if opened is None and (opened := handoff()):
            seen = opened.entries
        entries = Log(opened.folder / "log.jsonl").events() if opened else []
        try:
            for entry in entries[seen:]:
                if isinstance(entry, FINAL):
                    shown(progress(item_status(entries[: entry.seq + 1], entry.item)))
                elif isinstance(entry, Status):
                    shown(f"{'':<14} {entry.text}")
        except OSError:  # nobody reads us any more: the run goes on, and its end says so
            return
        seen = max(seen, len(entries))


# --- after ------------------------------------------------------------------------------------


def _conclude(run: Run, nb: Any, output: Path, folder: Path | None, problems: list[str]) -> Report:
    # Of a run that failed as a whole it is known why no cell ran.
    problems = problems if problems and folder is None else [*problems, *unexecuted(nb)]
    if folder is None:
        why = [(problem,) for problem in problems] or [("unknown",)]
        card = display.table_card("BROKEN: the stage was never opened", ("why",), why)
        nb.cells = [from_dict(cell) for cell in sealing.with_card(nb.cells, card)]
        write_ipynb(nb, str(output))
        return Report(ExitCode.BROKEN, output=output, problems=problems)
    kept = None if run.replayed else folder
    verdict, data = sealing.judge_and_seal(
        folder,
        NOTEBOOKS[run.stage],
        nb,
        problems,
        lambda found: verdict_card(found, kept, run.signing),
        run.redactor,
        code=notebook.code_digest(nb),
        foreign=False,
        signing=run.signing,
    )
    output.write_bytes(data)
    report = Report(verdict.exit_code, output, kept, verdict, problems)
    if os.environ.get("RUNBOOK_REPLAY_KEEP"):
        shutil.copytree(folder, os.environ["RUNBOOK_REPLAY_KEEP"], dirs_exist_ok=True)
    if kept is not None:  # last, and of no weight: what was sealed is judged
        with _signals(PUBLISH_LIMIT_S):
            report.problems = [*problems, *publish.at_sealing(kept)]
    return report


def unexecuted(nb: Any) -> list[str]:
    """The first cell that did not run, not in order, or ended in an error other than enforce's own.

    Judged by execution counts: papermill marks cells that never ran as completed.
    """
    cells = [
        cell for cell in nb.cells if cell["cell_type"] == "code" and notebook.source(cell).strip()
    ]
    cells = [cell for cell in cells if notebook.VERDICT not in notebook.tags(cell)]
    for number, cell in enumerate(cells, start=1):
        errors = [out for out in cell["outputs"] if out["output_type"] == "error"]
        named = f"cell {number} (`{notebook.source(cell).strip().splitlines()[0][:60]}`)"
        if errors and errors[0]["ename"] != "StageRefused":
            return [f"{named}: {errors[0]['ename']}: {errors[0]['evalue'][:300]}"]
        if (got := cell["execution_count"]) is None:
            return [f"{named}: expected it to run, it did not, nor did any after it"]
        if got != number:
            return [f"{named}: expected it to run as number {number}, got {got}"]
    return []


FORBIDDEN_TAGS = frozenset({"raises-exception", "skip-execution", "nbval-skip"})


def require_ours(book: notebook.Notebook, stage: str, expected: str) -> None:
    """The notebook is one of ours with its code unaltered. Raises NotebookError saying what is not."""
    forbidden = sorted(
        {tag for cell in book["cells"] for tag in notebook.tags(cell)} & FORBIDDEN_TAGS
    )
    if forbidden:
        raise NotebookError(f"notebook: expected no cell tagged {', '.join(forbidden)}, got one")
    known = notebook.known_digests().get(expected)
    found = notebook.code_digest(book)
    if known != found:
        raise NotebookError(
            f"{expected}: expected the {stage} notebook as shipped, got altered code ({found});"
            " undo the change, or run `make notebooks` if it is meant to ship"
        )
