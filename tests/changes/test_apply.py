"""Steps are journalled, done ones are not repeated, and what nodes came to is read back."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock, call

import pytest

from runbook_lib.canonical import digest_bytes
from runbook_lib.changes.adopt import adopt
from runbook_lib.changes.apply import (
    FORWARD,
    RECOVERY,
    Applier,
    Step,
    Strategy,
    all_pass,
    failed_row,
    read_back,
    runs_as_planned,
    walk,
)
from runbook_lib.context import Context
from runbook_lib.errors import Answers, LogDamaged, ParameterError, SourceError
from runbook_lib.evidence.ledger import kept_config
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome, Row, check_row
from runbook_lib.plan import NodePlan, NodeState, differences
from runbook_lib.sources.commands import NodeConfig
from runbook_lib.sources.node import Fleet, Rollout
from runbook_lib.sources.process import Ended
from runbook_rehearsal.files import digest_of, pack

from ..conftest import not_passed
from ..events import event
from ..messages import saying

DEPLOY = "development.activate.deploy"
GOOD = NodeState(gates={"a": True}, channel="development", binary="sha256:1", config="sha256:2")


class Work:
    """An applier of one change, and a step whose command says how it ends."""

    def __init__(self, practice: Any) -> None:
        self.stage = practice.open()
        self.runs: list[Path] = []
        self.ended = Ended(0, b"", b"")

    def applier(self, number: int = 1) -> Applier:
        return Applier(self.stage.context(DEPLOY, number), 7)

    def step(self, name: str = "restart") -> Step:
        def run(lock: int, outputs: Path) -> Ended:
            assert lock == 7
            self.runs.append(outputs)
            return self.ended

        return Step("dev-1", name, run)

    def phases(self) -> list[tuple[str, str]]:
        entries = self.stage._session.log.events()
        return [(e.phase, e.stem) for e in entries if e.kind == "step"]


@pytest.fixture
def work(practice: Any) -> Work:
    return Work(practice)


def test_a_step_is_journalled_before_and_after(work: Work) -> None:
    applier = work.applier()

    assert applier.step(work.step())
    assert work.phases() == [("intent", "dev-1-restart-1"), ("done", "dev-1-restart-1")]
    assert work.runs == [applier.context.folder / "steps" / "dev-1-restart-1"]
    assert applier.done("dev-1", "restart") == "dev-1-restart-1"
    assert applier.rows == []


def test_a_done_step_is_not_repeated(work: Work) -> None:
    work.applier(1).step(work.step())
    later = work.applier(2)

    assert later.step(work.step())
    assert later.done("dev-1", "restart") == "dev-1-restart-1"
    assert later.done("dev-1", "deliver") == ""
    assert later.step(work.step("deliver"))
    assert [path.name for path in work.runs] == ["dev-1-restart-1", "dev-1-deliver-2"]


@pytest.mark.parametrize(
    ("ended", "observed", "outcome"),
    [
        (Ended(3, b"", b"one\nno room\n"), "exit 3: no room", Outcome.FAIL),
        (Ended(1, b"", b""), "exit 1: no message", Outcome.FAIL),
        (Ended(None, b"", b"", "still at work after 9 s"), "still at work", Outcome.INCONCLUSIVE),
        (Ended(None, b"", b"", "cannot be started: gone"), "cannot be", Outcome.INCONCLUSIVE),
    ],
)
def test_a_failed_step_stops_the_change(
    work: Work, ended: Ended, observed: str, outcome: Outcome
) -> None:
    work.ended = ended
    applier = work.applier()

    assert not applier.step(work.step())
    assert applier.rows == [failed_row(work.step(), ended)]
    assert str(applier.rows[0].observed).startswith(observed)
    assert applier.rows[0].outcome is outcome
    assert not all_pass(applier.rows) and not all_pass([])
    assert work.phases()[-1][0] == "failed"

    work.ended = Ended(0, b"", b"")
    assert work.applier(2).step(work.step())
    assert len(work.runs) == 2


@pytest.mark.parametrize(
    ("phase", "done", "phases"),
    [
        ("intent", True, ["intent", "done"]),
        ("intent", False, ["intent", "inspected"]),
        ("failed", True, ["failed", "done"]),
        ("failed", False, ["failed", "inspected"]),
        ("done", True, ["done"]),
    ],
)
def test_a_step_that_is_not_taken_up_again_is_settled(
    work: Work, phase: str, done: bool, phases: list[str]
) -> None:
    work.applier()._note(work.step("restart.1"), phase, "dev-1-restart.1-1")
    work.applier(2).settle("dev-1", "restart", done)
    assert [each for each, _ in work.phases()] == phases
    assert work.runs == []


@pytest.mark.parametrize(
    ("code", "shows", "runs"),
    [
        ("0\n", None, 0),
        ("4\n", None, 1),
        ("", None, 1),
        ("garbage", None, 1),
        (None, None, 1),
        # A command that was killed leaves no exit code: what the node shows decides.
        (None, True, 0),
        (None, False, 1),
    ],
)
def test_a_half_done_step_is_inspected(
    work: Work, code: str | None, shows: bool | None, runs: int
) -> None:
    applier = work.applier()
    applier._note(work.step(), "intent", "dev-1-restart-1")
    steps = applier.context.folder / "steps"
    steps.mkdir()
    if code is not None:
        (steps / "dev-1-restart-1.code").write_text(code)
    step = work.step() if shows is None else replace(work.step(), is_done=lambda: shows)

    assert work.applier(2).step(step)
    assert len(work.runs) == runs
    phases = [phase for phase, _ in work.phases()]
    assert (phases[-1], "inspected" in phases) == ("done", bool(runs))


def test_a_command_that_ended_after_we_gave_up_on_it_is_found_done(work: Work) -> None:
    work.ended = Ended(None, b"", b"", "still at work after 9 s (process 7)")
    applier = work.applier()
    assert not applier.step(work.step())
    (applier.context.folder / "steps" / "dev-1-restart-1.code").write_text("0\n")

    assert work.applier(2).step(work.step())
    assert len(work.runs) == 1
    assert work.stage._session.log.events()[-1].found is True


# --- the walk over nodes --------------------------------------------------------------------------

ILL, UNSEEN = Outcome.FAIL, Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("strategy", "shows", "visited"),
    [
        (FORWARD, {}, ["a", "b", "c"]),
        (FORWARD, {"a": ILL}, ["a"]),
        (FORWARD, {"b": UNSEEN}, ["a", "b"]),
        (RECOVERY, {"a": ILL}, ["a", "b", "c"]),
        # By then they may run: not all of them go down at once.
        (RECOVERY, {"a": UNSEEN, "c": UNSEEN}, ["a", "b", "c", "a", "c"]),
    ],
)
def test_a_walk_stops_or_passes_over_and_comes_again_in_the_same_waves(
    work: Work, strategy: Strategy, shows: dict[str, Outcome], visited: list[str]
) -> None:
    seen: list[str] = []

    def visit(context: Context, applier: Applier, name: str) -> list[Row]:
        seen.append(name)
        return [check_row(name, "it", "good", "as it is", shows.get(name, Outcome.PASS))]

    applier = work.applier()
    found = walk(applier.context, applier, [["a", "b"], ["c"]], strategy, visit)

    assert sorted(seen[:2]) + seen[2:] == visited
    assert list(found) == sorted({*visited})


# --- known state and the plan ---------------------------------------------------------------------


def known(work: Work) -> dict[str, Any]:
    return work.stage.context("known", 1).ledger.known("development")


def test_the_last_verified_state_is_known(work: Work) -> None:
    newer = GOOD.model_copy(update={"binary": "sha256:9"})
    work.applier().verified("dev-1", GOOD)
    work.applier().verified("dev-1", newer)
    found = known(work)

    assert (found["dev-1"].state, found["dev-1"].origin) == (newer, "v1.4.0/development/0001")
    assert found["dev-1"].state == newer
    said = "dev-2: expected a known state in the store, got none; take development over as it is"
    with saying(SourceError, f"{said} with `runbook adopt`"):
        found["dev-2"]


def test_a_state_that_is_none_damages_its_log(practice: Any, work: Work) -> None:
    made = Store(practice.root / "store").create(event("opened", release="v1.5.0"))
    with made.log.path.open("ab") as file:
        file.write(event("state", seq=1, prev=made.log.head).line().replace(b"{}", b"1") + b"\n")
    with pytest.raises(LogDamaged, match=r"^log.jsonl: line 2: expected an event, got: state"):
        known(work)


def test_differences_name_the_absent_side() -> None:
    found = differences({"b": 1, "a": "x", "same": True}, {"c": False, "a": "y", "same": True})
    assert found == [("b", 1, "absent"), ("a", "x", "y"), ("c", "absent", False)]


# --- adopting -------------------------------------------------------------------------------------

TOML = NodeConfig(b"epoch_length = 720\n", GOOD.config)


def test_an_unknown_cluster_and_one_that_does_not_answer_cannot_be_adopted(practice: Any) -> None:
    said = f"{practice.site}: clusters: expected one of development, got 'mainnet'"
    with saying(ParameterError, said):
        adopt(str(practice.site), "mainnet")
    assert list((practice.root / "store").iterdir()) == []
    with saying(SourceError, "dev-1 /status/rollout: ", whole=False):
        adopt(str(practice.site), "development")


def test_a_cluster_is_taken_over_on_somebody_elses_word_or_a_single_operators(
    practice: Any, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbook_lib.changes.adopt._read", lambda *asked: {"dev-1": (GOOD, TOML)})
    unapproved = adopt(str(practice.site), "development")

    assert (unapproved.approved_by, unapproved.self_approved) == ((), False)
    assert known(work) == {}

    approval = practice.approve(unapproved.digest)
    approved = adopt(str(practice.site), "development", approval=approval)

    assert (approved.approved_by, approved.self_approved) == (("bob",), False)
    assert known(Work(practice))["dev-1"].origin == ".adopted/development/0002"
    assert kept_config(approved.attempt.folder, "dev-1").read_bytes() == TOML.text
    assert not kept_config(unapproved.attempt.folder, "dev-1").exists()

    practice.write_site(single_operator=True)
    alone = adopt(str(practice.site), "development")
    assert (alone.approved_by, alone.self_approved) == (("alice",), True)


@pytest.mark.parametrize(
    ("member", "given", "artifact"),
    [("", False, "binary"), ("bin/rpp-node", False, ""), ("bin/rpp-node", True, "file")],
)
def test_what_a_binary_was_delivered_in_is_told_when_it_is_adopted(
    practice: Any, monkeypatch: pytest.MonkeyPatch, member: str, given: bool, artifact: str
) -> None:
    file, strange = practice.root / "rpp-node.tar.gz", practice.root / "strange.tar.gz"
    file.write_bytes(pack(b"binary"))
    strange.write_bytes(pack(b"another"))
    digests = {"binary": digest_bytes(b"binary"), "file": digest_of(file), "": ""}
    build = json.dumps({"digest": digests["binary"], "commit": "0" * 40, "version": "v1"})
    practice.write_site(
        single_operator=True,
        binary_member=member,
        commands={"version": {"argv": ["echo", build]}, "read_config": {"argv": ["echo", "a = 1"]}},
    )
    rollout = Rollout.model_construct(feature_gates={}, release_channel="development")
    monkeypatch.setattr(Fleet, "rollout", lambda self: {"dev-1": rollout})
    done = adopt(str(practice.site), "development", artifacts=[file] if given else [])

    assert done.states["dev-1"].artifact == digests[artifact]
    assert done.states["dev-1"].binary == digests["binary"]
    with pytest.raises(SourceError, match="expected the build of a node, got binary sha256:"):
        adopt(str(practice.site), "development", artifacts=[strange])


# --- what is read back of a node ------------------------------------------------------------------

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
BEFORE = NodeState(gates={"a": False}, channel="canary", binary="sha256:1", config="sha256:1")
AFTER = NodeState(gates={"a": True}, channel="canary", binary="sha256:2", config="sha256:2")
NODE = NodePlan(node="n1", control="ours", before=BEFORE, after=AFTER)
UNREAD = SourceError("n1", "it is silent")


def context(answers_after: float = 0, old_s: float = 0, **shown: Any) -> Any:
    """A node that answers after so many seconds, is what it was for as long, and then differs from
    the plan in what is given.
    """
    made = SimpleNamespace(patience_s=20, slept=0.0)
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def sleep(seconds: float) -> None:
        made.slept += seconds

    def now(what: str, of: NodeState) -> Any:
        return getattr(BEFORE, what) if made.slept < old_s else shown.get(what, getattr(of, what))

    def rollout(name: str) -> Any:
        if made.slept < answers_after:
            raise UNREAD
        gates, channel = now("gates", AFTER), now("channel", AFTER)
        return SimpleNamespace(feature_gates=gates, release_channel=channel)

    def digest(what: str, name: str) -> Any:
        if (found := now(what, AFTER)) is UNREAD:
            raise UNREAD
        return SimpleNamespace(digest=found)

    made.scope = SimpleNamespace(reread=lambda: start + timedelta(seconds=made.slept), sleep=sleep)
    made.fleet = SimpleNamespace(rollout=lambda names: Answers(rollout, names))
    reads = {"version": partial(digest, "binary"), "read_config": partial(digest, "config")}
    made.commands = SimpleNamespace(**reads)
    return cast(Context, made)


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ({}, []),
        ({"channel": "mainnet"}, [("rollout.release_channel", FAIL)]),
        ({"gates": {"a": False}}, [("rollout.feature_gates.a", FAIL)]),
        ({"gates": {}}, [("rollout.feature_gates.a", FAIL)]),
        ({"gates": {"a": True, "b": False}}, [("rollout.feature_gates.b", FAIL)]),
        ({"binary": "sha256:1"}, [("binary", FAIL)]),
        ({"config": "sha256:1"}, [("config", FAIL)]),
        ({"binary": UNREAD}, [("binary", INCONCLUSIVE)]),
        ({"config": UNREAD}, [("config", INCONCLUSIVE)]),
    ],
)
def test_a_node_is_as_planned_only_with_all_of_it(
    shown: dict[str, Any], wrong: list[tuple[str, Outcome]]
) -> None:
    applier = Mock()
    rows = read_back(context(**shown), applier, NODE, "gates")

    assert not_passed(rows, "what", "outcome") == wrong
    assert applier.verified.mock_calls == ([] if wrong else [call("n1", AFTER, "gates")])
    assert runs_as_planned(context(**shown), NODE) is (not wrong)


def test_a_node_that_is_silent_is_asked_again_until_the_patience_is_used_up() -> None:
    assert not_passed(read_back(context(answers_after=19), Mock(), NODE, ""), "what") == []
    (row,) = read_back(context(answers_after=21), Mock(), NODE, "")

    assert (row.what, row.outcome) == ("comes back", FAIL)
    assert row.observed == "no answer within 20 s: it is silent"
    assert runs_as_planned(context(answers_after=1), NODE) is False


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [
        ({"old_s": 3}, []),
        ({"old_s": 3, "channel": "mainnet"}, ["rollout.release_channel"]),
        ({"old_s": 99}, ["rollout.feature_gates.a", "binary", "config"]),
    ],
)
def test_the_process_before_is_waited_for_and_then_the_node_is_judged(
    shown: dict[str, Any], wrong: list[str]
) -> None:
    """A restart that returned at once; one that never came is a node that is as it was."""
    node = context(**shown)

    assert not_passed(read_back(node, Mock(), NODE, ""), "what") == [(what,) for what in wrong]
    assert node.slept == min(shown["old_s"], 10)
