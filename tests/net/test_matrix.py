"""Every fault at every item that must notice it: the frozen outcome, exit code and subject.

And of each stage one fault of each outcome through the command line, with a kernel of its own.
"""

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from runbook_lib.evidence.events import StepTaken, of
from runbook_lib.evidence.log import Log
from runbook_lib.sources.redact import Redactor
from runbook_rehearsal.faults.table import FAULTS

from ..conftest import ran, unmeasured
from .matrix import GROUPS, Case, came_out, came_to, cases, frozen, healthy, meet, without_fault
from .practice import Practice

LONGEST_FIRST = GROUPS[::-1]
EVERY = [case for group in LONGEST_FIRST for case in cases(group)]
RUNBOOK = Path(sys.executable).with_name("runbook")
WHOLE = {
    "mainnet": ("hotfix-ci-red", "hotfix-ci-pending"),
    "canary": ("candidate-dry-run-fails", "promtool-missing"),
    "testnet": ("soak-job-failed", "soak-job-missing"),
    "development": ("ci-red", "ci-pending"),
}
"""What is run headless as well: a FAIL and an INCONCLUSIVE of each stage."""


@pytest.fixture(scope="module")
def practice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Practice]:
    """One practice network a worker; its release is carried as far as its tests need."""
    with Practice(tmp_path_factory.mktemp("practice")) as made:
        yield made


@cache
def _redactor(names: frozenset[str]) -> Redactor:
    return Redactor(names)


@pytest.fixture(autouse=True)
def environment(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs a notebook here has the network's tokens, and asks again without a pause; what was
    found harmless in one is not looked through again in the next."""
    for name, value in practice.network.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("runbook_lib.sources.github.SECONDARY_S", 0.0)
    monkeypatch.setattr("runbook_lib.sources.http.FIRST_WAIT_S", 0.0)
    place = "runbook_lib.sources.tape.Redactor"
    monkeypatch.setattr(place, lambda names: _redactor(frozenset(names)))


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.group}:{case.key}") for case in EVERY]
)
def test_a_fault_comes_to_its_frozen_outcome(practice: Practice, case: Case) -> None:
    """The item notices, as the table of faults declares it."""
    run, expected = meet(practice, case), frozen()[case.key]
    found = came_to(run, case.item)
    # Others may fail beside it, by how many samples a window happened to hold.
    if expected["subject"] in run.deciding(case.item):
        found["subject"] = expected["subject"]

    assert found == expected, run.verdict


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=f"{group}:{name}")
        for group in LONGEST_FIRST
        for name in healthy(group)
    ],
)
def test_without_a_fault_every_item_comes_to_its_frozen_outcome(
    practice: Practice, name: str
) -> None:
    """The release on which every fault is noticed is a healthy one without them."""
    run = without_fault(practice, name)

    assert came_out(run) == frozen()[name], run.verdict


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, id=f"{point.partition('.')[0]}:{point} twice")
        for point in ("mainnet.apply", "canary.apply", "testnet.apply", "development.apply")
    ],
)
def test_every_cell_run_twice_in_a_kernel_changes_nothing_more(
    practice: Practice, point: str
) -> None:
    """Every outcome stays; no step is taken again, and nothing is posted again."""
    runs, stage = [], point.partition(".")[0]
    for twice in (False, True):
        practice.at(point)
        runs.append(practice.run(stage, twice=twice))
    once, again = ([*of(Log(r.folder / "log.jsonl").events(), StepTaken)] for r in runs)

    assert came_out(runs[1]) == came_out(runs[0])
    assert [(s.node, s.step, s.phase) for s in again] == [(s.node, s.step, s.phase) for s in once]


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        pytest.param(stage, fault, id=f"{stage}:{fault}")
        for stage, faults in WHOLE.items()
        for fault in faults
    ],
)
def test_a_fault_ends_a_headless_run_with_its_frozen_outcome(
    practice: Practice, tmp_path: Path, stage: str, fault: str
) -> None:
    """As in process: the exit code and the item's outcome, in the document on stdout."""
    case = Case(FAULTS[fault].item, FAULTS[fault])
    practice.at(case.point)
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(practice.given[stage]))
    practice.network.fault(f"{fault}@{stage}")

    done = ran(RUNBOOK, "run", stage, "-f", file, "--json", env=unmeasured())

    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    (item,) = [item for item in document["items"] if item["id"] == case.item]
    expected = frozen()[case.key]
    assert (item["outcome"], item["state"]) == (expected["outcome"], "judged"), done.stderr
    assert done.returncode == document["exit_code"] == expected["exit_code"]
    assert Path(document["evidence"]).is_dir()
