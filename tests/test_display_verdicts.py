"""Cards of whole attempts: what blocks, what to do next, where one stands."""

from __future__ import annotations

import pytest

from runbook_lib import display
from runbook_lib.outcomes import Outcome, unknown_row
from runbook_lib.verdicts import Standing, Verdict, WaivedRow

from .cards import BAD, GOOD, ITEM, NOW, UNKNOWN, judged, outline, verdict


def test_a_verdict_says_what_blocks_and_what_to_do_next() -> None:
    """The first screen: outcome, reasons, next steps, the way back."""
    behind = Standing(item="x.y", kind="check", state="not-reached", reason=f"blocked by {ITEM}")
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
    """No verdict can be taken for another one, nor practice for a release."""
    assert display.verdict_card(made).text.splitlines()[0] == first


def test_a_broken_run_says_why_it_cannot_count() -> None:
    """Whatever the items say."""
    text = display.verdict_card(verdict(judged(GOOD), broken=("enforce never ran",))).text

    assert "This run cannot count:\n- enforce never ran\n" in text


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
    """Anything else is shown as text."""
    card = display.verdict_card(verdict(judged(GOOD)), recovery_link=link)

    assert ("<a href=" in card.html) is anchored
    assert link in outline(card).text or anchored


def test_a_verdict_repeats_every_waiver() -> None:
    """Also the reader of the first screen learns that a risk was accepted."""
    waived = WaivedRow(
        subject="dev-2",
        outcome=Outcome.FAIL,
        reason="spare",
        approved_by=("grace",),
        self_approved=False,
        expires=NOW,
    )
    text = display.verdict_card(verdict(judged(BAD, waived=(waived,)))).text

    assert (
        "Waived (1):\n- preflight.config-drift: dev-2 (FAIL) waived by grace until "
        "2026-11-23 14:00:05 UTC: spare\n"
    ) in text


def test_the_banner_says_where_one_stands() -> None:
    """A resumed attempt names the next item; a new one does not call itself resumed."""
    ahead = Standing(item="x.y", kind="check", state="missing")
    resumed = display.banner_card(verdict(judged(GOOD), ahead))
    fresh = display.banner_card(verdict(ahead))

    assert resumed.text.splitlines()[0] == "resuming attempt 3: 1 of 2 done, next x.y"
    assert fresh.text.splitlines()[0] == "attempt 3: 0 of 1 done, next x.y"
