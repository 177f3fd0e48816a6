"""Cards: what a person sees of items, plans and attempts, by templates that escape and never act."""

import base64
import html
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, UndefinedError, nodes

from runbook_lib import display
from runbook_lib.changes.kit import SHELL, page
from runbook_lib.changes.waiting import progress
from runbook_lib.evidence.comment import MARKDOWN, sealed_text, section
from runbook_lib.outcomes import Outcome, check_row, unknown_row
from runbook_lib.package import package_digest
from runbook_lib.verdicts import EarlierRun, ItemStatus, Verdict

from .cards import BAD, GOOD, ITEM, NOW, UNKNOWN, Page, judged, verdict, waived
from .changes.test_kit import Made
from .evidence.test_comment import account


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
    """A second run that passes still says what the first one said."""
    first = EarlierRun(
        number=1, outcome=Outcome.FAIL, reason="dev-1 was down", retry_reason="power is back"
    )
    card = display.result_card(judged(GOOD, number=2, earlier=(first,)))

    assert card.text.splitlines()[:3] == [
        "✓ PASS preflight.config-drift · run 2, FAIL on run 1",
        "every node is as expected",
        "run 1: ✗ FAIL: dev-1 was down (retried: power is back)",
    ]


def test_a_waiver_says_who_until_when_and_that_it_is_self_approved() -> None:
    by = waived(approved_by=("grace", "ada"), self_approved=True)
    lines = display.result_card(judged(GOOD, BAD, waived=(by,))).text.splitlines()

    assert lines[0] == "✓ PASS by waiver preflight.config-drift"
    assert lines[2] == (
        "dev-2 (FAIL) waived by grace and ada until 2026-11-23 14:00:05 UTC, "
        "self-approved: spare node"
    )
    assert lines[6].startswith("  ✗ FAIL, waived  dev-2")


def test_a_row_that_is_never_waivable_says_so_and_blocks() -> None:
    """A waiver that names its subject covers the other row of it, and the card says which it does not."""
    forged = check_row("dev-2", "signature", "a listed key's", "another", ok=False, waivable=False)
    standing = judged(GOOD, BAD, forged, waived=(waived(),))
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
    card = display.result_card(ItemStatus(item="x.y", kind="change", state=state, reason=reason))

    assert card.text.splitlines() == lines
    assert card.data["outcome"] == "INCONCLUSIVE"


def test_a_planned_change_shows_what_it_would_do() -> None:
    """Short values in a table; a text of several lines as it would stand, no line of HTML lost."""
    draft = "## Title\n\n| a | b |\n<script>\n" + "x" * 400
    rows = (
        check_row("node-1", "binary", "old", "new", Outcome.INCONCLUSIVE),
        check_row("issue 42", "text", "", draft, Outcome.INCONCLUSIVE),
    )
    standing = ItemStatus(item="x.y", kind="change", state="planned", reason="r", planned=rows)
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
    assert card.data["status"]["planned"][1]["observed"] == draft


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        ("line\n" * 250, "\n  51 more lines not shown here, kept in this card's JSON"),
        ("x" * 3_000 + "\n", "… (3,000 characters)"),
    ],
    ids=["many lines", "a long line"],
)
def test_a_long_text_is_cut_and_counted(draft: str, said: str) -> None:
    """Two hundred lines are shown, and a line's length; the card's JSON holds all of it."""
    row = check_row("issue 42", "text", "", draft, Outcome.INCONCLUSIVE)
    card = display.result_card(
        ItemStatus(item="x.y", kind="change", state="planned", planned=(row,))
    )

    assert said in card.text and said.strip() in html.unescape(card.html)
    assert card.text.count("line\n") in (0, 200)


def test_an_empty_result_says_that_there_was_nothing_to_judge() -> None:
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
    assert len(card.data["status"]["result"]["rows"]) == 230


def test_the_standing_survives_the_round_trip_through_the_card() -> None:
    standing = judged(GOOD, BAD, UNKNOWN)
    bundle, metadata = display.result_card(standing)._repr_mimebundle_()
    raw = json.dumps(bundle[display.MIME]["status"])

    assert ItemStatus.model_validate_json(raw) == standing
    assert sorted(bundle) == ["application/vnd.rpp-runbook.v1+json", "text/html", "text/plain"]
    assert metadata == {}


# --- Cards of plans, tables and figures ---


def test_a_plan_shows_every_key_before_and_after() -> None:
    """What moves is open, what stays is folded, nothing is left out."""
    card = display.plan_card(
        [
            ("dev-1", "release.build", "sha256:aa", "sha256:bb"),
            ("dev-1", "malachite_consensus", False, False),
            ("dev-2", "epoch_length", 720, 1440),
        ],
        digest="sha256:cc",
        facts=[("waves", 1)],
    )

    assert (
        card.text
        == """\
Plan sha256:cc
waves  1
2 keys on 2 nodes will change:
  node   key            before     after
  -----  -------------  ---------  ---------
  dev-1  release.build  sha256:aa  sha256:bb
  dev-2  epoch_length         720      1,440
1 key will stay:
  node   key                  before  after
  -----  -------------------  ------  -----
  dev-1  malachite_consensus  false   false"""
    )
    assert card.data["changes"][2] == ["dev-2", "epoch_length", 720, 1440]


@pytest.mark.parametrize(
    ("after", "said"),
    [(1, "0 keys on 0 nodes will change:"), (True, "1 key on 1 node will change:")],
)
def test_a_plan_counts_what_moves(after: int, said: str) -> None:
    """Nothing at all, too; true and one are different values of a key."""
    text = display.plan_card([("dev-1", "a", 1, after)], digest="sha256:cc").text

    assert text.splitlines()[1] == said


def test_a_short_row_is_filled_up() -> None:
    text = display.table_card("v1", ("stage", "attempt"), [("no attempt yet",)]).text

    assert text.splitlines()[-1] == "no attempt yet"


def test_numbers_that_differ_never_look_equal() -> None:
    """Rounding gives way where it would hide the difference that made a check fail."""
    text = display.result_card(judged(check_row("a", "share", 1 / 3, 0.33333334, False))).text

    assert "0.3333333333333333  0.33333334" in text


def test_a_figure_is_one_image_and_its_words() -> None:
    """No HTML beside it, or a notebook would show one of the two and hide the other."""
    card = display.figure_card(b"\x89PNG", "p50 12 ms")
    bundle, metadata = card._repr_mimebundle_()

    assert bundle == {
        "text/plain": "p50 12 ms",
        "image/png": base64.b64encode(b"\x89PNG").decode(),
        display.MIME: {"kind": "figure"},
    }
    assert metadata == {"image/png": {"alt": "p50 12 ms"}}


def test_the_same_value_gives_the_same_bytes() -> None:
    once, again = (display.verdict_card(verdict(judged(GOOD, BAD))) for _ in range(2))

    assert once == again
    assert str(once) == once.text


# --- Cards of whole attempts: what blocks, what to do next, where one stands ---


def test_what_to_do_is_said_whole() -> None:
    """An instruction that is cut cannot be followed, nor can a command be pasted."""
    row = unknown_row("approval", "statement", "one of two", f"{'n' * 1200}; sign it by `x`")
    command = f"runbook run canary -f /{'d/' * 300}parameters.yaml"
    card = display.verdict_card(verdict(judged(row)), next_steps=[f"Come back: `{command}`"])

    for text in (card.text, Page(card.html).text):
        assert str(row.observed) in text
        assert command in text


def test_a_verdict_says_what_blocks_and_what_to_do_next() -> None:
    """The first screen: outcome, reasons, next steps, the way back."""
    behind = ItemStatus(item="x.y", kind="check", state="not-reached", reason=f"blocked by {ITEM}")
    card = display.verdict_card(
        verdict(judged(GOOD, item="a.b"), judged(BAD), behind, notes=("a note",)),
        next_steps=["restart dev-2, then `runbook run development --continue`"],
        recovery_link="15_development_recovery.ipynb",
    )

    assert (
        card.text
        == """\
✗ FAIL · development · v1.4.0
release  v1.4.0 at 4f9d0c2e
stage    development on example
mode     apply, live, headless
attempt  3, try 1, by ada
time     2026-11-23 14:00:05 UTC to 2026-11-23 14:04:05 UTC
What blocks (2):
outcome        item                    reason
-------------  ----------------------  ----------------------------------------
✗ FAIL         preflight.config-drift  dev-2: p95 latency: expected 1,200 ms, got 1,250.5 ms
– NOT REACHED  x.y                     blocked by preflight.config-drift
What to do next:
- restart dev-2, then runbook run development --continue
If this must be undone: recovery notebook <15_development_recovery.ipynb>
Note: a note
3 items: 1 ✓ PASS, 1 ✗ FAIL, 1 – NOT REACHED:
  outcome        item                    reason
  -------------  ----------------------  ----------------------------------------
  ✓ PASS         a.b                     every node is as expected
  ✗ FAIL         preflight.config-drift  dev-2: p95 latency: expected 1,200 ms, got 1,250.5 ms
  – NOT REACHED  x.y                     blocked by preflight.config-drift"""
    )
    assert (card.data["verdict"]["outcome"], card.data["verdict"]["exit_code"]) == ("FAIL", 1)


@pytest.mark.parametrize(
    ("made", "first"),
    [
        (verdict(judged(GOOD)), "✓ PASS · development · v1.4.0"),
        (verdict(judged(GOOD), mode="plan"), "▷ READY TO APPLY · development · v1.4.0"),
        (verdict(judged(UNKNOWN)), "? INCONCLUSIVE · development · v1.4.0"),
        (verdict(judged(GOOD), broken=("killed",)), "! BROKEN · development · v1.4.0"),
        (
            verdict(judged(unknown_row("a", "b", "c", "early", return_at=NOW))),
            "◔ WAITING, not yet due · development · v1.4.0",
        ),
        (
            verdict(judged(GOOD), source="replay"),
            "REPLAY OF A RECORDING: nothing was asked or changed; this never permits a promotion",
        ),
        (
            verdict(judged(GOOD), source="rehearsal"),
            "REHEARSAL: a practice network; this never permits a promotion",
        ),
    ],
)
def test_every_way_to_end_has_its_own_first_line(made: Verdict, first: str) -> None:
    """No verdict can be taken for another one, nor practice for a release; broken says why."""
    text = display.verdict_card(made).text

    assert text.splitlines()[0] == first
    assert ("This run cannot count:\n- killed\n" in text) == bool(made.broken)


@pytest.mark.parametrize(
    ("link", "anchored"),
    [
        ("15_recovery.ipynb", True),
        ("../a/b%20c.ipynb#top", True),
        ("https://forge.example/x?y=1", True),
        ("javascript:alert(1)", False),
        ("//evil.example/x", False),
        ("http://forge.example/x", False),
        ('x" onclick="y', False),
    ],
)
def test_only_safe_links_are_links(link: str, anchored: bool) -> None:
    card = display.verdict_card(verdict(judged(GOOD)), recovery_link=link)

    assert ("<a href=" in card.html) is anchored
    assert link in Page(card.html).text or anchored


def test_a_verdict_repeats_every_waiver() -> None:
    """Also the reader of the first screen learns that a risk was accepted."""
    text = display.verdict_card(verdict(judged(BAD, waived=(waived(),)))).text
    said = "dev-2 (FAIL) waived by grace until 2026-11-23 14:00:05 UTC: spare node"

    assert f"Waived (1):\n- preflight.config-drift: {said}\n" in text


def test_the_banner_says_where_one_stands() -> None:
    """A resumed attempt names the next item; a new one does not call itself resumed."""
    ahead = ItemStatus(item="x.y", kind="check", state="missing")
    resumed = display.banner_card(verdict(judged(GOOD), ahead))
    fresh = display.banner_card(verdict(ahead))

    assert resumed.text.splitlines()[0] == "resuming attempt 3: 1 of 2 done, next x.y"
    assert fresh.text.splitlines()[0] == "attempt 3: 0 of 1 done, next x.y"


# --- Cards: text from outside is shown and does nothing ---


HOSTILE = (
    "<script>alert(1)</script>",
    "a|b **c** `d`\n\n# e",
    "\x1b[31mred\x1b[0m\x00",
    "\u202egnp.exe\u2028x",
    '" onload="x',
    "$x$ \\(y\\)",
    "A" * 5000,
)
ALLOWED = {
    "div", "strong", "code", "details", "summary", "span", "wbr",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_are_shown_and_do_nothing(text: str) -> None:
    """Names and error texts come from outside: no tag, control character or line break survives."""
    row = check_row(text, text, text, text + "!", False)
    card = display.result_card(judged(row))
    seen = Page(card.html)

    assert set(seen.tags) <= ALLOWED
    assert (seen.open, {name for name, _ in seen.attributes} - {"style", "align", "open"}) == (
        [],
        set(),
    )
    assert "\n" not in card.html
    assert all(line.isprintable() for line in card.text.splitlines())
    assert len(card.text) < 12_000
    assert card.data["status"]["result"]["rows"][0]["subject"] == text


@settings(max_examples=50)
@given(st.text(), st.text())
def test_any_text_gives_well_formed_html_and_valid_json(name: str, value: str) -> None:
    """Also lone surrogates: a notebook that cannot be written is lost evidence."""
    card = display.table_card(name, ("a", "b"), [(name, value), (1.5, float("nan"))])

    assert Page(card.html).open == []
    (card.html + card.text + json.dumps(card.data, ensure_ascii=False, allow_nan=False)).encode()


# --- a bar of long work: when it is live, and not at all otherwise --------------------------------


def test_a_replay_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("waiting for epoch 12", 10, live=False) as bar:
        bar.update(10)

    assert capfd.readouterr() == ("", "")


def test_a_live_bar_says_what_it_waits_for_and_how_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bar names its work, counts it, and is gone when the work is done."""
    with progress("waiting for epoch 12", 10, live=True) as bar:
        bar.update(5)
    shown = capsys.readouterr().err.split("\r")

    assert any(re.match(r"waiting for epoch 12: +0%\|.*\| 0/10 s, ", part) for part in shown)
    assert shown[-1] == ""


# --- What the templates may do, and what they are given -------------------------------------------


FORMS = {"html": display._HTML, "text": display._TEXT, "markdown": MARKDOWN, "shell": SHELL}
OURS = {
    # Words, titles and markers that we made; sections and texts that were escaped as they were made.
    "word", "title", "tally", "marker", "text",
    # Checked names: a release, a stage, a phase, nodes, operators, digests, environment variables.
    "release", "stage", "phase", "plan", "name", "node", "mark", "rows", "tokens", "run",
    # In a fence that is longer than any in it.
    "document",
}  # fmt: skip
"""What a template may pass on as it is."""


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_value_that_no_filter_made_is_escaped(form: display.Form) -> None:
    """Also without a filter: forgetting one shows too little, never too much."""
    hostile = "<b>'$(x)' `y` | @z"
    made = form._environment.from_string("{{ x }}{% macro m(x) %}{{ x }}{% endmacro %} {{ m(x) }}")
    written = form.escape(hostile)

    assert made.render(x=hostile) == f"{written} {written}"


def test_a_value_that_is_missing_is_an_error() -> None:
    """A card never shows an empty place where something should stand."""
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        display._TEXT.render("table.j2", columns=(), rows=())


def test_what_is_passed_on_as_it_is_is_ours() -> None:
    """Whatever else is marked as safe has to be looked at, and listed."""
    parsed = [Environment().parse(path.read_text()) for path in display.TEMPLATES.rglob("*.j2")]
    marked = [f for tree in parsed for f in tree.find_all(nodes.Filter) if f.name == "safe"]

    assert {name.name for one in marked for name in one.find_all(nodes.Name)} == OURS


def test_both_forms_of_a_card_have_the_same_parts() -> None:
    html, text = (
        re.findall(r"macro (\w+)\(([^)]*)\)", (display.TEMPLATES / form / "form.j2").read_text())
        for form in ("html", "text")
    )

    assert set(html) - set(text) == {("cell", "name, text, right, tag")}
    assert set(text) <= set(html)


def plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, str | int | float | datetime)


def test_templates_get_plain_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that a template could ask, write or run anything with."""
    given, render = dict[str, Any](), display.Form.render

    def seen(form: display.Form, name: str, /, **values: Any) -> str:
        given[values.get("template", name)] = values
        return render(form, name, **values)

    monkeypatch.setattr(display.Form, "render", seen)
    whole = verdict(judged(GOOD), judged(BAD, waived=(waived(),)))
    display.verdict_card(whole)
    display.banner_card(whole)
    display.result_card(judged(GOOD, BAD))
    display.plan_card([("a", "b", 1, 2)], digest="c")
    section(account())
    sealed_text(account())
    page(Made(tmp_path / "made", ("main-1",), theirs=("main-7",)).kit)

    assert len(given) == 7
    assert [name for name, values in given.items() if not plain(values)] == []


def test_templates_are_part_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """They say what a recovery does and what people read: its digest covers them."""
    package_digest.cache_clear()
    monkeypatch.setattr("runbook_lib.package.digest", list)

    assert {"display.py", "templates/recover.sh.j2"} <= set(package_digest())
    package_digest.cache_clear()
