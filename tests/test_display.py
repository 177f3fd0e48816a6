"""Cards of results: what a person sees of one item."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest

from runbook_lib import display
from runbook_lib.outcomes import Outcome, check_row
from runbook_lib.verdicts import EarlierTry, Standing, WaivedRow

from .cards import BAD, GOOD, NOW, UNKNOWN, judged


def test_a_failed_check_shows_its_worst_row_first_and_folds_what_passed() -> None:
    """The text form is the whole content, in the order a reader needs it."""
    card = display.result_card(judged(GOOD, UNKNOWN, BAD))

    assert (
        card.text
        == """\
✗ FAIL preflight.config-drift
dev-2: p95 latency: expected 1,200 ms, got 1,250.5 ms
2 of 3 rows not PASS, on 2 of 3 subjects:
  outcome         subject  what         expected    observed
  --------------  -------  -----------  ----------  ------------------
  ✗ FAIL          dev-2    p95 latency    1,200 ms          1,250.5 ms
  ? INCONCLUSIVE  dev-3    p95 latency  <= 1200 ms  connection refused
1 of 3 rows PASS:
  outcome  subject  what                 expected  observed
  -------  -------  -------------------  --------  --------
  ✓ PASS   dev-1    malachite_consensus  false     false
Judged at 2026-11-23 14:00:05 UTC"""
    )


def test_failing_rows_are_open_and_passing_ones_closed() -> None:
    """A reader sees what is wrong without a click, and what is right with one."""
    card = display.result_card(judged(GOOD, BAD))

    assert re.findall(r"<details( open)?><summary>([^<]*)<", card.html) == [
        (" open", "1 of 2 rows not PASS, on 1 of 2 subjects"),
        ("", "1 of 2 rows PASS"),
    ]


def test_numbers_are_right_aligned_without_style() -> None:
    """Alignment is an attribute, for a forge drops every style."""
    card = display.result_card(judged(BAD))
    bare = re.sub(r' style="[^"]*"', "", card.html)

    assert '<td align="right">1,200 ms</td><td align="right">1,250.5 ms</td>' in bare
    assert "<td>dev-2</td>" in bare


def test_a_fail_on_an_earlier_try_is_shown_for_ever() -> None:
    """A second try that passes still says what the first one said."""
    first = EarlierTry(
        number=1, outcome=Outcome.FAIL, reason="dev-1 was down", retry_reason="power is back"
    )
    card = display.result_card(judged(GOOD, number=2, earlier=(first,)))

    assert card.text.splitlines()[:3] == [
        "✓ PASS preflight.config-drift · try 2, FAIL on try 1",
        "every node is as expected",
        "try 1: ✗ FAIL: dev-1 was down (retried: power is back)",
    ]


def test_a_waiver_says_who_until_when_and_that_it_is_self_approved() -> None:
    """A pass by waiver never looks like a pass."""
    waived = WaivedRow(
        subject="dev-2",
        outcome=Outcome.FAIL,
        reason="spare node",
        approved_by=("grace", "ada"),
        self_approved=True,
        expires=NOW,
    )
    lines = display.result_card(judged(GOOD, BAD, waived=(waived,))).text.splitlines()

    assert lines[0] == "✓ PASS by waiver preflight.config-drift"
    assert lines[2] == (
        "dev-2 (FAIL) waived by grace and ada until 2026-11-23 14:00:05 UTC, "
        "self-approved: spare node"
    )
    assert lines[6].startswith("  ✗ FAIL, waived  dev-2")


def test_a_row_that_is_never_waivable_says_so_and_blocks() -> None:
    """A waiver that names its subject covers the other row of it, and the card says which it does not."""
    forged = check_row("dev-2", "signature", "a listed key's", "another", ok=False, waivable=False)
    waived = WaivedRow(
        subject="dev-2",
        outcome=Outcome.FAIL,
        reason="spare node",
        approved_by=("grace",),
        self_approved=False,
        expires=NOW,
    )
    standing = judged(GOOD, BAD, forged, waived=(waived,))
    lines = display.result_card(standing).text.splitlines()

    assert (standing.outcome, standing.open_rows) == (Outcome.FAIL, (forged,))
    assert lines[0] == "✗ FAIL preflight.config-drift"
    assert lines[2].endswith(" UTC: spare node; never waivable: signature")
    assert lines[6].startswith("  ✗ FAIL, never waivable  dev-2")
    assert lines[7].startswith("  ✗ FAIL, waived          dev-2")


def test_what_only_lacks_time_says_when_to_return() -> None:
    """Not yet due reads otherwise than inconclusive, and names the instant in UTC."""
    due = NOW.astimezone(tz=None) + timedelta(hours=2)
    row = check_row("development", "soak", 48.0, 46.0, Outcome.INCONCLUSIVE, return_at=due)
    card = display.result_card(judged(row))

    assert card.text.splitlines()[0] == "◔ INCONCLUSIVE, not yet due preflight.config-drift"
    assert card.text.splitlines()[2] == "Only time is missing: return at 2026-11-23 16:00:05 UTC"
    assert card.data["outcome"] == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("state", "reason", "lines"),
    [
        ("planned", "4 nodes in 1 wave", ["▷ PLANNED x.y (change)", "4 nodes in 1 wave"]),
        ("not-reached", "blocked by a.b", ["– NOT REACHED x.y (change)", "blocked by a.b"]),
        ("missing", "", ["! MISSING x.y (change)", "it never ran"]),
    ],
)
def test_what_is_no_result_is_said_in_words(state: Any, reason: str, lines: list[str]) -> None:
    """Planned, not reached and missing are states, never outcomes."""
    card = display.result_card(Standing(item="x.y", kind="change", state=state, reason=reason))

    assert card.text.splitlines() == lines
    assert card.data["outcome"] == "INCONCLUSIVE"


def test_a_planned_change_shows_what_it_would_do() -> None:
    """Short values in a table; a text of several lines as it would stand, no line of HTML lost."""
    draft = "## Title\n\n| a | b |\n<script>\n" + "x" * 400
    rows = (
        check_row("node-1", "binary", "old", "new", Outcome.INCONCLUSIVE),
        check_row("issue 42", "text", "", draft, Outcome.INCONCLUSIVE),
    )
    standing = Standing(item="x.y", kind="change", state="planned", reason="r", planned=rows)
    card = display.result_card(standing)

    assert card.text.splitlines() == [
        "▷ PLANNED x.y (change)",
        "r",
        "1 row planned:",
        "  subject  what    before  after",
        "  -------  ------  ------  -----",
        "  node-1   binary  old     new",
        "issue 42: text, 5 lines:",
        "  ## Title",
        "  ",
        "  | a | b |",
        "  <script>",
        "  " + "x" * 400,
    ]
    assert ">## Title&#10;&#10;| a | b |&#10;&lt;script&gt;&#10;xxx" in card.html
    assert "\n" not in card.html
    assert card.data["standing"]["planned"][1]["observed"] == draft


def test_a_long_text_is_cut_and_counted() -> None:
    """Two hundred lines are shown; the card's JSON holds all of them."""
    row = check_row("issue 42", "text", "", "line\n" * 250, Outcome.INCONCLUSIVE)
    standing = Standing(item="x.y", kind="change", state="planned", planned=(row,))
    card = display.result_card(standing)

    assert card.text.splitlines()[-1] == "  51 more lines not shown here, kept in this card's JSON"
    assert card.text.count("line\n") == 200


def test_an_empty_result_says_that_there_was_nothing_to_judge() -> None:
    """No rows are no proof."""
    card = display.result_card(judged())

    assert card.text.splitlines()[:2] == [
        "? INCONCLUSIVE preflight.config-drift",
        "nothing to judge: no node is listed",
    ]


def test_many_subjects_are_folded_with_exact_counts() -> None:
    """Twenty rows open, the rest one click away, what is over two hundred counted."""
    rows = [check_row(f"n{i}", "height", 7, i, False) for i in range(500, 730)]
    card = display.result_card(judged(*rows))

    assert re.findall(r"<summary>([^<]*)<", card.html) == [
        "230 of 230 rows not PASS, on 230 of 230 subjects",
        "210 more rows",
    ]
    assert "10 more rows not listed here, kept in this card&#x27;s JSON" in card.html
    assert card.html.count("<td") == 5 * 220
    assert len(card.data["standing"]["result"]["rows"]) == 230


def test_the_standing_survives_the_round_trip_through_the_card() -> None:
    """A program reads back from an output exactly what was judged."""
    standing = judged(GOOD, BAD, UNKNOWN)
    bundle, metadata = display.result_card(standing)._repr_mimebundle_()
    raw = json.dumps(bundle[display.MIME]["standing"])

    assert Standing.model_validate_json(raw) == standing
    assert sorted(bundle) == ["application/vnd.rpp-runbook.v1+json", "text/html", "text/plain"]
    assert metadata == {}
