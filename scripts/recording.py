"""Record the runs that ship with the notebooks: small rehearsals, kept as record and tape.

The release before goes through the stage first, so that there is a baseline to compare with.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runbook_lib.changes.adopt import adopt
from runbook_lib.launch import run_stage
from runbook_lib.params import PROJECT, parse_yaml
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.session import RECORDINGS

# Below the project, so that the recording holds no path of the machine it was made on.
ROOT = PROJECT / ".rehearsal" / "recording"
HOURS = 4.0
"""Long enough to prove something, short enough to ship."""


def main() -> int:
    shutil.rmtree(ROOT, ignore_errors=True)
    with RehearsalNetwork(ROOT, seed=1, servers="embedded") as network:
        os.environ.update(network.env)
        adopt(str(network.site), "development")
        file = network.params["development"]
        params = {**parse_yaml(file.read_bytes(), file.name), "baseline_hours": HOURS}
        before = params["previous_release"]
        shutil.copytree(ROOT / "artifacts" / "previous", ROOT / "artifacts" / before)
        record({**params, "release": before, "previous_release": ""})
        folder = record(params)
        target = RECORDINGS / "development"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder / "tape", target / "tape")
        shutil.copy(folder / "record.jsonl", target)
    return 0


def record(params: Mapping[str, Any]) -> Path:
    """The folder of a run that passed."""
    report = run_stage("development", dict(params))
    if report.exit_code != 0 or report.folder is None:
        raise SystemExit(f"development: expected a passing run, got {report}")
    return Path(report.folder)


if __name__ == "__main__":
    raise SystemExit(main())
