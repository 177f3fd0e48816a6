"""Which restored nodes may start: by their own report, the snapshot's root, and each other."""

from typing import Any

import pytest

from runbook_lib.changes import storage
from runbook_lib.changes.storage import Kept, Replayed
from runbook_lib.errors import SourceError
from runbook_lib.evidence.events import SnapshotChosen
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.commands import Stopped, answer

from ..conftest import not_passed

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
ROOT, LATER, OTHER = "a" * 64, "b" * 64, "c" * 64


def report(node: str, **changes: Any) -> Replayed:
    roots = {"restored_root": ROOT, "expected_state_root": ROOT, "commitment_root": LATER}
    good = {"pruning_proof_verified": True, "restored_matches_expected": True, **roots}
    good |= {"wal_corruption_detected": False, "height": 12}
    return Replayed.model_validate({"node": node, **good, **changes})


def agreed(*reports: Replayed, root: str = ROOT, height: int = 12) -> tuple[list[str], Any]:
    """Who may start, and what is not PASS, of nodes that reported so."""
    said = {one.node: one for one in reports}
    chosen = SnapshotChosen(item="x", path="snapshots/b", name="b", height=10, root=root, label="l")

    class Work(storage.Work):
        def report(self, name: str) -> Replayed:
            return said[name]

    work = Work(None, None, chosen, {name: [] for name in said})  # type: ignore[arg-type]
    may = storage._agreed(work, list(said), height)
    rows = [row for name in said for row in work.rows[name]]
    return may, not_passed(rows, "subject", "what", "outcome")


A, B, C = report("a"), report("b"), report("c")


@pytest.mark.parametrize(
    ("reports", "chosen", "may", "wrong"),
    [
        ([A, B], {}, ["a", "b"], []),
        ([A], {}, ["a"], []),
        ([], {}, [], []),
        # Without a majority nobody starts.
        ([A, report("b", commitment_root=OTHER)], {}, [],
         [("a", "state roots", FAIL), ("b", "state roots", FAIL)]),
        # No block, no other root.
        ([report("a", height=10)], {"height": 10}, [], [("a", "commitment root", FAIL)]),
        ([report("a", height=10, commitment_root=ROOT)], {"height": 10}, ["a"], []),
        # A backup without a root needs two nodes.
        ([A, B], {"root": ""}, ["a", "b"], []),
        ([A], {"root": ""}, [], [("a", "state roots", INCONCLUSIVE)]),
        *(([A, report("b", **{key: value}), C], {}, ["a", "c"], [("b", what, FAIL)])
          for key, value, what in (
            ("restored_root", OTHER, "restored state root"),
            ("expected_state_root", OTHER, "restored state root"),
            ("pruning_proof_verified", False, "pruning proofs"),
            ("restored_matches_expected", False, "pruning proofs"),
            ("height", 11, "replayed to"),
            ("wal_corruption_detected", True, "its log"),
            ("commitment_root", OTHER, "state roots"),
        )),
    ],
    ids=range(15),
)  # fmt: skip
def test_nodes_of_one_root_start_and_one_that_deviates_never_does(
    reports: list[Replayed], chosen: dict[str, Any], may: list[str], wrong: list[Any]
) -> None:
    assert agreed(*reports, **chosen) == (may, wrong)


def test_answers_are_about_the_node_that_was_asked() -> None:
    assert answer("stopped", "a", b'{"node": "a", "stopped": true}', Stopped).stopped
    for printed, why in (
        (b'{"node": "b", "stopped": true}', "expected 'a', got 'b'"),
        (b'{"node": "a", "stopped": "yes"}', "stopped"),
        (b"", "JSON"),
    ):
        with pytest.raises(SourceError, match=why):
            answer("stopped", "a", printed, Stopped)
    with pytest.raises(SourceError, match="kept"):
        answer("keep_data", "a", b'{"node": "a", "kept": ""}', Kept)
