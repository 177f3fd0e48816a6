"""Expressions of others: matched as their servers match them, and never for ever."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.sources.alertmanager import LONGEST, matches

CATASTROPHIC = ("(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*)*b", "((a*)*)*b", "a?" * 60 + "a" * 60 + "b")


@pytest.mark.parametrize(
    ("pattern", "text", "same"),
    [
        ("page", "page", True),
        ("page", "pages", False),
        ("pa|cri", "page", False),
        ("pa.*|cri", "page", True),
        (r"a\.b", "axb", False),
        ("a.b", "a\nb", True),
        ("a", "a\n", False),
        ("(?i)PAGE", "page", True),
        (r"\pL+", "é", True),
        ("", "", True),
        ("[[:alpha:]]+", "page", True),
    ],
)
def test_an_expression_must_match_the_whole_text(pattern: str, text: str, same: bool) -> None:
    assert matches(pattern, text) is same


@pytest.mark.parametrize("pattern", CATASTROPHIC, ids=range(len(CATASTROPHIC)))
def test_no_expression_holds_us(pattern: str) -> None:
    """Each of these takes python's own engine longer than a rollout."""
    before = time.process_time()

    assert matches(pattern, "a" * LONGEST) is False
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("pattern", "text", "problem"),
    [
        ("(", "a", "Invalid regular expression: missing )"),
        ("(?=a)a", "a", "Invalid regular expression: invalid perl operator"),
        (r"(a)\1", "aa", "Invalid regular expression: invalid escape sequence"),
        ("(a{1000}){1000}", "a", "Invalid regular expression: invalid repetition size"),
        ("a" * (LONGEST + 1), "a", f"an expression of {LONGEST + 1} characters, at most {LONGEST}"),
        ("a", "a" * (LONGEST + 1), f"a text of {LONGEST + 1} characters, at most {LONGEST}"),
        ("\ud800", "a", "surrogates not allowed"),
    ],
    ids=["open", "look-ahead", "back reference", "large", "long", "long text", "no UTF-8"],
)
def test_what_cannot_be_judged_is_an_error(pattern: str, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("(", r"\(").replace(")", r"\)")):
        matches(pattern, text)


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_text_is_matched_or_refused(pattern: str, text: str) -> None:
    with suppress(ValueError):
        assert matches(pattern, text) in (True, False)
