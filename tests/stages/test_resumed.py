"""A change left half-way for hours: what was verified before it has aged, and it goes on all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.checks import preflight
from runbook_lib.evidence.record import Entry, Record
from runbook_lib.verdicts import ExitCode, Verdict

from .recovering import (  # noqa: F401 - fixtures
    Recovering,
    declared,
    fault,
    network,
    prepare,
    records,
    steps,
    walk,
)

DRIFT = preflight.config_drift.item
HOURS = 3
PLACES = [
    ("development", "dev-2", "deliver", "intent"),
    ("development", "dev-2", "deliver", "done"),
    ("development", "dev-2", "restart", "intent"),
    ("development", "dev-2", "restart", "done"),
    ("testnet", "test-2", "deliver-gates", "done"),
    ("testnet", "test-2", "restart-gates", "done"),
    ("mainnet", "main-1", "deliver-gates", "done"),
    ("mainnet", "main-1", "restart-gates", "done"),
]


@pytest.fixture(autouse=True)
def drift_first(monkeypatch: pytest.MonkeyPatch, network: Any) -> None:  # noqa: F811
    for stage in ("development", "testnet", "mainnet"):
        monkeypatch.setitem(playbook.DECLARED, stage, (DRIFT, *declared(stage)))


def session(made: Recovering, stage: str, given: dict[str, Any]) -> tuple[Verdict, Path]:
    with made.opened(stage, **given) as opened:
        opened.check(preflight.config_drift)
        return walk(opened, stage), opened.folder


def left(
    made: Recovering, monkeypatch: pytest.MonkeyPatch, place: tuple[str, str, str, str]
) -> dict[str, Any]:
    """What the attempt goes on with that was interrupted at that entry of its journal, hours ago."""
    stage, *where = place
    given, append = made.planned(stage), Record.append

    def stopping(self: Record, kind: str, body: dict[str, Any]) -> Entry:
        entry = append(self, kind, body)
        if kind == "step" and [body["node"], body["step"], body["phase"]] == where:
            raise KeyboardInterrupt
        return entry

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Record, "append", stopping)
        session(made, stage, given)
    made.network.fast_forward(HOURS * 3600)
    attempts = (made.network.root / "store" / made.release / stage).iterdir()
    return {**given, "attempt": max(int(path.name) for path in attempts)}


@pytest.mark.parametrize("place", [pytest.param(place, id="-".join(place)) for place in PLACES])
def test_a_change_left_half_way_goes_on_hours_later(
    prepare: Callable[[str], Recovering],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[str, str, str, str],
) -> None:
    """The node that was at work is no drift, and nothing is done twice; a replay says the same."""
    stage, node, *_ = place
    made = prepare(stage)
    given = left(made, monkeypatch, place)
    verdict, folder = session(made, stage, given)
    drift = verdict.items[0].result

    assert verdict.exit_code is ExitCode.PASSED, [item.reason for item in verdict.blocking]
    assert set(Counter(steps(folder)).values()) == {1}
    assert drift is not None
    [live] = [row.observed for row in drift.rows if (row.subject, row.what) == (node, "live state")]
    assert str(live).endswith(
        " keys as last verified or as planned: this attempt was at work on it"
    )

    monkeypatch.setenv("RUNBOOK_REPLAY", str(folder))
    monkeypatch.setenv("RUNBOOK_REPLAY_OK", "1")
    replayed, _ = session(made, stage, given)
    assert [item.result for item in replayed.items] == [item.result for item in verdict.items]


def test_what_is_neither_as_before_nor_as_planned_is_drift(
    prepare: Callable[[str], Recovering],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gate of the node at work flipped by hand: nothing more is begun."""
    made = prepare("testnet")
    given = left(made, monkeypatch, ("testnet", "test-2", "deliver-gates", "done"))
    with fault(made.network, "gate-flipped@testnet/test-2"):
        verdict, folder = session(made, "testnet", given)

    assert verdict.exit_code is ExitCode.REFUSED
    assert next((item.item, item.reason) for item in verdict.blocking) == (
        DRIFT,
        "test-2: rollout.feature_gates.malachite_consensus: expected false, got true (and 3 more)",
    )
    assert Counter(steps(folder))["test-2", "restart-gates"] == 0
