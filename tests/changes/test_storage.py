"""Which restored nodes may start: by their own report, the snapshot's root, and each other."""

from __future__ import annotations

from typing import Any

import pytest

from runbook_lib.changes import storage
from runbook_lib.changes.snapshot import Chosen
from runbook_lib.errors import SourceError
from runbook_lib.outcomes import Outcome
from runbook_lib.sources.commands import answer
from runbook_lib.sources.process import Ended
from runbook_lib.sources.storage import Kept, Replayed, Stopped, wal_of

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
ROOT, LATER, OTHER = "a" * 64, "b" * 64, "c" * 64


def report(node: str, **changes: Any) -> Replayed:
    good = {
        "wal_corruption_detected": False,
        "pruning_proof_verified": True,
        "restored_root": ROOT,
        "expected_state_root": ROOT,
        "commitment_root": LATER,
        "restored_matches_expected": True,
        "height": 12,
    }
    return Replayed.model_validate({"node": node, **good, **changes})


def agreed(*reports: Replayed, root: str = ROOT, height: int = 12) -> tuple[list[str], Any]:
    """Who may start, and what is not PASS, of nodes that reported so."""
    said = {one.node: one for one in reports}
    chosen = Chosen(path="snapshots/b", name="b", height=10, root=root, label="l")

    class Work(storage.Work):
        def report(self, name: str) -> Replayed:
            return said[name]

    work = Work(None, None, chosen, {name: [] for name in said})  # type: ignore[arg-type]
    may = storage._agreed(work, list(said), height)
    rows = [row for name in said for row in work.rows[name]]
    return may, [(r.subject, r.what, r.outcome) for r in rows if r.outcome is not PASS]


def test_nodes_of_one_root_start() -> None:
    assert agreed(report("a"), report("b")) == (["a", "b"], [])
    assert agreed(report("a")) == (["a"], [])
    assert agreed() == ([], [])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"restored_root": OTHER}, ["restored state root"]),
        ({"expected_state_root": OTHER}, ["restored state root"]),
        ({"pruning_proof_verified": False}, ["pruning proofs"]),
        ({"restored_matches_expected": False}, ["pruning proofs"]),
        ({"height": 11}, ["replayed to"]),
        ({"wal_corruption_detected": True}, ["its log"]),
        ({"commitment_root": OTHER}, ["state roots"]),
    ],
)
def test_a_node_that_deviates_never_starts(changes: dict[str, Any], what: list[str]) -> None:
    may, wrong = agreed(report("a"), report("b", **changes), report("c"))

    assert may == ["a", "c"]
    assert wrong == [("b", one, FAIL) for one in what]


def test_without_a_majority_nobody_starts() -> None:
    may, wrong = agreed(report("a"), report("b", commitment_root=OTHER))

    assert (may, wrong) == ([], [("a", "state roots", FAIL), ("b", "state roots", FAIL)])


def test_no_block_no_other_root() -> None:
    may, wrong = agreed(report("a", height=10), height=10)

    assert (may, wrong) == ([], [("a", "commitment root", FAIL)])
    assert agreed(report("a", height=10, commitment_root=ROOT), height=10) == (["a"], [])


def test_a_backup_without_a_root_needs_two_nodes() -> None:
    assert agreed(report("a"), report("b"), root="") == (["a", "b"], [])
    assert agreed(report("a"), root="") == ([], [("a", "state roots", INCONCLUSIVE)])


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


def test_a_log_that_could_not_be_read_is_an_error() -> None:
    good = b'{"node": "a", "records": 3, "corrupt": false, "height": 7}'
    assert wal_of("a", Ended(0, good, b"")).height == 7
    with pytest.raises(SourceError, match="expected its log, got exit 5: no such disk"):
        wal_of("a", Ended(5, good, b"no such disk\n"))
    with pytest.raises(SourceError, match="expected its log, got ended by us"):
        wal_of("a", Ended(None, good, b"", "ended by us after 9 s"))
