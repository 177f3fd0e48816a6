"""What commands print, and the parser that they add themselves to."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from .. import display
from ..outcomes import Outcome, Row, worst
from ..verdicts import ExitCode


def tell_rows(title: str, rows: Sequence[Row], as_json: bool, more: Mapping[str, Any]) -> int:
    """Print rows as a table or a document; 0, 1 or 2 by the worst of them."""
    outcome = worst(row.outcome for row in rows)
    document = {"outcome": outcome.value, "rows": [r.model_dump(mode="json") for r in rows], **more}
    say(as_json, document, display.rows_card(f"{title}: {outcome}", rows).text)
    return int(exit_code(outcome))


def exit_code(outcome: Outcome) -> ExitCode:
    """How a command ends that came to ``outcome``."""
    codes = {Outcome.PASS: ExitCode.PASSED, Outcome.FAIL: ExitCode.REFUSED}
    return codes.get(outcome, ExitCode.INCONCLUSIVE)


def print_json(document: Any) -> None:
    """The one document that a command prints with ``--json``."""
    print(json.dumps(document, indent=2))  # in ASCII: any terminal takes it


def say(as_json: bool, document: Any, text: object) -> int:
    """Print a result as a document or as text; 0."""
    print_json(document) if as_json else print(text)
    return 0


class Parser(argparse.ArgumentParser):
    """Usage errors end with 3: 2 means inconclusive here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(3, f"{self.prog}: error: {message}\n")


class Verbs:
    """The commands: each with its function, what it does in a few words, and ``--json``."""

    def __init__(self, top: argparse.ArgumentParser) -> None:
        self._added = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        """A further command, its options still to be added."""
        made: argparse.ArgumentParser = self._added.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="one JSON document on stdout")
        return made
