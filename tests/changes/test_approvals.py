"""A person's word counts when a listed account gave it for exactly this digest."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from runbook_lib.changes.approvals import approved
from runbook_lib.errors import SourceError
from runbook_lib.outcomes import Outcome, worst
from runbook_lib.site import read_site
from runbook_lib.sources.quorum import anybody
from runbook_lib.sources.words import Heard, Refused, Said, Word, hear

from ..sources.conftest import World
from ..sources.github_answers import spoken

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
AT = "2026-11-23T12:00:00Z"


class Asking:
    """Asks for approvals of ``DIGEST`` in a release issue made of ``comments``."""

    def __init__(self, practice: Any) -> None:
        self.comments: list[dict[str, Any]] = []
        self.site = read_site(str(practice.site))
        self.world = World(practice.root / "tape", self.site.secret_names())
        self.scope = self.world.scope(self._answer)

    def say(self, body: str, by: str = "bob") -> None:
        self.comments.append(spoken(len(self.comments) + 1, body, by, AT))

    def accounts(self, *, issue: int = 1, file: str = "") -> list[str]:
        heard = hear(self.scope, self.site, DIGEST, issues=[issue], files=[file])
        found = anybody(self.site, "").count(heard, DIGEST).words
        return [approval.account for approval in found]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/repos/practice/chain/issues/1/comments"
        return httpx.Response(200, json=self.comments)


@pytest.fixture
def asking(practice: Any) -> Any:
    made = Asking(practice)
    yield made
    made.world.close()


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ([("bob", f"approve {OTHER}\napprove {DIGEST}")], ["bob"]),
        # A forge knows an account in any case: it is the same person's, named as the site spells it.
        ([("BOB", f"approve {DIGEST}")], ["bob"]),
        ([("BOB", f"approve {DIGEST}"), ("boB", "withdraw approve")], []),
        ([("bob", f"approve {DIGEST}"), ("bob", f"withdraw approve {DIGEST}")], []),
        ([("bob", f"approve {DIGEST}"), ("bob", "withdraw approve that")], []),
        ([("bob", f"approve {DIGEST}"), ("bob", f"withdraw approve {OTHER}")], ["bob"]),
    ],
)
def test_a_listed_account_approves_until_it_withdraws(
    asking: Asking, said: list[tuple[str, str]], counts: list[str]
) -> None:
    for by, body in said:
        asking.say(body, by)

    assert asking.accounts() == counts


def test_a_signed_file_approves_beside_comments_until_one_takes_it_back(
    asking: Asking, practice: Any
) -> None:
    asking.say(f"approve {DIGEST}", "alice")
    path = practice.approve(DIGEST)
    heard = hear(asking.scope, asking.site, DIGEST, issues=[1], files=[path])
    found = anybody(asking.site, "").count(heard, DIGEST).words

    assert [approval.account for approval in found] == ["alice", "bob"]
    assert found[1].grounds == Path(path).name
    assert found[0].at == datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert found[0].grounds == "https://forge/1"
    assert asking.accounts(issue=0) == []  # nobody is asked
    asking.comments[:] = [spoken(1, "withdraw approve", "bob", "2100-01-01T00:00:00Z")]
    assert asking.accounts(file=path) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (DIGEST, OTHER, f"expected an approval of {DIGEST}"),
        ("bob", "alice", "expected a listed person with a key, got 'alice'"),
        ('"signature": "', '"signature": "AAAA', "expected a signature by bob, got another"),
        ('"kind"', '"withdraw": true, "kind"',
         "expected a signed approval, got: a signed withdrawal"),
        ("{", "[", "expected a signed approval, got: Invalid JSON"),
    ],
)  # fmt: skip
def test_a_file_that_proves_nothing_is_an_error(
    asking: Asking, practice: Any, old: str, new: str, problem: str
) -> None:
    path = Path(practice.approve(DIGEST))
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SourceError, match=re.escape(f": {problem}")):
        asking.accounts(file=str(path))


# --- who must approve, stage by stage ---


PLAN = DIGEST
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
    return Word(
        kind="approve", withdraw=withdraws, plan=plan, account=account, at=at, grounds=where
    )


@dataclass
class Voting:
    practice: Any

    def rows(
        self, stage: str, *said: Word | Refused | str, author: str = "eve", alone: bool = False
    ) -> Any:
        people = [{"name": n.title(), "account": n, "roles": r} for n, r in PEOPLE.items()]
        self.practice.write_site(people=people, single_operator=alone)
        words = [word(one) if isinstance(one, str) else one for one in said]
        heard = Heard(
            tuple(one for one in words if isinstance(one, Word) and not one.withdraw),
            tuple(one for one in words if isinstance(one, Word) and one.withdraw),
            tuple(one for one in words if isinstance(one, Refused)),
        )
        return approved(read_site(str(self.practice.site)), heard, author, stage, digest=PLAN)[1]

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
        # An author alone never approves for mainnet.
        ("mainnet by carol", [], INCONCLUSIVE),
        ("mainnet by carol", ["carol"], INCONCLUSIVE),
        ("mainnet by carol", ["gus"], INCONCLUSIVE),
        ("mainnet by carol", ["carol", "gus"], PASS),
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
    stage, _, author = stage.partition(" by ")
    assert voting.outcome(stage, *said, author=author or "eve") is outcome


def test_who_filled_a_seat_and_who_could(voting: Voting) -> None:
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
    lonely = voting.rows("mainnet", author="eve", alone=True)
    helped = voting.rows("mainnet", "carol", author="eve", alone=True)

    assert [row.observed for row in lonely] == ["eve (self-approved)"] * 2
    assert [row.observed for row in helped] == ["carol (#carol0)", "eve (self-approved)"]
    withdrew = ("ed", word("ed", withdraws=True, minute=1))
    assert voting.outcome("testnet", *withdrew, alone=True) is FAIL


def test_a_forged_approval_is_named_and_passed_over(voting: Voting) -> None:
    """It fills no seat and takes none; one of another plan is none of this plan's business."""

    def forged(plan: str) -> Refused:
        return Refused("ed", "another key", "ed.json", "forged", Said(kind="approve", plan=plan))

    named = voting.rows("testnet", "carol", forged(PLAN))[-1]
    assert (named.subject, named.what, named.observed, named.outcome) == (
        "approval", "ed", "forged, passed over: ed.json", PASS,
    )  # fmt: skip
    assert voting.outcome("testnet", "carol", forged(PLAN)) is PASS
    assert voting.outcome("testnet", forged(PLAN)) is INCONCLUSIVE
    assert len(voting.rows("testnet", "carol", forged(OTHER))) == 1


def test_a_file_that_cannot_be_read_blocks_beside_approvals(voting: Voting) -> None:
    """It may be a withdrawal: nobody knows who still approves."""
    torn = Refused("ed.json", "expected a signed word, got: Invalid JSON", "ed.json", "unreadable")
    rows = voting.rows("testnet", "carol", torn)

    filled, unread = ((row.subject, row.what, row.observed, row.outcome) for row in rows)
    assert filled == ("approval", "seat 1 of 1", "carol (#carol0)", PASS)
    assert unread == ("approval", "signed word ed.json", torn.why, INCONCLUSIVE)
