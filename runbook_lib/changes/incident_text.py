"""The texts of an incident: a template of the project's, filled with tables and with people's words.

A table that is too long for the forge is cut, saying how much of it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from ..context import Context
from ..errors import SourceError
from ..evidence.comment import LIMIT, fold, plain
from ..strict import project_path
from ..wording import count
from .incident_facts import CHARS, GATES, Facts

ROWS = (300, 100, 30, 10)
"""Rows of a table, fewer until the whole fits."""
NOTHING = "nothing said"


def render(context: Context, template: str, facts: Facts, values: dict[str, str]) -> str:
    """The template of that name, filled. Raises SourceError for one that cannot be.

    ``values`` are Markdown already; tables are cut until a forge takes the whole.
    """
    path = project_path(f"params/templates/{template}")
    try:
        made = Template(context.scope.read(path).decode())
        for limit in ROWS:
            text = made.substitute({**values, **_tables(facts, limit)}).strip() + "\n"
            if len(text.encode("utf-16-le")) // 2 <= LIMIT - 200:
                return text
    except (KeyError, ValueError) as error:
        known = ", ".join(f"${name}" for name in sorted({**values, **_tables(facts, 1)}))
        raise SourceError(f"template {template}", f"expected {known}, got {error!r}") from error
    raise SourceError(f"template {template}", f"expected at most {LIMIT} characters, got more")


def _tables(facts: Facts, limit: int) -> dict[str, str]:
    missing = [f"{plain(what, 80)}: {plain(why, CHARS)}" for what, why in facts.missing]
    columns = ("node", "run by", *(f"`{gate}`" for gate in GATES), "channel", "seen")
    figures = table(("metric", "when the apply began", "now"), facts.figures, limit, right=2)
    if not facts.figures:
        figures = "none was collected"
    if facts.drawn:
        shown = bullets([plain(line, CHARS) for line in facts.drawn.splitlines()][:limit], "")
        figures += f"\n\n{fold('drawn in the notebook that is attached', shown)}"
    timeline = table(("when", "what", "happened"), facts.timeline, limit, newest=True)
    tries = table(("attempt", "item", "outcome", "try", "why"), facts.tries, limit)
    return {
        "gates": table(columns, facts.nodes, limit),
        "tries": tries,
        "figures": figures,
        "timeline": fold(count(len(facts.timeline), "event"), timeline),
        "missing": bullets(
            missing[:limit], "nothing: all of it was read", cut=len(missing) - limit
        ),
    }


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    limit: int,
    *,
    right: int = 0,
    newest: bool = False,
) -> str:
    """A Markdown table, its last ``right`` columns to the right; of no rows, that there are none."""
    if not rows:
        return "none"
    kept = rows[-limit:] if newest else rows[:limit]
    marks = [":--"] * (len(columns) - right) + ["--:"] * right
    lines = [f"| {' | '.join(row)} |" for row in (columns, marks, *kept)]
    if len(rows) > limit:
        lines += ["", f"{count(len(rows) - limit, 'more row')}; see the record"]
    return "\n".join(lines)


def bullets(lines: Sequence[str], empty: str, cut: int = 0) -> str:
    """A list of Markdown lines."""
    more = [f"- and {cut} more; see the record"] if cut > 0 else []
    return "\n".join([*(f"- {line}" for line in lines), *more]) or empty


def said(texts: Sequence[str]) -> str:
    """What a person wrote, a bullet each."""
    return bullets([one_line(text) for text in texts if text.strip()], NOTHING)


def one_line(text: str) -> str:
    """What a person wrote, as just that."""
    return plain(" ".join(text.split()), 2000)
