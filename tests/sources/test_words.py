"""The one reader of words: who may speak, what counts, and what is named instead."""

import base64
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.canonical import canonical
from runbook_lib.errors import SourceError
from runbook_lib.site import Site, parse_site
from runbook_lib.sources.keys import MAX_SIGNED, read_signed
from runbook_lib.sources.words import (
    MAX_FILES,
    Heard,
    Malformed,
    Said,
    Statement,
    Window,
    lines,
    parse_window,
    read_words,
    taken_back,
)

from ..conftest import example_site, named
from .conftest import World
from .github_answers import spoken

WINDOW = "2026-12-01T12:00:00Z/2026-12-01T16:00:00Z"
ACK = f"acknowledge v1.4.0 development {WINDOW}"
PLAN = "sha256:" + "a" * 64
AT, LATER = "2026-11-23T12:00:00Z", "2026-11-23T12:00:01Z"
ADA = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
DEV_2 = Ed25519PrivateKey.from_private_bytes(b"d" * 32)


@cache
def example() -> Site:
    values = example_site()
    values["people"][0]["key"] = named(ADA)
    node = values["clusters"]["development"]["nodes"][1]
    node.update(signoff_key=named(DEV_2), operator="harbor")
    return parse_site(yaml.safe_dump(values).encode(), "site.yaml")


class Release:
    """A release issue and a folder of signed words, read by one reader."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder, self.comments = world, folder / "v1.4.0", list[dict[str, Any]]()
        self.folder.mkdir(parents=True)
        self.site = example().model_copy(update={"words": str(folder / "{release}")})

    def say(self, body: str, by: str = "harbor", at: str = AT, edited: str = "") -> None:
        self.comments.append(spoken(len(self.comments) + 1, body, by, at, edited))

    def sign(
        self,
        key: Ed25519PrivateKey = DEV_2,
        name: str = "one.json",
        altered: str = "",
        signature: str = "",
        **changes: Any,
    ) -> Path:
        statement = {"kind": "acknowledge", "release": "v1.4.0", "stage": "development",
                     "window": WINDOW, "validator": "rpp1dev2", "at": AT, **changes}  # fmt: skip
        statement = {key: value for key, value in statement.items() if value is not None}
        signature = signature or base64.b64encode(key.sign(canonical(statement))).decode()
        statement["at"] = altered or statement["at"]
        path = self.folder / name
        path.write_text(json.dumps({"statement": statement, "signature": signature}))
        return path

    def read(self, issue: int = 7) -> Heard:
        def answer(request: httpx.Request) -> httpx.Response:
            assert request.url.path == "/repos/HUBId/chain/issues/7/comments"
            return httpx.Response(200, json=self.comments)

        return read_words(self.world.scope(answer), self.site, issue=issue, release="v1.4.0")

    def refused(self) -> list[tuple[str, str, str, str]]:
        heard = self.read()
        assert heard.words == heard.withdrawals == ()
        return [(one.who, one.why, one.grounds, one.fault) for one in heard.refused]


@pytest.fixture
def release(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setenv("GITHUB_TOKEN", "token-of-forge")
    return Release(world, tmp_path / "words")


def test_comments_and_files_are_one_list_in_replay_too(release: Release) -> None:
    release.say(f"{ACK}\n{ACK}")
    release.say(f"approve {PLAN}", "ada", LATER)
    release.sign()
    release.sign(ADA, "two.json", account="ada", validator=None)
    found = [(str(w), w.account, w.validator, w.at.second, w.grounds) for w in release.read().words]

    assert found == [
        (ACK, "harbor", "", 0, "https://forge/1"),
        (f"approve {PLAN}", "ada", "", 1, "https://forge/2"),
        (ACK, "", "rpp1dev2", 0, "one.json"),
        (ACK, "ada", "", 0, "two.json"),
    ]
    live = release.read()
    shutil.rmtree(release.folder)
    scope = release.world.replay()
    assert read_words(scope, release.site, issue=7, release="v1.4.0") == live


def test_an_edited_withdrawal_withdraws_all_that_was_said_until_its_edit(release: Release) -> None:
    release.say(ACK, at=AT)
    release.say("withdraw acknowledge", at=AT, edited=LATER)
    release.say(ACK, at="2026-11-23T12:00:02Z")
    heard = release.read()

    taken = [taken_back(word, heard.withdrawals) for word in heard.words]
    assert [one and one.grounds for one in taken] == ["https://forge/2", None]
    assert heard.withdrawals[0].at == datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC)
    # A forge knows seconds only: one of the same instant counts.
    release.comments.clear()
    release.say(f"{ACK}\nwithdraw {ACK}")
    heard = release.read()
    assert taken_back(heard.words[0], heard.withdrawals) is not None


UNLISTED = "expected an account the site lists, got '{who}'"
STRANGE = "expected a listed person with a key, got '{who}'"
FORGED = "expected a signature by {who}, got another"


@pytest.mark.parametrize(
    ("say", "who", "why", "fault"),
    [
        ({"body": ACK, "by": "mallory"}, "mallory", UNLISTED, "stranger"),
        ({"body": ACK, "edited": LATER}, "harbor",
         "edited since, at 2026-11-23 12:00:01Z; say it anew", "edited"),
        ({"body": "approve it"}, "harbor",
         "'approve it': plan: expected sha256: and 64 hex digits, got 'it' in `approve sha256:DIGEST`", "malformed"),
        ({"validator": "rpp1dev1"}, "rpp1dev1", "expected a signoff_key in the site, got '{who}'",
         "stranger"),
        ({"validator": None, "account": "grace"}, "grace", STRANGE, "stranger"),
        ({"validator": None, "account": "<b>"}, "<b>", STRANGE, "stranger"),
        ({"key": ADA}, "rpp1dev2", FORGED, "forged"),
        ({"altered": LATER}, "rpp1dev2", FORGED, "forged"),
        ({"signature": "no base64"}, "rpp1dev2", FORGED, "forged"),
        ({"signature": base64.b64encode(b"x" * 64).decode()}, "rpp1dev2", FORGED, "forged"),
    ],
)  # fmt: skip
def test_what_does_not_count_is_named(
    release: Release, say: dict[str, Any], who: str, why: str, fault: str
) -> None:
    tell, grounds = (
        (release.say, "https://forge/1") if "body" in say else (release.sign, "one.json")
    )
    tell(**say)

    assert release.refused() == [(who, why.format(who=who), grounds, fault)]


def test_of_an_instant_to_come_a_withdrawal_counts_alone(release: Release) -> None:
    """A word could not be withdrawn before then; the clock that one was signed by may be fast."""
    at = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    release.sign(at=at.isoformat())
    why = f"expected an instant that has come, got {at:%Y-%m-%d %H:%M:%SZ}"
    assert release.refused() == [("rpp1dev2", why, "one.json", "ahead")]

    release.sign()
    release.sign(name="two.json", withdraw=True, at=at.isoformat())
    heard = release.read()
    assert heard.refused == ()
    assert taken_back(heard.words[0], heard.withdrawals) is heard.withdrawals[0]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("{"), "expected a signed word, got: Invalid JSON: Expecting"),
        (lambda path: path.write_bytes(b" " * 70_000), "expected at most 65536 bytes, got 70000"),
        (lambda path: path.write_text("[" * 60_000), "expected a signed word, got: Invalid JSON: "),
        (lambda path: path.symlink_to("/etc/hostname"), "expected a readable file, got: Too many"),
        (lambda path: path.mkdir(), "expected a readable file, got: not a regular file"),
        (os.mkfifo, "expected a readable file, got: not a regular file"),
    ],
)
def test_a_hostile_file_is_named_and_hides_no_other(release: Release, make: Any, why: str) -> None:
    make(release.folder / "bad.json")
    release.sign()
    heard = release.read()

    assert [str(word) for word in heard.words] == [ACK]
    assert [(one.who, one.fault) for one in heard.refused] == [("bad.json", "unreadable")]
    assert heard.refused[0].why.startswith(why)


def test_a_place_that_cannot_be_read_is_an_error(release: Release) -> None:
    """A withdrawal may lie in a folder that is not mounted; a flood of files is refused."""
    (release.folder / ".one.json").write_text("{")
    (release.folder / "README").write_text("put signed words here")
    assert release.read() == Heard()
    shutil.rmtree(release.folder)
    assert release.read() == Heard()
    release.folder.parent.rmdir()
    with pytest.raises(SourceError, match=r"words: expected a folder, even an empty one; create"):
        release.read()
    release.folder.mkdir(parents=True)
    for number in range(MAX_FILES + 1):
        (release.folder / f"{number}.json").touch()
    with pytest.raises(SourceError, match=r": expected at most 1000 files, got 1001$"):
        release.read()
    release.site = release.site.model_copy(update={"words": ""})
    nowhere = r"^words: expected a release issue \(issue\) or the site's folder \(words\)$"
    with pytest.raises(SourceError, match=nowhere):
        release.read(issue=0)


# --- the forms ---


SPAN = Window(datetime(2026, 12, 1, 12, tzinfo=UTC), datetime(2026, 12, 1, 16, tzinfo=UTC))
SIGN = Said(kind="sign-off", release="v1.4.0", stage="mainnet", window=SPAN, plan=PLAN)
SAID_ACK = Said(kind="acknowledge", release="v1.4.0", stage="testnet", window=SPAN)
APPROVE, ID = Said(kind="approve", plan=PLAN), "A0b1c2d3e"
BACK = Said(kind="", withdraw=True)


def back(kind: str, **named: Any) -> Said:
    return Said.model_validate({"kind": kind, "withdraw": True, **named})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"acknowledge v1.4.0 testnet {WINDOW}", SAID_ACK),
        (f"  /Acknowledge   v1.4.0\ttestnet {WINDOW}  \r\n", SAID_ACK),
        ("acknowledge v1.4.0 testnet 2026-12-01T13:00:00+01:00/2026-12-01T16:00:00+00:00", SAID_ACK),
        (f"Seen by all of us.\n\nsign-off v1.4.0 mainnet {WINDOW} {PLAN.upper()}", SIGN),
        (f"approve {PLAN}\nthanks", APPROVE),
        (f"withdraw approve {PLAN}", back("approve", plan=PLAN)),
        ("withdraw sign-off", back("sign-off")),
        ("withdraw sign-off v1.4.0 mainnet", back("sign-off", release="v1.4.0", stage="mainnet")),
        ("withdraw", BACK),
        ("Acknowledge-Anomaly a0B1c2d3e", Said(kind="acknowledge-anomaly", anomaly=ID)),
        (f"decide {ID} RESTART the pool  was moved", Said(kind="decide", anomaly=ID, decision="restart", reason="the pool was moved")),
        (f"withdraw decide {ID}", back("decide", anomaly=ID)),
        *((body, None) for body in (
            f"> approve {PLAN}", f"I approve {PLAN}", f"`approve {PLAN}`", f"approved {PLAN}", f"sign-offs {PLAN}",
            "decide when we go on", f"\u017fign-off v1.4.0 mainnet {WINDOW} {PLAN}", f"dec\u0131de {ID} restart it",
            f"dec\u0130de {ID} restart it", f"not this line\u2028approve {PLAN}", f"not this line\x0bapprove {PLAN}", "",
        )),
    ],
)  # fmt: skip
def test_a_line_says_exactly_its_form_and_prose_nothing(body: str, said: Said | None) -> None:
    assert list(lines(body)) == ([said] if said else [])


ACKNOWLEDGE = "`acknowledge RELEASE STAGE START/END`"
DECIDE = "`decide ID continue|restart|recover REASON`"
STAGE = "stage: expected '', 'development', 'testnet', 'canary' or 'mainnet', got"


@pytest.mark.parametrize(
    ("line", "said", "why"),
    [
        ("acknowledge v1.4.0 testnet", None, f"expected {ACKNOWLEDGE}, got no window"),
        ("acknowledge", None, f"expected {ACKNOWLEDGE}, got no release"),
        (f"acknowledge v1.4.0 staging {WINDOW}", None, f"{STAGE} 'staging' in {ACKNOWLEDGE}"),
        (f"acknowledge ../v1 testnet {WINDOW}", None, f"release: expected a name of letters, digits, '.', '_', '+' or '-', got '../v1' in {ACKNOWLEDGE}"),
        ("acknowledge v1.4.0 testnet tomorrow", None, f"window: expected START/END, got 'tomorrow' in {ACKNOWLEDGE}"),
        ("acknowledge v1.4.0 testnet 2026-12-01T16:00:00Z/2026-12-01T12:00:00Z", None, f"window: expected a window that ends after it starts, got '2026-12-01T16:00:00Z/2026-12-01T12:00:00Z' in {ACKNOWLEDGE}"),
        (f"sign-off v1.4.0 mainnet {WINDOW}", None, "expected `sign-off RELEASE STAGE START/END sha256:DIGEST`, got no plan"),
        (f"approve {PLAN[:-1]}", None, f"plan: expected sha256: and 64 hex digits, got '{PLAN[:-1]}' in `approve sha256:DIGEST`"),
        (f"approve {PLAN} later", None, "expected `approve sha256:DIGEST`, got 2 words after approve"),
        ("Approve of it", None, "expected `approve sha256:DIGEST`, got 2 words after approve"),
        (f"decide {ID} wait a little", None, f"decision: expected '', 'continue', 'restart' or 'recover', got 'wait' in {DECIDE}"),
        (f"decide {ID} restart", None, f"expected {DECIDE}, got no reason"),
        ("acknowledge-anomaly yes", None, "anomaly: expected A and 8 hex digits, got 'yes' in `acknowledge-anomaly ID`"),
        ("withdraw my objection", BACK, "expected one of acknowledge, sign-off, approve, accept-policy, acknowledge-anomaly, decide, got 'my'"),
        ("withdraw approve this", back("approve"), "plan: expected sha256: and 64 hex digits, got 'this' in `approve sha256:DIGEST`"),
        (f"withdraw approve {PLAN} now", back("approve", plan=PLAN), "expected `approve sha256:DIGEST`, got 2 words after approve"),
        ("withdraw sign-off v1 nowhere", back("sign-off", release="v1"), f"{STAGE} 'nowhere' in `sign-off RELEASE STAGE START/END sha256:DIGEST`"),
    ],
)  # fmt: skip
def test_a_line_without_its_form_is_named_and_a_withdrawal_withdraws_more(
    line: str, said: Said | None, why: str
) -> None:
    found = list(lines(f"Hello\n{line}\nBye"))
    assert found == [*([said] if said else []), Malformed(line, why)]


@given(st.text() | st.text(alphabet="approve withdraw`~<!->\n\r:/", max_size=200))
def test_no_comment_breaks_the_reader(body: str) -> None:
    assert all(isinstance(found, Said | Malformed) for found in lines(body))


instants = st.datetimes(timezones=st.just(UTC))


@given(st.lists(instants, min_size=2, max_size=2, unique=True).map(sorted))
def test_what_is_written_is_read_again(ends: list[datetime]) -> None:
    said = SIGN.model_copy(update={"window": Window(*ends)})
    assert list(lines(str(said))) == [said]
    assert parse_window(str(Window(*ends))) == Window(*ends)


def test_a_withdrawal_covers_what_it_names_and_no_more() -> None:
    assert BACK.covers(SIGN)
    assert back("sign-off", release="v1.4.0").covers(SIGN)
    assert SIGN.model_copy(update={"withdraw": True}).covers(SIGN)
    assert not back("acknowledge").covers(SIGN)
    for other in ({"release": "v1.5.0"}, {"stage": "testnet"}, {"plan": f"sha256:{'b' * 64}"}):
        assert not back("sign-off", **other).covers(SIGN)


# --- signed files -------------------------------------------------------------------------------

FINE = {"kind": "acknowledge", "release": "v1.4.0", "stage": "testnet", "window": WINDOW,
        "validator": "rpp1x", "at": AT}  # fmt: skip


def signed(**changes: Any) -> bytes:
    statement = {key: value for key, value in {**FINE, **changes}.items() if value is not None}
    return json.dumps({"statement": statement, "signature": "AA=="}).encode()


def test_a_file_says_what_a_line_says_and_what_its_kind_does_not_need_is_not_said() -> None:
    """The signature is over what the file holds; a withdrawal of one release takes back all of it."""
    found = read_signed(signed(kind="approve", plan=PLAN, validator=None, account="bob"), Statement)
    assert (str(found.statement.said()), found.statement.said()) == (f"approve {PLAN}", APPROVE)
    assert (
        json.loads(found.content)
        == json.loads(signed(kind="approve", plan=PLAN, validator=None, account="bob"))["statement"]
    )

    def said(**changes: Any) -> Said:
        return read_signed(signed(**changes), Statement).statement.said()

    assert said() == SAID_ACK
    assert said(kind="sign-off", withdraw=True, window=None) == back(
        "sign-off", release="v1.4.0", stage="testnet"
    )
    taken = said(kind="approve", withdraw=True, plan=PLAN, validator=None, account="bob")
    assert taken.covers(APPROVE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Invalid JSON: "),
        (b'{"a": 1, "a": 2}', "Invalid JSON: expected every key once, got one twice"),
        (b'{"a": NaN}', "Invalid JSON: NaN, which is no JSON"),
        (b"x" * (MAX_SIGNED + 1), f"at most {MAX_SIGNED} bytes, got {MAX_SIGNED + 1}"),
        (b"null", "expected an object, got None"),
        (b"{}", "statement: expected a value, got none"),
        (signed(account="bob"), "expected either account or validator"),
        (signed(validator=None), "expected either account or validator"),
        (signed(kind="approve", plan=PLAN), "expected the account of a person for approve"),
        (signed(kind="decide", anomaly=ID, decision="restart", reason="x"), "expected the account of a person for decide"),
        (signed(window=None), f"expected {ACKNOWLEDGE}, got no window"),
        (signed(kind="sign-off"), "expected `sign-off RELEASE STAGE START/END sha256:DIGEST`, got no plan"),
        (signed(release="../x"), "release: expected a name of letters"),
        (signed(at="2026-11-23T12:00:00"), "at: expected a value with timezone info"),
        (signed(window="\ud800/x"), "expected JSON, got: unexpected end of hex escape"),
    ],
)  # fmt: skip
def test_a_file_that_says_nothing_is_refused_in_a_line(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_signed(data, Statement)

    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)
