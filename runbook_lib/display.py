"""Cards: what a person sees of outcomes, in a notebook, on a forge, in a terminal.

A card is a value with three forms of one content: HTML, text, and JSON for programs. It shows no
time of day, path or name but those its value holds, so the same value gives the same bytes.
"""

from __future__ import annotations

import base64
import html as _html
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runbook_lib import wording
from runbook_lib.outcomes import Outcome, Row, Value, value_text
from runbook_lib.verdicts import Standing, Verdict
from runbook_lib.wording import count, utc, visible

MIME = "application/vnd.rpp-runbook.v1+json"
SHOWN = 20
"""Rows shown before the rest is folded."""
AS_EXPECTED = "as expected"
LISTED, GOOD = 200, 60
"""Rows a fold lists, and those that PASS; the rest is counted, and stands in the card's JSON."""
VERBATIM, LONGEST = 200, 2_000
"""Lines of a text that a card shows; characters of one string, that a reason or a command is whole."""
WIDEST = 40
"""Columns of a terminal that a column of a text table is filled up to; a digest sticks out."""

_LEFT = ' style="text-align:left"'
"""A cell's: a forge has cells on the left, and heads in the middle; Jupyter has both on the right."""
_HEAD = ' align="left"' + _LEFT
_RIGHT = ' align="right" style="text-align:right"'


@dataclass(frozen=True)
class Card:
    """What one output shows. With ``png`` there is no HTML: an output holds one image, no more."""

    html: str
    text: str
    data: Mapping[str, Any]
    png: bytes = b""

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = {"text/plain": self.text, MIME: dict(self.data)}
        if self.png:
            bundle["image/png"] = base64.b64encode(self.png).decode("ascii")
            return bundle, {"image/png": {"alt": self.text.partition("\n")[0]}}
        return bundle | {"text/html": self.html}, {}


def result_card(standing: Standing) -> Card:
    """Where one item stands: its outcome, why, and every row, the worst first."""
    word, colour = wording.standing_word(standing)
    kind = "" if standing.kind == "check" else f" ({standing.kind})"
    tries = wording.tries(standing)
    blocks: list[Block] = [
        line(strong(word), " ", code(standing.item), kind, f" · {tries}" if tries else ""),
        line(wording.reason(standing)),
    ]
    if standing.return_at is not None:
        blocks.append(line("Only time is missing: return at ", strong(utc(standing.return_at))))
    blocks += [line(said) for said in wording.history(standing) + wording.waivers(standing)]
    blocks += _planned(standing.planned)
    if standing.result is not None:
        blocks += _rows(standing, standing.result.rows)
        blocks.append(line(f"Judged at {utc(standing.result.started)}"))
    data = {
        "outcome": standing.outcome.value,
        "standing": standing.model_dump(mode="json", exclude_defaults=True),
    }
    return _card("result", blocks, colour, data)


def verdict_card(
    verdict: Verdict,
    *,
    next_steps: Sequence[str] = (),
    recovery_link: str = "",
    signed: str = "",
) -> Card:
    """What a whole attempt amounts to, what blocks it and what to do next.

    ``recovery_link``: an ``https`` address, or the recovery notebook's path relative to this one.
    """
    word, colour = wording.verdict_word(verdict)
    title = Heading(f"{word} · {verdict.stage} · {verdict.release}")
    blocks: list[Block] = [*_source(verdict), title, _facts(verdict)]
    if signed:
        blocks += [line(signed)]
    if verdict.broken:
        blocks += [line(strong("This run cannot count:")), _bullets(verdict.broken)]
    if verdict.blocking:
        blocks += [line(strong(f"What blocks ({len(verdict.blocking):,}):"))]
        blocks += [_items(verdict.blocking)]
    waived = [f"{i.item}: {said}" for i in verdict.items for said in wording.waivers(i)]
    if waived:
        blocks += [line(strong(f"Waived ({len(waived):,}):")), _bullets(waived)]
    if verdict.return_at is not None:
        blocks += [line("Only time is missing: return at ", strong(utc(verdict.return_at)))]
    if next_steps:
        blocks += [line(strong("What to do next:")), _bullets(next_steps)]
    if recovery_link:
        blocks += [line("If this must be undone: ", Text("recovery notebook", href=recovery_link))]
    blocks += [line(f"Note: {note}") for note in verdict.notes]
    states = wording.tally(wording.standing_word(item)[0] for item in verdict.items)
    summary = f"{count(len(verdict.items), 'item')}: {states or 'none'}"
    blocks += [Fold(summary, (_items(verdict.items),), open=not verdict.blocking)]
    data = {"verdict": _verdict_data(verdict), "next_steps": next_steps}
    return _card("verdict", blocks, colour, data)


def banner_card(verdict: Verdict) -> Card:
    """The opening cell: which attempt, what mode, live or replay, and where one stands."""
    done = sum(item.outcome is Outcome.PASS for item in verdict.items)
    following = [item.item for item in verdict.items if item.outcome is not Outcome.PASS]
    began = any(item.state != "missing" for item in verdict.items)
    where = f"{'resuming ' if began else ''}attempt {verdict.attempt}: "
    where += f"{done} of {len(verdict.items)} done" + (
        f", next {following[0]}" if following else ""
    )
    blocks = [*_source(verdict), line(strong(where)), _facts(verdict)]
    blocks += [line(f"Note: {note}") for note in verdict.notes]
    data = {"where": where, "verdict": _verdict_data(verdict)}
    return _card("banner", blocks, wording.GREY, data)


def plan_card(
    changes: Sequence[tuple[str, str, Value, Value]],
    *,
    digest: str,
    facts: Sequence[tuple[str, Value]] = (),
) -> Card:
    """Per node every key before and after: ``changes`` are (node, key, before, after)."""
    columns = ("node", "key", "before", "after")
    rows = [(c, (c[0], code(c[1]), *numbers(c[2], c[3]))) for c in changes]
    moved = [row for change, row in rows if _differ(change)]
    same = [row for change, row in rows if not _differ(change)]
    nodes = count(len({change[0] for change in changes if _differ(change)}), "node")
    blocks: list[Block] = [line(strong("Plan "), code(digest))]
    blocks += [Table((), tuple((strong(name), value_text(value)) for name, value in facts))]
    blocks += _folded(f"{count(len(moved), 'key')} on {nodes} will change", columns, moved)
    if same:
        blocks += [Fold(f"{count(len(same), 'key')} will stay", _listed(columns, same))]
    data = {"digest": digest, "facts": facts, "changes": changes}
    return _card("plan", blocks, wording.GREY, data)


def table_card(title: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> Card:
    """Any table, its rows as given, numbers to the right; a short row is filled up."""
    cells = [(*map(cell, row), *[Text("")] * (len(columns) - len(row))) for row in rows]
    blocks = [line(strong(title)), *_listed(columns, cells)]
    data = {"title": title, "columns": columns, "rows": rows}
    return _card("table", blocks, wording.GREY, data)


def figure_card(png: bytes, text: str, data: Mapping[str, Any]) -> Card:
    """One image; ``text`` says the same in words, ``data`` holds the digest of what is drawn."""
    return Card("", text, _plain({"kind": "figure", **data}), png)


def marked(card: Card, notice: str) -> Card:
    """A card under a notice that nobody may overlook."""
    block = [line(strong(notice))]
    html = to_html(block, wording.RED) + card.html if card.html else ""
    return Card(html, f"{to_text(block)}\n{card.text}", {**card.data, "notice": notice}, card.png)


def _card(kind: str, blocks: Sequence[Block], colour: str, data: Mapping[str, Any]) -> Card:
    shown = [block for block in blocks if block not in (line(""), Table((), ()))]
    return Card(to_html(shown, colour), to_text(shown), _plain({"kind": kind, **data}))


def _bullets(said: Sequence[str]) -> Bullets:
    """One bullet each; what stands between backticks is a command to copy."""
    parts = [text.split("`") for text in said]
    return Bullets(tuple(line(*(code(x) if i % 2 else x for i, x in enumerate(p))) for p in parts))


def _source(verdict: Verdict) -> list[Block]:
    notice = wording.source(verdict)
    return [line(strong(notice))] if notice else []


def _facts(verdict: Verdict) -> Table:
    plan = "plan: nothing is changed, nothing is permitted"
    changes = plan if verdict.mode == "plan" else "apply"
    facts = (
        ("release", f"{verdict.release} at {verdict.commit}"),
        ("stage", f"{verdict.stage} on {verdict.site}"),
        ("mode", f"{changes}, {verdict.source}, {verdict.run}"),
        ("attempt", f"{verdict.attempt}, try {verdict.number}, by {verdict.operator}"),
        ("time", f"{utc(verdict.started)} to {utc(verdict.ended)}"),
    )
    return Table((), tuple((strong(name), value) for name, value in facts))


def _items(items: Sequence[Standing]) -> Table:
    rows = []
    for item in items:
        tries = wording.tries(item)
        said = wording.reason(item) + (f" ({tries})" if tries else "")
        rows.append((strong(wording.standing_word(item)[0]), code(item.item), said))
    return Table(("outcome", "item", "reason"), tuple(rows))


def _planned(rows: Sequence[Row]) -> list[Block]:
    """What a change would do; a text of several lines (a comment's draft) as it would stand."""
    short = [row for row in rows if not _is_text(row)]
    columns = ("subject", "what", "before", "after")
    cells = [(r.subject, r.what, *numbers(r.expected, r.observed, r.unit)) for r in short]
    blocks = _folded(f"{count(len(short), 'row')} planned", columns, cells) if short else []
    for row in rows:
        if _is_text(row):
            text = str(row.observed)
            summary = f"{row.subject}: {row.what}, {count(len(text.splitlines()), 'line')}"
            blocks.append(Fold(summary, (Verbatim(text),), open=True))
    return blocks


def _is_text(row: Row) -> bool:
    return isinstance(row.observed, str) and "\n" in row.observed


def _rows(standing: Standing, rows: Sequence[Row]) -> list[Block]:
    columns = ("outcome", "subject", "what", "expected", "observed")
    good = [_row(row) for row in rows if row.outcome is Outcome.PASS]
    bad = [row for row in rows if row.outcome is not Outcome.PASS]
    # FAIL, then INCONCLUSIVE, then what is merely not yet due; what is waived last.
    bad.sort(key=lambda r: (standing.covers(r), r.outcome != "FAIL", r.return_at is not None))
    blocks: list[Block] = []
    if bad:
        whole = count(len({row.subject for row in rows}), "subject")
        summary = f"{len(bad):,} of {count(len(rows), 'row')} not PASS, "
        summary += f"on {len({row.subject for row in bad}):,} of {whole}"
        said = [_row(row, standing.covers(row)) for row in bad]
        blocks += _folded(summary, columns, said)
    if good:
        summary = f"{len(good):,} of {count(len(rows), 'row')} PASS"
        blocks += [Fold(summary, _listed(columns, good, GOOD))]
    return blocks


def _row(row: Row, waived: bool = False) -> tuple[str | Text, ...]:
    word = wording.outcome_word(row.outcome) + (", waived" if waived else "")
    word += "" if row.waivable else ", never waivable"
    if row.return_at is not None:
        word += f", due {utc(row.return_at)}"
    # A digest or a list of gates, which nobody compares by eye; the JSON holds both.
    is_long = isinstance(row.expected, str) and len(row.expected) > 2 * len(AS_EXPECTED)
    if row.outcome is Outcome.PASS and row.observed == row.expected and is_long:
        return (word, row.subject, row.what, str(row.expected), AS_EXPECTED)
    return (word, row.subject, row.what, *numbers(row.expected, row.observed, row.unit))


def _folded(
    summary: str, columns: Sequence[str], rows: Sequence[tuple[str | Text, ...]]
) -> list[Block]:
    """An open part with the first rows, and the rest in a closed one inside it."""
    rest = rows[SHOWN:]
    more = Fold(count(len(rest), "more row"), _listed(columns, rest))
    return [Fold(summary, (*_listed(columns, rows[:SHOWN]), *([more] if rest else [])), open=True)]


def _listed(
    columns: Sequence[str], rows: Sequence[tuple[str | Text, ...]], most: int = LISTED
) -> tuple[Block, ...]:
    table, left = Table(tuple(columns), tuple(rows[:most])), len(rows) - most
    more = line(f"{count(left, 'more row')} not listed here, kept in this card's JSON")
    return (table, more) if left > 0 else (table,)


def _differ(change: tuple[str, str, Value, Value]) -> bool:
    _, _, before, after = change
    return type(before) is not type(after) or before != after


def _verdict_data(verdict: Verdict) -> dict[str, Any]:
    """The verdict for programs; rows stay with the cards of their items."""
    items = []
    for item in verdict.items:
        row = item.model_dump(mode="json", exclude={"result", "planned"}, exclude_defaults=True)
        items.append(row | {"outcome": item.outcome.value, "reason": wording.reason(item)})
    facts = verdict.model_dump(mode="json", exclude={"items"})
    codes = {"outcome": verdict.outcome.value, "exit_code": int(verdict.exit_code)}
    return {**facts, **codes, "items": items}


def _plain(value: Any) -> Any:
    """``value`` as every JSON reader takes it: no lone surrogates, no NaN, lists for tuples."""
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- What a card says, written once as blocks and rendered twice ---
#
# HTML that survives a forge, and text. Forges drop ``style``, ``class``, ``svg`` and ``script``, so
# meaning lives in words, symbols, bold, tables and ``<details>``; inline style is garnish. Both
# renderings hold the same content.


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
            shown = map(_escape, _verbatim(text))
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
    """The head, a name to the right where all its cells are, then the rows."""
    body = [list(map(_run, row)) for row in rows]
    rights = [bool(body) and all(row[i].right for row in body) for i in range(len(columns))]
    head = [Text(name, right=right) for name, right in zip(columns, rights, strict=True)]
    return [head, *body]


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


def _escape(text: str) -> str:
    """For HTML. Long words may break, and ``$`` and backslashes stand apart, or a notebook would
    typeset what is between them as mathematics."""
    # visible() leaves no newline.
    broken = re.sub(r"\S{36}(?=\S)", r"\g<0>\n", visible(text, LONGEST))
    apart = re.sub(r"[$\\]", r"<span>\g<0></span>", _html.escape(broken))
    return apart.replace("\n", "<wbr>")


def _block_text(block: Block) -> list[str]:
    match block:
        case Heading(text):
            return [visible(text, LONGEST)]
        case Line(spans):
            return [_spans_text(spans)]
        case Bullets(lines):
            return [f"- {_spans_text(item.spans)}" for item in lines]
        case Table(columns, rows):
            return _table_text(columns, rows)
        case Verbatim(text):
            return _verbatim(text)
        case Fold(summary, blocks):
            inner = (f"  {row}" for each in blocks for row in _block_text(each))
            return [f"{visible(summary, LONGEST)}:", *inner]


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
    return [visible(row, LONGEST) for row in rows[:VERBATIM]] + more


def _spans_text(spans: Iterable[str | Text]) -> str:
    return "".join(_span_text(_run(span)) for span in spans)


def _span_text(span: Text) -> str:
    return visible(span.text, LONGEST) + (f" <{visible(span.href, LONGEST)}>" if span.href else "")


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
