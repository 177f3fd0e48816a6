"""The command line's parser, and what several commands take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from ..playbook import NOTEBOOKS

Run = Callable[[argparse.Namespace], int]
RUNBOOKS = sorted(NOTEBOOKS)


class Parser(argparse.ArgumentParser):
    """Usage errors end with 3: 2 means inconclusive here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(3, f"{self.prog}: error: {message}\n")


class Verbs:
    """The commands: each with its function, what it does in a few words, and ``--json``."""

    def __init__(self, top: argparse.ArgumentParser) -> None:
        self._added = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def add(self, name: str, run: Run, text: str) -> argparse.ArgumentParser:
        """A further command, its options still to be added."""
        made: argparse.ArgumentParser = self._added.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="one JSON document on stdout")
        return made


def parameter_options(made: argparse.ArgumentParser) -> None:
    """The options of a command that takes a stage's parameters."""
    made.add_argument("-f", "--parameters-file", metavar="PARAMS", help="YAML parameter file")
    made.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter; numbers and true/false are read as such",
    )
    made.add_argument(
        "-r",
        "--raw",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "TEXT"),
        help="a parameter as text",
    )
