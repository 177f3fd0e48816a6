"""A recovery that tells people, on a network with telemetry: what the tests of that share."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.apply import Applier, Change
from runbook_lib.checks.recovery import announce_halt, plan_halt
from runbook_lib.context import Context
from runbook_lib.evidence.incidents import Incident, Incidents
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import CheckResult
from runbook_lib.stage import Stage
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.network import RehearsalNetwork

from ..events import event
from .conftest import clear, ended, enter, given, held, opened

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
RELEASES = iter(f"v1.4.0-{number}" for number in range(1, 1000))


made = held(RehearsalNetwork, sizes={"development": 2, "testnet": 2, "mainnet": 2})


@pytest.fixture
def network(made: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[RehearsalNetwork]:
    enter(made, monkeypatch)
    made.forge.comments.clear()
    made.forge.refill()
    for name in ("announced", "notifications"):
        (made.root / f"{name}.json").unlink(missing_ok=True)
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
        (found,) = Incidents(self.store).of(self.release)
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
        """One run of its change alone, and that its replay comes to the same."""
        if self.folder != Path():
            changes = {"attempt": 1, "retry_reason": "try again", **changes}
        runbook, params = f"{self.stage}_recovery", self.params(**changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(playbook.DECLARED, runbook, (self.change.item,))
            with opened(runbook, params) as stage:
                verdict, result = self._walk(stage)
            self.folder = stage.folder
            patch.setenv("RUNBOOK_REPLAY", str(self.folder))
            with opened(runbook, params) as replayed:
                _, again = self._walk(replayed)
        assert again == result
        return verdict, result

    def comes_to(self, code: ExitCode, **changes: Any) -> CheckResult:
        """The result of a run that ends with ``code``."""
        verdict, result = self.run(**changes)
        assert verdict.exit_code is code, result.reason
        return result

    def _walk(self, stage: Stage) -> tuple[Verdict, CheckResult]:
        stage.change(self.change)
        verdict, _ = ended(stage)
        result = verdict.items[0].result
        assert result is not None
        return verdict, result


def forward(network: RehearsalNetwork, release: str, stage: str, **hostile: str) -> None:
    """An apply that was stopped half way, as its log tells it."""
    now = datetime.fromtimestamp(network.world.clock.now(), UTC)
    at = (now - timedelta(minutes=20)).isoformat()
    item = playbook.DECLARED[stage][-1]
    opened = event(
        "opened", stage=stage, release=release, commit=network.release.commit, site="rehearsal",
        cluster=CLUSTERS[stage], source="rehearsal", operator="rehearsal", now=at,
        declared=playbook.DECLARED[stage],
    )  # fmt: skip
    log = Store(network.root / "store").create(opened).log
    log.append(event("plan", digest="sha256:" + "a" * 64, approved_by=["rehearsal"]))
    step = {"item": item, "node": "main-1", "step": "restart", "stem": "", "at": at}
    log.append(
        event("step", **{**step, "phase": "failed", "code": 1, "problem": "no answer", **hostile})
    )
