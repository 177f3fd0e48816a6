"""A stage opened with the network's own parameters, and walked to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runbook_lib.errors import StageRefused
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.stage import Stage, open_stage
from runbook_lib.strict import parse_yaml
from runbook_lib.verdicts import ExitCode, Verdict


def opened(network: RehearsalNetwork, runbook: str, **changes: Any) -> Stage:
    """Opened with the network's own parameter file."""
    file = network.params[runbook]
    given = STAGE_PARAMS[runbook]().model_dump() | parse_yaml(file.read_bytes(), file.name)
    return open_stage(runbook, **{**given, **changes})


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
