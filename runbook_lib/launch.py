"""Running a stage notebook headless from our own commands, with the engine papermill would use."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import NotebookError, ParameterError
from .files import replace_file
from .machine import require_kernel
from .notebook import KERNEL, filled_in, read
from .notebook import NOTEBOOKS as FOLDER
from .playbook import NOTEBOOKS
from .verdicts import ExitCode

Shown = Callable[[str], None]
"""Gets a line of progress: an item that ended, or what a run says of itself meanwhile."""


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
        try:
            papermill.execute_notebook(
                str(FOLDER / NOTEBOOKS[stage]),
                str(output or Path(scratch) / NOTEBOOKS[stage]),
                parameters=dict(params),
                engine_name="runbook",
                progress_bar=False,
                keep_partial=output is not None,
                params_file=params_file,
                shown=shown,
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
