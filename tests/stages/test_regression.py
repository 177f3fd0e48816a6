"""A canary stage in one session, and mainnet's first question: are its canaries no worse?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib import playbook
from runbook_lib.checks import mainnet
from runbook_lib.errors import StageRefused
from runbook_lib.evidence import order
from runbook_lib.outcomes import CheckResult, Outcome
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.stage import Stage, open_stage
from runbook_lib.verdicts import ExitCode, Verdict

from .promoting import (
    CANARIES,
    CLIENTS,
    OBSERVE,
    RELEASE,
    REWARDS,
    Promotion,
    changed,
    lines,
    promotion,
    result,
)

ITEM = "mainnet.ready.no-regression"


@dataclass
class Watch:
    """A canary stage that passed, and what mainnet makes of it."""

    promotion: Promotion
    verdict: Verdict
    folder: Path

    @contextmanager
    def opened(self, **given: Any) -> Iterator[Stage]:
        network = self.promotion.network
        params = {
            **STAGE_PARAMS["mainnet"]().model_dump(),
            "site": str(network.site),
            "release": RELEASE,
            "commit": network.release.commit,
            **{key: self.promotion.given[key] for key in ("window_start", "window_end")},
            **given,
        }
        stage = open_stage("mainnet", params)
        try:
            yield stage
        finally:
            stage.close()

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
            earlier = order.Earlier(stage="canary", attempt=verdict.attempt, name=name)
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


def test_every_canary_has_rewards_votes_and_traffic_and_the_others_none(watch: Watch) -> None:
    """In telemetry as in the ledger."""
    found = result(watch.verdict, OBSERVE).rows
    told = {(row.subject, row.what.partition(",")[0]) for row in found}
    off = {row.subject for row in found if "with the gate off" in row.what}
    credited = {r.subject: r.observed for r in found if r.what.startswith("credited since")}
    traffic = [row for row in result(watch.verdict, CLIENTS).rows if "witness_gossip" in row.what]

    assert {(name, what) for name in CANARIES for what in ("reward_distribution", "votes")} <= told
    assert off == {f"main-{number}" for number in range(3, 8)}
    assert {name for name, amount in credited.items() if int(str(amount))} == set(CANARIES)
    assert [row.subject for row in traffic[:2]] == list(CANARIES)


def test_a_replay_says_the_same(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, with nothing but the attempt."""
    monkeypatch.setenv("RUNBOOK_REPLAY", str(watch.folder))
    monkeypatch.setenv("RUNBOOK_REPLAY_OK", "1")
    stage = open_stage("canary", STAGE_PARAMS["canary"]().model_dump())
    try:
        again = watch.promotion.walk(stage)
    finally:
        stage.close()

    assert [item.result for item in again.items] == [item.result for item in watch.verdict.items]


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
        stage = open_stage("mainnet", STAGE_PARAMS["mainnet"]().model_dump())
        try:
            stage.check(mainnet.no_regression)
            return result(stage.verdict(), ITEM)
        finally:
            stage.close()


def test_the_last_three_epochs_must_follow_the_last_change(watch: Watch) -> None:
    """Seven epochs would be over earlier; the clients were turned on after the third."""
    found, _, _ = watch.judged()
    clients = max(
        datetime.fromisoformat(e["body"]["at"])
        for e in lines(watch.folder)
        if e["kind"] == "state" and e["body"]["item"] == CLIENTS
    )

    end = found.data.get("end")
    assert isinstance(end, str)
    assert datetime.fromisoformat(end) - clients > timedelta(hours=3)
