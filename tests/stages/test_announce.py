"""Mainnet's announcement and freeze: in time, read back, owned; and what refuses it."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import mainnet
from runbook_lib.checks.mainnet import ANNOUNCE_ITEM as ITEM
from runbook_lib.checks.mainnet import judge_freeze
from runbook_lib.outcomes import Outcome
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_lib.wording import utc
from runbook_rehearsal.network import RehearsalNetwork

from .conftest import clear, edited, ended, enter, entries, given, held, mutations, opened

made = held(RehearsalNetwork, telemetry=False)


@pytest.fixture
def network(made: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[RehearsalNetwork]:
    enter(made, monkeypatch)
    monkeypatch.setitem(playbook.DECLARED, "mainnet", (ITEM,))
    monkeypatch.delitem(playbook.PLAN_BEFORE, "mainnet", raising=False)
    adopt(str(made.site), "mainnet", artifacts=[made.release.previous_artifact])
    for board in ("announced.json", "frozen.json"):
        (made.root / board).unlink(missing_ok=True)
    yield made
    clear(made)


def run(network: RehearsalNetwork, hours: float = 30.0, **changes: Any) -> tuple[Verdict, Path]:
    """The announcement of a window that begins in ``hours``."""
    start = network.now.replace(microsecond=0) + timedelta(hours=hours)
    window = {"window_start": start, "window_end": start + timedelta(hours=8)}
    params = {name: at.isoformat() for name, at in window.items()} | changes
    digest = "sha256:" + "0" * 64
    params = given(network, "mainnet", mode="apply", approved_plan=digest, **params)
    with opened("mainnet", params) as stage:
        stage.change(mainnet.announce)
        return ended(stage)


def test_a_window_is_announced_and_proposals_are_frozen(network: RehearsalNetwork) -> None:
    """Both read back from elsewhere; lifting the freeze is somebody's, and the verdict says whose."""
    verdict, folder = run(network)

    assert verdict.exit_code is ExitCode.PASSED, verdict.items[0].reason
    (told,) = json.loads((network.root / "announced.json").read_text())
    assert (told["release"], told["stage"]) == ("v1.4.0", "mainnet")
    assert "New governance proposals are frozen" in told["text"]
    assert json.loads((network.root / "frozen.json").read_text())
    assert len(verdict.notes) == 1
    assert verdict.notes[0].endswith("unfreeze governance proposals")
    assert len(mutations(folder)) == 2


def test_too_little_notice_announces_nothing(network: RehearsalNetwork) -> None:
    verdict, folder = run(network, hours=3.0)

    assert verdict.exit_code is ExitCode.REFUSED
    assert "announcement: notice: expected at least 1 day" in verdict.items[0].reason
    assert mutations(folder) == []


def test_a_freeze_nobody_must_lift_is_not_begun(network: RehearsalNetwork) -> None:
    with edited(network, lambda site: [p.update(roles=["sre-lead"]) for p in site["people"]]):
        verdict, folder = run(network)

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert "somebody with the role governance-council" in verdict.items[0].reason
    assert mutations(folder) == []


def test_a_freeze_that_was_lifted_in_between_is_another(network: RehearsalNetwork) -> None:
    """Judged before a wave: proposals may have come and gone while there was none."""
    _, folder = run(network)
    params = entries(folder)[0]["params"]
    board = network.root / "frozen.json"
    before = datetime.fromisoformat(json.loads(board.read_text()))
    again = given(network, "mainnet", **{**params, "attempt": int(folder.name)})
    with opened("mainnet", again) as stage:
        judge_freeze(first := stage.context(ITEM, 2))
        board.write_text(json.dumps((before + timedelta(seconds=1)).isoformat()))
        judge_freeze(second := stage.context(ITEM, 3))

    [same], [anew] = first.findings, second.findings
    assert (same.outcome, same.observed) == (Outcome.PASS, "frozen, none since")
    again = utc(before + timedelta(seconds=1))
    assert (anew.outcome, anew.observed) == (
        Outcome.FAIL,
        f"frozen since {utc(before)}, lifted, and frozen again {again}; start a new attempt",
    )


def test_a_freeze_that_is_still_to_come_is_none(network: RehearsalNetwork) -> None:
    """Until then anything may be proposed; the card says when to come back."""
    begins = network.now.replace(microsecond=0) + timedelta(hours=3)
    (network.root / "frozen.json").write_text(json.dumps(begins.isoformat()))

    verdict, _ = run(network)

    assert (verdict.exit_code, verdict.return_at) == (ExitCode.WAITING, begins)
    assert verdict.items[0].reason == (
        "proposals: new ones: expected frozen, none since, got frozen from"
        f" {utc(begins)} on, which is still to come"
    )
