"""Record the runs that ship with the notebooks: small rehearsals, kept as log and tape.

The release before goes through the stage first, so that there is a baseline to compare with.
"""

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.launch import run_stage
from runbook_lib.playbook import NOTEBOOKS
from runbook_lib.recording import RECORDINGS
from runbook_lib.strict import PROJECT, parse_yaml
from runbook_lib.verdicts import ExitCode
from runbook_rehearsal.network import RehearsalNetwork
from runbook_rehearsal.promote import Promotion
from runbook_rehearsal.rehearse import HISTORY_S, take_over

# Below the project, so that the recording holds no path of the machine it was made on.
ROOT = PROJECT / ".rehearsal" / "recording"
HOURS = 4.0
"""Long enough to prove something, short enough to ship."""


def main() -> int:
    shutil.rmtree(ROOT, ignore_errors=True)
    with RehearsalNetwork(ROOT, seed=1, servers="embedded") as network:
        os.environ.update(network.env)
        adopt(str(network.site), "development", artifacts=[network.release.previous_artifact])
        before = "v1.3.9"  # a build of its own name, which passed through the stage
        params = {**read(network, "development"), "baseline_hours": HOURS}
        params["previous_release"] = before
        shutil.copytree(ROOT / "artifacts" / params["release"], ROOT / "artifacts" / before)
        record(network, "development", {**params, "release": before, "previous_release": ""})
        network.reinstall("development")
        adopt(str(network.site), "development", artifacts=[network.release.previous_artifact])
        ship(
            playbook.PREFLIGHT,
            record(network, playbook.PREFLIGHT, read(network, playbook.PREFLIGHT)),
        )
        ship("development", record(network, "development", params))
    carried()
    return 0


def carried() -> None:
    """A release through the stages after development, as a team carries it; each ships its end."""
    root = ROOT.with_name("recording-stages")
    shutil.rmtree(root, ignore_errors=True)
    with RehearsalNetwork(
        root, seed=1, servers="embedded", history_s=HISTORY_S, team=True
    ) as network:
        os.environ.update(network.env)
        take_over(network)
        promotion = Promotion(network, print)
        runs = promotion.carry(tuple(stage for stage in playbook.STAGES if stage in NOTEBOOKS))
        if not runs[-1].passed:
            raise SystemExit(
                f"{runs[-1].stage}: expected it to pass, got {runs[-1].report.problems}"
            )
        for run in runs:
            if run.mode == "apply" and run.stage != "development":
                ship(run.stage, Path(run.report.folder))
        if playbook.REPORT in NOTEBOOKS:
            ship(playbook.REPORT, Path(promotion.report().folder))
        # Each stage is taken back once all of them are recorded, the last one first.
        for stage in reversed(playbook.STAGES):
            run = promotion.recover(stage)[-1]
            if not run.passed:
                raise SystemExit(f"{run.stage}: expected it to pass, got {blocking(run.report)}")
            ship(run.stage, Path(run.report.folder))


def read(network: RehearsalNetwork, stage: str) -> dict[str, Any]:
    file = network.params[stage]
    return parse_yaml(file.read_bytes(), file.name)


def blocking(report: Any) -> str:
    """Why a run did not pass."""
    items = report.verdict.blocking if report.verdict is not None else ()
    return "; ".join([*report.problems, *(f"{item.item}: {item.reason}" for item in items)])


def record(network: RehearsalNetwork, stage: str, params: Mapping[str, Any]) -> Path:
    """The folder of a run that passed, continued once its windows are over."""
    report = run_stage(stage, dict(params))
    while report.exit_code == ExitCode.WAITING and report.verdict is not None:
        left = report.verdict.return_at.timestamp() - network.world.clock.now()
        network.fast_forward(max(left, 0.0) + 1.0)
        report = run_stage(stage, {**params, "attempt": report.verdict.attempt})
    if report.exit_code != ExitCode.PASSED or report.folder is None:
        raise SystemExit(f"{stage}: expected a passing run, got: {blocking(report)}")
    return Path(report.folder)


def ship(stage: str, folder: Path) -> None:
    """Keep a run as the archive its notebook replays; the same files make the same bytes."""
    RECORDINGS.mkdir(exist_ok=True)
    with zipfile.ZipFile(RECORDINGS / f"{stage}.zip", "w", zipfile.ZIP_LZMA) as archive:
        for path in [folder / "log.jsonl", *sorted((folder / "tape").rglob("*"))]:
            if path.is_file():
                named = zipfile.ZipInfo(str(path.relative_to(folder)))
                archive.writestr(named, path.read_bytes(), zipfile.ZIP_LZMA)


if __name__ == "__main__":
    raise SystemExit(main())
