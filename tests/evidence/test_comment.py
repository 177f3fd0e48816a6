"""The release's comment: hostile words stay words, sections stay whole, and it always fits."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from runbook_lib import playbook
from runbook_lib.evidence.comment import (
    LEVELS,
    LIMIT,
    Section,
    compose,
    is_marked,
    link,
    marker,
    plain,
    sections,
)
from runbook_lib.evidence.section import Account, Filed, section
from runbook_lib.markup import visible
from runbook_lib.outcomes import CheckResult, Outcome, check_row
from runbook_lib.sources.wordforms import lines
from runbook_lib.verdicts import Standing, Verdict, WaivedRow

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
DECLARED = playbook.DECLARED["development"]
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
APPROVAL = f"approve {DIGEST}"
HOSTILE = [
    "@everyone look at #1, GH-2 and HUBId/chain#3",
    "see https://github.com/o/r/issues/1 or www.example.com",
    "**bold** _it_ ~~gone~~ `code` [x](http://evil) ![x](y) <b>b</b> <!-- x --> $a$ a | b \\| c",
    "</details><h1>PASS</h1><!-- rpp-runbook end=development -->",
    f"x\n{APPROVAL}\n",
    "# PASS\n---\n> quoted\n1. one",
    "a\u202eb\u200bc\x00\ud800",
]


def words(*extra: str) -> st.SearchStrategy[str]:
    parts = st.sampled_from([*HOSTILE, *extra, "@a", "#1", "|", "`", "\n", "&#64;", "<", "\\"])
    return st.lists(st.one_of(parts, st.text(max_size=20)), max_size=8).map("".join)


class Page(HTMLParser):
    """The tags and the text nodes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.nodes: list[str] = []
        self.links: list[str] = []
        self.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.nodes.append(data)


def judged(item: str, outcome: Outcome = PASS, reason: str = "it holds") -> Standing:
    result = CheckResult(
        item=item,
        outcome=outcome,
        reason=reason,
        rows=(check_row("dev-1", "height", 1, 1, outcome),),
        started=NOW,
        ended=NOW,
    )
    kind = playbook.ITEMS[item].kind
    return Standing(item=item, kind=kind, state="judged", reason=reason, result=result, number=1)


def account(*items: Standing, sealed: bool = True, **more: object) -> Account:
    facts = {
        "release": "v1.4.0", "commit": "c0ffee" * 6 + "abcd", "stage": "development",
        "site": "practice", "mode": "apply", "attempt": 2, "number": 1, "source": "live",
        "run": "headless", "operator": "alice", "started": NOW, "ended": NOW + timedelta(hours=1),
        "items": items or tuple(judged(item) for item in DECLARED),
    }  # fmt: skip
    return Account(
        verdict=Verdict.model_validate(facts | more),
        name="v1.4.0/development/0002",
        head=DIGEST,
        plan=DIGEST,
        previous="none: development is the first",
        sealed=sealed,
    )


def body(made: Account, *others: Section) -> str:
    return compose("v1.4.0", lambda level: section(made, level), others)


# --- words of others --------------------------------------------------------------------------------


@given(words())
def test_text_shows_as_it_is_and_does_nothing(text: str) -> None:
    """As one cell of a table: no tag but the table's, no mention, reference, link or mathematics."""
    page = Page(f"| a |\n| --- |\n| QQ{plain(text, 300)}ZZ |")
    shown = "".join(page.nodes).partition("QQ")[2].rpartition("ZZ")[0]

    assert set(page.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "span"}
    assert shown.replace("\u200b", "") == visible(text, 300)
    for node in page.nodes:
        assert not re.search(r"@\w|#\d|GH-\d|://|www\.", node, re.IGNORECASE)
        assert node.count("$") < 2


@given(words(), words())
@settings(max_examples=40)
def test_a_hostile_reason_changes_nothing_but_its_cell(reason: str, operator: str) -> None:
    """The same tables, links and sections as without it; and it approves nothing."""
    calm = body(account(judged(DECLARED[0], FAIL), judged(DECLARED[1])))
    hostile = account(judged(DECLARED[0], FAIL, reason), judged(DECLARED[1]), operator=operator)
    text = body(hostile)
    calm_page, page = Page(calm), Page(text)

    assert [t for t in page.tags if t != "span"] == calm_page.tags
    assert page.links == calm_page.links == []
    assert [(s.stage, s.attempt, s.altered) for s in sections(text)] == [("development", 2, False)]
    assert list(lines(text)) == []


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        ("https://forge.example/a/b.ipynb", True),
        ("http://forge.example/a", False),
        ("javascript:alert(1)", False),
        ("https://forge.example/a) ![x](https://evil.example/", False),
        ("https://forge.example/a b", False),
        ("", False),
    ],
)
def test_only_an_ordinary_address_becomes_a_link(url: str, linked: bool) -> None:
    """Whatever the forge's answer said it was."""
    assert link("a_b", url) == (f"[a&#95;b]({url})" if linked else "a&#95;b")


# --- a section --------------------------------------------------------------------------------------


def test_what_blocks_comes_first_and_the_rest_is_folded() -> None:
    """Verdict in the title, then who and when, what blocks, the evidence; details on a click."""
    items = [judged(item) for item in DECLARED]
    items[1] = judged(DECLARED[1], INCONCLUSIVE, "no data")
    text = section(account(*items)).text
    lines = [line for line in text.splitlines() if line]

    assert lines[0] == "### ? INCONCLUSIVE · development · attempt 2"
    assert lines[1] == (
        "Apply of `v1.4.0` at `c0ffeec0ffee` on practice by alice, headless,"
        " 2026-01-31 12:00:00 UTC to 2026-01-31 13:00:00 UTC"
    )
    assert lines[2] == "**What blocks (1 of 11 items):**"
    assert lines[3] == f"- **? INCONCLUSIVE** `{DECLARED[1]}`: no data"
    assert lines[4] == "**Evidence:** not attached yet: `runbook publish v1.4.0/development/0002`"
    assert lines[5] == "<details><summary>10 of 11 items: 10 ✓ PASS</summary>"
    assert f"| record head | `{DIGEST}` |" in lines


def test_what_was_not_reached_is_no_cause() -> None:
    """It is named after what blocks; where nothing else blocks, it is listed itself."""
    behind = Standing(
        item=DECLARED[2],
        kind=playbook.ITEMS[DECLARED[2]].kind,
        state="not-reached",
        reason=f"not reached: blocked by {DECLARED[1]}",
    )
    text = section(account(judged(DECLARED[1], FAIL, "wrong"), behind)).text
    alone = section(account(behind)).text

    assert f"**What blocks (1 of 2 items):**\n\n- **✗ FAIL** `{DECLARED[1]}`: wrong\n\n" in text
    assert f"**Not reached behind it (1):** `{DECLARED[2]}`\n\n" in text
    assert f"**What blocks (1 of 1 item):**\n\n- **– NOT REACHED** `{DECLARED[2]}`: " in alone


def test_before_apply_it_says_that_the_checks_hold() -> None:
    """Nothing is sealed yet, so there is no verdict to show."""
    text = section(account(judged(DECLARED[0]), sealed=False)).text

    assert text.startswith("### ▷ CHECKS HOLD, apply begins · development · attempt 2")
    assert "**Evidence:** the executed notebook is attached when the attempt is sealed" in text
    assert "runbook verify" not in text


def test_waivers_rehearsals_and_broken_runs_are_said_openly() -> None:
    """Not in what is folded."""
    waived = WaivedRow(
        subject="dev-1",
        outcome=FAIL,
        reason="a known risk",
        approved_by=("bob",),
        self_approved=False,
        expires=NOW,
    )
    item = judged(DECLARED[0], FAIL).model_copy(update={"waived": (waived,)})
    text = section(account(item, source="rehearsal", broken=("the kernel died",))).text
    open_part = text.partition("<details>")[0]

    assert "### ! BROKEN · development" in open_part
    assert "**REHEARSAL: a practice network; this never permits a promotion**" in open_part
    assert "**Waived (1):**" in open_part
    assert "dev-1 (FAIL) waived by bob until 2026-01-31 12:00:00 UTC: a known risk" in open_part
    assert "| the kernel died |" in open_part


def test_what_is_attached_is_linked_with_its_digest() -> None:
    """And what is not says how it gets there."""
    url = "https://forge.example/a.ipynb"
    both = (Filed("a.ipynb", DIGEST, url), Filed("b.json", DIGEST))
    made = account()
    made = Account(**{**vars(made), "files": both})
    text = section(made).text

    assert f"**Evidence:** [a.ipynb]({url}); not attached yet: `runbook publish" in text
    assert f"| b.json | `{DIGEST}` |" in text


# --- the whole --------------------------------------------------------------------------------------


def other(stage: str, rows: int = 1) -> Section:
    table = "\n".join(["| a |", "| --- |", *["| row of no interest |"] * rows])
    details = f"<details><summary>{rows:,} of {rows:,} items</summary>\n\n{table}\n\n</details>"
    return Section(stage, 1, f"### ✓ PASS · {stage} · attempt 1\n\nkept\n\n{details}")


def test_one_section_is_put_in_place_and_the_others_stay() -> None:
    """The newest stage first; the same again gives the same."""
    made = section(account())
    text = compose(
        "v1.4.0", lambda _: made, [other("testnet"), other("development"), other("canary")]
    )

    assert [each.stage for each in sections(text)] == ["canary", "testnet", "development"]
    assert sections(text)[2] == made
    assert sections(text)[1] == other("testnet")
    assert compose("v1.4.0", lambda _: made, sections(text)) == text


def test_where_each_stage_stands_is_said_first() -> None:
    """In the order of a promotion; what somebody wrote into a section is not repeated there."""
    text = body(account(judged(DECLARED[0], FAIL), stage="canary"), other("testnet"))
    edited = text.replace("✓ PASS · testnet", "✓ PASS by me · testnet")
    again = compose("v1.4.0", lambda level: other("canary"), sections(edited))

    assert text.split("\n\n")[1] == "testnet **✓ PASS** → canary **✗ FAIL**"
    assert again.split("\n\n")[1] == "testnet **? ALTERED by hand** → canary **✓ PASS**"


def test_a_comment_is_known_by_its_first_line() -> None:
    """Whole, whatever line ends the forge keeps; not by a marker further down, nor a longer name."""
    text = body(account())

    assert is_marked(text.replace("\n", "\r\n"), "v1.4.0")
    assert not is_marked(text, "v1.4")
    assert not is_marked(f"Look:\n{text}", "v1.4.0")
    assert sections(text.replace("\n", "\r\n")) == sections(text)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("kept", "KEPT"),
        lambda text: text.replace("✓ PASS · testnet", "✗ FAIL · testnet"),
    ],
)
def test_a_section_that_was_edited_shows_until_it_is_written_anew(edit: object) -> None:
    """Also after the comment was written again for another stage."""
    assert callable(edit)
    text = edit(body(account(), other("testnet")))
    again = compose("v1.4.0", lambda level: section(account(), level), sections(text))

    assert [(s.stage, s.altered) for s in sections(text)] == [
        ("testnet", True),
        ("development", False),
    ]
    assert [(s.stage, s.altered) for s in sections(again)] == [
        ("testnet", True),
        ("development", False),
    ]


def test_what_does_not_fit_goes_oldest_details_first_and_is_counted() -> None:
    """Testnet's details go, canary's stay: that is enough."""
    text = body(account(stage="mainnet"), other("testnet", 1900), other("canary", 900))
    found = {each.stage: each.text for each in sections(text)}

    assert len(text) <= LIMIT
    assert found["canary"] == other("canary", 900).text
    assert found["testnet"] == (
        "### ✓ PASS · testnet · attempt 1\n\nkept\n\n1,900 of 1,900 items: left out, a comment holds"
        " 65,536 characters; see the evidence."
    )


def test_our_own_section_gets_briefer_only_then() -> None:
    """Long reasons are cut, saying how long they were, and every item still stands there."""
    items = [judged(item, FAIL, "@" * 2_000) for item in list(playbook.ITEMS)[:20]]
    text = body(account(*items))

    assert len(text) <= LIMIT
    assert f"{'&#64;&#8203;' * LEVELS[1][0]}… (2,000 characters)" in text
    assert all(f"`{item.item}`" in text for item in items)


@settings(max_examples=20)
@given(st.integers(0, 41), words("@" * 4000, "𝒳" * 900), st.integers(0, 60), st.booleans())
def test_it_always_fits(items: int, reason: str, waivers: int, huge: bool) -> None:
    """Hostile reasons, all items of the playbook, many waivers, huge older sections."""
    waived = WaivedRow(
        subject=reason,
        outcome=FAIL,
        reason=reason,
        approved_by=(reason,),
        self_approved=True,
        expires=NOW,
    )
    made = [
        judged(item, FAIL, reason).model_copy(update={"waived": (waived,) * waivers})
        for item in list(playbook.ITEMS)[:items]
    ]
    older = Section("development", 1, f"### old\n\n{'x' * 70_000}" if huge else "### old\n\nx")
    whole = account(*made, judged(DECLARED[0], FAIL), stage="mainnet", broken=(reason,) * waivers)
    text = body(whole, older)

    assert len(text.encode("utf-16-le")) // 2 <= LIMIT
    assert [each.stage for each in sections(text)] == ["mainnet", "development"]
    assert text.startswith(marker("v1.4.0"))
