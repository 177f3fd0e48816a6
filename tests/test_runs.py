"""Every run is kept, and nothing passes that was not proven."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import opening, playbook
from runbook_lib.errors import RunbookError, SourceError, StageRefused, StoreError
from runbook_lib.evidence.events import Note
from runbook_lib.evidence.replay import seal_by_hand
from runbook_lib.evidence.verify import verify
from runbook_lib.outcomes import Outcome
from runbook_lib.runs import blocker, stale, unfit_between_waves, waiver_ended
from runbook_lib.session import Session
from runbook_lib.sources.tape import read_entries
from runbook_lib.verdicts import ExitCode
from runbook_lib.wording import utc

from .cards import BAD, judged, waived
from .conftest import (
    ALICES,
    BASELINE,
    CI,
    DEPLOY,
    DRIFT,
    FAIL,
    INCONCLUSIVE,
    PASS,
    PROVISION,
    REACHABLE,
    SMALL,
    SUITES,
    short,
    states,
    text,
)
from .messages import saying


def test_an_item_of_another_stage_is_refused(practice: Any) -> None:
    stage = practice.open()
    with pytest.raises(RunbookError) as caught:
        stage.check(practice.check("testnet.ready.soak"))

    assert str(caught.value) == (
        "development: testnet.ready.soak: expected an item this stage declares, got another"
    )


def test_our_own_mistake_is_inconclusive_and_its_traceback_kept(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, without secrets; never a bare traceback in the notebook."""
    secret = "practice-token-of-no-worth"
    stage = practice.open()
    card = stage.check(practice.check(DRIFT, ZeroDivisionError(f"divided {secret}")))
    result = practice.events("result")[-1].result

    assert result.outcome is Outcome.INCONCLUSIVE
    assert "internal error: ZeroDivisionError" in text(card)
    assert "Traceback" in result.data["traceback"]
    assert secret not in result.data["traceback"]


@pytest.mark.parametrize("where", ["check", "change"])
def test_an_interrupt_leaves_a_record_that_says_where(practice: Any, where: str) -> None:
    """The run did not end: it is broken, and continuing does it again without repeating steps."""
    stage = practice.open()
    item = DRIFT if where == "check" else PROVISION
    with pytest.raises(KeyboardInterrupt):
        practice.walk(stage, **{short(item): KeyboardInterrupt()})

    assert practice.events()[-1].kind == "stopped"
    assert practice.events()[-1].content == {"kind": "stopped", "item": item, "number": 1}
    assert stage.verdict().items[SMALL.index(item)].reason == "run 1 began and did not end"
    with pytest.raises(StageRefused) as caught:
        stage.enforce()
    assert caught.value.exit_code == 3

    again = practice.open(attempt=1)
    practice.walk(again)
    again.enforce()

    assert practice.made == [PROVISION, DEPLOY]
    assert practice.events("session")[-1].number == 2


def test_a_fail_is_tried_again_for_a_reason_and_shown_for_ever(practice: Any) -> None:
    """The card says FAIL on run 1, and why it was tried again."""
    practice.item(practice.open(), DRIFT, FAIL)
    stage = practice.open(attempt=1, retry_reason="dev-1 was repaired")
    card = practice.item(stage, DRIFT)
    later = practice.item(practice.open(attempt=1), DRIFT)

    assert text(card).splitlines()[0] == f"✓ PASS {DRIFT} · run 2, FAIL on run 1"
    assert "FAIL on run 1" in text(later).splitlines()[0]
    assert practice.events("result")[-1].retry_reason == "dev-1 was repaired"


@pytest.mark.parametrize("hidden_by", ["not reached", "interrupted"])
def test_a_fail_is_not_washed_away_by_what_came_after(practice: Any, hidden_by: str) -> None:
    """A run that found nothing out does not make the one after it free."""
    stage = practice.open()
    practice.walk(stage, provision=1)
    again = practice.open(attempt=1, retry_reason="the automation was repaired")
    if hidden_by == "not reached":
        for item in (DRIFT, CI, REACHABLE):
            practice.item(again, item)
        practice.item(again, REACHABLE, INCONCLUSIVE)
        practice.item(again, PROVISION)
        assert states(again)[PROVISION] == "not-reached"
    else:
        with pytest.raises(KeyboardInterrupt):
            practice.walk(again, provision=KeyboardInterrupt())
    third = practice.open(attempt=1)
    practice.item(third, REACHABLE)
    card = practice.item(third, PROVISION)

    assert "a FAIL stands; to try again, continue with a retry_reason" in text(card)
    assert third.verdict().exit_code is not ExitCode.PASSED


def test_continuing_shows_what_passed_without_a_new_try(practice: Any) -> None:
    """Nothing is asked again, and the card says of which run it is."""
    practice.walk(practice.open(), smoke_suites=INCONCLUSIVE)
    asked = len(read_entries(practice.folder() / "tape"))
    stage = practice.open(attempt=1)
    cards = practice.walk(stage)
    stage.enforce()

    assert "(by run 1)" in text(cards[0])
    assert [e.item for e in practice.events("started")] == [*SMALL, SUITES, BASELINE]
    assert practice.made == [PROVISION, DEPLOY]
    assert len(read_entries(practice.folder() / "tape")) > asked
    assert {e.item for e in read_entries(practice.folder() / "tape") if e.number == 2} >= {SUITES}


def test_a_cell_run_again_by_hand_is_a_new_try(practice: Any) -> None:
    """Also of an item that passed: who runs a cell twice wants to know."""
    stage = practice.open()
    practice.item(stage, DRIFT)
    practice.item(stage, DRIFT, INCONCLUSIVE)

    assert stage.verdict().items[0].outcome is INCONCLUSIVE
    assert stage.verdict().items[0].number == 2


def test_continuing_judges_again_what_has_aged(practice: Any) -> None:
    """A PASS of a guard that ages is no longer shown after its time."""
    practice.item(practice.open(), DRIFT)
    practice.item(practice.open(attempt=1), DRIFT)
    assert len(practice.events("result")) == 1

    practice.wind(2 * 3600)
    practice.item(practice.open(attempt=1), DRIFT)

    assert len(practice.events("result")) == 2


# --- One rule guards every change: what stands open before it, or has aged, blocks it ---


@pytest.mark.parametrize("outcome", [FAIL, INCONCLUSIVE])
@pytest.mark.parametrize("item", [DRIFT, CI, REACHABLE, PROVISION, DEPLOY])
def test_what_follows_an_open_item_is_not_reached(
    practice: Any, item: str, outcome: Outcome
) -> None:
    """Not one mutating call comes after it, and nothing that depends on a change is judged."""
    stage = practice.open()
    if playbook.ITEMS[item].kind == "change":
        code = 1 if outcome is FAIL else SourceError("dev-1", "it is silent")
        practice.walk(stage, **{short(item): code})
    else:
        practice.walk(stage, **{short(item): outcome})
    declared = list(SMALL)
    before, after = declared[: declared.index(item)], declared[declared.index(item) + 1 :]
    changes = [one for one in declared if playbook.ITEMS[one].kind == "change"]
    first_change = min(declared.index(one) for one in changes)
    last = next(e.seq for e in practice.events("result") if e.item == item)

    assert {one: states(stage)[one] for one in after if declared.index(one) >= first_change} == {
        one: "not-reached" for one in after if declared.index(one) >= first_change
    }
    assert practice.made == [one for one in [*before, item] if one in changes]
    assert [e.seq for e in practice.events("step") if e.seq > last] == []
    with pytest.raises(StageRefused) as caught:
        stage.enforce()
    assert caught.value.exit_code == (1 if outcome is FAIL else 2)


def test_an_item_that_was_skipped_blocks_all_after_it(practice: Any) -> None:
    stage = practice.open()
    practice.item(stage, DRIFT)
    practice.item(stage, REACHABLE)
    practice.item(stage, PROVISION)

    assert states(stage)[REACHABLE] == states(stage)[PROVISION] == "not-reached"
    assert practice.made == []


def test_no_change_without_its_plan(practice: Any) -> None:
    stage = practice.until(DEPLOY)
    missing = blocker(stage._session, DEPLOY)
    card = stage.change(practice.change(DEPLOY))

    assert missing is not None
    assert (missing.item, missing.number, missing.reason) == ("the plan", 0, "none was made")
    assert "not reached: blocked by the plan" in text(card)
    assert practice.made == [PROVISION]


def test_not_yet_due_goes_through_to_the_verdict(practice: Any) -> None:
    """Behind an item that waits everything waits: exit 4, with the instant to return at."""
    due = practice.now() + timedelta(hours=2)
    stage = practice.open()
    stage.check(practice.check(DRIFT, INCONCLUSIVE, return_at=due))
    for item in SMALL[1:]:
        practice.item(stage, item)
    with pytest.raises(StageRefused) as caught:
        stage.enforce()

    assert caught.value.exit_code == 4
    assert stage.verdict().return_at == due
    assert practice.made == []


def test_a_change_does_not_begin_on_results_that_are_too_old(practice: Any) -> None:
    """All of them are named at once; refreshed, each by a run of its own, it goes on."""
    stage = practice.until(DEPLOY)
    practice.wind(2 * 3600)
    card = practice.item(stage, DEPLOY)
    wanted = f"too old: {DRIFT}, {REACHABLE}; run the refresh cell above it, or continue"
    assert f"not reached: {wanted}" in text(card)
    refreshed = text(stage.refresh())
    assert [item for item in SMALL if item in refreshed] == [DRIFT, REACHABLE]
    practice.item(stage, DEPLOY)

    assert [item.number for item in stage.verdict().items] == [2, 1, 2, 1, 2, 0, 0]
    assert practice.made == [PROVISION, DEPLOY]
    assert "no result is too old" in text(stage.refresh())


@pytest.mark.parametrize("outcome", [FAIL, INCONCLUSIVE])
def test_a_refreshed_check_that_no_longer_passes_stops_the_change(
    practice: Any, outcome: Outcome
) -> None:
    stage = practice.until(DEPLOY)
    practice.wind(2 * 3600)
    stage._session.checks[DRIFT] = practice.check(DRIFT, outcome)
    stage.refresh()
    card = practice.item(stage, DEPLOY)
    standing = stage.verdict().items[0]

    assert f"not reached: blocked by {DRIFT}" in text(card)
    assert (standing.outcome, standing.number) == (outcome, 2)
    assert practice.made == [PROVISION]


def test_what_did_not_run_in_this_kernel_cannot_be_refreshed(practice: Any) -> None:
    practice.until(DEPLOY)
    practice.wind(2 * 3600)
    stage = practice.open(attempt=1)

    assert text(stage.refresh()).count("too old; run its cell") == 2
    assert f"not reached: too old: {DRIFT}, {REACHABLE}" in text(practice.item(stage, DEPLOY))
    assert practice.made == [PROVISION]


def test_what_a_fast_clock_judged_is_too_old(practice: Any) -> None:
    """Dated hours ahead it would stay young for hours too long; a few minutes are no matter."""
    stage = practice.open()
    practice.wind(10 * 3600)
    for item in (DRIFT, CI):
        practice.item(stage, item)
    practice.wind(120)
    practice.item(stage, REACHABLE)
    practice.wind(0)

    assert f"too old: {DRIFT};" in text(practice.item(stage, PROVISION))


def test_valid_for_may_be_tightened(practice: Any) -> None:
    stage = practice.until(PROVISION, valid_for_minutes=1.0)
    practice.wind(120)

    assert f"too old: {DRIFT}, {REACHABLE};" in text(practice.item(stage, PROVISION))


def test_a_pass_is_stale_only_beyond_its_validity_and_the_clocks_lag(practice: Any) -> None:
    """At either limit it is not yet; nor has a waiver ended that none of its rows needs."""
    stage = practice.open()
    practice.item(stage, DRIFT)
    standing = stage.verdict().items[0]
    judged, valid_for, tick = standing.result.started, timedelta(hours=1), timedelta(seconds=1)

    ages = (valid_for, valid_for + tick, -playbook.NOW_SOURCE_LAG, -playbook.NOW_SOURCE_LAG - tick)
    assert [stale(standing, judged + age, valid_for) for age in ages] == [False, True, False, True]
    assert waiver_ended(standing, judged) == ""


def test_a_waiver_ends_at_its_expiry(practice: Any) -> None:
    """Not a moment after it."""
    at = datetime(2026, 11, 1, tzinfo=UTC)
    standing = judged(BAD, item=DRIFT, waived=(waived(BAD.subject, expires=at),))

    assert waiver_ended(standing, at - timedelta(seconds=1)) == ""
    assert waiver_ended(standing, at) == (
        f"the waiver of {DRIFT} ended at 2026-11-01 00:00:00 UTC; continue with one in force"
    )


def test_between_waves_a_waiver_may_end(practice: Any) -> None:
    """A stage without rules to look at has nothing else to ask."""
    expires = (practice.now() + timedelta(minutes=30)).replace(microsecond=0)
    stage = practice.open(waivers=[practice.approved_waiver(expires=expires.isoformat())])
    for item in (DRIFT, CI, REACHABLE):
        practice.item(stage, item, FAIL if item == CI else None)
    session = stage._session
    assert unfit_between_waves(session, stage.context(PROVISION)) == ""
    practice.wind(3600)

    assert unfit_between_waves(session, stage.context(PROVISION, 2)) == (
        f"the waiver of {CI} ended at {utc(expires)}; continue with one in force"
    )


# --- A change is made by one run at a time, and what its command did is not repeated ---


def test_a_second_run_is_told_who_holds_the_cluster(practice: Any) -> None:
    stage = practice.until(PROVISION)
    with stage._session.store.cluster_lock("development", "carol (v1/development/0007)"):
        card = practice.item(stage, PROVISION)

    assert "got held by carol (v1/development/0007)" in text(card)
    assert stage.verdict().items[3].outcome is INCONCLUSIVE
    assert practice.made == []


def cells_of(practice: Any, stage: Any) -> list[Any]:
    """What a person may still run in a kernel."""
    items = [partial(practice.item, stage, item) for item in SMALL]
    return [*items, stage.refresh, stage.enforce, partial(stage.expect, lambda context: [])]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_kernel_whose_attempt_was_continued_elsewhere_writes_nothing(practice: Any) -> None:
    """Nor does what it had begun before; the other kernel goes on."""
    first, second = practice.open(), practice.open(attempt=1)
    before, folder = files_of(practice.folder()), practice.folder()
    goes_on = f"runbook run development --continue -f {folder}/params.yaml"
    said = f"v1.4.0/development/0001: it was continued elsewhere, and this kernel writes no more: `{goes_on}`"
    writes = partial(first._session.log.append, Note(text="late"))
    for cell in (*cells_of(practice, first), writes):
        with saying(StoreError, said):
            cell()

    assert files_of(folder) == before
    practice.walk(second)
    assert text(second.enforce())


def test_a_kernel_whose_attempt_was_sealed_writes_nothing(practice: Any) -> None:
    """The evidence verifies before its cells are run, and after."""
    stage = practice.open()
    practice.write_notebook(practice.walk(stage), stage.enforce())
    seal_by_hand(practice.folder())
    before = files_of(practice.folder())
    for cell in cells_of(practice, stage):
        with pytest.raises(StoreError, match="it was sealed, and this kernel writes no more"):
            cell()

    assert files_of(practice.folder()) == before
    assert {row.outcome for row in verify(practice.folder(), ALICES)[0]} == {PASS}


def test_of_two_that_continue_at_once_one_is_refused(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw one session; the second to write its own finds the first's."""
    practice.open()
    number, inner = 0, opening._begin_session

    def late(session: Session) -> None:
        nonlocal number
        number += 1
        if number == 1:
            practice.open(attempt=1)
        inner(session)

    monkeypatch.setattr(opening, "_begin_session", late)
    with saying(
        StoreError, "v1.4.0/development/0001: somebody else continued it just now; try again"
    ):
        practice.open(attempt=1)


def test_every_cell_run_twice_changes_nothing_the_second_time(practice: Any) -> None:
    """No change is made again, and every outcome stays."""
    stage = practice.open()
    for item in SMALL:
        practice.item(stage, item)
        practice.item(stage, item)
    stage.enforce()

    assert text(stage.enforce())
    assert {item.outcome for item in stage.verdict().items} == {PASS}
    assert practice.made == [PROVISION, DEPLOY]
