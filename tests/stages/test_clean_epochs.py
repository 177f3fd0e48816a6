"""Clean epochs since testnet's gate, counted for canary, and what breaks the count."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from runbook_lib import playbook
from runbook_lib.checks import canary, testnet
from runbook_lib.evidence.incidents import Incidents, read_line
from runbook_lib.evidence.ledger import Earlier, Ledger
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import CheckResult
from runbook_lib.site import read_site
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.network import RehearsalNetwork

from ..events import event
from .conftest import alone, fault, finish, given, practising

EPOCHS = canary.epochs_clean.item


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RehearsalNetwork]:
    """A network on which testnet's gate has just taken effect, as an attempt's log tells it."""
    root = tmp_path_factory.mktemp("epochs") / "network"
    sizes = {"development": 1, "testnet": 7, "mainnet": 2}
    with practising(root, sizes=sizes, history_s=4 * 3600.0) as (net, patch):
        patch.setitem(playbook.DECLARED, "canary", (EPOCHS,))
        finish(net, "testnet")
        net.fast_forward(1800)
        opened = event("opened", release="v1.4.0", stage="testnet")
        made = Store(net.root / "store").create(opened)
        made.log.append(event("state", item=testnet.gate.item, node="test-1", at=net.now))
        policy = read_site(str(net.site)).policy_digest
        before = Earlier(stage="testnet", attempt=1, name=made.name, policy=policy)
        patch.setattr(Ledger, "earlier", lambda *given: before)
        yield net


@pytest.fixture(scope="module")
def counted(network: RehearsalNetwork) -> None:
    """Ten epochs and one more have passed since the gate."""
    network.fast_forward(max(12 * 3600 - network.world.clock.offset, 0.0))


def epochs(network: RehearsalNetwork) -> tuple[Verdict, CheckResult]:
    return alone("canary", canary.epochs_clean, given(network, "canary"))[:2]


def test_too_few_epochs_are_not_yet_due(network: RehearsalNetwork) -> None:
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
    first = event("incident-opened", stage="testnet", at=now - timedelta(hours=2))
    ours = Incidents(store).open(first, lambda one: False)
    file = Incidents(store).path(ours.id)
    try:
        opened, refused = epochs(network)
        Log(file, read_line).append(event("incident-closed", at=now, head=ours.opened.hash))
        closed, _ = epochs(network)
        file.write_text("[]\n")
        unread, unreadable = epochs(network)
        file.unlink()
        another = first.model_copy(update={"release": "v1.3.0"})
        theirs = Incidents(store).open(another, lambda one: False)
        file = Incidents(store).path(theirs.id)
        others, _ = epochs(network)
    finally:
        file.unlink()
        file.parent.rmdir()

    assert (closed.exit_code, others.exit_code) == (ExitCode.WAITING, ExitCode.PASSED)
    assert opened.exit_code is ExitCode.REFUSED
    assert refused.reason.startswith(
        "testnet: incidents of this release: expected none, got v1.4.0-testnet-0001 is open, "
    )
    assert unread.exit_code is ExitCode.INCONCLUSIVE
    assert ".incidents/v1.4.0-testnet-0001.jsonl" in {row.subject for row in unreadable.rows}


def test_a_node_that_restarts_alone_breaks_nothing_where_its_power_is_small(
    network: RehearsalNetwork, counted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed; with a seventh of the power here, the same restart begins the count again."""
    with fault(network, "restart-during-soak@testnet"):
        large, _ = epochs(network)
        monkeypatch.setattr(canary, "MASS", 0.2)
        small, result = epochs(network)

    assert large.exit_code is ExitCode.WAITING
    assert small.exit_code is ExitCode.PASSED, result.reason
    [row] = [row for row in result.rows if row.what == "restarts not planned"]
    assert str(row.observed).startswith("test-7 (down, ")
