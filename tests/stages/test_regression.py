"""A canary stage in one session, and mainnet's first question: are its canaries no worse?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import canary, mainnet
from runbook_lib.errors import StageRefused
from runbook_lib.evidence import order
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.site import read_site
from runbook_lib.sources.tape import Entry, read_entries
from runbook_lib.stage import Stage
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import mutations
from .conftest import enter, given, opened

ITEM = "mainnet.ready.no-regression"


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
        return self.network.now

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
    def opened(self, **changes: Any) -> Iterator[Stage]:
        more = {"baseline_hours": 11.0, **self.given, **changes}
        with opened("canary", given(self.network, "canary", **more)) as stage:
            yield stage

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
        enter(network, patch)
        patch.setitem(playbook.DECLARED, "canary", DECLARED)
        patch.setitem(playbook.PLAN_BEFORE, "canary", REWARDS)
        network.install_candidate()
        adopt(str(network.site), "mainnet", artifacts=[network.release.previous_artifact])
        yield Promotion(network)


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]


def result(verdict: Verdict, item: str) -> CheckResult:
    found = next(each.result for each in verdict.items if each.item == item)
    assert found is not None
    return found


def changed(folder: Path) -> list[Entry]:
    return mutations(read_entries(folder / "tape"))


@dataclass
class Watch:
    """A canary stage that passed, and what mainnet makes of it."""

    promotion: Promotion
    verdict: Verdict
    folder: Path

    @contextmanager
    def opened(self, **changes: Any) -> Iterator[Stage]:
        window = {key: self.promotion.given[key] for key in ("window_start", "window_end")}
        params = given(self.promotion.network, "mainnet", **window, **changes)
        with opened("mainnet", params) as stage:
            yield stage

    def judged(self, **given: Any) -> tuple[CheckResult, Verdict, Path]:
        with self.opened(**given) as stage:
            stage.check(mainnet.no_regression)
            with suppress(StageRefused):
                stage.enforce()
            verdict = stage.verdict()
            return result(verdict, ITEM), verdict, stage.folder


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """The canary stage, carried to its end."""
    root = tmp_path_factory.mktemp("regression") / "network"
    with pytest.MonkeyPatch.context() as patch:
        for made in promotion(root, patch):
            made.plan()
            verdict, folder = made.to_its_end()
            name = f"{RELEASE}/canary/{verdict.attempt:04d}"
            policy = read_site(str(made.network.site)).policy_digest
            earlier = order.Earlier(
                stage="canary", attempt=verdict.attempt, name=name, policy=policy
            )
            patch.setattr(order, "permitted", Mock(return_value=earlier))
            patch.setitem(playbook.DECLARED, "mainnet", (ITEM,))
            yield Watch(made, verdict, folder)


@pytest.fixture(scope="module")
def seven(watch: Watch) -> Watch:
    """Seven epochs later."""
    early, verdict, _ = watch.judged()
    assert (verdict.exit_code, early.outcome) == (ExitCode.WAITING, Outcome.INCONCLUSIVE)
    assert early.reason == (
        "epochs: canaries with rewards on: expected 7 whole epochs, got 3 so far"
    )
    assert verdict.return_at is not None
    watch.promotion.forward(verdict.return_at)
    return watch


def test_a_canary_stage_that_is_returned_to_passes(watch: Watch) -> None:
    """No node is changed twice."""
    assert watch.verdict.exit_code is ExitCode.PASSED, watch.verdict.blocking
    assert len(changed(watch.folder)) == 8


def test_its_epochs_follow_the_first_read_back_and_the_clients_them(watch: Watch) -> None:
    """What was before is pinned once, before the first step."""
    entries = lines(watch.folder)
    states = [e["body"] for e in entries if e["kind"] == "state"]
    anchor = max(datetime.fromisoformat(s["at"]) for s in states if s["item"] == REWARDS)
    observed = result(watch.verdict, OBSERVE).data
    assert observed["since"] == anchor.isoformat()
    epochs: Any = observed["epochs"]
    assert timedelta(0) < datetime.fromisoformat(epochs[0]["start"]) - anchor < timedelta(hours=2)
    assert [epoch["number"] - epochs[0]["number"] for epoch in epochs] == [0, 1, 2]
    steps = [e["body"] for e in entries if e["kind"] == "step"]
    turned = min(step["at"] for step in steps if step["item"] == CLIENTS)
    assert datetime.fromisoformat(turned) > datetime.fromisoformat(epochs[-1]["end"])

    kinds = [e["kind"] for e in entries if e["kind"] in ("captured", "step")]
    assert (kinds[0], kinds.count("captured")) == ("captured", 1)
    data: Any = result(watch.verdict, REWARDS).data
    assert {"round_duration", "round_duration_by_node", "vote_latency"} <= set(data["metrics"])
    assert "reward_distribution" not in data["metrics"]
    store = watch.promotion.network.root / "store"
    digest = data["digest"].removeprefix("sha256:")
    assert (store / ".baselines" / "mainnet" / f"{digest}.parquet").exists()


def test_holes_in_the_telemetry_prove_nothing(seven: Watch) -> None:
    """More than two in a hundred points are missing."""
    network = seven.promotion.network
    network.fault("metrics-gap@mainnet")
    try:
        found, _, _ = seven.judged()
    finally:
        network.clear("metrics-gap")

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.return_at is None


def test_quiet_metrics_need_more_epochs_and_then_pass(seven: Watch) -> None:
    """The first look says when to return; the second has enough. Each row tells what was judged."""
    first, verdict, folder = seven.judged()
    assert verdict.exit_code is ExitCode.WAITING, first.reason
    assert first.data["look"] == 1
    assert verdict.return_at is not None
    seven.promotion.forward(verdict.return_at)

    found, verdict, _ = seven.judged(attempt=verdict.attempt)

    assert found.outcome is Outcome.PASS, found.reason
    assert found.data["look"] == 2
    assert found.data["start"] == first.data["start"]
    row = next(
        r for r in found.rows if (r.subject, r.what) == ("vote_latency main-1", "against the rest")
    )
    assert row.expected == "proven within +10 %"
    assert "proven less than 10.0% higher" in str(row.observed)
    told = {(row.subject, row.what) for row in found.rows}
    for name in ("main-1", "main-2"):
        assert (f"round_duration_by_node {name}", "against its own past") in told
        assert (f"round_duration_by_node {name}", "against the rest") in told
    assert not any("main-3" in subject for subject, _ in told)
    again = replayed(folder)
    assert again == found


def replayed(folder: Path) -> CheckResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNBOOK_REPLAY", str(folder))
        patch.setenv("RUNBOOK_REPLAY_OK", "1")
        with opened("mainnet", STAGE_PARAMS["mainnet"]().model_dump()) as stage:
            stage.check(mainnet.no_regression)
            return result(stage.verdict(), ITEM)
