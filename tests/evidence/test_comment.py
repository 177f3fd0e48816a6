"""The release's summary: hostile words stay words, every stage is told, and it always fits."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from runbook_lib import playbook
from runbook_lib.evidence.comment import (
    LEVELS,
    LIMIT,
    Account,
    Filed,
    compose,
    link,
    marker,
    other_stages,
    plain,
    plan_digest,
    sealed_text,
    section,
)
from runbook_lib.evidence.store import Store
from runbook_lib.outcomes import Outcome, check_row
from runbook_lib.sources.words import lines
from runbook_lib.verdicts import ItemStatus
from runbook_lib.wording import visible

from .. import cards
from ..cards import waived
from ..events import event

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


def page_of(text: str) -> cards.Page:
    """As a forge shows it."""
    return cards.Page(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def judged(item: str, outcome: Outcome = PASS, reason: str = "it holds") -> ItemStatus:
    made = cards.judged(check_row("dev-1", "height", 1, 1, outcome), item=item)
    assert made.result is not None
    result = made.result.model_copy(update={"reason": reason})
    told = {"kind": playbook.ITEMS[item].kind, "reason": reason, "result": result}
    return made.model_copy(update=told)


def account(*items: ItemStatus, sealed: bool = True, **more: object) -> Account:
    facts = {
        "commit": "c0ffee" * 6 + "abcd", "site": "practice", "attempt": 2, "operator": "alice",
        "started": NOW, "ended": NOW + timedelta(hours=1),
    }  # fmt: skip
    return Account(
        verdict=cards.verdict(*items or map(judged, DECLARED), **facts | more),
        name="v1.4.0/development/0002", head=DIGEST, plan=DIGEST, sealed=sealed,
    )  # fmt: skip


Brief = tuple[str, str, str]


def other(stage: str, text: str = "kept") -> dict[str, Brief]:
    title = f"### ✓ PASS · {stage} · attempt 1"
    return {stage: ("✓ PASS", title, f"{title}\n\n{text}")}


def body(made: Account, **others: Brief) -> str:
    return compose(made, others)


# --- words of others --------------------------------------------------------------------------------


@given(words())
def test_text_shows_as_it_is_and_does_nothing(text: str) -> None:
    """As one cell of a table: no tag but the table's, no mention, reference, link or mathematics."""
    page = page_of(f"| a |\n| --- |\n| QQ{plain(text, 300)}ZZ |")
    shown = page.text.partition("QQ")[2].rpartition("ZZ")[0]

    assert set(page.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "span"}
    assert shown.replace("\u200b", "") == visible(text, 300)
    for node in page.nodes:
        assert not re.search(r"@\w|#\d|GH-\d|://|www\.", node, re.IGNORECASE)
        assert node.count("$") < 2


@given(words(), words())
@settings(max_examples=40)
def test_a_hostile_reason_changes_nothing_but_its_cell(reason: str, operator: str) -> None:
    """The same tables and links as without it; and it approves nothing."""
    calm = body(account(judged(DECLARED[0], FAIL), judged(DECLARED[1])))
    hostile = account(judged(DECLARED[0], FAIL, reason), judged(DECLARED[1]), operator=operator)
    text = body(hostile)
    calm_page, page = page_of(calm), page_of(text)

    assert [t for t in page.tags if t != "span"] == calm_page.tags
    assert {name for name, _ in page.attributes} & {"href", "src"} == set()
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
    assert link("a_b", url) == (f"[a&#95;b]({url})" if linked else "a&#95;b")


# --- a section --------------------------------------------------------------------------------------


def test_what_blocks_comes_first_and_the_rest_is_folded() -> None:
    """Verdict in the title, then who and when, what blocks, the evidence; details on a click."""
    items = [judged(item) for item in DECLARED]
    items[1] = judged(DECLARED[1], INCONCLUSIVE, "no data")
    text = section(account(*items))
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
    assert f"| head | `{DIGEST}` |" in lines


def test_what_was_not_reached_is_no_cause() -> None:
    """It is named after what blocks; where nothing else blocks, it is listed itself."""
    behind = ItemStatus(
        item=DECLARED[2],
        kind=playbook.ITEMS[DECLARED[2]].kind,
        state="not-reached",
        reason=f"not reached: blocked by {DECLARED[1]}",
    )
    text = section(account(judged(DECLARED[1], FAIL, "wrong"), behind))
    alone = section(account(behind))

    assert f"**What blocks (1 of 2 items):**\n\n- **✗ FAIL** `{DECLARED[1]}`: wrong\n\n" in text
    assert f"**Not reached behind it (1):** `{DECLARED[2]}`\n\n" in text
    assert f"**What blocks (1 of 1 item):**\n\n- **– NOT REACHED** `{DECLARED[2]}`: " in alone


def test_before_apply_it_says_that_the_checks_hold() -> None:
    text = section(account(judged(DECLARED[0]), sealed=False))

    assert text.startswith("### ▷ CHECKS HOLD, apply begins · development · attempt 2")
    assert "**Evidence:** the executed notebook is attached when the attempt is sealed" in text
    assert "runbook verify" not in text


def test_waivers_rehearsals_and_broken_runs_are_said_openly() -> None:
    by = waived("dev-1", reason="a known risk", approved_by=("bob",), expires=NOW)
    item = judged(DECLARED[0], FAIL).model_copy(update={"waived": (by,)})
    text = section(account(item, source="rehearsal", broken=("the kernel died",)))
    open_part = text.partition("<details>")[0]

    assert "### ! BROKEN · development" in open_part
    assert "**REHEARSAL: a practice network; this never permits a promotion**" in open_part
    assert "**Waived (1):**" in open_part
    assert "dev-1 (FAIL) waived by bob until 2026-01-31 12:00:00 UTC: a known risk" in open_part
    assert "| the kernel died |" in open_part


def test_what_is_attached_is_linked_with_its_digest() -> None:
    url = "https://forge.example/a.ipynb"
    both = (Filed("a.ipynb", DIGEST, url), Filed("b.json", DIGEST))
    text = section(Account(**{**vars(account()), "files": both}))

    assert f"**Evidence:** [a.ipynb]({url}); not attached yet: `runbook publish" in text
    assert f"| b.json | `{DIGEST}` |" in text


# --- the whole --------------------------------------------------------------------------------------


def test_every_stage_is_told_newest_first() -> None:
    """First where each stands, in the order of a promotion; the same again gives the same."""
    others = other("development") | other("testnet") | other("mainnet")
    made = account(judged(DECLARED[0], FAIL), stage="canary")
    text = body(made, **others)

    assert text.startswith(marker("v1.4.0"))
    assert text.split("\n\n")[1] == (
        "development **✓ PASS** → testnet **✓ PASS** → canary **✗ FAIL** → mainnet **✓ PASS**"
    )
    titles = [line.split(" · ")[1] for line in text.splitlines() if line.startswith("### ")]
    assert titles == ["mainnet", "canary", "testnet", "development"]
    assert text == body(made, **others)


def test_what_does_not_fit_leaves_the_titles_of_other_stages() -> None:
    """Ours stays, briefer; of the others it is said that something was left out."""
    items = [judged(item, FAIL, "@" * 2_000) for item in list(playbook.ITEMS)[:20]]
    text = body(account(*items, stage="mainnet"), **other("testnet", "x" * 60_000))

    assert len(text) <= LIMIT
    assert "### ✓ PASS · testnet · attempt 1\n\nLeft out, a comment holds" in text
    assert f"{'&#64;&#8203;' * LEVELS[2][0]}… (2,000 characters)" in text


@settings(max_examples=20)
@given(st.integers(0, 41), words("@" * 4000, "𝒳" * 900), st.integers(0, 60), st.booleans())
def test_it_always_fits(items: int, reason: str, waivers: int, huge: bool) -> None:
    """Hostile reasons, all items of the playbook, many waivers, huge older sections."""
    by = waived(reason, reason=reason, approved_by=(reason,), self_approved=True)
    made = [
        judged(item, FAIL, reason).model_copy(update={"waived": (by,) * waivers})
        for item in list(playbook.ITEMS)[:items]
    ]
    whole = account(*made, judged(DECLARED[0], FAIL), stage="mainnet", broken=(reason,) * waivers)
    text = body(whole, **other("development", "x" * (70_000 if huge else 1)))

    assert len(text.encode("utf-16-le")) // 2 <= LIMIT
    assert text.startswith(marker("v1.4.0"))


def test_a_seal_is_told_with_its_head() -> None:
    """In a comment of its own, by a marker that no other seal has."""
    text = sealed_text(account())

    assert (
        text.splitlines()[0] == f"<!-- rpp-runbook seal=v1.4.0/development/0002 head={DIGEST} -->"
    )
    assert f"**✓ PASS · development · attempt 2** · sealed, head `{DIGEST}`" in text


# --- what the store says ----------------------------------------------------------------------------


def test_of_a_release_the_newest_plan_counts(tmp_path: Path) -> None:
    """Of one that never ran no stage is told."""
    assert other_stages(Store(tmp_path), "v1", "canary") == {}
    plans = [event("plan", digest=f"sha256:{n}") for n in (1, 2)]

    assert (plan_digest([]), plan_digest(plans)) == ("", "sha256:2")
