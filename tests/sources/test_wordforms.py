"""The forms of a word: what a line and a signed file say, and what is no word at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.sources.keys import MAX_SIGNED
from runbook_lib.sources.words import (
    Malformed,
    Said,
    Window,
    lines,
    parse_said,
    parse_signed,
    parse_window,
)

PLAN = "sha256:" + "a" * 64
TEXT = "2026-12-01T12:00:00Z/2026-12-01T16:00:00Z"
WINDOW = Window(datetime(2026, 12, 1, 12, tzinfo=UTC), datetime(2026, 12, 1, 16, tzinfo=UTC))
ACK = Said("acknowledge", release="v1.4.0", stage="testnet", window=WINDOW)
SIGN = Said("sign-off", release="v1.4.0", stage="mainnet", window=WINDOW, plan=PLAN)
APPROVE = Said("approve", plan=PLAN)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"acknowledge v1.4.0 testnet {TEXT}", ACK),
        (f"  /Acknowledge   v1.4.0\ttestnet {TEXT}  \r\n", ACK),
        ("acknowledge v1.4.0 testnet 2026-12-01T13:00:00+01:00/2026-12-01T16:00:00+00:00", ACK),
        (f"Seen by all of us.\n\nsign-off v1.4.0 mainnet {TEXT} {PLAN.upper()}", SIGN),
        (f"approve {PLAN}\nthanks", APPROVE),
        (f"withdraw approve {PLAN}", Said("approve", True, plan=PLAN)),
        ("withdraw sign-off", Said("sign-off", True)),
        ("withdraw sign-off v1.4.0 mainnet", Said("sign-off", True, "v1.4.0", "mainnet")),
        ("withdraw", Said("", True)),
        ("Acknowledge-Anomaly a0B1c2d3e", Said("acknowledge-anomaly", anomaly="A0b1c2d3e")),
        (
            "decide A0b1c2d3e RESTART the pool  was moved",
            Said("decide", anomaly="A0b1c2d3e", decision="restart", reason="the pool was moved"),
        ),
        ("withdraw decide A0b1c2d3e", Said("decide", True, anomaly="A0b1c2d3e")),
    ],
)
def test_a_line_says_exactly_its_form(body: str, said: Said) -> None:
    """Wherever it stands in the comment, in any case, with any instants that are the same."""
    assert list(lines(body)) == [said]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("acknowledge v1.4.0 testnet", "expected `acknowledge RELEASE STAGE START/END`, got 2 words after acknowledge"),
        ("acknowledge", "expected `acknowledge RELEASE STAGE START/END`, got 0 words after acknowledge"),
        (f"acknowledge v1.4.0 staging {TEXT}", "expected one of development, testnet, canary, mainnet, got 'staging' in `acknowledge RELEASE STAGE START/END`"),
        (f"acknowledge ../v1 testnet {TEXT}", "expected the name of a release, got '../v1' in `acknowledge RELEASE STAGE START/END`"),
        ("acknowledge v1.4.0 testnet tomorrow", "expected START/END, got 'tomorrow' in `acknowledge RELEASE STAGE START/END`"),
        ("acknowledge v1.4.0 testnet 2026-12-01T12:00:00/2026-12-01T16:00:00", "expected an instant with its offset, such as 2026-01-31T12:00:00Z in `acknowledge RELEASE STAGE START/END`"),
        ("acknowledge v1.4.0 testnet 2026-12-01T16:00:00Z/2026-12-01T12:00:00Z", "expected a window that ends after it starts, got '2026-12-01T16:00:00Z/2026-12-01T12:00:00Z' in `acknowledge RELEASE STAGE START/END`"),
        (f"sign-off v1.4.0 mainnet {TEXT}", "expected `sign-off RELEASE STAGE START/END sha256:DIGEST`, got 3 words after sign-off"),
        (f"sign-off v1.4.0 mainnet {TEXT} {PLAN[:-1]}", f"expected sha256: and 64 hex digits, got '{PLAN[:-1]}' in `sign-off RELEASE STAGE START/END sha256:DIGEST`"),
        (f"approve {PLAN} later", "expected `approve sha256:DIGEST`, got 2 words after approve"),
        ("decide A0b1c2d3e wait a little", "expected one of continue, restart, recover, got 'wait' in `decide ID continue|restart|recover REASON`"),
        ("decide A0b1c2d3e restart", "expected `decide ID continue|restart|recover REASON`, got 2 words after decide"),
        ("acknowledge-anomaly yes", "expected A and 8 hex digits, got 'yes' in `acknowledge-anomaly ID`"),
        ("acknowledge v1.4.0 testnet 0001-01-01T00:00:00+01:00/2026-12-01T16:00:00Z", "expected an instant between the years 1 and 9999 in UTC, such as 2026-01-31T12:00:00Z in `acknowledge RELEASE STAGE START/END`"),
        ("Approve of it", "expected `approve sha256:DIGEST`, got 2 words after approve"),
    ],
)  # fmt: skip
def test_a_line_with_a_verb_and_no_form_is_named(line: str, why: str) -> None:
    """Its writer believes to have said something."""
    assert list(lines(f"Hello\n{line}\nBye")) == [Malformed(line, why)]


@pytest.mark.parametrize(
    ("line", "said", "why"),
    [
        ("withdraw my objection", Said("", True), "expected one of acknowledge, sign-off, approve, acknowledge-anomaly, decide, got 'my'"),
        ("withdraw approve this", Said("approve", True), "expected sha256: and 64 hex digits, got 'this'"),
        (f"withdraw approve {PLAN} now", Said("approve", True, plan=PLAN), "expected at most 1 words after approve"),
        ("withdraw sign-off v1 nowhere", Said("sign-off", True, "v1"), "expected one of development, testnet, canary, mainnet, got 'nowhere'"),
    ],
)  # fmt: skip
def test_a_withdrawal_that_cannot_be_read_withdraws_more(line: str, said: Said, why: str) -> None:
    """When in doubt somebody has not agreed; that it was malformed is said too."""
    assert list(lines(line)) == [said, Malformed(line, why)]


@pytest.mark.parametrize(
    "body",
    [
        f"> approve {PLAN}",
        f"I approve {PLAN}",
        f"`approve {PLAN}`",
        f"approved {PLAN}",
        f"sign-offs {PLAN}",
        "decide when we go on",
        f"\u017fign-off v1.4.0 mainnet {TEXT} {PLAN}",
        "dec\u0131de A0b1c2d3e restart it",
        "dec\u0130de A0b1c2d3e restart it",
        f"not this line\u2028approve {PLAN}",
        f"not this line\x0bapprove {PLAN}",
        "",
    ],
)
def test_prose_and_quotations_say_nothing(body: str) -> None:
    """Also where only some programs see the start of a line."""
    assert list(lines(body)) == []


@pytest.mark.parametrize(
    "body",
    [
        f"```\napprove {PLAN}\n```",
        f"~~~text\napprove {PLAN}",
        f"<!--\napprove {PLAN}\n-->",
        f"<!-- \n\napprove {PLAN}",
        f"```\n``` goes on\napprove {PLAN}\n```",
        f"````\n```\napprove {PLAN}\n````",
        f"see\r```\rapprove {PLAN}\r```",
    ],
)
def test_a_line_that_readers_do_not_see_as_text_says_nothing(body: str) -> None:
    """An example in a block, or words hidden in a comment of the markup; it is named."""
    found = Malformed(f"approve {PLAN}", "it stands in a block that is no text")
    assert list(lines(body)) == [found]
    assert list(lines(f"```\nx\n```\napprove {PLAN}")) == [APPROVE]


def test_a_line_behind_what_only_looks_like_a_block_is_text() -> None:
    """A fence of backticks with a backtick behind it opens none; spaces behind one still end it."""
    assert list(lines(f"```x```\napprove {PLAN}")) == [APPROVE]
    assert list(lines(f"```\nx\n`````  \napprove {PLAN}")) == [APPROVE]


@pytest.mark.parametrize(
    "before", ["```\n", "see `<!--` in the text\n", "<!-->\n"], ids=["fence", "code", "comment"]
)
def test_a_withdrawal_counts_wherever_it_stands(before: str) -> None:
    """What we take for a block its writer may have seen as text: in doubt they do not agree."""
    line = f"withdraw approve {PLAN}"

    assert list(lines(before + line)) == [
        Malformed(line, "it stands in a block that is no text"),
        Said("approve", True, plan=PLAN),
    ]


@given(st.text() | st.text(alphabet="approve withdraw`~<!->\n\r:/", max_size=200))
def test_no_comment_breaks_the_reader(body: str) -> None:
    """Whatever it holds, there are words, malformed lines, or neither."""
    assert all(isinstance(found, Said | Malformed) for found in lines(body))


instants = st.datetimes(timezones=st.just(UTC))


@given(st.lists(instants, min_size=2, max_size=2, unique=True).map(sorted))
def test_what_is_written_is_read_again(ends: list[datetime]) -> None:
    """A word's text is its line."""
    said = Said("sign-off", False, "v1.4.0", "mainnet", Window(*ends), PLAN)
    assert list(lines(str(said))) == [said]
    assert parse_window(str(Window(*ends))) == Window(*ends)


def test_a_withdrawal_covers_what_it_names_and_no_more() -> None:
    """What it leaves out is anything."""
    assert Said("", True).covers(SIGN)
    assert Said("sign-off", True, "v1.4.0").covers(SIGN)
    assert Said("sign-off", True, "v1.4.0", "mainnet", WINDOW, PLAN).covers(SIGN)
    for other in (
        Said("acknowledge", True),
        Said("", True, "v1.5.0"),
        Said("sign-off", True, stage="testnet"),
        Said("sign-off", True, plan=PLAN.replace("a", "b")),
    ):
        assert not other.covers(SIGN)


# --- signed files -------------------------------------------------------------------------------

AT = "2026-11-23T12:00:00Z"
FINE = {"kind": "acknowledge", "release": "v1.4.0", "stage": "testnet", "window": TEXT,
        "validator": "rpp1x", "at": AT}  # fmt: skip


def signed(**changes: Any) -> bytes:
    statement = {key: value for key, value in {**FINE, **changes}.items() if value is not None}
    return json.dumps({"statement": statement, "signature": "AA=="}).encode()


def test_a_file_says_what_a_line_says() -> None:
    """An approval has a short spelling; the signature is over what the file holds."""
    short = b'{"signature": "", "statement": {"approve": "%s", "at": "%s", "account": "bob"}}'
    found = parse_signed(short % (PLAN.encode(), AT.encode()))

    assert parse_signed(signed()).statement.said() == ACK
    assert found.statement.said() == APPROVE
    assert json.loads(found.content) == {"approve": PLAN, "account": "bob", "at": AT}
    assert parse_signed(signed(kind="sign-off", withdraw=True, window=None)).statement.said() == (
        Said("sign-off", True, "v1.4.0", "testnet")
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Invalid JSON: "),
        (b"\xff", "Invalid JSON: "),
        (b"[" * 50_000, "Invalid JSON: "),
        (b'{"a": 1, "a": 2}', "Invalid JSON: expected every key once, got one twice"),
        (b"x" * (MAX_SIGNED + 1), f"at most {MAX_SIGNED} bytes, got {MAX_SIGNED + 1}"),
        (b"null", "expected an object, got None"),
        (b"{}", "statement: expected a value, got none"),
        (signed(kind="waive"), "kind: expected 'acknowledge', 'sign-off', 'approve', 'acknowledge-anomaly' or 'decide', got 'waive'"),
        (signed(account="bob"), "expected either account or validator"),
        (signed(validator=None), "expected either account or validator"),
        (signed(kind="approve", plan=PLAN), "expected the account of a person who approves"),
        (signed(kind="decide", anomaly="A0b1c2d3e"), "expected the account of a release commander"),
        (signed(window=None), "expected START/END, got '' in `acknowledge RELEASE STAGE START/END`"),
        (signed(kind="sign-off"), "expected sha256: and 64 hex digits, got '' in"),
        (signed(release="../x"), "release: expected a name of letters"),
        (signed(at="2026-11-23T12:00:00"), "at: expected a value with timezone info"),
        (signed(note="x"), "note: expected no such key"),
        (signed(window="\ud800/x"), "expected JSON, got: unexpected end of hex escape"),
    ],
)  # fmt: skip
def test_a_file_that_says_nothing_is_refused_in_a_line(data: bytes, why: str) -> None:
    """Huge, deep, ambiguous, of another shape, or short of what its kind needs."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_signed(data)

    assert str(caught.value).startswith(why)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["statement", "signature", "approve", "kind"]), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_file_breaks_the_reader(data: bytes) -> None:
    """Anything that is no signed word is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_signed(data)


def test_a_form_is_said_by_its_words() -> None:
    """The line without its verb."""
    assert parse_said("approve", [PLAN]) == APPROVE
