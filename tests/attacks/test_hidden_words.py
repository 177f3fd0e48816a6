"""Approvals where a forge does not show them as plain text: none counts; a withdrawal always does."""

import time

import pytest

from runbook_lib.sources.words import LONGEST_COMMENT, Malformed, Said, lines

DIGEST = "sha256:" + "a" * 64
SAY = f"approve {DIGEST}"
HIDDEN = {
    "indented code": f"see:\n\n    {SAY}",
    "fence": f"~~~text\r{SAY}",
    "fence of four": f"````\n```\n{SAY}\n````",
    "fence that a paragraph opens": f"see\n```\n{SAY}",
    "code over lines": f"`see\n{SAY}\n`",
    "lazy quotation": f"> see\n{SAY}",
    "list": f"- see\n{SAY}",
    "list of several paragraphs": f"1. see\n\n   {SAY}",
    "pre": f"<pre>\n{SAY}\n</pre>",
    "details": f"<details>\n\n{SAY}\n\n</details>",
    "details in a line": f"see <details>\n{SAY}\n</details>",
    "paragraphs behind a tag": f"so <span hidden>it\n\nis\n\n{SAY}",
    "attribute": f'so <a title="\n{SAY}\n">it</a>',
    "comment": f"so <!--\n{SAY}\n--> it",
    "processing instruction": f"<?php\n{SAY}\n?>",
    "title of a link definition": f"[see]: /u '\n{SAY}\n'",
    "footnote": f"[^1]: see\n{SAY}",
    "footnote that begins with nothing": f"[^1]:\n{SAY}",
    "text of an image": f"![\n{SAY}\n](/u)",
    "text of a link": f"[\n{SAY}\n](/u)",
    "emphasis": f"*so\n{SAY}\nit is*",
    "struck out": f"~~so\n{SAY}\nit is~~",
    "struck out by one": f"~so\n{SAY}\nit is~",
    "formula": f"$$\n{SAY}\n$$",
    "heading": f"{SAY}\n---",
    "table": f"a | b\n--|--\n{SAY}",
}


@pytest.mark.parametrize("body", HIDDEN.values(), ids=HIDDEN)
def test_a_word_that_is_no_plain_text_is_named_and_does_not_count(body: str) -> None:
    """Whatever a forge makes of it."""
    why = "expected plain text, no code, list, table, link or HTML; say it in a comment of its own"

    assert list(lines(body)) == [Malformed(SAY, why)]


@pytest.mark.parametrize("body", HIDDEN.values(), ids=HIDDEN)
def test_a_withdrawal_counts_where_a_word_does_not(body: str) -> None:
    """In doubt somebody does not agree."""
    withdrawal = Said(kind="approve", withdraw=True, plan=DIGEST)

    assert withdrawal in list(lines(body.replace("approve", "withdraw approve")))


@pytest.mark.parametrize(
    "body",
    [
        f"- withdraw {SAY}",
        f"**withdraw {SAY}**",
        f"# withdraw {SAY}",
        f"see\n- [x](/u)\n  - _withdraw_ {SAY}",
    ],
)
def test_a_withdrawal_counts_as_readers_see_it(body: str) -> None:
    """Behind the marks of a list, of emphasis, of a heading."""
    assert Said(kind="approve", withdraw=True, plan=DIGEST) in list(lines(body))


def test_who_quotes_a_withdrawal_withdraws_nothing() -> None:
    """It is somebody else's."""
    assert list(lines(f"> withdraw {SAY}\n\nwhy?")) == []


@pytest.mark.parametrize(
    "body",
    [
        f"Looked at it twice, see https://forge.example/1.\n{SAY}\nThank you & bye\n\n<details>",
        f"# Verdict\n{SAY}\n\n* it holds",
        f"```\nlog\n```\n{SAY}  \nand on",
        f"&#97;pprove {DIGEST}",
    ],
)
def test_a_line_of_a_plain_paragraph_counts(body: str) -> None:
    """Whatever else stands in the comment, before raw HTML."""
    assert list(lines(body)) == [Said(kind="approve", plan=DIGEST)]


def test_a_comment_that_is_made_to_be_slow_says_nothing_and_costs_little() -> None:
    """Its withdrawals count all the same."""
    begun = time.process_time()
    body = f"{SAY}\nwithdraw {SAY}\n" + "![" * LONGEST_COMMENT
    found = list(lines(body))

    assert Said(kind="approve", plan=DIGEST) not in found
    assert Said(kind="approve", withdraw=True, plan=DIGEST) in found
    assert list(lines("![" * (LONGEST_COMMENT // 2))) == []
    assert time.process_time() - begun < 10
