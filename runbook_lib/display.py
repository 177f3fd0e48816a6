"""Cards: what a person sees of outcomes, in a notebook, on a forge, in a terminal.

A card is a value with three forms of one content: HTML, text, and JSON for programs. It shows no
time of day, path or name but those its value holds, so the same value gives the same bytes. What it
says stands in ``templates``, written once for both forms (``html/form.j2``, ``text/form.j2``).
"""

from __future__ import annotations

import base64
import html as _html
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import wording
from .outcomes import Outcome, Row, Value, value_text
from .verdicts import ItemStatus, Verdict
from .wording import count, utc, visible

if TYPE_CHECKING:
    from jinja2 import Environment

MIME = "application/vnd.rpp-runbook.v1+json"
SHOWN = 20
"""Rows shown before the rest is folded."""
AS_EXPECTED = "as expected"
LONGEST = 2_000
"""Characters of one string: a reason, and a command, are whole."""
WIDEST = 40
"""Columns of a terminal that a column of a text table is filled up to; a digest sticks out."""
TEMPLATES = Path(__file__).with_name("templates")
_LINK = re.compile(r"(https://[^\s\\]+)|((?!//)[\w./%-]+(#[\w./%-]*)?)", re.ASCII)
"""What becomes a link: an ``https`` address or a plain relative path."""

Write = Callable[..., str]
Cell = tuple[str, bool]
"""Of a table: its text, and whether that is a number, which stands to the right."""


class Form:
    """Templates of one form: ``escape`` makes a value harmless in it, or one of ``filters``.

    They get plain values alone. Jinja2 is loaded, and a template compiled, when it is first needed.
    """

    def __init__(self, escape: Write, folder: str = "", **filters: Write) -> None:
        self.escape, self.folder, self.filters = escape, folder, filters

    def render(self, name: str, /, **values: Any) -> str:
        return self._environment.get_template(name).render(values)

    @cached_property
    def _environment(self) -> Environment:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup

        def made(write: Write) -> Callable[..., Markup]:
            return lambda *given: Markup(write(*given))  # noqa: S704 - it is escaped

        escape = made(self.escape)
        environment = Environment(
            loader=FileSystemLoader([TEMPLATES / self.folder, TEMPLATES]),
            finalize=lambda value: value if isinstance(value, Markup) else escape(str(value)),
            undefined=StrictUndefined,
            autoescape=True,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.globals["SHOWN"] = SHOWN
        environment.tests["safe_link"] = _LINK.fullmatch
        environment.filters |= {"cells": _cells, "count": count, "utc": utc, "shown": escape}
        environment.filters |= {name: made(write) for name, write in self.filters.items()}
        return environment


@dataclass(frozen=True)
class Card:
    """What one output shows. With ``png`` there is no HTML: an output holds one image, no more."""

    html: str
    text: str
    data: Mapping[str, Any]
    png: bytes = b""

    def __str__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        bundle = {"text/plain": self.text, MIME: dict(self.data)}
        if self.png:
            bundle["image/png"] = base64.b64encode(self.png).decode("ascii")
            return bundle, {"image/png": {"alt": self.text.partition("\n")[0]}}
        return bundle | {"text/html": self.html}, {}


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """What is said of an attempt wherever it is told."""
    return verdict.model_dump(exclude={"items"}) | {"notice": wording.source(verdict)}


def item_rows(items: Sequence[ItemStatus], due: bool = False) -> list[tuple[str, str, str]]:
    """Word, item and reason of each, and when to return if that is ``due`` here."""
    rows = []
    for item in items:
        runs = wording.runs(item)
        said = wording.reason(item) + (f" ({runs})" if runs else "")
        said += f", return at {utc(item.return_at)}" if due and item.return_at is not None else ""
        rows.append((wording.standing_word(item)[0], item.item, said))
    return rows


def result_card(standing: ItemStatus) -> Card:
    """Where one item stands: its outcome, why, and every row, the worst first."""
    word, colour = wording.standing_word(standing)
    result, planned = standing.result, standing.planned
    rows = result.rows if result is not None else ()
    bad = [row for row in rows if row.outcome is not Outcome.PASS]
    # FAIL, then INCONCLUSIVE, then what is merely not yet due; what is waived last.
    bad.sort(key=lambda r: (standing.covers(r), r.outcome != "FAIL", r.return_at is not None))
    # A text of several lines (a comment's draft) as it would stand.
    drafts = [r for r in planned if isinstance(r.observed, str) and "\n" in r.observed]
    short = [row for row in planned if row not in drafts]
    values = {
        "word": word,
        "item": standing.item,
        "also": "" if standing.kind == "check" else f" ({standing.kind})",
        "runs": wording.runs(standing),
        "reason": wording.reason(standing),
        "return_at": standing.return_at,
        "said": [*wording.history(standing), *wording.waivers(standing)],
        "planned": [(r.subject, r.what, *numbers(r.expected, r.observed, r.unit)) for r in short],
        "drafts": [(row.subject, row.what, row.observed) for row in drafts],
        "bad": [_row(row, standing.covers(row)) for row in bad],
        "good": [_row(row) for row in rows if row.outcome is Outcome.PASS],
        "subjects": [len({row.subject for row in some}) for some in (bad, rows)],
        "judged": result and result.started,
    }
    data = standing.model_dump(mode="json", exclude_defaults=True)
    return _card("result", colour, values, {"outcome": standing.outcome.value, "status": data})


def verdict_card(
    verdict: Verdict, *, next_steps: Sequence[str] = (), recovery_link: str = "", signed: str = ""
) -> Card:
    """What a whole attempt amounts to, what blocks it and what to do next.

    ``recovery_link``: an ``https`` address, or the recovery notebook's path relative to this one.
    """
    word, colour = wording.verdict_word(verdict)
    values = {
        "title": f"{word} · {verdict.stage} · {verdict.release}",
        "signed": signed,
        "blocking": item_rows(verdict.blocking),
        "waived": [f"{i.item}: {said}" for i in verdict.items for said in wording.waivers(i)],
        "return_at": verdict.return_at,
        "next_steps": next_steps,
        "link": recovery_link,
        "items": item_rows(verdict.items),
        "where": "",
        "states": wording.tally(wording.standing_word(item)[0] for item in verdict.items),
    }
    data = {"verdict": _verdict_data(verdict), "next_steps": next_steps}
    return _card("verdict", colour, verdict_facts(verdict) | values, data)


def banner_card(verdict: Verdict) -> Card:
    """The opening cell: which attempt, what mode, live or replay, and where one stands."""
    following = [item.item for item in verdict.items if item.outcome is not Outcome.PASS]
    began = any(item.state != "missing" for item in verdict.items)
    done, whole = len(verdict.items) - len(following), len(verdict.items)
    where = f"{'resuming ' if began else ''}attempt {verdict.attempt}: {done} of {whole} done"
    where += f", next {following[0]}" if following else ""
    data = {"kind": "banner", "where": where, "verdict": _verdict_data(verdict)}
    return _card("verdict", wording.GREY, verdict_facts(verdict) | {"where": where}, data)


def plan_card(
    changes: Sequence[tuple[str, str, Value, Value]],
    *,
    digest: str,
    facts: Sequence[tuple[str, Value]] = (),
) -> Card:
    """Per node every key before and after: ``changes`` are (node, key, before, after)."""
    moved, same = list[Any](), list[Any]()
    for node, key, before, after in changes:
        kept = (type(before), before) == (type(after), after)
        (same if kept else moved).append((node, key, *numbers(before, after)))
    shown = [(name, value_text(value)) for name, value in facts]
    values = {"nodes": len({node for node, *_ in moved}), "moved": moved, "same": same}
    data = {"digest": digest, "facts": facts, "changes": changes}
    return _card("plan", wording.GREY, data | {"facts": shown} | values, data)


def table_card(title: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> Card:
    """Any table, its rows as given, numbers to the right; a short row is filled up."""
    cells = [(*map(cell, row), *[""] * (len(columns) - len(row))) for row in rows]
    data = {"title": title, "columns": columns, "rows": rows}
    return _card("table", wording.GREY, data | {"rows": cells}, data)


def rows_card(title: str, rows: Sequence[Row]) -> Card:
    """Rows as they are, without a status."""
    columns = ("outcome", "subject", "what", "expected", "observed")
    shown = [(r.outcome.value, r.subject, r.what, r.expected, r.observed) for r in rows]
    return table_card(title, columns, shown)


def why_card(title: str, reason: object) -> Card:
    """Why there is nothing else to show."""
    return table_card(title, ("why",), [(str(reason),)])


def figure_card(png: bytes, text: str) -> Card:
    """One image; ``text`` says the same in words."""
    return Card("", text, {"kind": "figure"}, png)


def marked(card: Card, notice: str) -> Card:
    """A card under a notice that nobody may overlook."""
    above = _card("table", wording.RED, {"title": notice, "columns": [], "rows": []}, {})
    html = above.html + card.html if card.html else ""
    return Card(html, f"{above.text}\n{card.text}", {**card.data, "notice": notice}, card.png)


def _card(kind: str, colour: str, values: Mapping[str, Any], data: Mapping[str, Any]) -> Card:
    shown = {"template": f"{kind}.j2", "colour": colour, **values}
    # One line without a blank one, so that Markdown leaves it alone: no value holds a line end.
    html = _HTML.render("card.j2", **shown).replace("\n", "")
    text = _TEXT.render("card.j2", **shown).removesuffix("\n")
    return Card(html, text, _plain({"kind": kind, **data}))


def _row(row: Row, waived: bool = False) -> tuple[str | Cell, ...]:
    word = wording.outcome_word(row.outcome) + (", waived" if waived else "")
    word += "" if row.waivable else ", never waivable"
    if row.return_at is not None:
        word += f", due {utc(row.return_at)}"
    # A digest or a list of gates, which nobody compares by eye; the JSON holds both.
    is_long = isinstance(row.expected, str) and len(row.expected) > 2 * len(AS_EXPECTED)
    if row.outcome is Outcome.PASS and row.observed == row.expected and is_long:
        return (word, row.subject, row.what, str(row.expected), AS_EXPECTED)
    return (word, row.subject, row.what, *numbers(row.expected, row.observed, row.unit))


def _verdict_data(verdict: Verdict) -> dict[str, Any]:
    """The verdict for programs; rows stay with the cards of their items."""
    items = []
    for item in verdict.items:
        row = item.model_dump(mode="json", exclude={"result", "planned"}, exclude_defaults=True)
        items.append(row | {"outcome": item.outcome.value, "reason": wording.reason(item)})
    codes = {"outcome": verdict.outcome.value, "exit_code": int(verdict.exit_code)}
    return verdict.model_dump(mode="json", exclude={"items"}) | codes | {"items": items}


def _plain(value: Any) -> Any:
    """``value`` as every JSON reader takes it: no lone surrogates, no NaN, lists for tuples."""
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def cell(value: Value, unit: str = "", *, exact: bool = False) -> Cell:
    """Numbers to the right with their unit, everything else to the left."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value_text(value, unit, exact=exact), number


def numbers(expected: Value, observed: Value, unit: str = "") -> tuple[Cell, Cell]:
    """Two cells to compare: with all their digits when rounding would make them look equal."""
    left, right = cell(expected, unit), cell(observed, unit)
    if left != right or expected == observed:
        return left, right
    return cell(expected, unit, exact=True), cell(observed, unit, exact=True)


def _cells(rows: Sequence[Sequence[str | Cell]], columns: Sequence[str]) -> list[list[Cell]]:
    """The head, a name to the right where all its cells are, then the rows."""
    body = [[(cell, False) if isinstance(cell, str) else cell for cell in row] for row in rows]
    rights = [bool(body) and all(row[i][1] for row in body) for i in range(len(columns))]
    head = list(zip(columns, rights, strict=True))
    return [head, *body]


def _escape(text: str) -> str:
    """For HTML. Long words may break, and ``$`` and backslashes stand apart, or a notebook would
    typeset what is between them as mathematics."""
    broken = re.sub(r"\S{36}(?=\S)", r"\g<0>\n", visible(text, LONGEST))  # which has no newline
    apart = re.sub(r"[$\\]", r"<span>\g<0></span>", _html.escape(broken))
    return apart.replace("\n", "<wbr>")


def _laid_out(rows: Sequence[Sequence[str | Cell]], columns: Sequence[str]) -> str:
    """A table for a terminal."""
    cells = _cells(rows, columns)[0 if columns else 1 :]
    table = [[(visible(text, LONGEST), right) for text, right in row] for row in cells]
    # One long cell must not push the next column of every row out of sight.
    widths = [
        min(max(_width(text) for text, _ in each), WIDEST) for each in zip(*table, strict=True)
    ]

    def pad(cell: Cell, width: int) -> str:
        text, right = cell
        return (str.rjust if right else str.ljust)(text, width + len(text) - _width(text))

    lines = ["  ".join(map(pad, row, widths)).rstrip() for row in table]
    if columns:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns ``text`` takes in a terminal: wide characters two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


_HTML = Form(_escape, "html")
_TEXT = Form(partial(visible, limit=LONGEST), "text", laid_out=_laid_out)
