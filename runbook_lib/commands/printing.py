"""What commands print: rows as a table, one JSON document, a line of progress."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import display
from ..outcomes import Outcome, Row, Value, worst
from ..verdicts import ExitCode, Standing
from ..wording import standing_word


def tell_rows(title: str, rows: Sequence[Row], as_json: bool, more: Mapping[str, Any]) -> int:
    """Print rows as a table or a document; 0, 1 or 2 by the worst of them."""
    outcome = worst(row.outcome for row in rows)
    if as_json:
        dumped = [row.model_dump(mode="json") for row in rows]
        print_json({"outcome": outcome.value, "rows": dumped, **more})
    else:
        columns = ("outcome", "subject", "what", "expected", "observed")
        table: list[Sequence[Value]] = [
            (row.outcome.value, row.subject, row.what, row.expected, row.observed) for row in rows
        ]
        print(display.table_card(f"{title}: {outcome}", columns, table).text)
    codes = {Outcome.PASS: ExitCode.PASSED, Outcome.FAIL: ExitCode.REFUSED}
    return int(codes.get(outcome, ExitCode.INCONCLUSIVE))


def print_json(document: Any) -> None:
    """The one document that a command prints with ``--json``."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + os.linesep)


def print_standing(standing: Standing) -> None:
    """One line of progress."""
    print(f"{standing_word(standing)[0]:<14} {standing.item}: {standing.reason}", flush=True)


def print_line(text: str) -> None:
    """A line that a run says of itself meanwhile."""
    print(f"{'':<14} {text}", flush=True)
