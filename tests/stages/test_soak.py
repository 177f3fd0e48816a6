"""The development soak on a network where two days have passed since the deploy."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.adopt import adopt
from runbook_lib.checks import development
from runbook_lib.checks.testnet import soak
from runbook_lib.evidence.ledger import Earlier
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import CheckResult
from runbook_lib.strict import parse_yaml
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.network import RehearsalNetwork

from ..events import event
from .conftest import alone, edited, given, mutations, opened, practised

SOAK = soak.item


def deploy(network: RehearsalNetwork) -> None:
    """The development stage as far as the soak needs it: its deploy, applied and passed."""
    adopt(str(network.site), "development", artifacts=[network.release.previous_artifact])
    file = network.params["development"]
    params = given(network, "development") | parse_yaml(file.read_bytes(), file.name)
    with opened("development", params) as stage:
        stage.plan(development.plan)
        stage.change(development.deploy)
        stage.enforce()


@practised(sizes={"development": 3, "testnet": 1, "mainnet": 1}, history_s=3600.0)
def network(net: RehearsalNetwork, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(playbook.DECLARED, "development", (development.DEPLOY,))
    patch.setitem(playbook.DECLARED, "testnet", (SOAK,))
    # The attempt is sealed by the engine, which no test of this module runs.
    patch.setattr("runbook_lib.evidence.verify.verify", lambda folder, trust: ([], None))
    deploy(net)


def passed(network: RehearsalNetwork, hours: float) -> RehearsalNetwork:
    """The network so long after the deploy, at least."""
    if network.world.clock.offset < hours * 3600:
        network.fast_forward(hours * 3600)
    return network


@pytest.fixture
def soaked(network: RehearsalNetwork) -> RehearsalNetwork:
    return passed(network, 48.2)


def judged(network: RehearsalNetwork, **changes: Any) -> tuple[Verdict, CheckResult]:
    """The soak alone, in plan mode."""
    verdict, result, folder = alone("testnet", soak, given(network, "testnet", **changes))
    assert mutations(folder) == []
    return verdict, result


def test_before_its_end_the_soak_is_not_yet_due(network: RehearsalNetwork) -> None:
    """Nothing is wrong, and it says when to return: the exit code is 4."""
    verdict, result = judged(passed(network, 4))

    anchor = datetime.fromisoformat(str(result.data["anchor"]))
    assert verdict.exit_code is ExitCode.WAITING, result.reason
    assert verdict.return_at == anchor + timedelta(hours=48)
    assert result.reason.startswith("soak: window: expected over at ")


def test_a_site_without_a_soak_job_is_told_which_key_to_set(
    soaked: RehearsalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be known whether the job passed, once the site of before was accepted to be this."""
    monkeypatch.setattr(Earlier, "refused", lambda earlier, policies: earlier.problem)
    with edited(soaked, lambda document: document["commands"].pop("soak")):
        verdict, result = judged(soaked)

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert result.reason == "soak: soak job: expected commands.soak in the site file, got none"


def test_another_attempts_change_is_no_soak(soaked: RehearsalNetwork) -> None:
    store = Store(soaked.root / "store")
    attempts = store.readable("v1.4.0", "development")[0]
    opened = attempts[-1].opened.model_copy(update={"release": "v9.9.9"})
    other = store.create(opened)
    at = datetime.fromtimestamp(soaked.world.clock.now(), UTC).isoformat()
    step = {"item": development.DEPLOY, "node": "dev-1", "step": "deliver", "phase": "intent"}
    other.log.append(event("step", **{**step, "stem": "x", "at": at}))
    try:
        verdict, result = judged(soaked)
    finally:
        other.folder.rename(soaked.root / "v9.9.9")

    assert verdict.exit_code is ExitCode.REFUSED
    assert result.reason == (
        "v9.9.9/development/0001: changes of development by others: expected none,"
        f" got dev-1: deliver at {at} (of 1)"
    )


def test_without_a_development_attempt_nothing_is_known(
    soaked: RehearsalNetwork,
) -> None:
    """A soak is anchored at a deploy of this release, or at nothing."""
    (soaked.root / "artifacts" / "v1.5.0").symlink_to(soaked.root / "artifacts" / "v1.4.0")

    verdict, result = judged(soaked, release="v1.5.0")

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert result.reason == (
        "v1.5.0/development: readable: expected an attempt that applied and passed, got none yet"
    )
