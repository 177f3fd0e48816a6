"""Mainnet is ready: each node has its profile, what is open is of low risk, its fix queued."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from runbook_lib.changes import targets
from runbook_lib.checks import mainnet
from runbook_lib.checks.mainnet import hotfix_branches
from runbook_lib.errors import Answers, SourceError
from runbook_lib.outcomes import CheckResult, Outcome

from ..conftest import not_passed
from .conftest import Bare, Bench

PROFILE = SimpleNamespace(
    feature_gates={"timetoke_rewards": True, "pruning": False}, release_channel="mainnet"
)


def rows(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    """Of one node that says ``answer`` of its rollout."""
    bundle = SimpleNamespace(profile=lambda stage: PROFILE)
    monkeypatch.setattr(targets, "read_bundle", lambda context: bundle)
    fleet = SimpleNamespace(rollout=lambda: Answers(Mock(side_effect=[answer]), ["n"]))
    context: Any = Bare(stage="mainnet", fleet=fleet)
    mainnet._profile(context)
    return [(row.what, row.expected, row.observed, row.outcome) for row in context.findings]


def said(channel: str = "mainnet", **gates: bool) -> SimpleNamespace:
    wanted = dict(PROFILE.feature_gates)
    return SimpleNamespace(feature_gates={**wanted, **gates}, release_channel=channel)


GATE = "rollout.feature_gates"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (said(other=True), [("profile and channel", "mainnet", "mainnet", Outcome.PASS)]),
        (
            said(timetoke_rewards=False, pruning=True),
            [
                (f"{GATE}.timetoke_rewards", True, False, Outcome.FAIL),
                (f"{GATE}.pruning", False, True, Outcome.FAIL),
            ],
        ),
        (said("canary"), [("profile and channel", "mainnet", "canary", Outcome.FAIL)]),
        (
            SourceError("n", "no answer"),
            [("gates", "the mainnet profile", "no answer", Outcome.INCONCLUSIVE)],
        ),
    ],
    ids=["other gates do not matter", "gates that deviate", "another channel", "a silent node"],
)
def test_a_node_has_the_mainnet_profile_or_says_what_it_has(
    monkeypatch: pytest.MonkeyPatch, answer: Any, found: list[tuple[Any, ...]]
) -> None:
    assert rows(monkeypatch, answer) == found


# --- hotfix branches ------------------------------------------------------------------------------

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
BRANCH = "hotfix/gossip-backoff"


def judge(bench: Bench) -> CheckResult:
    return bench.judge(hotfix_branches, "mainnet")


@pytest.fixture
def issues(bench: Bench) -> Any:
    """The forge's issues, as they were again afterwards."""
    issues = bench.network.forge.issues
    before = {number: dict(issue) for number, issue in issues.items()}
    yield issues
    issues.clear()
    issues.update(before)


def test_the_release_issue_itself_is_no_fix(bench: Bench, issues: Any) -> None:
    """It is open as long as the release is under way; another unlabelled one blocks. Without open
    issues the milestone itself passes.
    """
    issues[42]["milestone"] = {"number": 2}
    assert judge(bench).outcome is PASS
    bench.params["issue"] = 41
    assert not_passed(judge(bench).rows, "subject", "what") == [("#42", "risk"), ("#42", "fix")]
    for one in issues.values():
        one["state"] = "closed"
    result = judge(bench)
    assert (result.outcome, result.rows[0].observed) == (PASS, "0 open issues")


NO_BRANCH = "expected a branch's name, got something else"


@pytest.mark.parametrize(
    ("issue", "outcome", "observed"),
    [
        # Only the site's labels say a risk.
        ({"labels": ["low-risk", "bug"]}, PASS, None),
        ({"labels": ["low-risk", "medium-risk"]}, FAIL, None),
        ({"labels": ["bug"]}, INCONCLUSIVE, None),
        ({"labels": ["Low-Risk"]}, INCONCLUSIVE, None),
        # A link that proves nothing is none.
        ({"body": "branch: main"}, INCONCLUSIVE, "nothing more: no fix on it yet"),
        ({"body": "branch: ../../user"}, INCONCLUSIVE, f"forge: branch ../../user: {NO_BRANCH}"),
        ({"body": f"branch: {BRANCH}\nbranch: main"}, INCONCLUSIVE, f"{BRANCH}, main"),
        ({"body": "branch: <script>"}, INCONCLUSIVE, f"forge: branch <script>: {NO_BRANCH}"),
    ],
    ids=range(8),
)
def test_an_open_issue_is_of_low_risk_and_names_its_fix(
    bench: Bench, issues: Any, issue: dict[str, Any], outcome: Outcome, observed: str | None
) -> None:
    labels = [{"name": label} for label in issue.get("labels", ())]
    issues[43].update(issue, **({"labels": labels} if labels else {}))
    result = judge(bench)
    bad = not_passed(result.rows, "subject", "observed")

    assert (result.outcome, {subject for subject, _ in bad}) == (outcome, {"#43"} if bad else set())
    assert observed is None or bad == [("#43", observed)]


def test_a_site_without_risk_labels_is_inconclusive(bench: Bench) -> None:
    bench.change_site(forge=bench.site.forge.model_copy(update={"risk": None}))

    assert judge(bench).reason == (
        "site: risk labels: expected forge.risk in the site file, got none; set it"
    )
