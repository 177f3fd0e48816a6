"""Who must approve a plan, stage by stage: policy against what was said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from runbook_lib import playbook
from runbook_lib.changes.approved import approved
from runbook_lib.outcomes import Outcome, worst
from runbook_lib.site import read_site
from runbook_lib.sources.wordforms import Said, Word
from runbook_lib.sources.words import Heard, Refused

PLAN, OTHER = ("sha256:" + letter * 64 for letter in "ab")
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
PEOPLE = {
    "eve": ["release-engineer"],
    "ed": ["release-engineer"],
    "carol": ["release-commander"],
    "gus": ["governance-council"],
    "otto": ["validator"],
}


def word(account: str, *, plan: str = PLAN, withdraws: bool = False, minute: int = 0) -> Word:
    at = datetime(2026, 11, 23, 12, minute, tzinfo=UTC)
    where = f"#{account}{minute}"
    return Word("approve", withdraws, plan=plan, account=account, at=at, grounds=where)


class Voting:
    def __init__(self, practice: Any) -> None:
        self.practice = practice

    def rows(
        self, stage: str, *said: Word | Refused | str, author: str = "eve", alone: bool = False
    ) -> Any:
        people = [{"name": n.title(), "account": n, "roles": r} for n, r in PEOPLE.items()]
        self.practice.write_site(people=people, single_operator=alone)
        words = [word(one) if isinstance(one, str) else one for one in said]
        heard = Heard(
            tuple(one for one in words if isinstance(one, Word) and not one.withdraws),
            tuple(one for one in words if isinstance(one, Word) and one.withdraws),
            tuple(one for one in words if isinstance(one, Refused)),
        )
        return approved(read_site(str(self.practice.site)), heard, author, stage, digest=PLAN)

    def outcome(self, stage: str, *said: Any, **more: Any) -> Outcome:
        return worst(row.outcome for row in self.rows(stage, *said, **more))


@pytest.fixture
def voting(practice: Any) -> Voting:
    return Voting(practice)


@pytest.mark.parametrize(
    ("stage", "said", "outcome"),
    [
        ("testnet", [], INCONCLUSIVE),
        ("testnet", ["ed"], PASS),
        ("testnet", ["carol"], PASS),
        ("testnet", ["eve"], INCONCLUSIVE),
        ("testnet", ["gus"], INCONCLUSIVE),
        ("testnet", ["otto"], INCONCLUSIVE),
        ("testnet", ["mallory"], INCONCLUSIVE),
        ("testnet", [word("ed", plan=OTHER)], INCONCLUSIVE),
        ("canary", ["ed"], PASS),
        ("canary", ["eve"], INCONCLUSIVE),
        ("mainnet", ["carol"], INCONCLUSIVE),
        ("mainnet", ["ed", "gus"], INCONCLUSIVE),
        ("mainnet", ["carol", "otto"], INCONCLUSIVE),
        ("mainnet", ["carol", "carol"], INCONCLUSIVE),
        ("mainnet", ["carol", word("carol", minute=3)], INCONCLUSIVE),
        ("mainnet", ["carol", "ed"], PASS),
        ("mainnet", ["gus", "carol"], PASS),
        ("mainnet", ["carol", "eve"], PASS),
        ("mainnet", ["eve"], INCONCLUSIVE),
        ("development", ["ed", "carol"], INCONCLUSIVE),
        ("testnet", ["ed", word("ed", withdraws=True, minute=1)], FAIL),
        ("testnet", ["ed", word("ed", withdraws=True, plan=OTHER, minute=1)], PASS),
        ("testnet", ["ed", word("ed", withdraws=True, minute=1), word("ed", minute=2)], PASS),
        ("testnet", ["ed", word("ed", withdraws=True, minute=1), "carol"], PASS),
        ("testnet", ["ed", word("carol", withdraws=True, minute=1)], PASS),
    ],
)  # fmt: skip
def test_the_policy(voting: Voting, stage: str, said: list[Any], outcome: Outcome) -> None:
    """One other with a role for testnet and canary, commander and one more for mainnet."""
    assert voting.outcome(stage, *said) is outcome


@pytest.mark.parametrize("said", [[], ["carol"]])
def test_an_author_alone_never_approves_for_mainnet(voting: Voting, said: list[str]) -> None:
    """Also when the author is the commander."""
    assert voting.outcome("mainnet", *said, author="carol") is INCONCLUSIVE
    assert voting.outcome("mainnet", *said, "gus", author="carol") is (
        PASS if said else INCONCLUSIVE
    )


def test_who_filled_a_seat_and_who_could(voting: Voting) -> None:
    """Rows name approver and grounds, or whom to ask."""
    rows = voting.rows("mainnet", "carol")

    assert [(row.subject, row.what, row.expected, row.observed) for row in rows] == [
        ("approval", "seat 1 of 2", "by release-commander, not eve alone", "carol (#carol0)"),
        (
            "approval",
            "seat 2 of 2",
            "by governance-council or release-commander or release-engineer or security-steward"
            " or sre-lead, not eve alone",
            f"nobody yet; `approve {PLAN}` in the release issue, or `runbook approve`, by carol or ed or gus",
        ),
    ]


def test_a_single_operator_approves_their_own_and_it_says_so(voting: Voting) -> None:
    """What others approved is theirs still."""
    lonely = voting.rows("mainnet", author="eve", alone=True)
    helped = voting.rows("mainnet", "carol", author="eve", alone=True)

    assert [row.observed for row in lonely] == ["eve (self-approved)"] * 2
    assert [row.observed for row in helped] == ["carol (#carol0)", "eve (self-approved)"]
    withdrew = ("ed", word("ed", withdraws=True, minute=1))
    assert voting.outcome("testnet", *withdrew, alone=True) is FAIL


def test_a_forged_approval_is_a_failure_beside_true_ones(voting: Voting) -> None:
    """Somebody tried; one of another plan is none of this plan's business."""

    def forged(plan: str) -> Refused:
        return Refused("ed", "another key", "ed.json", "forged", Said("approve", plan=plan))

    assert voting.outcome("testnet", "carol", forged(PLAN)) is FAIL
    assert voting.outcome("testnet", "carol", forged(OTHER)) is PASS


def test_a_file_that_cannot_be_read_blocks_beside_approvals(voting: Voting) -> None:
    """It may be a withdrawal: nobody knows who still approves."""
    torn = Refused("ed.json", "expected a signed word, got: Invalid JSON", "ed.json", "unreadable")
    rows = voting.rows("testnet", "carol", torn)

    assert [(row.subject, row.what, row.observed, row.outcome) for row in rows] == [
        ("approval", "seat 1 of 1", "carol (#carol0)", PASS),
        (
            "approval",
            "signed word ed.json",
            "expected a signed word, got: Invalid JSON",
            INCONCLUSIVE,
        ),
    ]


def test_every_stage_beyond_development_has_a_policy() -> None:
    """Development may plan and apply in one run."""
    assert set(playbook.APPROVERS) == set(playbook.STAGES) - {"development"}
