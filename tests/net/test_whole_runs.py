"""One fault of each outcome a stage, through the command line and a kernel of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from runbook_rehearsal.faults.table import FAULTS

from ..conftest import unmeasured
from .matrix import Case, frozen
from .practice import Practice

RUNBOOK = Path(sys.executable).with_name("runbook")
ORDER = (
    ("development", "ci-red"),
    ("development", "ci-pending"),
    ("testnet", "soak-job-failed"),
    ("testnet", "soak-job-missing"),
    ("canary", "candidate-dry-run-fails"),
    ("canary", "promtool-missing"),
    ("mainnet", "hotfix-ci-red"),
    ("mainnet", "hotfix-ci-pending"),
)


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Practice]:
    with Practice(tmp_path_factory.mktemp("whole")) as made:
        yield made


@pytest.fixture(autouse=True)
def environment(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs a notebook here has the network's tokens; other tests of the worker have not."""
    for name, value in practice.network.env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("stage", "fault"), ORDER)
def test_a_fault_ends_a_headless_run_with_its_frozen_outcome(
    practice: Practice, tmp_path: Path, stage: str, fault: str
) -> None:
    """As in process: the exit code and the item's outcome, in the document on stdout."""
    case = Case(FAULTS[fault].item, FAULTS[fault])
    practice.at(case.point)
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(practice.given[stage]))
    practice.network.fault(f"{fault}@{stage}")

    done = subprocess.run(
        [RUNBOOK, "run", stage, "-f", file, "--json"],
        env=unmeasured(), capture_output=True, text=True, check=False,
        timeout=150,
    )  # fmt: skip

    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    (item,) = [item for item in document["items"] if item["id"] == case.item]
    expected = frozen()[case.key]
    assert (item["outcome"], item["state"]) == (expected["outcome"], "judged"), done.stderr
    assert done.returncode == document["exit_code"] == expected["exit_code"]
    assert Path(document["evidence"]).is_dir()


def test_every_stage_has_one_of_each_outcome() -> None:
    """FAIL and INCONCLUSIVE both."""
    assert sorted((stage, FAULTS[fault].outcome) for stage, fault in ORDER) == sorted(
        (stage, outcome)
        for stage in ("development", "testnet", "canary", "mainnet")
        for outcome in ("FAIL", "INCONCLUSIVE")
    )
