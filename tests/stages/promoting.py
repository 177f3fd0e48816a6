"""A canary promotion on a rehearsal network, cell by cell as its notebook has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import opening, playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import canary
from runbook_lib.errors import StageRefused
from runbook_lib.outcomes import CheckResult
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.sources.tape import Entry, read_entries
from runbook_lib.stage import Stage, open_stage
from runbook_lib.verdicts import Verdict
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import mutations

CANDIDATE, REWARDS = "canary.ready.candidate-installed", "canary.activate.rewards-gate"
OBSERVE, CLIENTS = "canary.activate.observe", "canary.activate.witness-clients"
DECLARED = (CANDIDATE, REWARDS, OBSERVE, CLIENTS)
CANARIES = ("main-1", "main-2")
RELEASE = "v1.4.0"
SIZES = {"development": 1, "testnet": 1}  # history of those does not matter


@dataclass
class Promotion:
    """One attempt of the canary stage."""

    network: RehearsalNetwork
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.network.world.clock.now(), UTC)

    def forward(self, to: datetime) -> None:
        """A minute past an instant."""
        self.network.fast_forward((to - self.now).total_seconds() + 60)

    def plan(self) -> None:
        """The plan, approved as a single operator does: by naming its digest."""
        window = {
            "window_start": (self.now - timedelta(hours=1)).isoformat(),
            "window_end": (self.now + timedelta(hours=40)).isoformat(),
        }
        with self.opened(mode="plan", **window) as stage:
            verdict, folder = self.walk(stage), stage.folder
        assert verdict.exit_code == 0, verdict.blocking
        digest = next(e["body"]["digest"] for e in lines(folder) if e["kind"] == "plan")
        self.given = {**window, "mode": "apply", "approved_plan": digest}

    @contextmanager
    def opened(self, **given: Any) -> Iterator[Stage]:
        params = {
            **STAGE_PARAMS["canary"]().model_dump(),
            "site": str(self.network.site),
            "release": RELEASE,
            "commit": self.network.release.commit,
            "baseline_hours": 11.0,
            **self.given,
            **given,
        }
        stage = open_stage("canary", params)
        try:
            yield stage
        finally:
            stage.close()

    def walk(self, stage: Stage) -> Verdict:
        stage.check(canary.candidate_installed)
        stage.plan(canary.plan)
        stage.change(canary.rewards_gate)
        stage.check(canary.observe)
        stage.change(canary.witness_clients)
        with suppress(StageRefused):
            stage.enforce()
        return stage.verdict()

    def to_its_end(self) -> tuple[Verdict, Path]:
        """Returned to whenever it is due."""
        verdict, folder = self.go_on()
        while verdict.return_at is not None:
            self.forward(verdict.return_at)
            verdict, folder = self.go_on(attempt=verdict.attempt)
        return verdict, folder

    def go_on(self, **given: Any) -> tuple[Verdict, Path]:
        with self.opened(**given) as stage:
            return self.walk(stage), stage.folder


def promotion(root: Path, patch: pytest.MonkeyPatch) -> Iterator[Promotion]:
    """A network whose canaries' operators have installed the candidate, taken over as it is."""
    with RehearsalNetwork(root, sizes=SIZES) as network:
        for name, value in network.env.items():
            patch.setenv(name, value)
        patch.setitem(playbook.DECLARED, "canary", DECLARED)
        patch.setitem(playbook.PLAN_BEFORE, "canary", REWARDS)
        patch.setattr(opening, "require_order", lambda *given: None)
        network.install_candidate()
        running = [network.release.previous_artifact, network.release.artifact]
        adopt(str(network.site), "mainnet", artifacts=running)
        yield Promotion(network)


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]


def result(verdict: Verdict, item: str) -> CheckResult:
    found = next(each.result for each in verdict.items if each.item == item)
    assert found is not None
    return found


def changed(folder: Path) -> list[Entry]:
    return mutations(read_entries(folder / "tape"))
