"""Whether a wave may begin: room in the window, and nodes must run what was verified."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook_lib import playbook
from runbook_lib.changes import roll
from runbook_lib.changes.apply import Applier
from runbook_lib.changes.roll import VERIFICATION, digest_rows
from runbook_lib.checks import development
from runbook_lib.context import Context, judges
from runbook_lib.outcomes import CheckResult, Outcome, check_row
from runbook_lib.params import MainnetParams
from runbook_lib.plan import NodeState, Phase
from runbook_lib.runs import status

from .plans import node, phase, plan

ITEM = "mainnet.activate.witness-gate"
END = datetime(2026, 12, 1, 16, tzinfo=UTC)
WAS = NodeState(gates={"a": False}, channel="canary", binary="sha256:1", config="sha256:1")
BUILT = WAS.model_copy(update={"binary": "sha256:2"})
GATED = BUILT.model_copy(update={"gates": {"a": True}, "config": "sha256:3"})


def phase_of(name: str, before: NodeState, after: NodeState, item: str = ITEM) -> Phase:
    return phase(item, name, (node(each, before, after) for each in ("n1", "n2")))


PLAN = plan(
    phase_of("build", WAS, BUILT), phase_of("gates", BUILT, GATED), phase_of("x", GATED, GATED, "y")
)


@pytest.mark.parametrize(
    ("number", "wave", "needs"),
    [(0, 0, 40), (0, 1, 30), (1, 0, 20), (1, 1, 10)],
    ids=["build 1", "build 2", "gates 1", "gates 2"],
)
def test_a_wave_begins_only_with_room_for_all_that_the_change_still_does(
    monkeypatch: pytest.MonkeyPatch, number: int, wave: int, needs: int
) -> None:
    good = check_row("quorum", "power", "up", "up", ok=True)
    monkeypatch.setattr(roll, "margin", lambda context, phase, number: (good, [["n1"]]))
    monkeypatch.setattr(roll, "digest_rows", lambda context, plan: [])
    window = {"window_start": END - timedelta(hours=4), "window_end": END}
    given = {name: at.isoformat() for name, at in window.items()}
    params = MainnetParams(**given, minutes_per_node=10.0).model_copy(update={"mode": "apply"})

    def may_begin(left: float) -> tuple[bool, list[object]]:
        now = END - timedelta(minutes=left)
        context: Any = SimpleNamespace(
            plan=PLAN, params=params, require_going_on=lambda: None,
            scope=SimpleNamespace(reread=lambda: now), site=SimpleNamespace(freezes=[]),
        )  # fmt: skip
        applier = Applier(cast(Context, context), 7)
        turns = roll._begin(context, applier, PLAN.phases[number], wave, list)
        return bool(turns), [row.expected for row in applier.rows]

    assert may_begin(needs) == (True, [])
    span = "2026-12-01 12:00:00 UTC to 2026-12-01 16:00:00 UTC"
    assert may_begin(needs - 1) == (False, [f"{span}, {needs} min before its end"])


@pytest.mark.parametrize(
    ("start", "end", "meets"),
    [(-5, -1, False), (-5, 0, False), (-1, 1, True), (1, 2, True), (4, 6, False), (5, 6, False)],
)
def test_a_freeze_that_meets_the_window_is_named(start: int, end: int, meets: bool) -> None:
    """Of a window of four hours; hours from its start, both of them ending before their end."""
    begun = END - timedelta(hours=4)
    first, last = ((begun + timedelta(hours=at)).isoformat() for at in (start, end))
    freeze = SimpleNamespace(start=first, end=last, reason="holidays")
    context: Any = SimpleNamespace(site=SimpleNamespace(freezes=[freeze]))
    rows = roll._freezes(context, begun, END)

    assert [row.observed for row in rows] == [f"frozen {first} to {last}: holidays"] * meets


@pytest.mark.parametrize("theirs", [True, False], ids=["operator", "ours"])
@pytest.mark.parametrize(("good", "begun"), [(True, [0, 1]), (False, [0])], ids=["good", "bad"])
def test_a_wave_that_did_not_succeed_stops_the_phase(
    monkeypatch: pytest.MonkeyPatch, theirs: bool, good: bool, begun: list[int]
) -> None:
    asked: list[int] = []

    def begin(*args: Any) -> list[tuple[str, ...]]:
        asked.append(args[3])
        return [args[2].waves[args[3]]]

    monkeypatch.setattr(roll, "_begin", begin)
    monkeypatch.setattr(roll, "is_theirs", lambda phase, wave: theirs)
    monkeypatch.setattr(roll, "instructed", lambda *args: False)
    monkeypatch.setattr(roll, "roll_theirs", lambda *args: good)
    rows = [check_row("n1", "binary", "it", "seen", ok=good)]
    monkeypatch.setattr(roll, "walk", lambda *args: {"n1": rows})
    context: Any = SimpleNamespace(journal=[], item=ITEM, params=None)

    assert roll.roll(context, Applier(context, 7), PLAN.phases[0]) is good
    assert asked == begun


# --- nodes must run what was verified -------------------------------------------------------------

DEPLOY = "development.activate.deploy"
NAMELESS = f"expected {VERIFICATION} to name its digest, got none"


def verifying(outcome: Outcome, data: dict[str, Any]) -> Any:
    @judges(VERIFICATION)
    def check(context: Context) -> CheckResult:
        row = check_row("node", "signature", "ours", "seen", outcome)
        return context.conclude([row], passed="verified", empty="none", data=data)

    return check


@pytest.fixture
def stage(practice: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(playbook.DECLARED, "development", (VERIFICATION, DEPLOY))
    return practice.open()


@pytest.mark.parametrize(
    ("outcome", "got"),
    [
        (Outcome.FAIL, "node: signature: expected ours, got seen"),
        (Outcome.INCONCLUSIVE, "node: signature: expected ours, got seen"),
        (None, "has not run"),
    ],
)
def test_nothing_is_verified_unless_it_passed(
    stage: Any, outcome: Outcome | None, got: str
) -> None:
    if outcome is not None:
        stage.check(verifying(outcome, {"digests": {"node": "sha256:1"}}))
    [row] = digest_rows(stage.context(DEPLOY, 1), cast(Any, PLAN))
    assert row.observed == f"expected it verified by {VERIFICATION}, got: {got}"
    assert row.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("data", "outcome", "reason"),
    [
        ({"digests": {"node": "sha256:1"}}, Outcome.FAIL, "expected sha256:1, got sha256:2"),
        ({}, Outcome.INCONCLUSIVE, NAMELESS),
        ({"digests": {"wallet": "sha256:1"}}, Outcome.INCONCLUSIVE, NAMELESS),
        ({"digests": "node"}, Outcome.INCONCLUSIVE, NAMELESS),
    ],
)
def test_another_artifact_than_the_verified_one_is_not_deployed(
    stage: Any, practice: Any, data: dict[str, Any], outcome: Outcome, reason: str
) -> None:
    stage.check(verifying(Outcome.PASS, data))
    stage.plan(practice.plan)
    stage.change(development.deploy)

    result = status(stage._session, DEPLOY).result

    said = f"release artifact: digest of the plan: {reason}"
    assert (result.outcome, result.reason) == (outcome, said)
    assert practice.mutations() == []


def test_nothing_is_asked_of_a_stage_that_does_not_verify(practice: Any) -> None:
    practice.patch.setitem(playbook.DECLARED, "development", (DEPLOY,))
    context = practice.open().context(DEPLOY, 1)

    assert digest_rows(context, practice.plan(context)) == []
