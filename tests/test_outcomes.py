"""Outcomes and findings fail closed: INCONCLUSIVE never passes, and the worst decides the exit code."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.errors import Answers, SourceError
from runbook_lib.findings import Findings
from runbook_lib.outcomes import (
    CheckResult,
    Outcome,
    Row,
    check_row,
    explain,
    unknown_row,
    value_text,
    worst,
)
from runbook_lib.verdicts import ExitCode, ItemStatus, Verdict

from .cards import judged, verdict

AT = datetime(2026, 1, 1, tzinfo=UTC)
PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
State = Literal["judged", "planned", "not-reached", "missing"]


def row(outcome: Outcome, subject: str = "n1", due: datetime | None = None) -> Row:
    return check_row(subject, "height", 7, 8, outcome, unit="blocks", return_at=due)


def result(*rows: Row) -> CheckResult:
    outcome = worst(each.outcome for each in rows)
    return CheckResult(item="i", outcome=outcome, reason="r", rows=rows, started=AT, ended=AT)


def standing(*rows: Row, state: State = "judged", **keys: Any) -> ItemStatus:
    return judged(*rows, item="i", **{"state": state, **keys, **({} if rows else {"result": None})})


@given(st.lists(st.sampled_from(Outcome), min_size=1))
def test_the_worst_outcome_decides(outcomes: list[Outcome]) -> None:
    """FAIL over INCONCLUSIVE over PASS, in any order."""
    expected = FAIL if FAIL in outcomes else OPEN if OPEN in outcomes else PASS
    assert worst(outcomes) is worst(reversed(outcomes)) is expected


def test_a_reason_is_the_worst_row_and_how_many_are_like_it() -> None:
    assert worst([]) is OPEN
    assert explain([], "all well", "no nodes") == "nothing to judge: no nodes"
    bad = [row(FAIL), row(FAIL, "n2"), row(PASS, "n3")]
    assert explain(bad, "well", "") == "n1: height: expected 7 blocks, got 8 blocks (and 1 more)"
    unknown = [unknown_row("n1", "height", 7, "no answer"), row(PASS)]
    assert explain(unknown, "well", "") == "n1: height: expected 7, got no answer"
    assert explain([row(PASS)], "well", "") == "well"


def test_a_number_is_written_out_up_to_fifteen_digits() -> None:
    shown = [value_text(value) for value in (999_999.5, 1e6, 999_999_999_999_999.0, 1e15)]
    assert shown == ["1e+06", "1,000,000", "999,999,999,999,999", "1e+15"]


def test_a_result_survives_json_with_its_types() -> None:
    """true is not 1 and 1 is not 1.0 after a round trip."""
    rows = tuple(
        check_row("s", "w", value, value, True) for value in (True, 1, 1.5, "1", "true", False, 0)
    )
    again = CheckResult.model_validate_json(result(*rows).model_dump_json())
    assert again == result(*rows)
    assert [type(each.observed) for each in again.rows] == [bool, int, float, str, str, bool, int]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_holds_no_nan(value: float) -> None:
    with pytest.raises(ValueError):
        check_row("s", "w", 1, value, True)


def test_time_would_cure_it_only_when_nothing_else_is_open() -> None:
    """The latest instant of those that are merely not yet due."""
    later = AT + timedelta(hours=1)
    assert result(row(OPEN, due=AT), row(OPEN, "n2", due=later), row(PASS)).return_at == later
    assert result(row(OPEN, due=AT), row(OPEN, "n2")).return_at is None
    assert result(row(OPEN, due=AT), row(FAIL, "n2")).return_at is None
    assert result(row(PASS)).return_at is None


@pytest.mark.parametrize(("said", "rows"), [(PASS, (row(FAIL),)), (FAIL, ()), (PASS, ())])
def test_an_outcome_that_does_not_follow_from_its_rows_is_refused(
    said: Outcome, rows: tuple[Row, ...]
) -> None:
    """Nobody passes by word alone, and a bare FAIL could not be waived."""
    with pytest.raises(ValueError, match="the worst of its rows"):
        CheckResult(item="i", outcome=said, reason="r", rows=rows, started=AT, ended=AT)


@pytest.mark.parametrize(
    ("found", "code", "outcome"),
    [
        (verdict(standing(row(PASS))), ExitCode.PASSED, PASS),
        (verdict(standing(row(PASS)), standing(row(FAIL))), ExitCode.REFUSED, FAIL),
        (verdict(standing(row(OPEN)), standing(row(FAIL))), ExitCode.REFUSED, FAIL),
        (verdict(standing(row(OPEN)), standing(row(OPEN, due=AT))), ExitCode.INCONCLUSIVE, OPEN),
        (verdict(standing(row(OPEN, due=AT)), standing(row(PASS))), ExitCode.WAITING, OPEN),
        (verdict(standing(row(OPEN, due=AT)), standing(state="not-reached", due=AT)), ExitCode.WAITING, OPEN),
        (verdict(standing(row(OPEN, due=AT), row(OPEN, "n2"))), ExitCode.INCONCLUSIVE, OPEN),
        (verdict(standing(row(FAIL, due=AT))), ExitCode.REFUSED, FAIL),
        (verdict(standing(row(PASS)), standing(state="not-reached")), ExitCode.INCONCLUSIVE, OPEN),
        (verdict(standing(state="missing"), standing(row(FAIL))), ExitCode.BROKEN, OPEN),
        (verdict(standing(row(PASS)), standing(state="planned"), mode="plan"), ExitCode.PASSED, PASS),
        (verdict(standing(row(PASS)), standing(state="planned")), ExitCode.BROKEN, OPEN),
        (verdict(standing(row(PASS)), broken=("altered",)), ExitCode.BROKEN, OPEN),
    ],
)  # fmt: skip
def test_the_exit_code_is_that_of_the_worst_item(
    found: Verdict, code: ExitCode, outcome: Outcome
) -> None:
    """3 over 1 over 2 over 4 over 0."""
    assert (found.exit_code, found.outcome) == (code, outcome)
    assert (found.return_at is not None) == (code is ExitCode.WAITING)


def test_only_what_is_never_waivable_says_so_in_a_log() -> None:
    """Logs made before rows could say it read the same, and are written the same."""
    plain, never = row(FAIL), check_row("n1", "digest", "a", "b", ok=False, waivable=False)

    assert "waivable" not in plain.model_dump(mode="json")
    assert never.model_dump(mode="json")["waivable"] is False
    assert [Row.model_validate_json(one.model_dump_json()) for one in (plain, never)] == [
        plain,
        never,
    ]
    assert check_row("n1", "digest", "a", "a", ok=True, waivable=False).waivable


# --- Findings: what is opened and not judged, or cannot be read, never passes ---------------------


GONE = SourceError("node-1 /status", "expected an answer, got none")


def gone() -> int:
    raise GONE


def told(rows: list[Row]) -> list[tuple[str, str, object, Outcome]]:
    return [(row.subject, row.what, row.observed, row.outcome) for row in rows]


def test_a_finding_that_is_opened_is_inconclusive_until_it_is_judged() -> None:
    found = Findings()

    with found.finding("node-1", "height", 5) as judge:
        assert told(found.findings) == [("node-1", "height", "not judged", Outcome.INCONCLUSIVE)]
        assert judge(5)
    with found.finding("node-2", "height", 5):
        pass
    with found.finding("node-3", "height", 5) as judge:
        gone()

    assert told(found.findings) == [
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
    with found.reading("height", "an answer", "node-1", ValueError):
        int("x")
    answers = Answers(Mock(side_effect=[GONE, 5]), ["node-1", "node-2"])
    good = dict(found.answers("height", "told", answers))

    assert good == answers.known == {"node-2": 5}
    subjects = [GONE.source, "node-1", "node-1", "node-1"]
    assert [row.subject for row in found.findings] == subjects
    assert {row.outcome for row in found.findings} == {Outcome.INCONCLUSIVE}
    assert GONE.source in str(found.findings[1].observed)


def test_the_answer_of_one_that_failed_is_its_error_and_hides_no_other() -> None:
    answers = Answers(Mock(side_effect=[5, GONE, 5]), "abca")

    assert (list(answers), len(answers), answers["c"]) == (["a", "b", "c"], 3, 5)
    for use in (lambda: answers["b"], lambda: list(answers.values()), lambda: dict(answers)):
        with pytest.raises(SourceError, match=GONE.source):
            use()
    answers.fill("b", 7)
    assert dict(answers) == {"a": 5, "b": 7, "c": 5}


def test_what_is_judged_apart_is_no_finding_of_the_run() -> None:
    found = Findings()
    found.judge("node-1", "height", 5, 5)

    with found.apart() as others:
        found.unknown("node-2", "height", 5, "no answer")

    assert [row.subject for row in found.findings] == ["node-1"]
    assert [row.subject for row in others] == ["node-2"]


def test_where_nothing_is_found_that_holds_and_an_error_is_not_nothing() -> None:
    found = Findings()

    with found.reading("changes", "none", "node-1", clean="none"):
        pass
    with found.reading("changes", "none", "node-2", clean="none"):
        found.judge("node-2", "changes", "none", "a restart")
    with found.reading("changes", "none", "node-3", clean="none"):
        gone()

    assert [(row.subject, row.outcome) for row in found.findings] == [
        ("node-1", Outcome.PASS),
        ("node-2", Outcome.FAIL),
        ("node-3", Outcome.INCONCLUSIVE),
    ]
    assert not found.holds
