"""One rule guards every change, every try is kept, and nothing passes that was not proven."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.state import known_map
from runbook_lib.context import Context, judges
from runbook_lib.errors import ParameterError, RunbookError, SourceError, StageRefused, StoreError
from runbook_lib.evidence.by_hand import seal_by_hand
from runbook_lib.evidence.record import Record
from runbook_lib.evidence.replay import compare
from runbook_lib.evidence.verify import verify
from runbook_lib.outcomes import CheckResult, ExitCode, Outcome
from runbook_lib.params import Waiver
from runbook_lib.sources.tape import read_entries

from .conftest import SMALL

DECLARED = SMALL
DRIFT, CI, REACHABLE, PROVISION, DEPLOY, SUITES, BASELINE = DECLARED
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def states(stage: Any) -> dict[str, str]:
    return {item.item: item.state for item in stage.verdict().items}


def text(card: Any) -> str:
    return card._repr_mimebundle_()[0]["text/plain"]


def short(item: str) -> str:
    return item.split(".")[-1].replace("-", "_")


# --- the rule ---------------------------------------------------------------------------------------


def test_everything_passes_in_order(practice: Any) -> None:
    """Both changes are made once, and enforce shows the verdict."""
    stage = practice.open()
    practice.walk(stage)

    assert "✓ PASS" in text(stage.enforce())
    assert stage.verdict().exit_code is ExitCode.PASSED
    assert practice.made == [PROVISION, DEPLOY]
    assert [entry.item for entry in practice.mutations()] == [PROVISION, DEPLOY]


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
    declared = list(DECLARED)
    before, after = declared[: declared.index(item)], declared[declared.index(item) + 1 :]
    changes = [one for one in declared if playbook.ITEMS[one].kind == "change"]
    first_change = min(declared.index(one) for one in changes)
    last = next(e.seq for e in practice.entries("result") if e.body["item"] == item)

    assert {one: states(stage)[one] for one in after if declared.index(one) >= first_change} == {
        one: "not-reached" for one in after if declared.index(one) >= first_change
    }
    assert practice.made == [one for one in [*before, item] if one in changes]
    assert [e.seq for e in practice.entries("step") if e.seq > last] == []
    with pytest.raises(StageRefused) as caught:
        stage.enforce()
    assert caught.value.exit_code == (1 if outcome is FAIL else 2)


def test_readiness_checks_are_all_judged_whatever_one_finds(practice: Any) -> None:
    """Before the first change nothing hangs on another: a person sees all that is wrong at once."""
    stage = practice.open()
    practice.walk(stage, config_drift=FAIL)

    assert [states(stage)[item] for item in (DRIFT, CI, REACHABLE)] == ["judged"] * 3


def test_what_blocks_is_named(practice: Any) -> None:
    """The card under a change that was not reached says why."""
    stage = practice.open()
    cards = practice.walk(stage, ci_green=INCONCLUSIVE)

    assert text(cards[3]).splitlines()[:2] == [
        f"– NOT REACHED {PROVISION} (change)",
        f"not reached: blocked by {CI}",
    ]


def test_an_item_that_was_skipped_blocks_all_after_it(practice: Any) -> None:
    """Cells run out of order change nothing."""
    stage = practice.open()
    practice.item(stage, DRIFT)
    practice.item(stage, REACHABLE)
    practice.item(stage, PROVISION)

    assert states(stage)[REACHABLE] == states(stage)[PROVISION] == "not-reached"
    assert practice.made == []


def test_no_change_without_its_plan(practice: Any) -> None:
    """The deploy needs the plan that says what it will do."""
    stage = practice.open()
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(stage, item)
    card = stage.change(practice.change(DEPLOY))

    assert "not reached: blocked by the plan" in text(card)
    assert practice.made == [PROVISION]


def test_a_plan_that_cannot_be_made_says_why(practice: Any) -> None:
    """And the change behind it is not reached."""
    stage = practice.open()

    def plan(context: Any) -> Any:
        raise SourceError("dev-1", "expected its TOML, got nothing")

    assert "dev-1: expected its TOML, got nothing" in text(stage.plan(plan))
    assert practice.entries("plan") == []


def test_not_yet_due_goes_through_to_the_verdict(practice: Any) -> None:
    """Behind an item that waits everything waits: exit 4, with the instant to return at."""
    due = practice.now() + timedelta(hours=2)
    stage = practice.open()
    stage.check(practice.check(DRIFT, INCONCLUSIVE, return_at=due))
    for item in DECLARED[1:]:
        practice.item(stage, item)
    with pytest.raises(StageRefused) as caught:
        stage.enforce()

    assert caught.value.exit_code == 4
    assert stage.verdict().return_at == due
    assert practice.made == []


def test_an_item_of_another_stage_is_refused(practice: Any) -> None:
    """A stage judges what it declares."""
    stage = practice.open()
    with pytest.raises(RunbookError) as caught:
        stage.check(practice.check("testnet.ready.soak"))

    assert str(caught.value) == (
        "development: testnet.ready.soak: expected an item this stage declares, got another"
    )


# --- what a check may do wrong ----------------------------------------------------------------------


def test_a_source_that_cannot_be_read_is_inconclusive(practice: Any) -> None:
    """The card says which source and what was expected of it."""
    stage = practice.open()
    problem = SourceError("prometheus", "expected an answer, got 503")
    card = stage.check(practice.check(DRIFT, problem))

    assert "? INCONCLUSIVE" in text(card)
    assert "prometheus: readable: expected an answer, got 503" in text(card)


def test_our_own_mistake_is_inconclusive_and_its_traceback_kept(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the record, without secrets; never a bare traceback in the notebook."""
    secret = "practice-token-of-no-worth"
    stage = practice.open()
    card = stage.check(practice.check(DRIFT, ZeroDivisionError(f"divided {secret}")))
    result = practice.entries("result")[-1].body["result"]

    assert result["outcome"] == "INCONCLUSIVE"
    assert "internal error: ZeroDivisionError" in text(card)
    assert "Traceback" in result["data"]["traceback"]
    assert secret not in result["data"]["traceback"]


@pytest.mark.parametrize("where", ["check", "change"])
def test_an_interrupt_leaves_a_record_that_says_where(practice: Any, where: str) -> None:
    """The try did not end: it is broken, and continuing does it again without repeating steps."""
    stage = practice.open()
    item = DRIFT if where == "check" else PROVISION
    with pytest.raises(KeyboardInterrupt):
        practice.walk(stage, **{short(item): KeyboardInterrupt()})

    assert practice.entries()[-1].kind == "stopped"
    assert practice.entries()[-1].body == {"item": item, "number": 1}
    assert stage.verdict().items[DECLARED.index(item)].reason == "try 1 began and did not end"
    with pytest.raises(StageRefused) as caught:
        stage.enforce()
    assert caught.value.exit_code == 3

    again = practice.open(attempt=1)
    practice.walk(again)
    again.enforce()

    assert practice.made == [PROVISION, DEPLOY]
    assert practice.entries("session")[-1].body["number"] == 2


def test_a_step_whose_command_outlived_us_is_found_done(practice: Any) -> None:
    """Its exit code lies beside its output: the journal says that it was found."""
    stage = practice.open()
    with pytest.raises(KeyboardInterrupt):
        practice.walk(stage, provision=KeyboardInterrupt())
    again = practice.open(attempt=1)
    practice.walk(again)
    steps = [e.body for e in practice.entries("step") if e.body["item"] == PROVISION]

    assert [(body["phase"], body.get("found")) for body in steps] == [
        ("intent", None),
        ("done", True),
    ]
    assert practice.made == [PROVISION, DEPLOY]


def test_a_second_run_is_told_who_holds_the_cluster(practice: Any) -> None:
    """A change beside another run is INCONCLUSIVE, and nothing is changed."""
    stage = practice.open()
    for item in (DRIFT, CI, REACHABLE):
        practice.item(stage, item)
    with stage._session.store.cluster_lock("development", "carol (v1/development/0007)"):
        card = practice.item(stage, PROVISION)

    assert "got held by carol (v1/development/0007)" in text(card)
    assert stage.verdict().items[3].outcome is INCONCLUSIVE
    assert practice.made == []


# --- tries ------------------------------------------------------------------------------------------


def test_an_inconclusive_is_replaced_freely(practice: Any) -> None:
    """Run the cell again; the card says which try it is."""
    stage = practice.open()
    practice.item(stage, DRIFT, INCONCLUSIVE)
    card = practice.item(stage, DRIFT)

    assert text(card).splitlines()[0] == f"✓ PASS {DRIFT} · try 2"
    assert "try 1: ? INCONCLUSIVE" in text(card)


def test_a_fail_stands_without_a_reason(practice: Any) -> None:
    """Running the cell again shows it again."""
    stage = practice.open()
    practice.item(stage, DRIFT, FAIL)
    card = practice.item(stage, DRIFT)

    assert "a FAIL stands; to try again, continue with a retry_reason" in text(card)
    assert len(practice.entries("result")) == 1


def test_a_fail_is_tried_again_for_a_reason_and_shown_for_ever(practice: Any) -> None:
    """The card says FAIL on try 1, and why it was tried again."""
    practice.item(practice.open(), DRIFT, FAIL)
    stage = practice.open(attempt=1, retry_reason="dev-1 was repaired")
    card = practice.item(stage, DRIFT)
    later = practice.item(practice.open(attempt=1), DRIFT)

    assert text(card).splitlines()[0] == f"✓ PASS {DRIFT} · try 2, FAIL on try 1"
    assert "FAIL on try 1" in text(later).splitlines()[0]
    assert practice.entries("result")[-1].body["retry_reason"] == "dev-1 was repaired"


@pytest.mark.parametrize("hidden_by", ["not reached", "interrupted"])
def test_a_fail_is_not_washed_away_by_what_came_after(practice: Any, hidden_by: str) -> None:
    """A try that found nothing out does not make the one after it free."""
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

    assert "a FAIL stands" in text(card)
    assert third.verdict().exit_code is not ExitCode.PASSED


def test_continuing_shows_what_passed_without_a_new_try(practice: Any) -> None:
    """Nothing is asked again, and the card says of which try it is."""
    practice.walk(practice.open(), smoke_suites=INCONCLUSIVE)
    asked = len(read_entries(practice.folder() / "tape"))
    stage = practice.open(attempt=1)
    cards = practice.walk(stage)
    stage.enforce()

    assert "(judged by an earlier try, 1)" in text(cards[0])
    assert [e.body["item"] for e in practice.entries("started")] == [*DECLARED, SUITES, BASELINE]
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
    assert len(practice.entries("result")) == 1

    practice.wind(2 * 3600)
    practice.item(practice.open(attempt=1), DRIFT)

    assert len(practice.entries("result")) == 2


# --- guards that age --------------------------------------------------------------------------------


def test_aged_guards_are_judged_again_before_a_change(practice: Any) -> None:
    """Only those that age by the clock, recorded under the change, no try of their own."""
    stage = practice.open()
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(stage, item)
    assert practice.entries("guard") == []
    practice.wind(2 * 3600)
    practice.item(stage, DEPLOY)
    for item in (SUITES, BASELINE):
        practice.item(stage, item)
    stage.enforce()
    guards = [
        (e.body["change"], e.body["item"], e.body["number"]) for e in practice.entries("guard")
    ]

    assert guards == [(DEPLOY, DRIFT, 1), (DEPLOY, REACHABLE, 1)]
    assert stage.verdict().items[0].number == 1
    assert practice.made == [PROVISION, DEPLOY]


@pytest.mark.parametrize("outcome", [FAIL, INCONCLUSIVE])
def test_a_guard_that_no_longer_holds_stops_the_change(practice: Any, outcome: Outcome) -> None:
    """It becomes a try of its own item, and the change is not reached."""
    stage = practice.open()
    finds = {"now": PASS}
    first = practice.check(DRIFT)

    def drift(context: Any) -> Any:
        return practice.check(DRIFT, finds["now"])(context)

    drift.item = first.item  # type: ignore[attr-defined]
    stage.check(drift)
    for item in (CI, REACHABLE, PROVISION):
        practice.item(stage, item)
    practice.wind(2 * 3600)
    finds["now"] = outcome
    card = practice.item(stage, DEPLOY)
    standing = stage.verdict().items[0]

    assert f"not reached: blocked by {DRIFT}" in text(card)
    assert (standing.outcome, standing.number) == (outcome, 2)
    assert practice.made == [PROVISION]


def test_an_aged_guard_whose_cell_did_not_run_stops_the_change(practice: Any) -> None:
    """What cannot be judged again is too old to rely on."""
    first = practice.open()
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(first, item)
    practice.wind(2 * 3600)
    stage = practice.open(attempt=1)
    card = practice.item(stage, DEPLOY)

    assert f"not reached: {DRIFT} is too old; run its cell again" in text(card)
    assert practice.made == [PROVISION]


def test_valid_for_may_be_tightened(practice: Any) -> None:
    """A shorter validity ages guards sooner."""
    stage = practice.open(valid_for_minutes=1.0)
    for item in (DRIFT, CI, REACHABLE):
        practice.item(stage, item)
    practice.wind(120)
    practice.item(stage, PROVISION)

    assert [e.body["item"] for e in practice.entries("guard")] == [DRIFT, REACHABLE]


# --- opening ----------------------------------------------------------------------------------------


def test_a_misspelt_keyword_is_refused(practice: Any) -> None:
    """So is one that is left out: every parameter is passed by its name."""
    values = {**practice.params, "relase": "v1"}
    del values["wait"]
    practice.params = values
    with pytest.raises(ParameterError) as caught:
        practice.open()

    assert len(caught.value.problems) == 2
    assert caught.value.problems[0].startswith("open_stage: relase: expected no such keyword;")
    assert caught.value.problems[1] == (
        "open_stage: wait: expected it passed as wait=wait, got nothing"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"release": ""}, "release: expected a value with a site, got none"),
        (
            {"commit": "c0ffee"},
            "commit: expected 40 lowercase hex digits of a commit, got 'c0ffee'",
        ),
        ({"valid_for_minutes": 61.0}, "valid_for_minutes: expected less than or equal to 60"),
        ({"max_missing": 0.5}, "max_missing: expected less than or equal to 0.02"),
        ({"baseline_hours": 0.5}, "baseline_hours: expected greater than or equal to 1"),
        ({"paging_severities": ["page"]}, "paging_severities: expected at least"),
        ({"mode": "dry"}, "mode: expected 'plan' or 'apply'"),
        ({"wait": "yes"}, "wait: expected true or false, got 'yes'"),
    ],
)
def test_wrong_and_laxer_parameters_open_nothing(
    practice: Any, changes: dict[str, Any], problem: str
) -> None:
    """The playbook's numbers are floors; nothing is created in the store."""
    with pytest.raises(ParameterError) as caught:
        practice.open(**changes)

    assert caught.value.problems[0].startswith(f"development parameters: {problem}")
    assert list((practice.root / "store").iterdir()) == []


def test_a_missing_site_file_is_named(practice: Any) -> None:
    """With what to do about it."""
    with pytest.raises(ParameterError) as caught:
        practice.open(site="nowhere.yaml")

    assert str(caught.value) == (
        "nowhere.yaml: expected a site file, got: No such file or directory;"
        " copy params/sites/example.yaml and name yours in `site`"
    )


def test_a_stage_the_site_lacks_is_refused(practice: Any) -> None:
    """A site says which cluster each of its stages works on."""
    practice.write_site(stages={})
    with pytest.raises(ParameterError) as caught:
        practice.open()

    assert str(caught.value).endswith("stages: expected a cluster for development, got none")


def test_an_unknown_operator_cannot_apply(practice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In plan mode anybody may run."""
    monkeypatch.setenv("RUNBOOK_OPERATOR", "mallory")
    with pytest.raises(ParameterError) as caught:
        practice.open()

    assert str(caught.value) == (
        "operator: expected one of the site's people (alice, bob), got 'mallory';"
        " export RUNBOOK_OPERATOR"
    )
    assert practice.open(mode="plan").verdict().operator == "mallory"


def test_a_machine_without_user_names_has_no_operator(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container without a password file is a person's mistake, not a traceback."""
    for name in ("RUNBOOK_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        monkeypatch.delenv(name, raising=False)

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(ParameterError, match="got 'unknown'"):
        practice.open()


def test_an_attempt_fixes_its_parameters(practice: Any) -> None:
    """Every one that differs is named; those of a try may change."""
    practice.open()
    with pytest.raises(ParameterError) as caught:
        practice.open(attempt=1, mode="plan", baseline_hours=2.0, wait=True)

    assert caught.value.problems == (
        "mode: expected 'apply' as attempt 1 was opened with, got 'plan'",
        "baseline_hours: expected 1 as attempt 1 was opened with, got 2.0",
    )
    assert practice.open(attempt=1, wait=True, as_of="2026-01-01T00:00:00Z").verdict().number == 2


def test_an_attempt_that_is_not_there_cannot_be_continued(practice: Any) -> None:
    """The known ones are named."""
    practice.open()
    with pytest.raises(StoreError) as caught:
        practice.open(attempt=7)

    assert str(caught.value) == "v1.4.0/development: attempt: expected one of [1], got 7"


def test_the_clock_of_a_rehearsal_marks_its_evidence(practice: Any) -> None:
    """An offset clock is a rehearsal, UTC is live."""
    assert practice.open().verdict().source == "rehearsal"
    practice.write_site(clock={"source": "utc"})
    assert practice.open().verdict().source == "live"


def test_an_unreadable_clock_opens_nothing(practice: Any) -> None:
    """Without the time nothing can be judged."""
    practice.clock.write_text("{}")
    with pytest.raises(SourceError) as caught:
        practice.open()

    assert caught.value.source == "clock"


def test_the_banner_says_where_one_stands(practice: Any) -> None:
    """Attempt, mode and how far it got."""
    practice.walk(practice.open(), deploy=1)
    banner = practice.open(attempt=1)._repr_mimebundle_()[0]["text/plain"]

    assert "attempt 1" in banner
    assert "4 of 7" in banner


# --- plan mode --------------------------------------------------------------------------------------


def test_a_plan_changes_nothing(practice: Any) -> None:
    """Checks before the first change are judged; it and all after it are planned: ready, exit 0."""
    stage = practice.open(mode="plan")
    practice.walk(stage)
    stage.enforce()

    assert [states(stage)[item] for item in DECLARED] == ["judged"] * 3 + ["planned"] * 4
    assert {entry.purpose for entry in read_entries(practice.folder() / "tape")} == {"read"}
    assert practice.entries("step") == []
    assert practice.made == []
    assert len(practice.entries("plan")) == 1


def test_a_plan_behind_a_failed_check_is_refused(practice: Any) -> None:
    """What would not be reached is not planned either."""
    stage = practice.open(mode="plan")
    practice.walk(stage, ci_green=FAIL)
    with pytest.raises(StageRefused):
        stage.enforce()

    assert states(stage)[PROVISION] == "not-reached"
    assert stage.verdict().exit_code is ExitCode.REFUSED


def test_every_change_says_what_it_would_do(practice: Any) -> None:
    """Also one that follows another: what it would do can be said before that is done."""
    stage = practice.open(mode="plan")
    practice.walk(stage)
    planned = {item.item: len(item.planned) for item in stage.verdict().items if item.planned}

    assert planned == {PROVISION: 1, DEPLOY: 1}


def test_without_its_plan_a_change_is_not_planned_either(practice: Any) -> None:
    """A plan run in which no plan could be made is not ready to apply."""
    stage = practice.open(mode="plan")
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(stage, item)
    stage.change(practice.change(DEPLOY))

    assert states(stage)[DEPLOY] == "not-reached"
    assert stage.verdict().items[4].reason == "not reached: blocked by the plan none was made"


def test_a_change_that_cannot_be_planned_is_inconclusive(practice: Any) -> None:
    """An unreadable bundle is a row on its card, not a traceback."""
    stage = practice.open(mode="plan")
    for item in (DRIFT, CI, REACHABLE):
        practice.item(stage, item)
    change = practice.change(PROVISION)

    def plan(context: Any) -> Any:
        raise SourceError("bundle", "expected TOML, got none")

    change.plan = plan
    card = stage.change(change)

    assert "bundle: readable: expected TOML, got none" in text(card)
    assert stage.verdict().items[3].outcome is INCONCLUSIVE


def test_a_plan_is_kept_for_the_attempt(practice: Any) -> None:
    """Continuing shows the plan that was made, and does not make another."""
    first = practice.open()
    shown = text(first.plan(practice.plan))
    again = practice.open(attempt=1)

    def never(context: Any) -> Any:
        raise AssertionError("a plan is made once")

    assert text(again.plan(never)) == shown
    assert len(practice.entries("plan")) == 1


# --- waivers ----------------------------------------------------------------------------------------


def waiver(practice: Any, **changes: Any) -> dict[str, Any]:
    return {
        "item": CI,
        "subjects": ["dev-1"],
        "outcome": "FAIL",
        "reason": "a known flake, see the issue",
        "expires": (practice.now() + timedelta(days=1)).isoformat(),
        **changes,
    }


def approved(practice: Any, **changes: Any) -> dict[str, Any]:
    made = waiver(practice, **changes)
    digest = Waiver(**made).digest("v1.4.0", "development")
    return {**made, "approval": practice.approve(digest)}


def test_an_approved_waiver_lets_its_row_pass(practice: Any) -> None:
    """By somebody else than the runner; the card says who and until when."""
    stage = practice.open(waivers=[approved(practice)])
    cards = practice.walk(stage, ci_green=FAIL)
    stage.enforce()

    assert text(cards[1]).startswith(f"✓ PASS by waiver {CI}")
    assert "waived by bob" in text(cards[1])
    assert practice.entries("waiver")[0].body["self_approved"] is False
    assert practice.made == [PROVISION, DEPLOY]


@pytest.mark.parametrize("named", [{"subjects": ["dev-9"]}, {"outcome": "INCONCLUSIVE"}])
def test_a_row_the_waiver_does_not_name_still_blocks(practice: Any, named: dict[str, Any]) -> None:
    """Another subject, or another outcome, is not what was accepted."""
    stage = practice.open(waivers=[approved(practice, **named)])
    practice.walk(stage, ci_green=FAIL)
    with pytest.raises(StageRefused):
        stage.enforce()

    assert states(stage)[PROVISION] == "not-reached"
    assert stage.verdict().exit_code is ExitCode.REFUSED


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"subjects": []}, "subjects: expected"),
        ({"subjects": [" "]}, "expected the subject of every row it covers, got an empty one"),
        ({"item": "ci-green"}, "expected an item of the playbook, got 'ci-green'"),
        (
            {"item": DEPLOY},
            "expected an item that may be waived; development.activate.deploy never is",
        ),
        ({"outcome": "PASS"}, "outcome: expected 'FAIL' or 'INCONCLUSIVE'"),
        ({"reason": "because"}, "reason: expected"),
        ({"expires": "tomorrow"}, "expires: expected an instant such as 2026-01-31T12:00:00Z"),
        ({"expires": "2026-01-31T12:00:00"}, "expires: expected an instant with its offset"),
        ({"expires": "2026-01-31T12:00:00Z"}, "expires: expected an instant to come"),
        ({"item": "testnet.ready.soak"}, "item: expected an item of development"),
        (
            {"approval": "nowhere.json"},
            "approval: {project}/nowhere.json: expected a readable file",
        ),
        ({}, "expected an approval of sha256:"),
    ],
)
def test_a_waiver_that_cannot_be_in_force_is_refused(
    practice: Any, changes: dict[str, Any], problem: str
) -> None:
    """One that names no row, an unknown item, a change, no reason, no end, or no approval."""
    with pytest.raises(ParameterError) as caught:
        practice.open(waivers=[waiver(practice, **changes)])

    assert len(caught.value.problems) == 1
    assert "waivers.0" in str(caught.value)
    assert problem in str(caught.value)


def test_an_approval_of_another_waiver_does_not_count(practice: Any) -> None:
    """The digest binds every word of it, and the release."""
    other = approved(practice, reason="another reason than this")
    with pytest.raises(ParameterError, match="expected an approval of sha256:"):
        practice.open(waivers=[{**other, "reason": "a known flake, see the issue"}])
    with pytest.raises(ParameterError, match="expected an approval of sha256:"):
        practice.open(release="v1.5.0", waivers=[approved(practice)])


def test_nobody_approves_their_own_waiver(practice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the site has a single operator, and then every card says so."""
    monkeypatch.setenv("RUNBOOK_OPERATOR", "bob")
    with pytest.raises(ParameterError) as caught:
        practice.open(waivers=[approved(practice)])
    assert "by somebody other than bob, got only their own" in str(caught.value)

    practice.write_site(single_operator=True)
    stage = practice.open(waivers=[waiver(practice)])
    cards = practice.walk(stage, ci_green=FAIL)

    assert "self-approved" in text(cards[1])
    assert stage.verdict().exit_code is ExitCode.BROKEN  # enforce has not run yet
    assert "self-approved" in text(stage.enforce())


def test_a_waiver_ends_with_the_session_that_carried_it(practice: Any) -> None:
    """Continuing without it, its rows block again."""
    practice.walk(practice.open(waivers=[approved(practice)]), ci_green=FAIL)
    stage = practice.open(attempt=1)
    practice.walk(stage)
    with pytest.raises(StageRefused):
        stage.enforce()

    assert stage.verdict().exit_code is ExitCode.REFUSED


# --- replay -----------------------------------------------------------------------------------------


def replayed(practice: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, **walk: Any) -> Any:
    """The attempt in ``folder`` replayed by its own checks; the replaying stage."""
    monkeypatch.setenv("RUNBOOK_REPLAY", str(folder))
    stage = practice.open()
    practice.walk(stage, **walk)
    monkeypatch.delenv("RUNBOOK_REPLAY")
    return stage


def same(practice: Any, stage: Any) -> dict[str, Outcome]:
    rows = compare(practice.entries(), stage._session.record.entries())
    return {row.subject: row.outcome for row in rows}


def test_a_replay_asks_nobody_and_finds_the_same(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The world may be gone; no change is made; the card says that it is a replay."""
    practice.walk(practice.open())
    practice.world.unlink()
    stage = replayed(practice, practice.folder(), monkeypatch)

    assert same(practice, stage) == dict.fromkeys(DECLARED, PASS)
    assert practice.made == [PROVISION, DEPLOY]
    assert "✓ PASS" in text(stage.enforce())
    assert stage.verdict().source == "replay"
    assert "REPLAY OF A RECORDING" in stage._repr_mimebundle_()[0]["text/plain"]


def test_a_later_attempt_reads_the_store_in_its_replay_as_it_did(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one of several there, and its own record is told from theirs by its number."""

    @judges(DRIFT)
    def check(context: Context) -> CheckResult:
        known_map(context.scope, context.store, context.cluster_name)
        return context.conclude([practice.row(PASS)], passed="it holds", empty="none")

    practice.open().check(check)
    live = practice.open()
    live.check(check)
    monkeypatch.setenv("RUNBOOK_REPLAY", str(practice.folder(2)))
    stage = practice.open()
    stage.check(check)

    assert stage.verdict().attempt == 2
    assert stage.verdict().items[0].result == live.verdict().items[0].result


def test_a_replay_follows_tries_sessions_and_waivers(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last try of each item, with the parameters and waivers of its session."""
    practice.walk(practice.open(), ci_green=FAIL)
    practice.walk(practice.open(attempt=1, waivers=[approved(practice)]))
    practice.world.unlink()
    stage = replayed(practice, practice.folder(), monkeypatch, ci_green=FAIL)
    stage.enforce()

    assert same(practice, stage) == dict.fromkeys(DECLARED, PASS)
    assert stage.verdict().items[1].waived


def test_a_replay_shows_the_tries_that_came_before(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells run again by hand, in the replay too, count once each."""
    stage = practice.open()
    practice.item(stage, DRIFT, INCONCLUSIVE)
    practice.walk(stage)
    monkeypatch.setenv("RUNBOOK_REPLAY", str(practice.folder()))
    replay = practice.open()
    practice.item(replay, DRIFT)
    practice.walk(replay)

    assert [t.number for t in replay.verdict().items[0].earlier] == [1]
    assert same(practice, replay) == dict.fromkeys(DECLARED, PASS)


def test_a_replay_of_a_red_run_is_red(practice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not reached is not reached again."""
    practice.walk(practice.open(), telemetry_reachable=FAIL)
    stage = replayed(practice, practice.folder(), monkeypatch, telemetry_reachable=FAIL)

    assert same(practice, stage) == dict.fromkeys(DECLARED, PASS)
    assert states(stage)[DEPLOY] == "not-reached"


def test_a_replay_judges_aged_guards_as_they_were(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the change that relied on them."""
    stage = practice.open()
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(stage, item)
    practice.wind(2 * 3600)
    for item in (DEPLOY, SUITES, BASELINE):
        practice.item(stage, item)
    replay = replayed(practice, practice.folder(), monkeypatch)

    assert len([e for e in replay._session.record.entries() if e.kind == "guard"]) == 2
    assert same(practice, replay) == dict.fromkeys(DECLARED, PASS)


def test_a_replay_follows_a_guard_that_no_longer_held(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its try asked under the change, and answers from there; the attempt verifies, too."""
    stage = practice.open()
    for item in (DRIFT, CI, REACHABLE, PROVISION):
        practice.item(stage, item)
    practice.wind(2 * 3600)
    stage._tries.checks[DRIFT] = practice.check(DRIFT, FAIL)
    cards = [practice.item(stage, item) for item in (DEPLOY, SUITES, BASELINE)]
    with pytest.raises(StageRefused):
        stage.enforce()
    practice.write_notebook([*cards, *cards, *cards])
    seal_by_hand(practice.folder())
    practice.world.unlink()
    replay = replayed(practice, practice.folder(), monkeypatch, config_drift=FAIL)

    assert same(practice, replay) == dict.fromkeys(DECLARED, PASS)
    assert replay.verdict().items[0].earlier[0].outcome is PASS
    assert {row.what for row in verify(practice.folder())[0] if row.outcome is not PASS} == set()


def test_a_recording_that_ends_early_reaches_nothing_more(
    practice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item without a recorded try is not reached, whatever stands before it."""
    stage = practice.open()
    for item in (DRIFT, CI):
        practice.item(stage, item)
    replay = replayed(practice, practice.folder(), monkeypatch)

    assert [states(replay)[item] for item in DECLARED] == ["judged"] * 2 + ["not-reached"] * 5
    assert replay.verdict().items[2].reason == "not reached: the recording ends before it"


@pytest.mark.parametrize("kind", ["none", "adopted"])
def test_what_is_no_recording_cannot_be_replayed(
    practice: Any, monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path
) -> None:
    """An empty folder and a record of another kind are refused."""
    if kind == "adopted":
        Record(tmp_path / "record.jsonl").append("opened", {"cluster": "development"})
    monkeypatch.setenv("RUNBOOK_REPLAY", str(tmp_path))
    with pytest.raises(StoreError, match="expected the record of a development attempt, got none"):
        practice.open()


def test_without_a_recording_there_is_nothing_to_replay(
    practice: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A checkout that lost it says how to make it."""
    monkeypatch.setattr("runbook_lib.session.RECORDINGS", tmp_path)
    with pytest.raises(StoreError) as caught:
        practice.open(site="")

    assert str(caught.value) == (
        "development: expected a shipped recording, got none; run `make notebooks`"
    )


@pytest.mark.parametrize("lost", ["session", "site file"])
def test_a_damaged_recording_is_not_replayed(
    practice: Any, monkeypatch: pytest.MonkeyPatch, lost: str, tmp_path: Path
) -> None:
    """Without a session or its site file nobody knows what was recorded."""
    practice.open()
    kept = practice.entries("opened") if lost == "session" else practice.entries()
    record = Record(tmp_path / "record.jsonl")
    for entry in kept:
        record.append(entry.kind, entry.body)
    monkeypatch.setenv("RUNBOOK_REPLAY", str(tmp_path))
    with pytest.raises(StoreError, match=f"expected (a session|the {lost}).*, got none"):
        practice.open()


def test_a_person_and_a_mistake_need_no_traceback() -> None:
    """Jupyter shows our errors as the sentence they are."""
    error = ParameterError(["release: expected a value", "commit: expected a value"])

    assert error._render_traceback_() == [
        "ParameterError: release: expected a value\ncommit: expected a value"
    ]
