"""What a card says, written once as blocks and rendered twice: HTML that survives a forge, and text.

Forges drop ``style``, ``class``, ``svg`` and ``script``, so meaning lives in words, symbols, bold,
tables and ``<details>``; inline style is garnish. Both renderings hold the same content.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from runbook_lib.outcomes import Value, value_text

LONGEST = 300
"""Characters of one string that a card shows; the whole string stays in its JSON."""
LONGEST_CELL = 120
VERBATIM, VERBATIM_WIDTH = 200, 2_000
"""Lines of a text that a card shows, and characters of each."""
WIDEST = 40
"""Columns of a terminal that a column of a text table is filled up to; a digest sticks out."""

_LEFT = ' style="text-align:left"'
"""A cell's: a forge has cells on the left, and heads in the middle; Jupyter has both on the right."""
_HEAD = ' align="left"' + _LEFT
_RIGHT = ' align="right" style="text-align:right"'


@dataclass(frozen=True)
class Text:
    """A run of text, or a table cell. ``right`` aligns a cell as numbers are."""

    text: str
    strong: bool = False
    code: bool = False
    right: bool = False
    href: str = ""


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Line:
    spans: tuple[str | Text, ...]


@dataclass(frozen=True)
class Bullets:
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Table:
    """``columns`` may be empty: a table of facts has no header."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Text, ...], ...]


@dataclass(frozen=True)
class Fold:
    """A part that opens on a click. Its ``summary`` counts what is inside."""

    summary: str
    blocks: tuple[Block, ...]
    open: bool = False


@dataclass(frozen=True)
class Verbatim:
    """Text of several lines as it is written."""

    text: str


Block = Heading | Line | Bullets | Table | Fold | Verbatim


def line(*spans: str | Text) -> Line:
    return Line(spans)


def strong(text: str) -> Text:
    return Text(text, strong=True)


def code(text: str) -> Text:
    return Text(text, code=True)


def visible(text: str, limit: int = LONGEST) -> str:
    """``text`` on one line: what is not printable (controls, bidi marks, lone surrogates) as
    escapes, and what exceeds ``limit`` characters cut, saying how long it was."""
    cut = text if len(text) <= limit else text[:limit]
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut
    )
    return shown if len(text) <= limit else f"{shown}… ({len(text):,} characters)"


def cell(value: Value | Text, unit: str = "", *, exact: bool = False) -> Text:
    """A table cell: numbers to the right with their unit, everything else to the left."""
    if isinstance(value, Text):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Text(value_text(value, unit, exact=exact), right=number)


def numbers(expected: Value, observed: Value, unit: str = "") -> tuple[Text, Text]:
    """Two cells to compare: with all their digits when rounding would make them look equal."""
    left, right = cell(expected, unit), cell(observed, unit)
    if left != right or expected == observed:
        return left, right
    return cell(expected, unit, exact=True), cell(observed, unit, exact=True)


def to_html(blocks: Iterable[Block], colour: str) -> str:
    """One line of HTML without a blank line, so that Markdown leaves it alone."""
    body = "".join(_block_html(block) for block in blocks)
    return (
        f'<div style="border-left:4px solid {colour};padding:0.3em 0.9em;margin:0.3em 0">'
        f"{body}</div>"
    )


def to_text(blocks: Iterable[Block]) -> str:
    """The same content for a terminal or a diff."""
    return "\n".join(row for block in blocks for row in _block_text(block))


def _block_html(block: Block) -> str:
    match block:
        case Heading(text):
            return f'<h4 style="margin:0.2em 0 0.4em"><strong>{_escape(text)}</strong></h4>'
        case Line(spans):
            return f"<div>{_spans_html(spans)}</div>"
        case Bullets(lines):
            return "<ul>" + "".join(f"<li>{_spans_html(x.spans)}</li>" for x in lines) + "</ul>"
        case Table(columns, rows):
            return _table_html(columns, rows)
        case Verbatim(text):
            # A blank line would end the block of HTML for Markdown: line ends travel as entities.
            shown = (_escape(row, VERBATIM_WIDTH) for row in _verbatim(text))
            return f'<pre style="white-space:pre-wrap">{"&#10;".join(shown)}</pre>'
        case Fold(summary, blocks, is_open):
            body = "".join(_block_html(inner) for inner in blocks)
            tag = "<details open>" if is_open else "<details>"
            return f"{tag}<summary>{_escape(summary)}</summary>{body}</details>"


def _table_html(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> str:
    head, *body = _cells(columns, rows)
    named = "".join(_cell_html("th", _HEAD, name) for name in head)
    filled = "".join(f"<tr>{''.join(_cell_html('td', _LEFT, x) for x in row)}</tr>" for row in body)
    thead = f"<thead><tr>{named}</tr></thead>" if columns else ""
    return f'<table style="margin:0.3em 0">{thead}<tbody>{filled}</tbody></table>'


def _cell_html(tag: str, align: str, text: Text) -> str:
    return f"<{tag}{_RIGHT if text.right else align}>{_span_html(text)}</{tag}>"


def _cells(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> list[list[Text]]:
    """The head, a name to the right where all its cells are, then the rows; none is long."""
    body = [list(map(_run, row)) for row in rows]
    rights = [bool(body) and all(row[i].right for row in body) for i in range(len(columns))]
    head = [Text(name, right=right) for name, right in zip(columns, rights, strict=True)]
    return [[replace(x, text=visible(x.text, LONGEST_CELL)) for x in row] for row in (head, *body)]


def _run(span: str | Text) -> Text:
    return span if isinstance(span, Text) else Text(span)


def _spans_html(spans: Iterable[str | Text]) -> str:
    return "".join(_span_html(_run(span)) for span in spans)


def _span_html(span: Text) -> str:
    out = _escape(span.text)
    if span.code:
        out = f"<code>{out}</code>"
    # Whether it is an ``https`` address or a plain relative path.
    safe = r"(https://[^\s\\]+)|((?!//)[\w./%-]+(#[\w./%-]*)?)"
    if span.href and re.fullmatch(safe, span.href, re.ASCII):
        out = f'<a href="{_html.escape(span.href)}">{out}</a>'
    elif span.href:
        out = f"{out} <code>{_escape(span.href)}</code>"
    return f"<strong>{out}</strong>" if span.strong else out


def _escape(text: str, limit: int = LONGEST) -> str:
    """For HTML. Long words may break, and ``$`` and backslashes stand apart, or a notebook would
    typeset what is between them as mathematics."""
    # visible() leaves no newline.
    broken = re.sub(r"\S{36}(?=\S)", r"\g<0>\n", visible(text, limit))
    apart = re.sub(r"[$\\]", r"<span>\g<0></span>", _html.escape(broken))
    return apart.replace("\n", "<wbr>")


def _block_text(block: Block) -> list[str]:
    match block:
        case Heading(text):
            return [visible(text)]
        case Line(spans):
            return [_spans_text(spans)]
        case Bullets(lines):
            return [f"- {_spans_text(item.spans)}" for item in lines]
        case Table(columns, rows):
            return _table_text(columns, rows)
        case Verbatim(text):
            return _verbatim(text)
        case Fold(summary, blocks):
            return [f"{visible(summary)}:", *(f"  {row}" for b in blocks for row in _block_text(b))]


def _table_text(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> list[str]:
    head, *body = _cells(columns, rows)
    table = [[(_span_text(x), x.right) for x in row] for row in ([head] if columns else []) + body]
    # One long cell must not push the next column of every row out of sight.
    widths = [
        min(max(_width(text) for text, _ in each), WIDEST) for each in zip(*table, strict=True)
    ]
    lines = ["  ".join(map(_pad, row, widths)).rstrip() for row in table]
    rule = ["  ".join("-" * width for width in widths)] if columns else []
    return lines[: len(rule)] + rule + lines[len(rule) :]


def _verbatim(text: str) -> list[str]:
    rows = text.split("\n")
    left = len(rows) - VERBATIM
    more = [f"{left:,} more lines not shown here, kept in this card's JSON"] if left > 0 else []
    return [visible(row, VERBATIM_WIDTH) for row in rows[:VERBATIM]] + more


def _spans_text(spans: Iterable[str | Text]) -> str:
    return "".join(_span_text(_run(span)) for span in spans)


def _span_text(span: Text) -> str:
    return visible(span.text) + (f" <{visible(span.href)}>" if span.href else "")


def _pad(cell: tuple[str, bool], width: int) -> str:
    text, right = cell
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _width(text: str) -> int:
    """Columns ``text`` takes in a terminal: wide characters two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
