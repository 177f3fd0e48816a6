"""A recovery that tells people, on a network with telemetry: what the tests of that share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.apply import Applier, Change
from runbook_lib.checks import recovery as telling
from runbook_lib.checks.recovery import announce_halt, plan_halt
from runbook_lib.context import Context
from runbook_lib.evidence.incidents import Incident, incidents_of
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import CheckResult, Row
from runbook_lib.stage import Stage, open_stage
from runbook_lib.verdicts import Verdict
from runbook_rehearsal.network import RehearsalNetwork

from ..events import event
from .conftest import clear, ended, enter, given, held

TEXTS = {
    "summary": "Rewards stopped on both canaries.",
    "impact": "No validator lost stake.",
    "mitigations": ["the gates are off again"],
    "next_steps": ["mend the replay worker"],
}
CLUSTERS = {
    "development": "development",
    "testnet": "testnet",
    "canary": "mainnet",
    "mainnet": "mainnet",
}


def _halt(context: Context, applier: Applier) -> CheckResult:
    announce_halt(context, applier)
    return context.conclude(passed="announced")


HALT = Change("testnet.recover.halt", plan_halt, _halt, exclusive=False)
CHANGES = (
    telling.incident,
    HALT,
    telling.governance_incident,
    telling.public_report,
    telling.council,
)
RELEASES = iter(f"v1.4.0-{number}" for number in range(1, 1000))


made = held(RehearsalNetwork, sizes={"development": 2, "testnet": 2, "mainnet": 2})


@pytest.fixture
def network(made: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[RehearsalNetwork]:
    enter(made, monkeypatch)
    for change in CHANGES:
        runbook = f"{change.item.partition('.')[0]}_recovery"
        monkeypatch.setitem(playbook.DECLARED, runbook, (change.item,))
    made.forge.comments.clear()
    made.forge.refill()
    (made.root / "announced.json").unlink(missing_ok=True)
    (made.root / "notifications.json").unlink(missing_ok=True)
    yield made
    clear(made)


@dataclass
class Recovery:
    """The recovery of an apply that was stopped, tried as often as wanted."""

    network: RehearsalNetwork
    change: Change
    release: str = field(default_factory=lambda: next(RELEASES))
    given: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    def __post_init__(self) -> None:
        self.stage = self.change.item.partition(".")[0]
        forward(self.network, self.release, self.stage)

    @property
    def store(self) -> Store:
        return Store(self.network.root / "store")

    @property
    def incident(self) -> Incident:
        (found,) = incidents_of(self.store, self.release)
        return found

    @property
    def issue(self) -> dict[str, Any]:
        """The one issue that tells of it."""
        mark = f"incident={self.incident.id} "
        (found,) = [one for one in self.network.forge.issues.values() if mark in one["body"]]
        return dict(found)

    def params(self, **changes: Any) -> dict[str, Any]:
        about = {"release": self.release, "issue": 42, "mode": "apply", **TEXTS, **self.given}
        return given(self.network, f"{self.stage}_recovery", **{**about, **changes})

    def run(self, **changes: Any) -> tuple[Verdict, CheckResult]:
        """One try, and that its replay comes to the same."""
        runbook = f"{self.stage}_recovery"
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(playbook.DECLARED, runbook, (self.change.item,))
            return self._run(runbook, **changes)

    def _run(self, runbook: str, **changes: Any) -> tuple[Verdict, CheckResult]:
        if self.folder != Path():
            changes = {"attempt": 1, "retry_reason": "try again", **changes}
        stage = open_stage(runbook, self.params(**changes))
        verdict, result = self._walk(stage)
        self.folder = stage.folder
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RUNBOOK_REPLAY", str(self.folder))
            replayed = open_stage(runbook, self.params(**changes))
            _, again = self._walk(replayed)
        assert again == result
        return verdict, result

    def _walk(self, stage: Stage) -> tuple[Verdict, CheckResult]:
        try:
            stage.change(self.change)
            verdict, _ = ended(stage)
        finally:
            stage.close()
        result = verdict.items[0].result
        assert result is not None
        return verdict, result


def forward(network: RehearsalNetwork, release: str, stage: str, **hostile: str) -> None:
    """An apply that was stopped half way, as its record tells it."""
    now = datetime.fromtimestamp(network.world.clock.now(), UTC)
    at = (now - timedelta(minutes=20)).isoformat()
    item = playbook.DECLARED[stage][-1]
    opened = event(
        "opened", stage=stage, release=release, commit=network.release.commit, site="rehearsal",
        cluster=CLUSTERS[stage], source="rehearsal", operator="rehearsal", now=at,
        declared=playbook.DECLARED[stage],
    )  # fmt: skip
    record = Store(network.root / "store").create(opened).record
    record.append(event("plan", digest="sha256:" + "a" * 64, approved_by=["rehearsal"]))
    step = {"item": item, "node": "main-1", "step": "restart", "stem": "", "at": at}
    record.append(
        event("step", **{**step, "phase": "failed", "code": 1, "problem": "no answer", **hostile})
    )


def row(result: CheckResult, subject: str) -> Row:
    (found,) = [one for one in result.rows if one.subject == subject]
    return found
