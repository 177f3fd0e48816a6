"""Cards of plans, tables and figures."""

from __future__ import annotations

import base64

from runbook_lib import display
from runbook_lib.outcomes import check_row

from .cards import BAD, GOOD, ITEM, judged, verdict


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


def test_a_plan_that_changes_nothing_says_so() -> None:
    """Zero is a count like any other."""
    text = display.plan_card([("dev-1", "a", 1, 1)], digest="sha256:cc").text

    assert text.splitlines()[1] == "0 keys on 0 nodes will change:"


def test_true_and_one_are_different_values_of_a_key() -> None:
    """TOML tells them apart, and so does a plan."""
    text = display.plan_card([("dev-1", "a", 1, True)], digest="sha256:cc").text

    assert "1 key on 1 node will change:" in text


def test_thresholds_are_a_table() -> None:
    """What must hold, before any data is read."""
    text = display.thresholds_card([(ITEM, "deviating keys at most", 0)]).text

    assert (
        text
        == """\
What must hold
item                    what must hold          threshold
----------------------  ----------------------  ---------
preflight.config-drift  deviating keys at most          0"""
    )


def test_a_short_row_is_filled_up() -> None:
    """One cell that says why there is no more."""
    text = display.table_card("v1", ("stage", "attempt"), [("no attempt yet",)]).text

    assert text.splitlines()[-1] == "no attempt yet"


def test_numbers_that_differ_never_look_equal() -> None:
    """Rounding gives way where it would hide the difference that made a check fail."""
    text = display.result_card(judged(check_row("a", "share", 1 / 3, 0.33333334, False))).text

    assert "0.3333333333333333  0.33333334" in text


def test_a_figure_is_one_image_its_words_and_the_digest_of_its_data() -> None:
    """No HTML beside it, or a notebook would show one of the two and hide the other."""
    card = display.figure_card(b"\x89PNG", "p50 12 ms", {"data": "sha256:aa"})
    bundle, metadata = card._repr_mimebundle_()

    assert bundle == {
        "text/plain": "p50 12 ms",
        "image/png": base64.b64encode(b"\x89PNG").decode(),
        display.MIME: {"kind": "figure", "data": "sha256:aa"},
    }
    assert metadata == {"image/png": {"alt": "p50 12 ms"}}


def test_the_same_value_gives_the_same_bytes() -> None:
    """Cards are compared with their committed copies."""
    once, again = (display.verdict_card(verdict(judged(GOOD, BAD))) for _ in range(2))

    assert once == again
    assert str(once) == once.text
