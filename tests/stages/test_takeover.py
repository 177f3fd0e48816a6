"""A recovery stops an apply, takes over from one that was killed, and goes on after a kill; its evidence."""

import json
import os
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
import pytest

from runbook_lib import playbook, wording
from runbook_lib.changes.takeover import end_left_behind
from runbook_lib.checks import preflight, recovery
from runbook_lib.evidence.events import Event, StepTaken
from runbook_lib.evidence.ledger import Ledger
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.store import Store, begun_in, holders, lock_file
from runbook_lib.next_steps import next_steps
from runbook_lib.notebook import code_digest, filled_in, known_digests, read
from runbook_lib.outcomes import Outcome
from runbook_lib.recording import open_replay
from runbook_lib.stage import Stage
from runbook_lib.strict import PROJECT, parse_yaml
from runbook_lib.verdicts import Verdict
from runbook_rehearsal.network import RehearsalNetwork

from ..conftest import started, text, trust_of, unmeasured, until
from .conftest import entries, fault
from .recovering import Prepare, Recovering, applied, back, declared, network, prepare, steps, walk

__all__ = ["network", "prepare"]
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
_FILES = count(1)


# --- stop and takeover --------------------------------------------------------------------------------


def start(made: Recovering, runbook: str, **env: str) -> subprocess.Popen[str]:
    """A runbook's changes in a process of its own."""
    given = (
        made.planned(runbook) if runbook in playbook.STAGES else made.params(runbook, mode="apply")
    )
    path = made.network.root / f"given-{next(_FILES)}.json"
    path.write_text(json.dumps(given))
    argv = (sys.executable, "-m", "tests.stages.recovering", runbook, path)
    return started(*argv, cwd=PROJECT, env={**unmeasured(), **env})


def test_a_live_apply_stops_before_its_next_step(prepare: Prepare) -> None:
    """The recovery waits for it, and nothing of that attempt is ever changed again."""
    made = prepare("canary")
    # Its plan, its start, and its first node's delivery: then it is held up.
    with start(made, "canary", PAUSE_AT="4") as apply:
        assert apply.stdout is not None and apply.stdin is not None
        while apply.stdout.readline().strip() != "paused":
            assert apply.poll() is None
        with start(made, "canary_recovery") as recover:
            folder = made.network.root / "store" / made.release / "canary_recovery" / "0001"
            until(folder.exists, "the recovery to be opened")
            until(
                lambda: any(e["kind"] == "status" for e in entries(folder)),
                "it to wait for the lock",
            )
            apply.stdin.write("\n")
            apply.stdin.flush()
            said = json.loads(apply.communicate(timeout=60)[0].splitlines()[-1])
            ended = json.loads(recover.communicate(timeout=60)[0].splitlines()[-1])

    by = f"stopped: recovery {made.release}/canary_recovery/0001 by rehearsal"
    assert by in said["reasons"]["canary.activate.rewards-gate"]
    assert "rewards and witness off again" in ended["reasons"]["canary.recover.disable-gates"]
    assert not any(made.gates("mainnet").values())
    forward = folder.parents[1] / "canary" / "0002"
    changed = len(steps(forward, "intent"))
    given = {**entries(forward)[0]["params"], "attempt": 2, "retry_reason": "once more"}
    with made.opened("canary", **given) as stage:
        verdict = walk(stage, "canary")
    assert by in verdict.items[0].reason
    assert len(steps(forward, "intent")) == changed


def test_a_hung_command_of_a_killed_recovery_is_ended_and_of_a_live_one_is_not(
    prepare: Prepare,
) -> None:
    """Who goes on waits for a run that lives, and is kept out for good by none that is gone."""
    made = prepare("canary")
    applied(made, "canary")
    held = fault(made.network, "slow-deploy@canary")
    with held, start(made, "canary_recovery") as killed:
        store = made.network.root / "store"
        lock, own = store / lock_file("mainnet"), store / made.release / "canary_recovery"
        pid = until(
            lambda: [p for p, words in holders(lock).items() if begun_in(own, words)],
            "a delivery at work",
        )[0]
        os.killpg(pid, signal.SIGSTOP)
        assert end_left_behind(lock, None, own) == []
        killed.kill()
        killed.communicate(timeout=60)

        verdict, folder = made.recover("canary", attempt=1, takeover_minutes=0.01)

    (taken,) = [e for e in entries(folder) if e["kind"] == "takeover"]
    assert taken["ended"] == [pid]
    assert back(verdict).outcome is PASS, back(verdict).reason


# --- what the store and the apply hold ----------------------------------------------------------------


def test_a_damaged_record_of_another_attempt_is_named_and_not_required(prepare: Prepare) -> None:
    """Nothing of the normal path stands in the way back."""
    made = prepare("canary")
    folder = applied(made, "canary")
    plan = folder.parent / "0001" / "log.jsonl"
    plan.write_bytes(plan.read_bytes().replace(b"opened", b"opened!", 1))

    verdict, recovery_folder = made.recover("canary")

    assert back(verdict).outcome is PASS, back(verdict).reason
    damage = entries(recovery_folder)[0]["damage"]
    assert damage and f"{made.release}/canary/0001" in damage[0]


def test_what_was_undone_permits_nothing(prepare: Prepare) -> None:
    """The next stage does not open on it, whatever it passed."""
    made = prepare("canary")
    folder = applied(made, "canary")
    store, commit = Store(folder.parents[2]), made.network.release.commit
    made.recover("canary")

    asked = (made.release, commit, "mainnet", "rehearsal", trust_of(folder))
    problem = Ledger(store).earlier(*asked).problem
    assert problem.startswith("expected attempt 2 still in force, got it undone: ")


def test_an_apply_lays_its_way_back_ready(prepare: Prepare) -> None:
    """Before its first change: parameters for the command, and a notebook of ours filled in."""
    made = prepare("canary")
    with fault(made.network, "deploy-fails@canary"):
        verdict, folder = made.apply("canary")
    ready = folder / "recovery"

    params = parse_yaml((ready / "params.yaml").read_bytes(), "params.yaml")
    name = playbook.NOTEBOOKS["canary_recovery"]
    book = read(ready / name)

    assert (params["mode"], params["undoes"], params["release"]) == ("apply", 2, made.release)
    assert code_digest(book) == known_digests()[name]
    nbformat.validate(book)
    command = f"`runbook recover canary -f {ready / 'params.yaml'}`"
    assert any(command in step for step in next_steps(verdict, folder))
    assert filled_in(ready / name, {})  # it can be laid ready again


# --- evidence -----------------------------------------------------------------------------------------


def test_a_recovery_replays_under_its_notice(prepare: Prepare, network: RehearsalNetwork) -> None:
    """The same result without the world; no card of a recording can be taken for a recovery."""
    made, runbook = prepare("canary"), "canary_recovery"
    applied(made, "canary")
    with fault(network, "node-cut-off@canary/main-1"):
        verdict, folder = made.recover("canary")
    stage = Stage(open_replay(runbook, folder))
    try:
        expected, planned = stage.expect(recovery.expectations), stage.plan(recovery.plan)
        changed = stage.change(recovery.RUNS[runbook][0])
        again = stage.verdict()
        texts = [text(card) for card in (expected, planned, changed, stage)]
    finally:
        stage.close()

    assert back(again) == back(verdict)
    assert all(said.startswith(wording.RECORDING) for said in texts)


# --- hours later ----------------------------------------------------------------------------------------


def test_a_change_left_half_way_goes_on_hours_later(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged again, the node that was at work is no drift; a gate flipped by hand meanwhile is."""
    drift, left = preflight.config_drift.item, ("test-2", "deliver-gates", "done")
    monkeypatch.setitem(playbook.DECLARED, "testnet", (drift, *declared("testnet")))
    made, append = prepare("testnet"), Log.append
    given = made.planned("testnet")

    def stopping(self: Log, event: Event) -> Event:
        made = append(self, event)
        if isinstance(made, StepTaken) and (made.node, made.step, made.phase) == left:
            raise KeyboardInterrupt
        return made

    def session(**more: Any) -> tuple[Verdict, Path]:
        with made.opened("testnet", **{**given, **more}) as opened:
            opened.check(preflight.config_drift)
            return walk(opened, "testnet"), opened.folder

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Log, "append", stopping)
        session()
    made.network.fast_forward(3 * 3600)
    with fault(made.network, "gate-flipped@testnet/test-2"):
        refused, folder = session(attempt=2)
    assert refused.blocking[0].item == drift
    assert refused.blocking[0].reason.startswith(
        "test-2: rollout.feature_gates.malachite_consensus:"
    )
    assert ("test-2", "restart-gates") not in steps(folder)

    verdict, folder = session(attempt=2, retry_reason="it is flipped back")

    assert verdict.exit_code == 0, [item.reason for item in verdict.blocking]
    assert len(set(steps(folder))) == len(steps(folder))
    assert verdict.items[0].result is not None
    rows = verdict.items[0].result.rows
    [live] = [row.observed for row in rows if (row.subject, row.what) == ("test-2", "live state")]
    assert str(live).endswith(
        " keys as last verified or as planned: this attempt was at work on it"
    )
