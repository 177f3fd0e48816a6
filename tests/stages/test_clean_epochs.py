"""Gossip after testnet's gate, and its epochs counted for canary, on one network."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.changes.apply import Change
from runbook_lib.checks import canary, testnet
from runbook_lib.context import Judge
from runbook_lib.evidence import order
from runbook_lib.evidence.incidents import add, open_incident, path_of
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import CheckResult
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.network import RehearsalNetwork

from .conftest import ended, given, opened, plan_digest, practising

GATE, EPOCHS = testnet.gate.item, canary.epochs_clean.item
TESTNET = (testnet.deploy.item, GATE)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    root = tmp_path_factory.mktemp("epochs") / "network"
    sizes = {"development": 1, "testnet": 7, "mainnet": 2}
    with practising(root, sizes=sizes, history_s=10 * 3600.0) as (net, patch):
        patch.setitem(playbook.DECLARED, "testnet", TESTNET)
        patch.setitem(playbook.PLAN_BEFORE, "testnet", testnet.deploy.item)
        patch.setitem(playbook.DECLARED, "canary", (EPOCHS,))
        # The engine that seals the stage before is another test's matter.
        patch.setattr(order, "verify", lambda folder: ([], None))
        adopt(str(net.site), "testnet", artifacts=[net.release.previous_artifact])
        yield net


def walk(stage: str, *items: Judge | Change, **params: Any) -> tuple[Verdict, Path]:
    with opened(stage, params) as made:
        if stage == "testnet":
            made.plan(testnet.plan)
        for item in items:
            if isinstance(item, Change):
                made.change(item)
            else:
                made.check(item)
        return ended(made)


@pytest.fixture(scope="module")
def activated(network: RehearsalNetwork) -> dict[str, Any]:
    """The parameters of the attempt that rolled testnet, and whose epoch of gossip is not over."""
    params = given(network, "testnet")
    _, folder = walk("testnet", testnet.deploy, testnet.gate, **params)
    params |= {"mode": "apply", "approved_plan": plan_digest(folder)}
    for _ in range(12):  # each return finds what the operators have done meanwhile
        verdict, folder = walk("testnet", testnet.deploy, testnet.gate, **params)
        assert verdict.exit_code is ExitCode.WAITING, [i.reason for i in verdict.blocking]
        params["attempt"] = int(folder.name)
        if "waiting for" not in verdict.blocking[0].reason:
            break
        network.operators.settle()
    assert verdict.blocking[0].reason.startswith("testnet: whole epochs: expected at least 1 since")
    return params


@pytest.fixture(scope="module")
def epochs_later(network: RehearsalNetwork, activated: dict[str, Any]) -> dict[str, Any]:
    """One epoch would do, but two hours of samples are too few for the judge every other time."""
    network.fast_forward(6 * 3600 + 600)
    return activated


@pytest.fixture(scope="module")
def gated(network: RehearsalNetwork, epochs_later: dict[str, Any]) -> Path:
    """The attempt's folder once its gossip has been stable for whole epochs.

    Where the samples of one epoch do not yet decide, the stage says when to return.
    """
    again = {**epochs_later, "retry_reason": "the faults are cleared"}
    for _ in range(6):
        verdict, folder = walk("testnet", testnet.deploy, testnet.gate, **again)
        if verdict.return_at is None:
            break
        network.fast_forward(max((verdict.return_at - network.now).total_seconds(), 0) + 1)
    assert verdict.exit_code is ExitCode.PASSED, [i.reason for i in verdict.blocking]
    return folder


@pytest.fixture(scope="module")
def counted(network: RehearsalNetwork, gated: Path) -> None:
    """Ten epochs and one more have passed since the gate."""
    network.fast_forward(max(11.5 * 3600 - network.world.clock.offset, 0.0))


def epochs(network: RehearsalNetwork, **changes: Any) -> tuple[Verdict, CheckResult]:
    params = given(network, "canary", **changes)
    verdict, _ = walk("canary", canary.epochs_clean, **params)
    result = verdict.items[0].result
    assert result is not None
    return verdict, result


def test_too_few_epochs_are_not_yet_due(network: RehearsalNetwork, gated: Path) -> None:
    """It says when the last of them will be over, and that comes true."""
    verdict, result = epochs(network)

    assert verdict.exit_code is ExitCode.WAITING, result.reason
    assert result.reason.startswith(
        "testnet: whole epochs undisturbed: expected at least 10 of 720"
    )
    assert verdict.return_at is not None
    network.fast_forward((verdict.return_at - network.now).total_seconds() + 1)
    verdict, result = epochs(network)
    assert verdict.exit_code is ExitCode.PASSED, result.reason
    assert result.reason.startswith("10 whole epochs since ")


def test_an_incident_breaks_the_count_and_an_open_one_refuses(
    network: RehearsalNetwork, counted: None
) -> None:
    """One of this release, by its file in the store; an unreadable file is not quiet."""
    store = Store(network.root / "store")
    now = network.now
    opened_at = {"by": "rehearsal", "at": (now - timedelta(hours=2)).isoformat()}
    body = {"stage": "testnet", "author": "rehearsal", "attempt": "x", **opened_at}
    ours = open_incident(store, {**body, "release": "v1.4.0"}, lambda one: False)
    file = path_of(store, ours.id)
    try:
        opened, refused = epochs(network)
        closing = ours.statement("it is over", "rehearsal", now.isoformat())
        add(store, ours.id, "closed", {**closing, "digest": "sha256:1"})
        closed, _ = epochs(network)
        file.write_text("[]\n")
        unread, unreadable = epochs(network)
        file.unlink()
        theirs = open_incident(store, {**body, "release": "v1.3.0"}, lambda one: False)
        file = path_of(store, theirs.id)
        others, _ = epochs(network)
    finally:
        file.unlink()
        file.parent.rmdir()

    assert (closed.exit_code, others.exit_code) == (ExitCode.WAITING, ExitCode.PASSED)
    assert opened.exit_code is ExitCode.REFUSED
    assert refused.reason.startswith(
        "testnet: incidents of this release: expected none, got v1.4.0-testnet-001 is open, "
    )
    assert unread.exit_code is ExitCode.INCONCLUSIVE
    assert ".incidents/v1.4.0-testnet-001.jsonl" in {row.subject for row in unreadable.rows}


def test_a_node_that_restarts_alone_breaks_nothing_where_its_power_is_small(
    network: RehearsalNetwork, counted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed; with a seventh of the power here, the same restart begins the count again."""
    network.fault("restart-during-soak@testnet")
    try:
        large, _ = epochs(network)
        monkeypatch.setattr(canary, "MASS", 0.2)
        small, result = epochs(network)
    finally:
        network.clear("restart-during-soak")

    assert large.exit_code is ExitCode.WAITING
    assert small.exit_code is ExitCode.PASSED, result.reason
    [row] = [row for row in result.rows if row.what == "restarts not planned"]
    assert str(row.observed).startswith("test-7 (down, ")
