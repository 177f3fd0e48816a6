"""What a recovery is told of the apply that it undoes, and whom it asks again."""

from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib.changes import back
from runbook_lib.changes.back import Undone
from runbook_lib.evidence.events import Event
from runbook_lib.outcomes import Outcome, check_row

from ..events import event


def entry(seq: int, phase: str, **more: Any) -> Event:
    about = {"item": "canary.activate.rewards-gate", "node": "main-1", "step": "deliver-rewards"}
    return event("step", seq=seq, phase=phase, **about, **more)


@pytest.mark.parametrize(
    ("phases", "half"),
    [
        ([("intent", {})], True),
        ([("intent", {}), ("done", {})], False),
        ([("intent", {}), ("failed", {"code": 7})], False),
        ([("intent", {}), ("failed", {"code": None})], True),
        ([("intent", {}), ("inspected", {"code": None})], True),
        ([("intent", {}), ("inspected", {"code": None}), ("intent", {}), ("done", {})], False),
    ],
)
def test_a_step_is_half_done_until_its_end_was_seen(
    phases: list[tuple[str, dict[str, Any]]], half: bool
) -> None:
    """A run that only inspected it, and was stopped before it repeated it, has not ended it."""
    entries = [entry(seq, phase, **more) for seq, (phase, more) in enumerate(phases)]
    made = Undone("v1/canary/0001", Mock(), "author", (), entries)
    assert made.half_done() == ([("main-1", "deliver-rewards")] if half else [])


@pytest.mark.parametrize(
    ("outcomes", "again"),
    [(("PASS",), False), (("PASS", "INCONCLUSIVE"), True), (("PASS", "FAIL"), False)],
)
def test_only_a_node_that_could_not_be_reached_is_tried_again(
    outcomes: tuple[str, ...], again: bool
) -> None:
    rows = [check_row("n1", "config", 1, 1, Outcome(one)) for one in outcomes]

    assert back.unreached(rows) is again


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL])
def test_what_became_of_a_half_done_step_is_seen_on_its_node(outcome: Outcome) -> None:
    made: Any = Mock(**{"half_done.return_value": [("dev-1", "deploy"), ("dev-2", "")]})
    made.name = "development/0001"
    rows = {"dev-1": [check_row("dev-1", "binary", "a", "a", outcome)]}
    (row,) = back._inspected(made, rows)

    back_again = outcome is Outcome.PASS
    assert (row.subject, row.what) == ("dev-1", "deploy of development/0001")
    assert row.outcome is (Outcome.PASS if back_again else Outcome.INCONCLUSIVE)
    seen = "the node was read and taken back" if back_again else "see its rows"
    assert row.observed == seen
