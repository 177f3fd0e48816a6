"""An apply on a small rehearsal network without telemetry, and its recovery, cell by cell.

``python -m tests.stages.recovering STAGE PARAMS.json`` does the same in a process of its own. ``PAUSE_AT=N``: as
the N-th entry of this run has been appended it says so and waits for its input.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import opening, playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.changes.targets import TURNS, make_plan
from runbook_lib.checks import development, recovery
from runbook_lib.checks.rollouts import rollout
from runbook_lib.evidence.events import Event
from runbook_lib.evidence.log import Log
from runbook_lib.outcomes import CheckResult
from runbook_lib.stage import Stage, open_stage
from runbook_lib.verdicts import Verdict
from runbook_rehearsal.network import RehearsalNetwork

from .conftest import clear, ended, entries, given, held, opened, plan_digest, practising

SIZES = {"development": 2, "testnet": 6, "mainnet": 4}
GATES = ("timetoke_rewards", "witness_network")
CLUSTER = {"development": "development", "testnet": "testnet"}
_RELEASES = count(1)


def declared(stage: str) -> tuple[str, ...]:
    """The changes of a stage alone: what they need of telemetry this network has not."""
    return tuple(dict.fromkeys(turn.item for turn in TURNS[stage]))


def declare(patch: pytest.MonkeyPatch) -> None:
    for stage in playbook.STAGES:
        patch.setitem(playbook.DECLARED, stage, declared(stage))
        patch.setitem(playbook.PLAN_BEFORE, stage, declared(stage)[0])


@dataclass
class Recovering:
    """A release on a network; each test has a release of its own."""

    network: RehearsalNetwork
    release: str

    def params(self, runbook: str, **changes: Any) -> dict[str, Any]:
        about = {"release": self.release, "previous_release": "v1.3.0", **changes}
        return given(self.network, runbook, **about)

    @contextmanager
    def opened(self, runbook: str, **changes: Any) -> Iterator[Stage]:
        with opened(runbook, self.params(runbook, **changes)) as stage:
            yield stage

    def planned(self, stage: str) -> dict[str, Any]:
        """What an apply of the stage's plan is opened with."""
        if stage == "development":
            return self.params(stage, mode="apply")
        params = self.params(stage, mode="plan")
        with self.opened(stage, **params) as plan:
            plan.plan(make_plan)
        return {**params, "mode": "apply", "approved_plan": plan_digest(plan.folder)}

    def apply(self, stage: str, **given: Any) -> tuple[Verdict, Path]:
        """The stage's changes made."""
        given = {**self.planned(stage), **given}
        for _ in range(10):
            with self.opened(stage, **given) as opened:
                verdict, folder = walk(opened, stage), opened.folder
            if verdict.exit_code != 4:
                break
            self.network.operators.settle()
            given["attempt"] = verdict.attempt
        return verdict, folder

    def recover(self, stage: str, **given: Any) -> tuple[Verdict, Path]:
        """The first item of the stage's recovery: the way back."""
        with self.opened(f"{stage}_recovery", **{"mode": "apply", **given}) as opened:
            opened.expect(recovery.expectations)
            opened.plan(recovery.plan)
            for change in recovery.RUNS[f"{stage}_recovery"][:1]:
                opened.change(change)
            return opened.verdict(), opened.folder

    def gates(self, cluster: str) -> dict[str, bool]:
        """Node -> whether any of the two gates is on, of those that run."""
        running = self.network.fleet.running
        names = [node.name for node in self.network.world.clusters[cluster].nodes]
        return {
            name: any(running[name].config.gates[gate] for gate in GATES)
            for name in names
            if name in running
        }


def walk(stage: Stage, name: str) -> Verdict:
    stage.plan(make_plan)
    for item in declared(name):
        made = rollout(item, "{nodes} made")
        stage.change(development.deploy if name == "development" else made)
    return ended(stage)[0]


def back(verdict: Verdict) -> CheckResult:
    """What the way back came to."""
    found = verdict.items[0].result
    assert found is not None, verdict.items[0].reason
    return found


def steps(folder: Path, phase: str = "done") -> list[tuple[str, str]]:
    """(node, step) of the journal's steps that came to ``phase``."""
    bodies = [e for e in entries(folder) if e["kind"] == "step"]
    return [(b["node"], b["step"]) for b in bodies if b["phase"] == phase]


@contextmanager
def recovering(
    root: Path, *, telemetry: bool = False, **options: Any
) -> Iterator[RehearsalNetwork]:
    with practising(root, telemetry=telemetry, sizes=SIZES, **options) as (network, patch):
        declare(patch)
        yield network


def fresh(network: RehearsalNetwork, cluster: str, number: int) -> Recovering:
    """The cluster as it began, taken over into an empty store, and a release under a name of its own."""
    network.reinstall(cluster)
    # Every log of a store is read at each plan: one that grows would slow the later tests down.
    shutil.rmtree(network.root / "store")
    (network.root / "store").mkdir()
    release = f"v1.4.0-{number}"
    artifacts = network.root / "artifacts"
    (artifacts / release).symlink_to(artifacts / "v1.4.0")
    running = [network.release.previous_artifact]
    if cluster == "mainnet":
        network.install_candidate()
        running.append(network.release.artifact)
    adopt(str(network.site), cluster, artifacts=running)
    return Recovering(network, release)


network = held(recovering)
Prepare = Callable[[str], Recovering]


@pytest.fixture
def prepare(network: RehearsalNetwork) -> Iterator[Prepare]:
    yield lambda stage: fresh(network, CLUSTER.get(stage, "mainnet"), next(_RELEASES))
    clear(network)


def applied(made: Recovering, stage: str) -> Path:
    verdict, folder = made.apply(stage)
    assert int(verdict.exit_code) == 0, [item.reason for item in verdict.blocking]
    return folder


def pause() -> None:
    """Count what is appended from here on, and wait at the entry that the environment names."""
    append, left = Log.append, int(os.environ.get("PAUSE_AT", "0"))

    def counted(self: Log, event: Event) -> Event:
        nonlocal left
        entry = append(self, event)
        left -= 1
        if left == 0:
            print("paused", flush=True)
            sys.stdin.readline()
        return entry

    Log.append = counted  # type: ignore[method-assign]


def main() -> int:
    with pytest.MonkeyPatch.context() as patch:
        declare(patch)
        patch.setattr(opening, "require_order", lambda *given: None)
        runbook, params = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
        stage = open_stage(runbook, params)
        print("opened", flush=True)
        pause()
        try:
            if runbook in playbook.RECOVERY:
                stage.plan(recovery.plan)
                stage.change(recovery.RUNS[runbook][0])
                verdict = stage.verdict()
            else:
                verdict = walk(stage, runbook)
        finally:
            stage.close()
    reasons = {item.item: item.reason for item in verdict.items}
    print(json.dumps({"reasons": reasons}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
