"""One person, one seat, under one policy: who runs a stage is known by the forge's token, and what it opens on."""

from typing import Any

import pytest

from runbook_lib import notebook
from runbook_lib.changes.approvals import approved
from runbook_lib.errors import ParameterError, SourceError
from runbook_lib.evidence.release import next_opening
from runbook_lib.evidence.store import Store
from runbook_lib.opening import find_operator, prepare_attempt
from runbook_lib.outcomes import Outcome
from runbook_lib.site import Site, read_site
from runbook_lib.sources.github import GitHub
from runbook_lib.sources.words import Heard

from ..conftest import signed_file, stages_of
from ..messages import saying

RELEASE = "v1.4.0"
STAGES = stages_of("development", "testnet")
LATER = {"window_start": "2026-01-31T12:00:00Z", "window_end": "2026-01-31T14:00:00Z"}


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says whose token is exported, or raises what the forge comes to."""

    def of(owner: str | Exception) -> None:
        def me(forge: GitHub) -> str:
            if isinstance(owner, Exception):
                raise owner
            return owner

        monkeypatch.setattr(GitHub, "me", me)

    return of


def given_testnet(practice: Any, **changes: Any) -> dict[str, Any]:
    known = {name: practice.params[name] for name in ("site", "release", "commit")}
    return {**known, **LATER, "mode": "plan", **changes}


# --- who runs it ---


@pytest.mark.parametrize("named", ["bob", "mallory", "Alice"])
def test_the_forges_token_says_who_runs_it(practice: Any, token: Any, named: str) -> None:
    """Whatever a variable says, and however the forge spells the account."""
    practice.patch.setenv("RUNBOOK_OPERATOR", named)
    token("ALICE")
    site = read_site(str(practice.site))

    assert find_operator(site, "apply", proven=True) == "alice"


def test_an_apps_token_is_nobodys_and_ci_says_who_triggered_it(practice: Any, token: Any) -> None:
    """That account is a listed person's, as the site spells it."""
    practice.patch.delenv("RUNBOOK_OPERATOR")
    practice.patch.setenv("GITHUB_ACTOR", "Bob")
    token("github-actions[bot]")

    site = read_site(str(practice.site))
    assert find_operator(site, "apply", proven=True) == "bob"
    practice.patch.delenv(site.forge.token_env)  # none at all tells as little
    assert find_operator(site, "apply", proven=True) == "bob"


@pytest.mark.parametrize("name", ["root", "mallory"])
def test_a_name_that_nobody_lists_plans_only_what_needs_no_approval(
    practice: Any, token: Any, name: str
) -> None:
    """Development, and nothing beyond it."""
    practice.write_site(**STAGES)
    practice.patch.setenv("RUNBOOK_OPERATOR", name)
    token("stranger")

    with saying(
        ParameterError,
        f"operator: expected one of the site's people (alice, bob), got '{name}';"
        " export RUNBOOK_OPERATOR",
    ):
        prepare_attempt("testnet", given_testnet(practice), "params")
    given = {**practice.params, "mode": "plan"}
    assert prepare_attempt("development", given, "params").name == f"{RELEASE}/development/0001"


def test_a_forge_that_does_not_answer_hides_nobody(practice: Any, token: Any) -> None:
    """What asks for another's approval waits for it; what was begun goes on."""
    practice.write_site(**STAGES)
    token(SourceError("forge: whose token it is", "expected an answer, got none"))
    said = (
        "operator: forge: whose token it is: expected an answer, got none; who runs this must be"
        " known"
    )

    for stage, given in (
        ("testnet", given_testnet(practice)),
        ("development", {**practice.params, "waivers": [practice.approved_waiver()]}),
    ):
        with saying(ParameterError, said):
            prepare_attempt(stage, given, "params")
    assert prepare_attempt("development", practice.params, "params").number == 1


def test_an_author_whom_nobody_lists_has_no_plan_to_approve(practice: Any) -> None:
    """However many approved it."""
    site = read_site(str(practice.site))
    _, (row,) = approved(site, Heard(), "root", "testnet", digest="sha256:" + "0" * 64)

    assert (row.what, row.expected, row.observed, row.outcome) == (
        "author", "one of the site's people", "root", Outcome.FAIL,
    )  # fmt: skip


# --- under which policy ---


def other_policy(
    practice: Any, then: dict[str, Any], now: dict[str, Any]
) -> tuple[Site, dict[str, Any]]:
    """What passed development under one site file, the site as it is now, and testnet's values."""
    (practice.root / "words" / RELEASE).mkdir(parents=True)
    real = {**STAGES, "words": str(practice.root / "words" / "{release}")}
    practice.write_site(**real, **then)
    practice.sealed()
    practice.write_site(**real, **now)
    given = given_testnet(practice, mode="apply", approved_plan="sha256:" + "0" * 64)
    return read_site(str(practice.site)), given


def accept(practice: Any, site: Site, account: str = "bob") -> None:
    """Bob's signed statement about a site, in the folder of words."""
    said = {"plan": site.policy_digest, "account": account}
    said["at"] = f"{practice.now():%Y-%m-%dT%H:%M:%SZ}"
    path = practice.root / "words" / RELEASE / f"{site.policy_digest[-8:]}.json"
    path.write_text(signed_file(practice.key, kind="accept-policy", **said))


@pytest.mark.parametrize(
    ("private", "moved"),
    [
        ({"single_operator": True}, "single_operator: expected True, got None"),
        ({"people": [{"name": "Alice", "account": "alice"}]},
         "people[1].account: expected None, got 'bob'"),
        ({"commands": {"soak": {"argv": ["printf", "passed"]}}},
         "commands.soak.argv: expected ['printf', 'passed'], got None"),
    ],
    ids=["single operator", "nobody else", "command"],
)  # fmt: skip
def test_a_stage_opens_on_an_attempt_of_its_own_policy_alone(
    practice: Any, private: dict[str, Any], moved: str
) -> None:
    """What passed on a private copy of the site opens nothing on the real one."""
    site, given = other_policy(practice, private, {})
    with pytest.raises(ParameterError) as refused:
        prepare_attempt("testnet", given, "params")
    found = next_opening(Store(site.store_path), site, RELEASE)

    assert str(refused.value).startswith("the site's policy moved since development attempt 1: ")
    assert moved in str(refused.value)
    assert found is not None and found.why.startswith(
        "expected attempt 1 made under this site's policy, got sha256:"
    )


def test_what_somebody_else_accepted_opens_the_next_stage(practice: Any) -> None:
    """By a file that one of the people of before signed; whoever runs it cannot."""
    site, given = other_policy(practice, {}, {"dashboards": {"max_age_s": 60.0}})
    accept(practice, site, account="alice")
    with pytest.raises(ParameterError, match=r"dashboards.max_age_s: expected None, got 60.0; put"):
        prepare_attempt("testnet", given, "params")
    accept(practice, site)
    attempt = prepare_attempt("testnet", given, "params")

    (kept,) = [event for event in attempt.log.events() if event.kind == "policy"]
    assert (kept.by, kept.policy) == ("bob", site.policy_digest)


# --- what an environment may not say ---


@pytest.mark.parametrize("mode", ["apply", "plan"])
def test_a_replay_beside_live_parameters_is_refused(practice: Any, mode: str) -> None:
    """Nothing would be applied, and CI would be green; the exit code is 3."""
    import papermill  # noqa: F401 - it loads our engine as its own

    from runbook_lib import engine

    book = notebook.read(notebook.NOTEBOOKS / "10_development.ipynb")
    book.metadata["papermill"] = {"parameters": {**practice.params, "mode": mode}}
    practice.patch.setenv("RUNBOOK_REPLAY", str(practice.root))
    practice.patch.setenv("RUNBOOK_REPLAY_OK", "1")

    with pytest.raises(ParameterError) as refused:
        engine.prepare(book, "out.ipynb")
    assert (str(refused.value), refused.value.exit_code) == (
        f"development parameters: site: expected none while RUNBOOK_REPLAY is exported, got"
        f" {practice.site}: nothing would be asked of it; unset RUNBOOK_REPLAY, or run without a"
        " site",
        3,
    )
