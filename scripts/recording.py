"""Record the runs that ship with the notebooks: small rehearsals, kept as record and tape."""

from __future__ import annotations

import os
import shutil

from runbook_lib.changes.adopt import adopt
from runbook_lib.launch import run_stage
from runbook_lib.params import PROJECT, parse_yaml
from runbook_lib.rehearsal.network import RehearsalNetwork
from runbook_lib.session import RECORDINGS

# Below the project, so that the recording holds no path of the machine it was made on.
ROOT = PROJECT / ".rehearsal" / "recording"


def main() -> int:
    shutil.rmtree(ROOT, ignore_errors=True)
    with RehearsalNetwork(ROOT, seed=1, servers="embedded") as network:
        os.environ.update(network.env)
        adopt(str(network.site), "development")
        file = network.params["development"]
        report = run_stage("development", parse_yaml(file.read_bytes(), file.name))
        if report.exit_code != 0 or report.folder is None:
            raise SystemExit(f"development: expected a passing run, got {report}")
        target = RECORDINGS / "development"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(report.folder / "tape", target / "tape")
        shutil.copy(report.folder / "record.jsonl", target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
