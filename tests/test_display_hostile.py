"""Cards: text from outside is shown and does nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib import display
from runbook_lib.outcomes import check_row

from .cards import ALLOWED, judged, outline

HOSTILE = (
    "<script>alert(1)</script>",
    "a|b **c** `d`\n\n# e",
    "\x1b[31mred\x1b[0m\x00",
    "\u202egnp.exe\u2028x",
    '" onload="x',
    "$x$ \\(y\\)",
    "A" * 5000,
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_strings_are_shown_and_do_nothing(text: str) -> None:
    """Names and error texts come from outside: no tag, control character or line break survives."""
    row = check_row(text, text, text, text + "!", False)
    card = display.result_card(judged(row))
    seen = outline(card)

    assert set(seen.tags) <= ALLOWED
    assert seen.attributes <= {"style", "align", "open"}
    assert "\n" not in card.html
    assert all(line.isprintable() for line in card.text.splitlines())
    assert len(card.text) < 3000
    assert card.data["standing"]["result"]["rows"][0]["subject"] == text


@settings(max_examples=50)
@given(st.text(), st.text())
def test_any_text_gives_well_formed_html_and_valid_json(name: str, value: str) -> None:
    """Also lone surrogates: a notebook that cannot be written is lost evidence."""
    card = display.table_card(name, ("a", "b"), [(name, value), (1.5, float("nan"))])

    outline(card)
    (card.html + card.text + json.dumps(card.data, ensure_ascii=False, allow_nan=False)).encode()
