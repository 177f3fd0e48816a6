"""Findings fail closed: what is opened and not judged, or cannot be read, never passes."""

import pytest

from runbook_lib.errors import SourceError
from runbook_lib.findings import Findings, read_or
from runbook_lib.outcomes import Outcome, Row

GONE = SourceError("node-1 /status", "expected an answer, got none")


def gone() -> int:
    raise GONE


def said(rows: list[Row]) -> list[tuple[str, str, object, Outcome]]:
    return [(row.subject, row.what, row.observed, row.outcome) for row in rows]


def test_a_finding_that_is_opened_is_inconclusive_until_it_is_judged() -> None:
    found = Findings()

    with found.finding("node-1", "height", 5) as judge:
        assert said(found.findings) == [("node-1", "height", "not judged", Outcome.INCONCLUSIVE)]
        assert judge(5)
    with found.finding("node-2", "height", 5):
        pass
    with found.finding("node-3", "height", 5) as judge:
        gone()

    assert said(found.findings) == [
        ("node-1", "height", 5, Outcome.PASS),
        ("node-2", "height", "not judged", Outcome.INCONCLUSIVE),
        ("node-3", "height", GONE.problem, Outcome.INCONCLUSIVE),
    ]


def test_a_finding_is_judged_once() -> None:
    found = Findings()

    twice = pytest.raises(AssertionError, match="judged twice")
    with twice, found.finding("node-1", "height", 5) as judge:
        judge(4)
        judge(5)

    assert [row.outcome for row in found.findings] == [Outcome.FAIL]


def test_what_cannot_be_read_is_one_finding_and_the_check_goes_on() -> None:
    found = Findings()

    with found.reading("height", "an answer"):
        gone()
    with found.reading("height", "an answer", "node-1"):
        gone()
    good = [name for name, _ in found.answers("height", "told", {"node-1": GONE, "node-2": 5})]
    list(found.answers("height", "told", {"node-1": GONE}, whose=False))

    assert good == ["node-2"]
    assert [row.subject for row in found.findings] == [GONE.source, "node-1", "node-1", GONE.source]
    assert {row.outcome for row in found.findings} == {Outcome.INCONCLUSIVE}


def test_what_is_judged_apart_is_no_finding_of_the_run() -> None:
    found = Findings()
    found.judge("node-1", "height", 5, 5)

    with found.apart() as others:
        found.unknown("node-2", "height", 5, "no answer")

    assert [row.subject for row in found.findings] == ["node-1"]
    assert [row.subject for row in others] == ["node-2"]


def test_where_nothing_is_found_that_holds_and_an_error_is_not_nothing() -> None:
    found = Findings()

    with found.clean("node-1", "changes", "none"):
        pass
    with found.clean("node-2", "changes", "none"):
        found.judge("node-2", "changes", "none", "a restart")
    with pytest.raises(SourceError), found.clean("node-3", "changes", "none"):
        gone()

    assert [(row.subject, row.outcome) for row in found.findings] == [
        ("node-1", Outcome.PASS),
        ("node-2", Outcome.FAIL),
    ]
    assert not found.holds


def test_an_answer_that_cannot_be_read_is_none_and_a_finding() -> None:
    found = Findings()

    assert (found.read("height", "told", gone), found.read("height", "told", lambda: 5)) == (
        None,
        5,
    )
    assert found.answer("node-2", "height", "told", GONE) is None
    assert read_or(7, gone) == 7
    assert [row.subject for row in found.findings] == [GONE.source, "node-2"]
