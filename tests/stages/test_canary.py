"""The canary stage on a network: rewards, three epochs in their order, witness clients only then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.checks import canary
from runbook_lib.outcomes import Outcome
from runbook_lib.params import STAGE_PARAMS
from runbook_lib.stage import open_stage
from runbook_lib.verdicts import ExitCode, Verdict

from .promoting import (
    CANARIES,
    CANDIDATE,
    CLIENTS,
    OBSERVE,
    REWARDS,
    Promotion,
    changed,
    lines,
    promotion,
    result,
)


@dataclass
class Walked:
    """The sessions of one attempt, and how many changing calls there were after each."""

    promotion: Promotion
    verdicts: list[Verdict] = field(default_factory=list)
    mutations: list[int] = field(default_factory=list)
    folder: Path = Path()

    def session(self) -> None:
        verdict, self.folder = self.promotion.go_on()
        self.verdicts.append(verdict)
        self.mutations.append(len(changed(self.folder)))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    """Applied; left for an hour; again when the epochs are over; again when traffic is seen."""
    root = tmp_path_factory.mktemp("canary") / "network"
    with pytest.MonkeyPatch.context() as patch:
        for made in promotion(root, patch):
            made.plan()
            found = Walked(made)
            found.session()
            made.network.fast_forward(3600)
            found.session()
            for _ in range(2):
                due = found.verdicts[-1].return_at
                assert due is not None, found.verdicts[-1].blocking
                made.forward(due)
                found.session()
            yield found


def test_the_stage_passes_with_its_epochs_in_their_order(walked: Walked) -> None:
    """Waiting three times, one attempt; witness clients are turned on only after three epochs."""
    codes = [verdict.exit_code for verdict in walked.verdicts]
    assert codes == [ExitCode.WAITING] * 3 + [ExitCode.PASSED], walked.verdicts[-1].blocking
    assert {verdict.attempt for verdict in walked.verdicts} == {walked.verdicts[0].attempt}
    first = result(walked.verdicts[0], OBSERVE)
    assert first.reason == (
        "epochs: rewards and votes observed: expected 3 whole epochs, got 0 so far"
    )
    states = [[item.state for item in verdict.items][-1] for verdict in walked.verdicts]
    assert states == ["not-reached", "not-reached", "judged", "judged"]
    running = walked.promotion.network.fleet.running
    for name in ("main-1", "main-2", "main-3"):
        gates = running[name].config.gates
        assert (gates["timetoke_rewards"], gates["witness_network"]) == (name in CANARIES,) * 2


def test_nothing_is_repeated_and_the_window_stays_where_it_began(walked: Walked) -> None:
    """Deliver and restart of two canaries, twice; the epochs follow the first read-back."""
    assert walked.mutations == [4, 4, 8, 8]
    states = [e["body"] for e in lines(walked.folder) if e["kind"] == "state"]
    anchor = max(datetime.fromisoformat(s["at"]) for s in states if s["item"] == REWARDS)
    observed = result(walked.verdicts[-1], OBSERVE).data
    assert observed["since"] == anchor.isoformat()
    epochs: Any = observed["epochs"]
    starts = [datetime.fromisoformat(epoch["start"]) for epoch in epochs]
    assert timedelta(0) < starts[0] - anchor < timedelta(hours=1, minutes=10)
    assert [epoch["number"] for epoch in epochs] == list(
        range(epochs[0]["number"], epochs[0]["number"] + 3)
    )
    clients = [e["body"]["at"] for e in lines(walked.folder) if e["kind"] == "step"
               and e["body"]["item"] == CLIENTS]  # fmt: skip
    assert datetime.fromisoformat(min(clients)) > datetime.fromisoformat(epochs[-1]["end"])


def test_a_guard_that_aged_is_judged_again_before_the_clients(walked: Walked) -> None:
    """Hours later the candidate is looked at again, before anything is turned on."""
    entries = lines(walked.folder)
    looked = [
        datetime.fromisoformat(e["body"]["result"]["started"])
        for e in entries
        if e["kind"] == "result" and e["body"]["item"] == CANDIDATE
    ]
    turned = min(
        datetime.fromisoformat(e["body"]["at"])
        for e in entries
        if e["kind"] == "step" and e["body"]["item"] == CLIENTS
    )

    assert looked[-1] - looked[0] > timedelta(hours=3)
    assert any(timedelta(0) < turned - at < timedelta(hours=1) for at in looked)


def test_what_was_before_is_pinned_once(walked: Walked) -> None:
    """Metrics, balances and height, captured before the first step and shown by the result."""
    kinds = [
        (entry["kind"], entry["body"].get("item"))
        for entry in lines(walked.folder)
        if entry["kind"] in ("captured", "step")
    ]
    assert kinds[0] == ("captured", REWARDS)
    assert sum(kind == "captured" for kind, _ in kinds) == 1
    data: Any = result(walked.verdicts[0], REWARDS).data
    assert data["cluster"] == "mainnet"
    assert {"round_duration", "round_duration_by_node", "vote_latency"} <= set(data["metrics"])
    assert "reward_distribution" not in data["metrics"]
    assert len(data["balances"]) == 7
    store = walked.promotion.network.root / "store"
    digest = data["digest"].removeprefix("sha256:")
    assert (store / ".baselines" / "mainnet" / f"{digest}.parquet").exists()


def test_every_epoch_has_rewards_and_votes_of_each_canary(walked: Walked) -> None:
    """And the other nodes are seen to have none, in telemetry as in the ledger."""
    found = result(walked.verdicts[-1], OBSERVE)
    told = {(row.subject, row.what.partition(",")[0]) for row in found.rows}

    assert {(name, what) for name in CANARIES for what in ("reward_distribution", "votes")} <= told
    assert {row.subject for row in found.rows if "with the gate off" in row.what} == {
        f"main-{number}" for number in range(3, 8)
    }
    credited = {
        r.subject: int(str(r.observed)) for r in found.rows if r.what.startswith("credited since")
    }
    assert sorted(name for name, amount in credited.items() if amount) == list(CANARIES)


def test_traffic_proves_the_clients_at_work(walked: Walked) -> None:
    """On the canaries alone; relays were judged before, each of them."""
    rows = result(walked.verdicts[-1], CLIENTS).rows
    seen = [(row.subject, row.what) for row in rows if row.what.startswith("witness_gossip")]
    relays = {row.subject for row in rows if row.what == "gossip traffic"}

    assert seen[:2] == [(name, "witness_gossip, after the change") for name in CANARIES]
    assert len(seen) == 7
    assert relays == {f"main-{number}" for number in range(1, 8)}


def test_a_replay_says_the_same(walked: Walked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, with nothing but the attempt."""
    monkeypatch.setenv("RUNBOOK_REPLAY", str(walked.folder))
    monkeypatch.setenv("RUNBOOK_REPLAY_OK", "1")
    stage = open_stage("canary", **STAGE_PARAMS["canary"]().model_dump())
    try:
        again = walked.promotion.walk(stage)
    finally:
        stage.close()

    before = walked.verdicts[-1]
    assert [i.result and i.result.rows for i in again.items] == [
        i.result and i.result.rows for i in before.items
    ]


def test_the_comparison_shows_the_canaries_beside_their_past_and_the_rest(walked: Walked) -> None:
    """One row a metric and side."""
    with walked.promotion.opened() as stage:
        shown: Any = stage.compare(canary.comparison).card.data["rows"]

    titles = [row[0] for row in shown]
    assert "Latency of a validator's votes, against its own past" in titles
    assert "Latency of a validator's votes, against the rest" in titles


def test_without_a_fault_another_try_passes(walked: Walked) -> None:
    """What the faults showed was theirs."""
    assert walked.promotion.tried("", OBSERVE).outcome is Outcome.PASS
    assert walked.promotion.tried("", CLIENTS).outcome is Outcome.PASS


def test_what_must_hold_is_told_before_any_data(walked: Walked) -> None:
    """Every item of the stage that is built, with its threshold."""
    with walked.promotion.opened() as stage:
        card = stage.expect(canary.expectations)

    assert all(item in card.text for item in (CANDIDATE, REWARDS, OBSERVE, CLIENTS))
