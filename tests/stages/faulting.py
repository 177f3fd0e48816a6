"""Faults as test cases, and a stage walked to its end, as the tests of faults have them in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.changes.apply import Change
from runbook_lib.context import Judge
from runbook_lib.errors import StageRefused
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.rehearsal.faults.table import Fault
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.stage import Stage, open_stage
from runbook_lib.strict import parse_yaml
from runbook_lib.verdicts import ExitCode, Verdict

EXIT = {"FAIL": ExitCode.REFUSED, "INCONCLUSIVE": ExitCode.INCONCLUSIVE}


def cases(faults: Sequence[Fault]) -> list[Any]:
    """All of them, of which the everyday suite runs the first per outcome and item."""
    first: dict[tuple[str, str], str] = {}
    for fault in faults:
        first.setdefault((fault.item, fault.outcome), fault.name)
    return [
        pytest.param(f, id=f.name, marks=[] if f.name in first.values() else pytest.mark.torture)
        for f in faults
    ]


def opened(network: RehearsalNetwork, runbook: str, **changes: Any) -> Stage:
    """Opened with the network's own parameter file."""
    file = network.params[runbook]
    given = STAGE_PARAMS[runbook]().model_dump() | parse_yaml(file.read_bytes(), file.name)
    return open_stage(runbook, **{**given, **changes})


def run_cell(stage: Stage, item: Judge | Change) -> None:
    if isinstance(item, Change):
        stage.change(item)
    else:
        stage.check(item)


def ended(stage: Stage) -> tuple[Verdict, Path]:
    """Enforced and closed; its verdict, which is what enforcing it said, and its folder."""
    try:
        stage.enforce()
        code = ExitCode.PASSED
    except StageRefused as refused:
        code = refused.exit_code
    verdict = stage.verdict()
    stage.close()

    assert code == verdict.exit_code
    return verdict, stage.folder
