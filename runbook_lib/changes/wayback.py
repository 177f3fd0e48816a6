"""What an apply lays ready before its first change, so that it can be undone at once.

    <attempt>/recovery/params.yaml          for `runbook recover STAGE -f`
    <attempt>/recovery/NN_STAGE_recovery.ipynb    the same in JupyterLab, its parameters filled in

A tool, no evidence: no seal covers the folder, and the recovery is an attempt of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .. import notebook
from ..context import Context
from ..files import replace_file
from ..params import RecoveryParams
from ..playbook import NOTEBOOKS

FOLDER = "recovery"


def prepare(context: Context) -> None:
    """Lay the way back ready, once an attempt; nothing in a replay."""
    folder = context.folder / FOLDER
    if folder.exists() or not context.scope.live:
        return
    folder.mkdir()
    values = parameters(context)
    name = NOTEBOOKS[f"{context.stage}_recovery"]
    replace_file(folder / name, notebook.filled_in(notebook.NOTEBOOKS / name, values))
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    replace_file(folder / "params.yaml", text)


def parameters(context: Context) -> dict[str, Any]:
    """The parameters of the recovery that undoes this attempt."""
    params = context.params
    made = RecoveryParams(
        site=params.site,
        release=params.release,
        commit=params.commit,
        mode="apply",
        issue=params.issue,
        previous_release=params.previous_release,
        undoes=context.record.entries()[0].body["attempt"],
    )
    return made.model_dump(mode="json", include=made.model_fields_set)


def laid_ready(folder: Path) -> Path | None:
    """The parameter file of an attempt's way back; None where there is none."""
    path = folder / FOLDER / "params.yaml"
    return path if path.is_file() else None
