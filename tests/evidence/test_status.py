"""Where items stand and what a log amounts to: the last run counts, nothing is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import playbook
from runbook_lib.errors import LogDamaged
from runbook_lib.evidence.events import Event
from runbook_lib.evidence.status import (
    item_status,
    verdict,
    waived_rows,
)
from runbook_lib.outcomes import CheckResult, Outcome, Row, check_row, worst
from runbook_lib.verdicts import ExitCode

from ..conftest import SMALL
from ..events import event

NOW = datetime(2026, 11, 23, 14, 0, 0, tzinfo=UTC)
DECLARED = SMALL
DRIFT, CI, REACHABLE, PROVISION, DEPLOY, SUITES, BASELINE = DECLARED
OUTCOMES = st.sampled_from(Outcome)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """The development stage is the small one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(playbook.DECLARED, "development", SMALL)
        yield


class Story:
    """Events of a log, told one by one."""

    def __init__(self, mode: str = "apply", **opened: Any) -> None:
        self.entries: list[Event] = []
        self.tell("opened", **{"mode": mode, "now": NOW, "declared": DECLARED, **opened})

    def tell(self, kind: str, **body: Any) -> Story:
        self.entries.append(event(kind, seq=len(self.entries), **body))
        return self

    def session(self, number: int = 1, source: str = "live") -> Story:
        return self.tell("session", number=number, source=source)

    def started(self, item: str, number: int = 1) -> Story:
        return self.tell("started", item=item, number=number)

    def judged(self, item: str, *rows: Row | Outcome, number: int = 1, **more: Any) -> Story:
        made = tuple(row if isinstance(row, Row) else found(row) for row in rows)
        result = CheckResult(
            item=item,
            outcome=worst(row.outcome for row in made),
            reason=f"because of {item}",
            rows=made,
            started=NOW,
            ended=NOW + timedelta(minutes=len(self.entries)),
        )
        self.started(item, number)
        return self.tell("result", item=item, number=number, result=result, **more)

    def blocked(self, item: str, due: datetime | None = None) -> Story:
        self.started(item)
        return self.tell("not-reached", item=item, due=due)

    def planned(self, item: str) -> Story:
        self.started(item)
        return self.tell("planned", item=item, number=1, reason="planned")

    def waive(self, item: str, outcome: Outcome, *subjects: str) -> Story:
        expires = NOW + timedelta(days=1)
        return self.tell("waiver", item=item, outcome=outcome, subjects=subjects, expires=expires)

    def all_pass(self, *but: str) -> Story:
        for item in DECLARED:
            if item not in but:
                self.judged(item, Outcome.PASS)
        return self

    def enforced(self) -> Story:
        return self.tell("enforced", number=1)


def found(outcome: Outcome, subject: str = "dev-1", **more: Any) -> Row:
    return check_row(subject, "height", 1, 2, outcome, **more)


def code(story: Story) -> ExitCode:
    return verdict(story.entries).exit_code


# --- one item ---------------------------------------------------------------------------------------


def test_a_try_that_did_not_end_is_missing() -> None:
    """Whatever an earlier run found, one that was cut off proves nothing."""
    story = Story().judged(DRIFT, Outcome.PASS).started(DRIFT, 2)
    found = item_status(story.entries, DRIFT)

    assert (found.state, found.reason) == ("missing", "run 2 began and did not end")
    assert [(t.number, t.outcome) for t in found.earlier] == [(1, Outcome.PASS)]
    assert code(story.enforced()) is ExitCode.BROKEN


def test_the_last_try_counts_and_the_others_are_kept() -> None:
    story = Story().judged(DRIFT, Outcome.FAIL)
    story.judged(DRIFT, Outcome.INCONCLUSIVE, number=2, retry_reason="the disk was swapped")
    story.judged(DRIFT, Outcome.PASS, number=3, retry_reason="the link is back")
    found = item_status(story.entries, DRIFT)

    assert (found.state, found.number, found.outcome) == ("judged", 3, Outcome.PASS)
    assert found.reason == f"because of {DRIFT}"
    assert [(t.number, t.outcome, t.retry_reason) for t in found.earlier] == [
        (1, Outcome.FAIL, ""),
        (2, Outcome.INCONCLUSIVE, "the disk was swapped"),
    ]


def test_what_was_not_reached_says_when_it_is_due() -> None:
    """Behind an item that is merely not yet due, it is itself not yet due."""
    due = NOW + timedelta(hours=1)

    assert item_status(Story().blocked(CI, due).entries, CI).return_at == due
    assert item_status(Story().blocked(CI).entries, CI).return_at is None


@pytest.mark.parametrize("value", [None, [], "PASS", {"outcome": "PASS"}, {"item": 1}])
def test_a_result_that_is_none_is_no_event(value: Any) -> None:
    with pytest.raises(ValueError, match=r"result\.result"):
        event("result", item=CI, number=1, result=value)


def test_large_numbers_survive_the_log() -> None:
    """A float above 2**53 is written as a whole number, and comes back as the float it was."""
    row = check_row("dev-1", "stake", 1e17, 4.379854137272574e16, ok=False)
    story = Story().judged(DRIFT, row)
    result = item_status(story.entries, DRIFT).result

    assert result is not None
    assert result.rows == (row,)


# --- the verdict ------------------------------------------------------------------------------------


def test_everything_passed() -> None:
    """All items judged PASS in order, enforce last: exit 0."""
    found = verdict(Story().session().all_pass().enforced().entries)

    assert (found.exit_code, found.outcome, found.broken) == (ExitCode.PASSED, Outcome.PASS, ())
    assert found.blocking == ()
    assert found.ended == max(item.result.ended for item in found.items if item.result)


@pytest.mark.parametrize(
    "entries", [[], Story().entries[1:], Story().tell("note", text="x").entries[1:]]
)
def test_a_record_without_its_opening_is_damage(entries: list[Event]) -> None:
    with pytest.raises(LogDamaged, match="expected an opening event, got none"):
        verdict(entries)


# --- completeness -----------------------------------------------------------------------------------


def told(*items: str, **opened: Any) -> Story:
    """A run in which these items passed, in this order."""
    story = Story(**opened).session()
    for item in items:
        story.judged(item, Outcome.PASS)
    return story


OTHER = (
    "declared items: expected the playbook's {}, got {}; the log was made by another version of"
    " the tool"
)
BROKEN: dict[str, tuple[Story, str]] = {
    **{
        f"without {item}": (
            told(*(one for one in DECLARED if one != item)).enforced(),
            f"{item}: expected a final result, it has not run",
        )
        for item in DECLARED
    },
    "without enforce": (
        told(*DECLARED), "enforce: expected it to run last, it did not; run the last cell",
    ),
    "out of order": (
        told(CI, DRIFT, *DECLARED[2:]).enforced(),
        "order: expected the items in the playbook's order, got another",
    ),
    "fewer items": (
        told(*DECLARED[:3], declared=list(DECLARED[:3])).enforced(), OTHER.format(7, 3),
    ),
    "two worlds": (
        told(*DECLARED).session(2, source="rehearsal").enforced(),
        "source: expected every session live, as it was opened, got rehearsal",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("story", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_not_whole_is_broken(story: Story, said: str) -> None:
    """An item that has no result, another order or declaration, what a rehearsal proved."""
    assert verdict(story.entries).broken == (said,)
    assert code(story) is ExitCode.BROKEN


def test_a_run_of_several_sessions_and_tries_is_whole() -> None:
    """Only first results are ordered: a guard may be judged again later."""
    story = told(*DECLARED).session(2).judged(DRIFT, Outcome.PASS, number=2).enforced()

    assert verdict(story.entries).broken == ()
    assert code(story) is ExitCode.PASSED


@pytest.mark.parametrize(
    "after",
    [
        lambda story: story.judged(DRIFT, Outcome.PASS, number=2),
        lambda story: story.session(2),
        lambda story: story.session(2).waive(DRIFT, Outcome.FAIL, "dev-1"),
        lambda story: story.planned(BASELINE),
        lambda story: story.blocked(BASELINE),
    ],
)
def test_enforce_must_be_last(after: Any) -> None:
    """What was opened, waived or judged after it, it never saw."""
    story = Story().session().all_pass().enforced()
    after(story)

    assert "enforce: expected it to run last" in verdict(story.entries).broken[-1]
    assert code(story) is ExitCode.BROKEN
    assert not verdict(story.enforced().entries).broken


def test_a_stage_that_nobody_declares_has_no_items() -> None:
    other = told(*DECLARED, stage="holiday").enforced()

    assert list(verdict(other.entries).broken) == [OTHER.format(0, 7)]


def test_what_a_change_would_do_is_kept() -> None:
    """The rows of a planned item."""
    row = found(Outcome.INCONCLUSIVE)
    story = Story("plan").session().started(DEPLOY)
    story.tell("planned", item=DEPLOY, number=1, reason="r", rows=[row])

    assert item_status(story.entries, DEPLOY).planned == (row,)


# --- waivers ----------------------------------------------------------------------------------------


SUBJECTS = st.sampled_from(["dev-1", "dev-2", "dev-3"])


@given(
    rows=st.lists(st.tuples(SUBJECTS, OUTCOMES, st.booleans()), min_size=1, max_size=5),
    waivers=st.lists(
        st.tuples(
            st.sampled_from([CI, DRIFT]),
            st.sampled_from([Outcome.FAIL, Outcome.INCONCLUSIVE]),
            st.lists(SUBJECTS, min_size=1, max_size=2),
        ),
        max_size=4,
    ),
)
def test_a_waiver_never_covers_a_row_it_does_not_name(
    rows: list[tuple[str, Outcome, bool]], waivers: list[tuple[str, Outcome, list[str]]]
) -> None:
    """The item passes exactly when every row that is not PASS is named, with its outcome.

    And may be waived at all: naming a row that is never waivable covers nothing.
    """
    story = Story().session()
    for item, outcome, subjects in waivers:
        story.waive(item, outcome, *subjects)
    story.judged(CI, *(found(outcome, subject, waivable=may) for subject, outcome, may in rows))
    named = {(s, outcome) for item, outcome, subjects in waivers if item == CI for s in subjects}
    left = [
        outcome
        for subject, outcome, may in rows
        if outcome is not Outcome.PASS and not (may and (subject, outcome) in named)
    ]

    made = item_status(story.entries, CI)
    given = {w.subject for w in made.waived}
    assert given == {s for item, _, subjects in waivers if item == CI for s in subjects}

    assert [row.outcome for row in made.open_rows] == left
    assert made.outcome is (worst(left) if left else Outcome.PASS)


@given(
    waivers=st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from([CI, DRIFT]),
            st.sampled_from([Outcome.FAIL, Outcome.INCONCLUSIVE]),
            st.lists(SUBJECTS, min_size=1, max_size=2),
        ),
        max_size=6,
    )
)
def test_the_waived_rows_are_those_the_newest_session_named(
    waivers: list[tuple[int, str, Outcome, list[str]]],
) -> None:
    """Item, subject and outcome, one by one; nothing of another item or an earlier session."""
    story = Story()
    for session in (1, 2, 3):
        story.session(session)
        for when, item, outcome, subjects in waivers:
            if when == session:
                story.waive(item, outcome, *subjects)

    for item in DECLARED:
        assert [(row.subject, row.outcome) for row in waived_rows(story.entries, item)] == [
            (subject, outcome)
            for when, about, outcome, subjects in waivers
            if (when, about) == (3, item)
            for subject in subjects
        ]


def test_a_waiver_lifts_no_result_without_rows() -> None:
    story = Story().session().waive(CI, Outcome.INCONCLUSIVE, "dev-1").judged(CI)

    assert item_status(story.entries, CI).outcome is Outcome.INCONCLUSIVE


def test_notes_travel_with_the_verdict() -> None:
    story = Story().session().tell("note", text="the runner was replaced")

    assert verdict(story.entries).notes == ("the runner was replaced",)
