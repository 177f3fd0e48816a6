"""Nodes that belong to operators: instructed, read back by two witnesses, and never touched by us."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from runbook_lib.evidence import publish as publishing
from runbook_lib.evidence.publish import publish
from runbook_lib.outcomes import Outcome
from runbook_lib.verdicts import ExitCode, Standing, Verdict
from runbook_rehearsal.chain.world import OPERATORS
from runbook_rehearsal.layout import ISSUE

from .recovering import steps
from .test_rollout import DEPLOY, Team, network, team  # noqa: F401 - fixtures

NORTH, HARBOR, _ = OPERATORS


def item(verdict: Verdict, name: str) -> Standing:
    return next(one for one in verdict.items if one.item == name)


def test_a_forged_report_is_waited_past_and_the_next_operator_hears_nothing(
    team: Team,  # noqa: F811
) -> None:
    """It is named; once the operator reports with its own key, the rollout goes on."""
    digest, window = team.planned(issue=ISSUE)
    team.network.fault("report-forged@testnet/test-5")

    given = {"approved_plan": digest, "approvals": [team.approve(digest)], **window}
    verdict, folder = team.walk(mode="apply", **given)
    team.network.operators.settle()
    verdict, _ = team.walk(mode="apply", **given, attempt=verdict.attempt)

    assert verdict.exit_code is ExitCode.WAITING
    assert "forged: expected the signature of this node's" in item(verdict, DEPLOY).reason
    told = [step for step in steps(folder) if step[0] in OPERATORS]
    assert told == [
        (who, f"{how}-build") for who in (NORTH, HARBOR) for how in ("instruct", "notify")
    ]
    comments = [one["body"] for one in team.network.forge.comments.values()]
    mine = [body for body in comments if f"attempt={verdict.release}" in body.splitlines()[0]]
    assert [f"for `{who}`" in body for who, body in zip((NORTH, HARBOR), mine, strict=True)] == [
        True,
        True,
    ]

    team.network.clear("report-forged")
    done, _ = team.carry(**given, attempt=verdict.attempt)
    assert done.exit_code is ExitCode.PASSED, [one.reason for one in done.blocking]
    result = item(done, DEPLOY).result
    assert result is not None
    (row,) = [r for r in result.rows if (r.subject, r.what) == ("test-5", "node report")]
    assert "; passed over: http" in str(row.observed) and ": forged: expected" in str(row.observed)


def test_an_instruction_that_could_not_be_given_is_given_by_publish(team: Team) -> None:  # noqa: F811
    """Kept in the outbox, and given once: inside the window, unless the apply was undone."""
    away = team.network.root / "instruct-away"
    site = yaml.safe_load(team.network.site.read_text())
    argv = site["commands"]["instruct"]["argv"]
    asked = 'echo "$@" >>"$0.asked"; [ ! -e "$0" ] && exec "$@"'
    site["commands"]["instruct"]["argv"] = ["sh", "-c", asked, str(away), *argv]
    team.network.site.write_text(yaml.safe_dump(site))
    digest, window = team.planned()
    given = {"approved_plan": digest, "approvals": [team.approve(digest)], **window}
    away.touch()

    verdict, folder = team.walk(mode="apply", **given)
    still = publish(folder)
    away.unlink()
    words = team.network.root / "words" / team.release
    words.mkdir(parents=True)
    (words / "approval.json").write_text(Path(team.approve(digest)).read_text())
    (words / "withdrawn.json").write_text(Path(team.approve(digest, withdraw=True)).read_text())
    (taken,) = publish(folder)
    (words / "withdrawn.json").unlink()
    assert str(taken.observed) == "its approval was withdrawn by bob"
    with team.patch.context() as patch:
        patch.setattr(
            publishing, "read_clock", lambda clock: (datetime.now(UTC) + timedelta(hours=9), 0)
        )
        late = publish(folder)
    sent = publish(folder)
    asked_for = Path(f"{away}.asked").read_text().count(f" {NORTH} ")
    again = {"attempt": verdict.attempt, "retry_reason": "it works again"}
    done, _ = team.carry(**given, **again)

    failed, kept = item(verdict, DEPLOY).open_rows
    assert (failed.subject, failed.what) == (NORTH, "notify-build")
    assert str(kept.observed) == f"kept in the outbox: runbook publish {team.release}/testnet/0002"
    assert [row.outcome for row in (*still, *late, *sent)] == [
        Outcome.INCONCLUSIVE,
        Outcome.INCONCLUSIVE,
        Outcome.PASS,
    ]
    assert str(late[0].observed).startswith("its window ended ")
    assert done.exit_code is ExitCode.PASSED, [one.reason for one in done.blocking]
    assert not (folder / "outbox").exists()
    calls = Path(f"{away}.asked").read_text().count(f" {NORTH} ")
    assert (asked_for, calls) == (3, 4)  # failed twice, given by publish; then the next phase


def test_an_instruction_says_all_there_is_to_do(team: Team) -> None:  # noqa: F811
    """Until when, which keys, the whole target without secrets, and how to report."""
    digest, window = team.planned()
    team.network.fault("operator-silent@testnet/test-5")
    given = {"approved_plan": digest, "approvals": [team.approve(digest)], **window}
    _, folder = team.walk(mode="apply", **given)

    text = (folder / "instructions" / f"{NORTH}.build.md").read_text()
    document = json.loads(text.partition("```json\n")[2].partition("\n```")[0])
    assert (document["deadline"], document["plan"]) == (window["window_end"], digest)
    assert "| `test-5` | `binary` |" in text
    assert (folder / "targets" / "test-5.build.toml").read_text().rstrip() in text
    assert f"--plan {digest} --phase build" in text
