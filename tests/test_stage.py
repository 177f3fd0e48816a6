"""A stage in its notebook: how it opens, its plan, a whole run of its cells, and what comes next."""

from contextlib import suppress
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib.errors import Defect, ParameterError, SourceError, StageRefused, StoreError
from runbook_lib.next_steps import next_steps, refusal
from runbook_lib.opening import prepare_attempt
from runbook_lib.params import TestnetParams
from runbook_lib.session import Session
from runbook_lib.sources.tape import read_entries
from runbook_lib.strict import project_path
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_lib.wording import utc

from .conftest import (
    CI,
    DEPLOY,
    DRIFT,
    FAIL,
    INCONCLUSIVE,
    PROVISION,
    REACHABLE,
    SMALL,
    stages_of,
    states,
    text,
)
from .messages import saying


def test_everything_passes_in_order(practice: Any) -> None:
    """Both changes are made once, and enforce shows the verdict."""
    stage = practice.open()
    practice.walk(stage)

    assert "✓ PASS" in text(stage.enforce())
    assert stage.verdict().exit_code is ExitCode.PASSED
    assert practice.made == [PROVISION, DEPLOY]
    assert [entry.item for entry in practice.mutations()] == [PROVISION, DEPLOY]


def test_a_misspelt_parameter_is_refused(practice: Any) -> None:
    """So is one without a value; other names of a notebook are its own."""
    values = {**practice.params, "relase": "v1", "In": [], "practice": practice}
    del values["as_of"]
    practice.params = values
    problems = "parameters cell: as_of: expected a value, got none; run the cell first\n"
    with saying(
        ParameterError, f"{problems}parameters cell: relase: expected no such name; write release"
    ):
        practice.open()


def test_an_attempt_that_cannot_be_shown_is_closed(practice: Any, monkeypatch: Any) -> None:
    """Nothing of it stays open behind the error."""
    closed, close = list[Session](), Session.close

    def noted(session: Session) -> None:
        closed.append(session)
        close(session)

    monkeypatch.setattr(Session, "close", noted)
    monkeypatch.setattr("tempfile.tempdir", str(practice.root))
    monkeypatch.setattr("runbook_lib.stage.Stage.__init__", lambda self, session: 1 / 0)
    with pytest.raises(Defect, match="bug of runbook: ZeroDivisionError"):
        practice.open()

    assert len(closed) == 1


# --- it opens on parameters, a site and an operator that hold, or not at all ----------------------


@pytest.mark.parametrize(
    ("site", "undo"),
    [
        ("nowhere.yaml", "copy params/sites/example.yaml and name yours in `site`"),
        (".rehearsal/no/site.yaml", "`runbook rehearse --serve` brings the practice network up"),
    ],
)
def test_a_missing_site_file_is_named(practice: Any, site: str, undo: str) -> None:
    with pytest.raises(ParameterError) as caught:
        practice.open(site=site)

    said = f"{project_path(site)}: expected a site file, got: No such file or directory; {undo}"
    assert str(caught.value) == said


def test_a_stage_the_site_lacks_is_refused(practice: Any) -> None:
    practice.write_site(stages={})
    with pytest.raises(
        ParameterError, match=r"stages: expected a cluster for development, got none$"
    ):
        practice.open()


def test_a_misspelt_node_takes_nothing_back(practice: Any) -> None:
    """Neither an attempt that would count as one, nor an incident that would block the release."""
    keys = ("site", "release", "commit")
    given = {key: practice.params[key] for key in keys} | {"nodes": ["dev-1", "dve-2", "nope"]}
    with saying(ParameterError, "params.yaml: nodes: expected some of dev-1, got dve-2, nope"):
        prepare_attempt("development_recovery", given, "params.yaml")
    assert list((practice.root / "store").iterdir()) == []


def test_an_unknown_operator_cannot_apply(practice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one of a container without user names: a person's mistake, not a traceback."""
    said = "operator: expected one of the site's people (alice, bob), got {!r};"
    said += " export RUNBOOK_OPERATOR"
    monkeypatch.setenv("RUNBOOK_OPERATOR", "mallory")
    with saying(ParameterError, said.format("mallory")):
        practice.open()
    assert practice.open(mode="plan").verdict().operator == "mallory"

    for name in ("RUNBOOK_OPERATOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", Mock(side_effect=KeyError("uid not found: 4711")))
    with saying(ParameterError, said.format("unknown")):
        practice.open()


def test_a_store_for_its_owner_alone_or_none_opens_nothing(practice: Any) -> None:
    """Unless the site says that it has a single operator."""
    store = practice.root / "store"
    store.chmod(0o755)
    with pytest.raises(ParameterError, match="can write to, got one for its owner alone;"):
        practice.open()
    store.rmdir()
    with pytest.raises(ParameterError, match="can write to, got none;"):
        practice.open()

    practice.write_site(single_operator=True)
    assert practice.open()


def test_an_attempt_fixes_its_parameters(practice: Any) -> None:
    """Every one that differs is named; those of a run may change."""
    practice.open()
    problems = "mode: expected 'apply' as attempt 1 was opened with, got 'plan'\n"
    problems += "baseline_hours: expected 1 as attempt 1 was opened with, got 2.0"
    with saying(ParameterError, problems):
        practice.open(attempt=1, mode="plan", baseline_hours=2.0, retry_reason="more")

    again = practice.open(attempt=1, retry_reason="x", as_of="2026-01-01T00:00:00Z")
    assert again.verdict().number == 2


def test_a_site_file_edited_since_carries_no_attempt_into_another_world(practice: Any) -> None:
    """Opened live and carried on in a rehearsal, it would promote as live evidence."""
    practice.write_site(clock={"source": "utc"})
    practice.open()
    practice.write_site(name="elsewhere")
    undo = "put the site file back, or open a new attempt"
    problems = (
        f"{practice.site}: {key}: expected '{was}' as attempt 1 was opened on, got '{now}'; {undo}"
        for key, was, now in (("site", "practice", "elsewhere"), ("source", "live", "rehearsal"))
    )
    with saying(ParameterError, "\n".join(problems)):
        practice.open(attempt=1)
    practice.write_site(clock={"source": "utc"})
    assert practice.open(attempt=1).verdict().number == 2


def test_an_apply_does_not_open_before_its_turn(practice: Any) -> None:
    """Nothing is created for it either."""
    practice.write_site(**stages_of("development", "testnet"))
    given = {key: practice.params[key] for key in ("site", "release", "commit")}
    given |= {"mode": "apply", "approved_plan": f"sha256:{'0' * 64}"}
    given |= {"window_start": "2026-01-01T00:00:00Z", "window_end": "2026-01-01T08:00:00Z"}
    with pytest.raises(StoreError, match="expected an attempt that applied and passed, got none"):
        prepare_attempt("testnet", {**TestnetParams().model_dump(), **given}, "params.yaml")

    assert not (practice.root / "store" / "v1.4.0" / "testnet").exists()


# --- a plan is made once, says what every change would do, and changes nothing --------------------


def test_a_plan_that_cannot_be_made_says_why(practice: Any) -> None:
    plan = Mock(side_effect=SourceError("dev-1", "expected its TOML, got nothing"))

    assert "dev-1: expected its TOML, got nothing" in text(practice.open().plan(plan))
    assert practice.events("plan") == []


def test_a_plan_changes_nothing(practice: Any) -> None:
    """Checks before the first change are judged; it and all after it are planned: ready, exit 0.

    Every change says what it would do, also one that follows another.
    """
    stage = practice.open(mode="plan")
    practice.walk(stage)
    stage.enforce()

    assert [states(stage)[item] for item in SMALL] == ["judged"] * 3 + ["planned"] * 4
    assert {entry.purpose for entry in read_entries(practice.folder() / "tape")} == {"read"}
    assert practice.events("step") == []
    assert practice.made == []
    assert len(practice.events("plan")) == 1
    planned = {item.item: len(item.planned) for item in stage.verdict().items if item.planned}
    assert planned == {PROVISION: 1, DEPLOY: 1}


def test_without_its_plan_a_change_is_not_planned_either(practice: Any) -> None:
    """A plan run in which no plan could be made is not ready to apply."""
    stage = practice.until(DEPLOY, mode="plan")
    stage.change(practice.change(DEPLOY))

    assert states(stage)[DEPLOY] == "not-reached"
    assert stage.verdict().items[4].reason == "not reached: blocked by the plan none was made"


def test_a_change_that_cannot_be_planned_is_inconclusive(practice: Any) -> None:
    """An unreadable bundle is a row on its card, not a traceback."""
    stage = practice.until(PROVISION, mode="plan")
    change = practice.change(PROVISION)
    change.plan = Mock(side_effect=SourceError("bundle", "expected TOML, got none"))

    assert "bundle: readable: expected TOML, got none" in text(stage.change(change))
    assert stage.verdict().items[3].outcome is INCONCLUSIVE


def test_a_plan_is_kept_for_the_attempt(practice: Any) -> None:
    """Continuing shows the plan that was made, and does not make another."""
    first = practice.open()
    shown = text(first.plan(practice.plan))

    assert text(practice.open(attempt=1).plan(Mock(side_effect=AssertionError))) == shown
    assert len(practice.events("plan")) == 1


# --- a verdict says what to do next, in commands that can be typed as they stand ------------------


AGAIN = "runbook run development -f PARAMS -p attempt 1"


def ended(practice: Any, outcome: Any = None, **more: Any) -> Verdict:
    """The verdict of a whole run in which the CI check found ``outcome``."""
    stage = practice.open(**more)
    practice.walk(stage, **({} if outcome is None else {"ci_green": outcome}))
    with suppress(StageRefused):
        stage.enforce()
    verdict: Verdict = stage.verdict()
    return verdict


def test_a_plan_is_approved_next_and_an_apply_that_passed_wants_nothing(practice: Any) -> None:
    planned, folder = ended(practice, mode="plan"), practice.folder()
    applied = ended(practice)

    assert next_steps(planned) == ["Have the plan approved, then run with mode: apply."]
    assert next_steps(planned, folder) == [
        f"Make what is planned: `runbook run development -f {folder / 'params.yaml'} -p mode apply`"
    ]
    assert next_steps(applied) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (FAIL, f"Mend it, then: `{AGAIN} -p retry_reason 'WHY'`"),
        (INCONCLUSIVE, f"Mend what could not be read, then: `{AGAIN}`"),
    ],
)
def test_what_is_open_is_mended_and_the_same_attempt_goes_on(
    practice: Any, outcome: Any, said: str
) -> None:
    """After a FAIL only for a reason; nothing was begun, so there is no way back to offer.

    Where the attempt lasts, the command names its own parameters.
    """
    verdict, folder = ended(practice, outcome), practice.folder()

    assert next_steps(verdict) == [said]
    assert next_steps(verdict, folder) == [said.replace("PARAMS", str(folder / "params.yaml"))]


def test_what_is_not_yet_due_is_come_back_to(practice: Any) -> None:
    stage = practice.open()
    due = practice.now() + timedelta(hours=2)
    stage.check(practice.check(DRIFT, INCONCLUSIVE, return_at=due))
    for item in stage.verdict().items[1:]:
        practice.item(stage, item.item)
    with pytest.raises(StageRefused):
        stage.enforce()

    assert next_steps(stage.verdict()) == [f"Come back then: `{AGAIN}`"]


def test_a_refusal_is_one_line_with_the_first_item_in_the_way(practice: Any) -> None:
    verdict = ended(practice, FAIL)

    assert refusal(verdict) == (
        f"development: FAIL (exit 1); first: {CI}: {verdict.blocking[0].reason}"
    )


# --- A waiver accepts named rows, on somebody else's word, until it ends --------------------------


def test_an_approved_waiver_lets_its_row_pass(practice: Any) -> None:
    """By somebody else than the runner; the card says who and until when."""
    stage = practice.open(waivers=[practice.approved_waiver()])
    cards = practice.walk(stage, ci_green=FAIL)
    stage.enforce()

    assert text(cards[1]).startswith(f"✓ PASS by waiver {CI}")
    assert "waived by bob" in text(cards[1])
    assert practice.events("waiver")[0].self_approved is False
    assert practice.made == [PROVISION, DEPLOY]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"subjects": []}, "subjects: expected"),
        ({"reason": "because"}, "reason: expected"),
        ({"expires": "2026-01-31T12:00:00Z"}, "expires: expected an instant to come"),
        ({"item": "testnet.ready.soak"}, "item: expected an item of development"),
        ({"approval": "nowhere.json"},
         "approval: {project}/nowhere.json: expected a readable file"),
        ({}, "expected an approval of sha256:"),
    ],
)  # fmt: skip
def test_a_waiver_that_cannot_be_in_force_is_refused(
    practice: Any, changes: dict[str, Any], problem: str
) -> None:
    """What ``test_params`` lists, one that has ended, is another stage's, or nobody approved."""
    with pytest.raises(ParameterError) as caught:
        practice.open(waivers=[practice.waiver(**changes)])

    assert len(caught.value.problems) == 1
    assert "waivers.0" in str(caught.value)
    assert problem in str(caught.value)


def test_an_approval_of_another_waiver_does_not_count(practice: Any) -> None:
    other = practice.approved_waiver(reason="another reason than this")
    with pytest.raises(ParameterError, match="expected an approval of sha256:"):
        practice.open(waivers=[{**other, "reason": "a known flake, see the issue"}])
    with pytest.raises(ParameterError, match="expected an approval of sha256:"):
        practice.open(release="v1.5.0", waivers=[practice.approved_waiver()])


def test_nobody_approves_their_own_waiver(practice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the site has a single operator, and then every card says so."""
    monkeypatch.setenv("RUNBOOK_OPERATOR", "bob")
    with pytest.raises(ParameterError) as caught:
        practice.open(waivers=[practice.approved_waiver()])
    assert "by somebody other than bob, got none" in str(caught.value)

    practice.write_site(single_operator=True)
    stage = practice.open(waivers=[practice.waiver()])
    cards = practice.walk(stage, ci_green=FAIL)

    assert "self-approved" in text(cards[1])
    assert stage.verdict().exit_code is ExitCode.BROKEN  # enforce has not run yet
    assert "self-approved" in text(stage.enforce())


def test_no_change_begins_on_a_waiver_that_has_ended(practice: Any) -> None:
    """It was in force when the attempt opened; one that still is lets the change be made."""
    expires = (practice.now() + timedelta(minutes=30)).replace(microsecond=0)
    ending = practice.approved_waiver(expires=expires.isoformat())
    stage = practice.open(waivers=[ending])
    for item in (DRIFT, CI, REACHABLE):
        practice.item(stage, item, FAIL if item == CI else None)
    practice.wind(3600)
    stage.refresh()
    card = practice.item(stage, PROVISION)

    why = f"the waiver of {CI} ended at {utc(expires)}; continue with one in force"
    assert f"not reached: {why}" in text(card)
    assert practice.made == []

    again = practice.open(attempt=1, waivers=[practice.approved_waiver()])
    practice.walk(again)
    assert practice.made == [PROVISION, DEPLOY]
    assert text(again.enforce())
