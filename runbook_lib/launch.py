"""Running a stage notebook headless from our own commands, with the engine papermill would use."""

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import NotebookError, ParameterError
from .evidence.events import Status
from .evidence.log import Log
from .evidence.replay import environment
from .evidence.standing import FINAL, standing
from .files import replace_file
from .machine import require_kernel
from .notebook import KERNEL, filled_in, read
from .notebook import NOTEBOOKS as FOLDER
from .playbook import NOTEBOOKS
from .verdicts import ExitCode, Standing
from .wording import standing_word

Shown = Callable[[str], None]
"""Gets a line of progress: an item that ended, or what a run says of itself meanwhile."""
POLL_S = 0.2


def run_stage(
    stage: str,
    params: Mapping[str, Any],
    *,
    params_file: str = "",
    output: Path | None = None,
    shown: Shown | None = None,
) -> Any:
    """Run ``stage`` through the engine; its Report."""
    import papermill

    from .engine import Finished, Report

    if output is not None and not (output.parent.is_dir() and output.suffix == ".ipynb"):
        raise ParameterError(f"{output}: expected NAME.ipynb in a folder that exists, got none")
    with tempfile.TemporaryDirectory(prefix="runbook-output-") as scratch:
        target = output or Path(scratch) / NOTEBOOKS[stage]
        with environment(RUNBOOK_PARAMS_FILE=params_file), _followed(Path(scratch), shown):
            try:
                papermill.execute_notebook(
                    str(FOLDER / NOTEBOOKS[stage]),
                    str(target),
                    parameters=dict(params),
                    engine_name="runbook",
                    progress_bar=False,
                    keep_partial=output is not None,
                )
            except Finished as finished:
                report = finished.report
                if output is None and report.folder is not None:
                    report.output = report.folder / NOTEBOOKS[stage]
                return report
    return Report(ExitCode.BROKEN, problems=["papermill: expected the runbook engine to judge"])


def prepare_copy(stage: str, params: Mapping[str, Any], folder: Path) -> Path:
    """A copy of the stage's notebook with ``params`` filled in, without outputs.

    One that was already stepped through is kept. Raises NotebookError when it is not ours any more.
    """
    require_kernel()
    target = folder / NOTEBOOKS[stage]
    if target.is_symlink() or not target.exists():
        replace_file(target, filled_in(FOLDER / NOTEBOOKS[stage], params))
    elif (found := read(target).metadata.get("kernelspec", {}).get("name")) != KERNEL:
        raise NotebookError(f"{target}: expected the kernel {KERNEL}, got {found!r}; remove it")
    return target


@contextmanager
def _followed(scratch: Path, shown: Shown | None) -> Iterator[None]:
    """Tell ``shown`` of progress while the kernel works."""
    if shown is None:
        yield
        return
    note, done = scratch / "follow.json", threading.Event()
    with environment(RUNBOOK_FOLLOW=str(note)):
        thread = threading.Thread(target=_follow, args=(note, done, shown), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _follow(note: Path, done: threading.Event, shown: Shown) -> None:
    seen, log = 0, None
    while True:
        last_round = done.wait(POLL_S)
        if log is None and note.exists():
            where = json.loads(note.read_bytes())
            log, seen = Log(Path(where["folder"]) / "log.jsonl"), where["entries"]
        entries = log.events() if log is not None else []
        try:
            for entry in entries[seen:]:
                if isinstance(entry, FINAL):
                    shown(progress(standing(entries[: entry.seq + 1], entry.item)))
                elif isinstance(entry, Status):
                    shown(f"{'':<14} {entry.text}")
        except OSError:  # nobody reads us any more: the run goes on, and its end says so
            return
        seen = max(seen, len(entries))
        if last_round:
            return


def progress(standing: Standing) -> str:
    """An item that ended, in one line."""
    return f"{standing_word(standing)[0]:<14} {standing.item}: {standing.reason}"
