"""``runbook``: thin commands over the library.

Results go to stdout (``--json``: one document), errors to stderr as ``where: what: expected X,
got Y``. Exit codes: 0 passed, 1 refused, 2 inconclusive, 3 broken or wrong usage, 4 waiting.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from .commands import evidence, files, running, site, status
from .commands.printing import Parser, Verbs, parameter_options, print_json
from .errors import RunbookError, guarded
from .playbook import STAGES


def parser() -> argparse.ArgumentParser:
    """Every command with its options, in the order in which help lists them."""
    top = Parser(prog="runbook", description="Staged-rollout runbooks for rpp-chain.")
    verbs = Verbs(top)
    running.options(verbs)
    for options, name, module, text in (
        (_recover_options, "recover", "recover", "take an apply back"),
        (_approve_options, "approve", "approve", "sign an approval, acknowledgement or sign-off"),
        (_node_report_options, "node-report", "approve", "sign a report of a node of yours"),
        (_incident_options, "incident", "incident", "what became of incidents; end one"),
    ):
        options(verbs.add(name, _of(module, name.replace("-", "_")), text))
    evidence.options(verbs)
    status.options(verbs)
    site.options(verbs)
    files.options(verbs)
    for command in entry_points(group="runbook.commands"):  # of packages installed beside this one
        command.load()(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    _settle()
    args = argparse.Namespace(json=False)
    try:
        with guarded():
            args = parser().parse_args(argv)
            code: int = args.run(args)
            sys.stdout.flush()
    except RunbookError as error:
        code = _tell(error, as_json=args.json)
    except KeyboardInterrupt:
        print("runbook: cancelled", file=sys.stderr)
        code = 3
    return code


def _settle() -> None:
    """What a process may be started with, and no command could work or speak with."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: the next file we open would take its place
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know few letters
    os.umask(os.umask(0o077) & 0o077)  # we may read what we write


def _tell(error: RunbookError, *, as_json: bool) -> int:
    code = error.exit_code
    try:
        if not isinstance(error.__cause__, BrokenPipeError):  # who reads no more needs no reason
            print(error, file=sys.stderr, flush=True)
        if as_json:
            print_json({"outcome": "INCONCLUSIVE", "exit_code": code, "error": str(error)})
        sys.stdout.flush()
    except OSError:  # what is left would be written when we end, and change the exit code
        for number in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return code


def _of(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    """A command of a module, which is imported when it is called."""
    return lambda args: int(getattr(import_module(f".{module}", __package__), name)(args))


def _recover_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("stage", choices=STAGES, help="whose apply is taken back")
    parameter_options(made)
    made.add_argument(
        "--nodes", action="append", default=[], metavar="NODE,...", help="only these (default: all)"
    )
    made.add_argument("--reason", default="", help="break-glass: why without an approval")
    made.add_argument("-o", "--output", type=Path, help="also write the executed notebook here")
    made.add_argument(
        "--kit", type=Path, metavar="DIR", help="a recovery kit that was used: keep its journal"
    )


def _approve_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("digest", nargs="?", default="", help="of the plan, waiver or state")
    kinds = made.add_mutually_exclusive_group()
    for flag, text in (
        ("--acknowledge", "a validator knows the window"),
        ("--sign-off", "a validator accepts window and plan"),
        ("--accept-policy", "a person accepts what moved of the site"),
    ):
        kinds.add_argument(flag, dest="kind", action="store_const", const=flag[2:], help=text)
    made.set_defaults(kind="approve")
    made.add_argument("--withdraw", action="store_true", help="take back what was said")
    made.add_argument("--site", required=True, help="site file, as params/sites/example.yaml")
    made.add_argument("--key", type=Path, required=True, help="Ed25519 private key: PEM or raw")
    made.add_argument("--passphrase-env", default="", help="variable that holds its passphrase")
    made.add_argument("--release", default="", help="of a word about a window")
    made.add_argument("--stage", default="", choices=STAGES, help="of that window")
    made.add_argument("--window", default="", metavar="START/END", help="ISO 8601 instants")
    made.add_argument("--validator", default="", help="node or address, of several with one key")
    made.add_argument("-o", "--output", type=Path, help="the file (default: the site's folder)")


def _node_report_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--node", required=True, help="its name, as the instruction has it")
    made.add_argument("--url", required=True, help="of its RPC")
    made.add_argument("--token-env", default="", help="variable that holds the RPC's token")
    made.add_argument("--config", type=Path, required=True, help="the TOML that it runs on")
    made.add_argument("--binary", type=Path, required=True, help="the binary that it runs")
    made.add_argument("--target", type=Path, required=True, help="the TOML it was to run on")
    made.add_argument("--key", type=Path, required=True, help="the validator's sign-off key")
    made.add_argument("--passphrase-env", default="", help="variable that holds its passphrase")
    made.add_argument("--release", required=True, help="the release it is about")
    made.add_argument("--stage", required=True, choices=STAGES, help="the stage of the plan")
    made.add_argument("--plan", default="", help="digest of the plan (outside a rollout: none)")
    made.add_argument("--phase", default="", help="of the plan")
    made.add_argument("--clock", type=Path, help="a rehearsal's clock file")
    made.add_argument("-o", "--output", type=Path, help="a file (default: print a comment)")
    made.add_argument(
        "--dry-run",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="CMD",
        help="last: the chain's dry run, {config} where the target goes; made strict",
    )


def _incident_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("what", metavar="ID|RELEASE", help="one incident, or all of a release")
    made.add_argument("--site", required=True, help="site file, as params/sites/example.yaml")
    steps = made.add_mutually_exclusive_group()
    for step, text in (
        ("acknowledge", "somebody is at it"),
        ("mitigated", "its harm is contained"),
        ("close", "it is over, for the --reason given"),
        ("sign-off", "log somebody else's approval of its closing"),
        ("ratify", "log the council's approval of its break-glass"),
    ):
        steps.add_argument(f"--{step}", dest="step", action="store_const", const=step, help=text)
    made.add_argument("--reason", default="", help="why it is over")
    made.add_argument("--issue", type=int, default=0, help="a further issue to read words in")
    made.add_argument("--approval", default="", metavar="FILE", help="a signed approval")


if __name__ == "__main__":
    raise SystemExit(main())
