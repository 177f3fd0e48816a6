"""The people of a rehearsal: listed, with keys, and able to speak."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from runbook_lib.rehearsal.people.words import private_key, public_key

from ..conftest import Visitor

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
END = START + timedelta(hours=4)
LINE = "acknowledge v1.4.0 testnet 2030-01-01T12:00:00Z/2030-01-01T16:00:00Z"


@pytest.fixture(autouse=True)
def silence(visitor: Visitor) -> None:
    visitor.network.forge.comments.clear()


def said(visitor: Visitor) -> list[tuple[str, str]]:
    found = visitor.forge("GET", "/issues/42/comments").json()
    return [(comment["user"]["login"], comment["body"]) for comment in found]


def test_everybody_has_a_key_that_the_site_knows(visitor: Visitor) -> None:
    """Private keys are their owner's alone."""
    people = {person["account"]: person for person in visitor.site["people"]}
    nodes = [node for cluster in visitor.site["clusters"].values() for node in cluster["nodes"]]
    known = {account: person["key"] for account, person in people.items()}
    known |= {node["name"]: node["signoff_key"] for node in nodes}

    assert list(people) == [
        "rehearsal", "rehearsal-commander", "rehearsal-second",
        "rehearsal-council-a", "rehearsal-council-b",
    ]  # fmt: skip
    assert len(known) == len(set(known.values())) == 23
    for name, key in known.items():
        path = visitor.network.root / "keys" / f"{name}.pem"
        pem = load_pem_private_key(path.read_bytes(), None)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        mine = private_key(visitor.network.seed, name)
        assert pem.private_bytes_raw() == mine.private_bytes_raw()  # type: ignore[union-attr]
        assert public_key(visitor.network.seed, name) == key


def test_a_person_says_something_and_edits_it(visitor: Visitor) -> None:
    """As the forge shows what people write."""
    network = visitor.network
    comment = network.say("lumen-nodes", "hello")
    network.say("harbor-stake", "then", at=START)
    network.forge.edit(comment, "hello again")
    first, second = visitor.forge("GET", "/issues/42/comments").json()

    assert said(visitor) == [("lumen-nodes", "hello again"), ("harbor-stake", "then")]
    assert first["updated_at"] > first["created_at"]
    assert second["updated_at"] == second["created_at"] == "2030-01-01T12:00:00Z"
    with pytest.raises(KeyError):
        network.say("lumen-nodes", "nowhere", issue=9999)


def test_operators_speak_once_each(visitor: Visitor) -> None:
    """Ours by the engineer."""
    visitor.network.speak("acknowledge", "testnet", START, END)

    accounts = ["rehearsal", "north-validators", "harbor-stake", "lumen-nodes"]
    assert said(visitor) == [(account, LINE) for account in accounts]


@pytest.mark.parametrize(
    ("fault", "lines"),
    [
        ("ack-missing", []),
        ("ack-late", [LINE]),
        ("ack-other-window", [LINE.replace("01-01T", "01-02T")]),
        ("ack-withdrawn", [LINE, f"withdraw {LINE}"]),
        ("ack-forged", []),
    ],
)
def test_a_fault_changes_what_one_operator_says(
    visitor: Visitor, fault: str, lines: list[str]
) -> None:
    """Not what the others do; a forged file goes with its fault."""
    network = visitor.network
    network.fault(f"{fault}@testnet/test-6")
    network.speak("acknowledge", "testnet", START, END)
    words = network.root / "words" / "v1.4.0"

    assert [line for account, line in said(visitor) if account == "harbor-stake"] == lines
    assert [account for account, _ in said(visitor) if account != "harbor-stake"] == [
        "rehearsal", "north-validators", "lumen-nodes",
    ]  # fmt: skip
    forged = ["acknowledge-test-6.json"] if fault == "ack-forged" else []
    assert [path.name for path in words.iterdir()] == forged
    network.clear(fault)
    assert list(words.iterdir()) == []


def test_a_sign_off_quotes_a_plan(visitor: Visitor) -> None:
    """Another one under its fault."""
    plan = "sha256:" + "a" * 64
    visitor.network.fault("signoff-other-plan@mainnet/main-6")
    visitor.network.speak("sign-off", "mainnet", START, END, plan)
    quoted = {account: line.split()[-1] for account, line in said(visitor)}

    assert quoted.pop("harbor-stake") == "sha256:" + "0" * 64
    assert set(quoted.values()) == {plan}
