"""Approvals and policy while an apply is under way: asked again before each node, and what moved stops it."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from runbook_lib.errors import ParameterError
from runbook_lib.evidence.events import Event, StepTaken
from runbook_lib.evidence.log import Log
from runbook_lib.site import read_site
from runbook_lib.verdicts import ExitCode, Verdict
from runbook_rehearsal.layout import ISSUE

from ..conftest import signed_file
from ..stages.conftest import entries
from ..stages.recovering import steps
from ..stages.test_rollout import ALICE, BOB, DEPLOY, Team, network, team  # noqa: F401 - fixtures

FIRST = "test-1"


def said(verdict: Verdict) -> str:
    return next(item.reason for item in verdict.items if item.item == DEPLOY)


def given(team: Team, **changes: Any) -> dict[str, Any]:  # noqa: F811
    """A plan of Alice's that Bob approved in the release issue."""
    digest, window = team.planned(issue=ISSUE, **changes)
    team.network.say(BOB, f"approve {digest}")
    return {"mode": "apply", "approved_plan": digest, "issue": ISSUE, **window, **changes}


def meanwhile(team: Team, then: Callable[[], Any]) -> None:  # noqa: F811
    """Something happens once, when the first delivery of the apply was made."""
    append, waiting = Log.append, [then]

    def noting(self: Log, event: Event) -> Event:
        made = append(self, event)
        if isinstance(made, StepTaken) and made.phase == "done" and waiting:
            waiting.pop()()
        return made

    team.patch.setattr(Log, "append", noting)


def sign(team: Team, **statement: Any) -> None:  # noqa: F811
    """A file that Bob signed, in the site's folder of words."""
    statement |= {"account": BOB, "at": f"{team.network.now:%Y-%m-%dT%H:%M:%SZ}"}
    folder = team.network.root / "words" / team.release
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{len(list(folder.iterdir()))}.json").write_text(signed_file(team.key, **statement))


def edit(team: Team, change: Callable[[dict[str, Any]], Any]) -> str:  # noqa: F811
    """The site file changed; what it was."""
    before = team.network.site.read_text()
    site = yaml.safe_load(before)
    change(site)
    team.network.site.write_text(yaml.safe_dump(site))
    return before


@pytest.mark.parametrize("how", ["comment", "signed file"])
def test_a_withdrawal_stops_before_the_next_node(team: Team, how: str) -> None:  # noqa: F811
    """The node that was begun is finished and read back; a new approval lets the rollout go on."""
    told = given(team)
    digest = told["approved_plan"]
    withdraw = {
        "comment": lambda: team.network.say(BOB, f"- withdraw approve {digest}"),
        "signed file": lambda: sign(team, kind="approve", plan=digest, withdraw=True),
    }
    meanwhile(team, withdraw[how])
    verdict, folder = team.walk(**told)

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert steps(folder) == [(FIRST, "deliver"), (FIRST, "restart")]
    assert [e["node"] for e in entries(folder) if e["kind"] == "state"] == [FIRST]
    assert said(verdict).startswith(
        f"testnet: goes on: expected still approved, and not undone, got stopped: approval: {BOB}:"
        " expected an approval that stands, got withdrawn: "
    )
    again = {**told, "attempt": verdict.attempt}
    verdict, _ = team.walk(**again)
    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert len(steps(folder)) == 2

    team.network.fast_forward(60)
    team.network.say(BOB, f"approve {digest}")
    if how != "signed file":  # of that one's clock nobody can tell which came first
        verdict, _ = team.carry(**again)
        assert verdict.exit_code is ExitCode.PASSED, [i.reason for i in verdict.blocking]


def test_a_withdrawal_while_an_apply_waits_is_heard_when_it_goes_on(team: Team) -> None:  # noqa: F811
    """The operators were instructed; what they do is read, and nothing more is begun."""
    told = given(team)
    team.network.fault("operator-silent@testnet/test-5")
    verdict, folder = team.walk(**told)
    assert verdict.exit_code is ExitCode.WAITING
    done = steps(folder)
    team.network.say(BOB, f"withdraw approve {told['approved_plan']}")
    team.network.clear("operator-silent")
    for _ in range(3):
        team.network.operators.settle()
        verdict, _ = team.walk(**told, attempt=verdict.attempt)

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert "got withdrawn: " in next(item.reason for item in verdict.blocking)
    assert not [node for node, step in steps(folder)[len(done) :] if step.startswith("deliver")]


def test_a_site_file_that_moves_stops_before_the_next_node(team: Team) -> None:  # noqa: F811
    """It shows what moved; put back, the same attempt goes on, and edited it cannot be continued."""

    def change(site: dict[str, Any]) -> None:
        site["commands"]["suites"]["tests/pipeline"].update(argv=["printf"])

    moved, told = "commands.suites.\"tests/pipeline\".argv: expected ['sh', ", given(team)
    before = team.network.site.read_text()
    meanwhile(team, lambda: edit(team, change))
    verdict, folder = team.walk(**told)

    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert steps(folder) == [(FIRST, "deliver"), (FIRST, "restart")]
    assert f"policy: expected the site file as this session opened it, got {moved}" in said(verdict)
    again = {**told, "attempt": verdict.attempt}
    with pytest.raises(ParameterError) as refused:
        team.walk(**again)
    digest = read_site(str(team.network.site)).policy_digest
    assert str(refused.value).startswith(
        f"the site's policy moved since testnet attempt {verdict.attempt}: {moved}"
    )
    assert str(refused.value).endswith(
        f"; put the site file back, or have somebody other than {ALICE} comment"
        f" `accept-policy {digest}` in the release issue"
    )
    team.network.site.write_text(before)
    verdict, _ = team.carry(**again)
    assert verdict.exit_code is ExitCode.PASSED, [i.reason for i in verdict.blocking]


def test_somebody_else_accepts_what_moved_between_plan_and_apply(team: Team) -> None:  # noqa: F811
    """Not who runs it, nor whom the new file lists first; in words of its digest that still stand."""
    told = given(team)
    edit(team, lambda site: site["people"].append({"name": "M", "account": "mallory"}))
    digest = read_site(str(team.network.site)).policy_digest
    for account, line in (
        (ALICE, f"accept-policy {digest}"),
        ("mallory", f"accept-policy {digest}"),
        (BOB, f"accept-policy {told['approved_plan']}"),
        (BOB, f"approve {digest}"),
        (BOB, f"> accept-policy {digest}"),
    ):
        team.network.say(account, line)
        with pytest.raises(ParameterError, match=r"^the site's policy moved since testnet attempt"):
            team.walk(**told)
    team.network.say(BOB, f"accept-policy {digest}")
    verdict, folder = team.carry(**told)

    assert verdict.exit_code is ExitCode.PASSED, [i.reason for i in verdict.blocking]
    (kept,) = [entry for entry in entries(folder) if entry["kind"] == "policy"]
    assert (kept["by"], kept["policy"]) == (BOB, digest)
    assert f"policy accepted by {BOB}: {kept['moved']}" in verdict.notes
    opened = [e for e in entries(folder) if e["kind"] in ("opened", "session")]
    assert {body["policy"] for body in opened} == {digest}


@pytest.mark.parametrize("signed", [False, True])
def test_a_forge_that_is_down_is_waited_for_and_then_stood_by(
    team: Team,  # noqa: F811
    signed: bool,
) -> None:
    """For minutes, before the next node; a signed approval serves as well."""
    told = given(team)
    if signed:
        told["approvals"] = [team.approve(told["approved_plan"])]
    meanwhile(team, lambda: team.network.fault("forge-down@testnet"))
    begun = team.network.now
    verdict, folder = team.walk(**told)
    waited = (team.network.now - begun).total_seconds()

    if signed:
        delivered = [node for node, step in steps(folder) if step == "deliver"]
        assert delivered == ["test-1", "test-2", "test-3", "test-4"]
        return
    assert verdict.exit_code is ExitCode.INCONCLUSIVE
    assert steps(folder) == [(FIRST, "deliver"), (FIRST, "restart")]
    assert "approvals: expected an answer, got " in said(verdict) or "forge" in said(verdict)
    assert 240 <= waited < 600
    team.network.clear("forge-down")
    verdict, _ = team.carry(**told, attempt=verdict.attempt)
    assert verdict.exit_code is ExitCode.PASSED, [i.reason for i in verdict.blocking]
