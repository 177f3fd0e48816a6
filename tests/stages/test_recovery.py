"""The way back of each stage: what it does, what it passes over, and who may."""

import shutil
from typing import Any

import pytest

from runbook_lib.errors import ParameterError
from runbook_lib.evidence.events import Event, StepTaken
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.publish import publish
from runbook_lib.outcomes import Outcome
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import not_passed
from .conftest import entries, fault
from .recovering import Prepare, Recovering, applied, back, network, prepare, steps

__all__ = ["network", "prepare"]
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
CANARIES = ("main-1", "main-2")
OPERATORS = ("north-validators", "harbor-stake", "lumen-nodes")


def before(network: RehearsalNetwork, cluster: str) -> dict[str, tuple[Any, str]]:
    """Node -> its gates and the digest of its build."""
    running = network.fleet.running
    nodes = network.world.clusters[cluster].nodes
    return {n.name: (running[n.name].config.gates, running[n.name].build.digest) for n in nodes}


def told(made: Recovering) -> int:
    """How many comments of this recovery's first attempt stand in the forge."""
    mine = f"attempt={made.release}/testnet_recovery/0001 -->"
    comments = made.network.forge.comments.values()
    return sum(comment["body"].partition("\n")[0].endswith(mine) for comment in comments)


SECRET = b"rehearsal-throwaway"


def test_a_file_that_is_lost_comes_back_out_of_the_kit(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was, its secrets too, whether what lies there is broken or unreadable."""
    made = prepare("canary")
    files = [made.network.world.node_dir("mainnet", name) / "config.toml" for name in CANARIES]
    was = [path.read_bytes() for path in files]
    assert all(SECRET in text for text in was)
    applied(made, "canary")
    files[0].write_bytes(b"no [toml")
    with fault(made.network, "config-unreadable@canary/main-2"):
        verdict, folder = made.recover("canary")

    assert [path.read_bytes() for path in files] == was
    open_ = set(not_passed(back(verdict).rows, "subject", "what"))
    assert (back(verdict).outcome, open_) == (INCONCLUSIVE, {("main-2", "config")})
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in kept if SECRET in path.read_bytes()] == []

    again, folder = made.recover("canary", attempt=verdict.attempt)
    shutil.rmtree(made.network.root / "kits")
    monkeypatch.setenv("RUNBOOK_REPLAY", str(folder))
    replayed, _ = made.recover("canary")

    assert back(again).outcome is PASS, back(again).reason
    assert back(replayed) == back(again)


def test_after_a_stall_a_lost_file_comes_back_out_of_the_kit_with_its_gates_off(
    prepare: Prepare,
) -> None:
    """A canary had both gates on before mainnet: what it goes back to is the kit's."""
    made = prepare("mainnet")
    applied(made, "canary")
    applied(made, "mainnet")
    file = made.network.world.node_dir("mainnet", "main-1") / "config.toml"
    file.write_bytes(b"no [toml")
    verdict, folder = made.recover("mainnet")

    assert back(verdict).outcome is PASS, back(verdict).reason
    assert SECRET in file.read_bytes()
    assert not any(made.gates("mainnet").values())
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in kept if SECRET in path.read_bytes()] == []


def test_a_file_of_the_kit_that_was_edited_is_not_delivered(prepare: Prepare) -> None:
    """Only the one with the digest that the plan names; the other canary is back."""
    made = prepare("canary")
    applied(made, "canary")
    file = made.network.world.node_dir("mainnet", "main-1") / "config.toml"
    file.write_bytes(b"no [toml")
    with fault(made.network, "kit-target-tampered@canary"):
        verdict, folder = made.recover("canary")

    found = not_passed(back(verdict).rows, "subject", "what", "outcome", "observed")
    told = "none of that digest"
    assert found == [("main-1", "previous file", INCONCLUSIVE, told)]
    assert file.read_bytes() == b"no [toml"
    assert {node for node, _ in steps(folder, "intent")} == {"main-2"}


def test_a_node_whose_build_cannot_be_told_is_restarted_once(prepare: Prepare) -> None:
    """What merely cannot be read back is read again, in the same run and in the next."""
    made = prepare("canary")
    applied(made, "canary")
    with fault(made.network, "candidate-unreadable@canary/main-1"):
        verdict, folder = made.recover("canary")
        assert not_passed(back(verdict).rows, "subject", "what") == [("main-1", "binary")]
        made.recover("canary", attempt=verdict.attempt)
    again, folder = made.recover("canary", attempt=verdict.attempt)

    assert back(again).outcome is PASS, back(again).reason
    assert sorted(steps(folder)) == [
        (node, f"{step}-back") for node in CANARIES for step in ("deliver", "restart")
    ]


def test_without_the_previous_artifact_the_gates_are_off_all_the_same(prepare: Prepare) -> None:
    """What is missing is FAIL; the configuration does not wait for it."""
    made = prepare("mainnet")
    applied(made, "mainnet")
    with fault(made.network, "previous-artifact-missing@mainnet"):
        verdict, _ = made.recover("mainnet", nodes=["main-3"])

    rows = {row.what: row for row in back(verdict).rows}
    assert back(verdict).outcome is FAIL
    assert str(rows["previous artifact"].observed).startswith("previous artifact missing; ")
    assert rows["config"].outcome is PASS
    assert made.gates("mainnet")["main-3"] is False


def test_operators_are_told_by_what_works(prepare: Prepare, network: RehearsalNetwork) -> None:
    """With the forge down the site's command tells them; the comment that is missing is named."""
    made = prepare("testnet")
    was = before(network, "testnet")
    applied(made, "testnet")
    given = {"issue": 42}
    with fault(network, "forge-down@testnet"):
        verdict, folder = made.recover("testnet", **given)

    open_ = set(not_passed(back(verdict).rows, "subject", "what"))
    assert open_ > {(operator, "instruct-back") for operator in OPERATORS}
    assert [s for s in steps(folder) if s[0] in OPERATORS] == [
        (o, "notify-back.1") for o in OPERATORS
    ]
    network.operators.settle()
    assert before(network, "testnet") == was
    # The comments wait: one publish posts each once, and the next run finds them there.
    assert len(list((folder / "outbox").iterdir())) == len(OPERATORS)
    assert {row.outcome for row in publish(folder)} == {PASS}
    assert not (folder / "outbox").exists()
    assert told(made) == len(OPERATORS)

    again, folder = made.recover("testnet", attempt=verdict.attempt, retry_reason="x", **given)

    assert back(again).outcome is PASS, back(again).reason
    assert [step for node, step in steps(folder) if node in OPERATORS].count("notify-back.1") == 3
    assert told(made) == len(OPERATORS)


def test_a_comment_nobody_can_look_for_keeps_no_operator_from_being_told(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as it was to be posted, the forge down since: the site's command tells them all."""
    made = prepare("testnet")
    applied(made, "testnet")
    append = Log.append

    def stopping(self: Log, event: Event) -> Event:
        made = append(self, event)
        begun = "instruct-back.1", "intent"
        if isinstance(made, StepTaken) and (made.step, made.phase) == begun:
            raise KeyboardInterrupt
        return made

    given = {"issue": 42}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Log, "append", stopping)
        made.recover("testnet", **given)
    with fault(made.network, "forge-down@testnet"):
        verdict, folder = made.recover("testnet", attempt=1, **given)

    assert {s for s in steps(folder) if s[0] in OPERATORS} == {
        (o, "notify-back.2") for o in OPERATORS
    }
    rows = {r.subject: r for r in back(verdict).rows if r.what == "instruct-back"}
    assert {name: row.outcome for name, row in rows.items()} == dict.fromkeys(
        OPERATORS, INCONCLUSIVE
    )
    # What may stand there already is posted by publish where it does not, once.
    assert {row.outcome for row in publish(folder)} == {PASS}
    assert told(made) == len(OPERATORS)


# --- who may ----------------------------------------------------------------------------------------


def test_what_nobody_approved_needs_a_reason(prepare: Prepare) -> None:
    """Without an apply to undo, only break-glass leads back: to the last good state."""
    made = prepare("canary")

    with pytest.raises(ParameterError, match=r"^break_glass: expected an apply attempt of .* none"):
        made.recover("canary")
    verdict, folder = made.recover(
        "canary", break_glass="the canaries misbehave, nobody knows why", nodes=["main-1"]
    )

    assert back(verdict).outcome is PASS
    assert entries(folder)[0]["undoes"] is None


def test_more_than_the_plan_is_refused_without_a_reason(prepare: Prepare) -> None:
    """A node that the apply did not touch was not approved to be touched."""
    made = prepare("canary")
    applied(made, "canary")

    verdict, folder = made.recover("canary", nodes=["main-1", "main-3"])

    refused = [e["reason"] for e in entries(folder) if e["kind"] == "plan-refused"]
    assert len(refused) == 1
    assert "it goes beyond it on main-3; give a reason (--reason) for break-glass" in refused[0]
    assert (back(verdict).outcome, steps(folder)) == (INCONCLUSIVE, [])
