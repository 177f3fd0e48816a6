"""Incidents: what they come to, what they block, and what cannot be taken from under them."""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib import cli, playbook
from runbook_lib.errors import LogDamaged, StoreError
from runbook_lib.evidence.incidents import Incident, Incidents, parse_incident, read_line
from runbook_lib.evidence.log import Log
from runbook_lib.evidence.release import next_opening, stages_before
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome
from runbook_lib.site import read_site

from ..conftest import ALICES
from ..events import event

RELEASE, ID = "v1.4.0", "v1.4.0-canary-0001"
AT = datetime(2026, 1, 1, tzinfo=UTC)
Command = Callable[..., tuple[int, str]]
HELD = "expected it closed and signed off by somebody other than alice, got it"


OPENING = event("incident-opened", at=AT)


def opened(store: Store, **more: Any) -> Incident:
    """An incident that a recovery's log names."""
    found = Incidents(store).open(event("incident-opened", at=AT, **more), lambda one: False)
    recovery(store, found)
    return found


def recovery(store: Store, names: Incident | None, number: int = 1) -> None:
    folder = store.root / RELEASE / "canary_recovery" / f"{number:04d}"
    folder.mkdir(parents=True)
    log = Log(folder / "log.jsonl")
    about = {"release": RELEASE, "stage": "canary_recovery", "attempt": number, "now": AT}
    log.append(event("opened", **about))
    if names is not None:
        log.append(event("incident", id=names.id, first=names.opened.hash))


def over(
    store: Store, by: str = "bob", approve: Callable[[str], str] | None = None, **closed: Any
) -> None:
    """Closed and signed off, as somebody who writes files would; ``approve`` is Bob's word."""
    closing = close(store, **closed)
    about = {"by": by, "at": AT, "digest": closing.digest}
    if approve is not None:
        about["signed_file"] = Path(approve(closing.digest)).read_text()
    Incidents(store).add(ID, event("incident-agreed", **about))


def close(store: Store, **more: Any) -> Any:
    head = Incidents(store).load(ID).events[-1].hash
    closing = event("incident-closed", **{"head": head, "at": AT, **more})
    return Log(Incidents(store).path(ID), read_line).append(closing)


@pytest.fixture
def store(practice: Any) -> Store:
    return Store(practice.root / "store")


def problems(store: Store, single: bool = False) -> list[str]:
    return [one.problem for one in Incidents(store).blocking(RELEASE, single_operator=single)]


def test_an_incident_blocks_until_it_is_signed_off(store: Store) -> None:
    """It is opened once."""
    first = opened(store)
    assert Incidents(store).open(first.opened, lambda one: one.id == ID).id == ID
    assert problems(store) == [f"{HELD} open since 2026-01-01 00:00:00 UTC"]

    over(store)

    assert problems(store) == []
    assert Incidents(store).load(ID).status == "signed off"


def test_its_author_does_not_sign_it_off(store: Store) -> None:
    """Whatever the case of the account; alone on a site of one they do."""
    opened(store)
    over(store, by="Alice")

    said = "expected it signed off by somebody other than alice, got their own"
    assert problems(store) == [said]
    assert problems(store, single=True) == []


def test_a_sign_off_of_an_earlier_closing_is_none(store: Store) -> None:
    opened(store)
    over(store)
    close(store, reason="once more")

    assert problems(store) == [f"{HELD} closed since 2026-01-01 00:00:00 UTC"]


def test_a_break_glass_blocks_until_it_is_ratified(store: Store) -> None:
    found = opened(store, break_glass="no time")
    over(store)
    assert problems(store) == [
        "expected its break-glass ratified by the council until 2026-01-02 00:00:00 UTC,"
        " got no decision"
    ]

    Log(Incidents(store).path(ID), read_line).append(
        event("incident-agreed", by="gus", at=AT, digest=found.to_ratify)
    )

    assert problems(store) == []


def test_a_deleted_incident_is_noticed(store: Store) -> None:
    """By the log of the recovery that names it."""
    opened(store)
    over(store)
    Incidents(store).path(ID).unlink()
    rows = stages_before(store.root / RELEASE / "canary_recovery" / "0001", ALICES)
    assert [(row.subject, row.outcome, row.observed) for row in rows] == [
        (ID, Outcome.FAIL, problems(store)[0])
    ]
    assert problems(store) == [
        "expected the incident that v1.4.0/canary_recovery/0001 opened, got none; it was removed"
        " from the store: restore .incidents/v1.4.0-canary-0001.jsonl"
    ]


def test_another_in_its_place_is_noticed(store: Store) -> None:
    """One that was written anew has another first event."""
    opened(store)
    Incidents(store).path(ID).unlink()
    Log(Incidents(store).path(ID), read_line).append(event("incident-opened", at=AT, by="bob"))
    over(store)

    assert problems(store) == [
        "expected the incident that v1.4.0/canary_recovery/0001 opened, got another in its place:"
        " restore it",
        "expected it signed off by somebody other than bob, got their own",
    ]


def test_a_recovery_without_an_incident_blocks(store: Store) -> None:
    """Until it, or a later one of the stage, opens it."""
    recovery(store, None)
    assert problems(store) == [
        "expected it to open an incident, got none yet: continue the recovery"
    ]

    recovery(store, Incidents(store).open(OPENING, lambda _: False), 2)

    assert problems(store) == [f"{HELD} open since 2026-01-01 00:00:00 UTC"]


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda text: text.replace(b"alice", b"carol", 1), "the log was altered"),
        (lambda text: b"[]\n" + text, "expected an event"),
        (lambda text: b"", "expected the log of an incident"),
        (lambda text: text.replace(b"/0001", b"/0007"), "opens another incident"),
    ],
    ids=["altered", "no entry", "empty", "not opened"],
)
def test_a_damaged_incident_blocks(
    store: Store, spoil: Callable[[bytes], bytes], problem: str
) -> None:
    opened(store)
    if problem == "the log was altered":
        over(store)
    path = Incidents(store).path(ID)
    path.write_bytes(spoil(path.read_bytes()))

    (said,) = problems(store)

    assert problem in said


def test_nothing_is_added_twice_nor_behind_the_end(store: Store) -> None:
    opened(store)
    filed = event("incident-filed", number=7, by="bob", at=AT)
    for at in (AT, AT + timedelta(hours=1)):
        found = Incidents(store).add(ID, event("incident-filed", number=7, by="bob", at=at))
    assert found.filed == [7]
    over(store)
    assert Incidents(store).add(ID, filed).filed == [7]
    with pytest.raises(StoreError, match="expected one that is not over, got it signed off"):
        Incidents(store).add(ID, event("incident-filed", number=8, by="bob", at=AT))


def test_an_unknown_incident_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="expected an incident in the store, got none"):
        Incidents(store).load("v1.4.0-canary-0009")
    with pytest.raises(LogDamaged):
        parse_incident(b"{}\n", f"{ID}.jsonl")


# --- promotion ------------------------------------------------------------------------------------


def test_no_apply_opens_while_an_incident_is_open(practice: Any, store: Store) -> None:
    """A plan does, and so does the apply once it is over."""
    opened(store)
    with pytest.raises(StoreError) as refused:
        practice.open()
    assert str(refused.value) == (
        f"{ID}: {HELD} open since 2026-01-01 00:00:00 UTC; development cannot open:"
        f" runbook incident v1.4.0 --site {practice.site}"
    )
    assert not (store.root / RELEASE / "development").exists()
    practice.open(mode="plan")

    over(store, approve=practice.approve)

    practice.open()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no word", "expected it signed off by bob, got no such words"),
        ("a word for something else", "expected what ended it read again, got: a signed file: "),
        ("a stranger's word", "expected what ended it read again, got: a signed file: "),
        ("a closing of something else", "got a closing of something else; restore it"),
        ("ratified by nobody", "expected its break-glass ratified by the council, got no such"),
    ],
)
def test_an_end_that_nobody_spoke_of_opens_nothing(
    practice: Any, store: Store, how: str, said: str
) -> None:
    """Its file can be written by all who write the store, chain and all; words are asked again."""
    glass = "no time" if how == "ratified by nobody" else ""
    found, other = opened(store, break_glass=glass), f"sha256:{'0' * 64}"
    if glass:
        Incidents(store).add(ID, event("incident-agreed", by="bob", at=AT, digest=found.to_ratify))
    words = {
        "no word": None,
        "a word for something else": lambda wanted: practice.approve(other),
        "a stranger's word": lambda wanted: practice.approve(wanted, account="carol"),
    }
    more = {"head": other} if how == "a closing of something else" else {}
    with suppress(LogDamaged):
        over(store, approve=words.get(how, practice.approve), **more)

    with pytest.raises(StoreError) as refused:
        practice.open()
    assert said in str(refused.value)
    assert "development cannot open" in str(refused.value)


def test_what_was_stopped_may_be_continued(practice: Any, store: Store) -> None:
    """To be read back and sealed; an attempt at another stage may not."""
    practice.open().close()
    opened(store)
    with pytest.raises(StoreError, match="development cannot open"):
        practice.open(attempt=1)

    over(store, approve=practice.approve)
    again = Incidents(store).load(ID).opened.model_copy(update={"stage": "development"})
    Incidents(store).open(again, lambda _: False)
    practice.open(attempt=1)


def test_status_says_what_blocks(
    practice: Any, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next stage does not open before that; exit 2."""
    practice.sealed()
    opened(store)
    opening = next_opening(store, read_site(str(practice.site)), RELEASE)

    assert opening is not None
    assert (opening.item, opening.at) == (ID, None)
    assert cli.main(["status", RELEASE, "--site", str(practice.site)]) == 2
    assert f"incident  {ID}: {HELD} open since" in capsys.readouterr().out


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def command(
    practice: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    def run(*words: str, what: str = ID, by: str = "alice") -> tuple[int, str]:
        monkeypatch.setenv("RUNBOOK_OPERATOR", by)
        capsys.readouterr()
        code = cli.main(["incident", what, "--site", str(practice.site), *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_an_incident_is_taken_to_its_end(practice: Any, store: Store, command: Command) -> None:
    """By its author, but for the last word, which is somebody's approval of the closing."""
    opened(store)
    assert command(what=RELEASE)[0] == 2
    assert command("--sign-off")[1].strip() == f"{ID}: expected it closed first, got it open"
    code, said = command("--close", "--reason", "short")
    assert (code, "in 10 characters or more" in said) == (3, True)
    code, said = command("--close", "--reason", "the gate is off, cause found", "--json")
    closing = json.loads(said)["incidents"][0]["closing"]
    assert (code, closing[:7]) == (0, "sha256:")

    assert command("--sign-off")[0] == 4
    approval = practice.approve(closing)
    assert command("--sign-off", "--approval", approval)[0] == 0
    assert command(what=RELEASE)[0] == 0
    events = Incidents(store).load(ID).events
    assert [event.kind for event in events[1:]] == ["incident-closed", "incident-agreed"]
    assert events[-1].by == "bob"


@pytest.mark.parametrize("words", [[], ["--sign-off"]], ids=["list", "step"])
@pytest.mark.parametrize("what", ["v9.9.9", f"{ID}0", "../store", "../../etc/passwd", "*"])
def test_a_misspelt_name_is_not_a_release_without_incidents(
    store: Store, command: Command, what: str, words: list[str]
) -> None:
    """Which would end with 0, as if all were well; and no name is a path."""
    opened(store)

    assert command(*words, what=what) == (
        3,
        f"{what}: expected an incident's id, or a release with attempts in the store, got neither\n",
    )


def closed(store: Store, command: Command, by: str = "alice") -> str:
    """An incident of theirs taken to its closing by its author; the closing's digest."""
    opened(store, by=by)
    command("--close", "--reason", "all is well again", by=by)
    return str(Incidents(store).load(ID).events[-1].digest)


@pytest.mark.parametrize(
    ("author", "other", "code", "said"),
    [
        ("alice", f"sha256:{'0' * 64}", 2, "expected an approval of sha256:"),
        ("bob", "", 4, ""),
    ],
    ids=["another statement", "the author's own"],
)
def test_what_is_no_word_of_another_signs_nothing_off(
    practice: Any, store: Store, command: Command, author: str, other: str, code: int, said: str
) -> None:
    """Bob's approval of something else, or of his own incident."""
    closing = closed(store, command, author)
    ended, told = command("--sign-off", "--approval", practice.approve(other or closing))

    assert (ended, said in told) == (code, True)
    assert Incidents(store).load(ID).status == "closed"


def test_the_council_ratifies_a_break_glass(practice: Any, store: Store, command: Command) -> None:
    """Two thirds of it; here of one member. Too late it counts as well."""
    people = [person.model_dump() for person in read_site(str(practice.site)).people]
    next(one for one in people if one["account"] == "bob")["roles"] = [playbook.COUNCIL]
    practice.write_site(people=people)
    found = opened(store, break_glass="no time to ask")
    wanted = found.to_ratify

    assert command("--ratify")[0] == 4
    assert command("--ratify", "--approval", practice.approve(wanted))[0] == 0
    ratified = Incidents(store).load(ID).agreed(wanted)
    assert ratified is not None
    assert ratified.by == "bob"


def test_an_operator_nobody_knows_takes_no_step(store: Store, command: Command) -> None:
    opened(store)
    code, said = command("--close", "--reason", "all is well again", by="mallory")

    assert code == 3
    assert "expected one of the site's people" in said


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_incident_or_damaged(data: bytes) -> None:
    with pytest.raises(LogDamaged):
        parse_incident(data, f"{ID}.jsonl")


@given(
    st.dictionaries(
        st.sampled_from(["release", "stage", "attempt", "at", "by"]),
        st.none() | st.integers(0, 9) | st.text(max_size=8) | st.just(AT.isoformat()) | st.just(ID),
    )
)
def test_an_odd_opening_is_an_incident_or_damaged(body: dict[str, Any]) -> None:
    data = json.dumps({**OPENING.content, **body}).encode() + b"\n"
    try:
        found = parse_incident(data, f"{ID}.jsonl")
    except LogDamaged:
        return
    assert found.status == "open"
    assert found.problem(single_operator=False).startswith("expected it closed and signed off")
