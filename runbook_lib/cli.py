"""``runbook``: every command with its options. What a command does is imported when it is called.

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

from .commands.printing import Parser, Verbs, print_json
from .errors import RunbookError, guarded
from .playbook import NOTEBOOKS, STAGES

RUNBOOKS = sorted(NOTEBOOKS)
SITE = "site file, as params/sites/example.yaml"


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


# --- The commands, in the order in which help lists them ---


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = Parser(prog="runbook", description="Staged-rollout runbooks for rpp-chain.")
    verbs = Verbs(top)
    for module, commands in (
        ("commands.running", (
            ("run", _run, "run a stage headless and seal it"),
            ("lab", _lab, "open a stage in JupyterLab, parameters filled in"),
            ("recover", _recover, "take an apply back"),
        )),
        ("approve", (
            ("approve", _approve, "sign an approval, acknowledgement or sign-off"),
            ("node-report", _node_report, "sign a report of a node of yours"),
        )),
        ("incident", (("incident", _incident, "what became of incidents; end one"),)),
        ("commands.evidence", (
            ("verify", _verify, "verify an attempt from its files and the trusted keys"),
            ("replay", _attempt, "run our notebook over an attempt's tape and compare"),
            ("seal", _seal, "seal an attempt that was stepped through by hand"),
            ("head", _attempt, "the head of an attempt, to be kept outside the store"),
            ("publish", _attempt, "attach a sealed apply to its release, update its issue"),
            ("diff", _diff, "what two attempts differ in"),
            ("render", _render, "an executed notebook as one HTML page"),
        )),
        ("commands.site", (
            ("status", _status, "where a release stands"),
            ("adopt", _adopt, "take a cluster over as it is"),
        )),
        ("commands.watch", (("watch", _watch, "one look of mainnet's watch"),)),
        ("commands.doctor", (
            ("doctor", _doctor, "is this machine and site able to run a stage"),
        )),
        ("commands.files", (
            ("verify-artifact", _verify_artifact, "verify a release artifact's signature"),
            ("judge", _judge, "judge a file of samples against its baseline"),
            ("schema", _schema, "JSON Schema of a file we read"),
        )),
    ):  # fmt: skip
        for name, options, text in commands:
            options(verbs.add(name, _of(module, name.replace("-", "_")), text))
    for command in entry_points(group="runbook.commands"):  # of packages installed beside this one
        command.load()(verbs)
    return top


def _of(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    return lambda args: int(getattr(import_module(f".{module}", __package__), name)(args))


def _parameters(made: argparse.ArgumentParser) -> None:
    made.add_argument("-f", "--parameters-file", metavar="PARAMS", help="YAML parameter file")
    for short, long, value, text in (
        ("-p", "--parameter", "VALUE", "a parameter; numbers and true/false are read as such"),
        ("-r", "--raw", "TEXT", "a parameter as text"),
    ):
        names = ("NAME", value)
        made.add_argument(
            short, long, nargs=2, action="append", default=[], metavar=names, help=text
        )


def _stage(made: argparse.ArgumentParser) -> None:
    made.add_argument("stage", choices=RUNBOOKS, help="which runbook")
    _parameters(made)
    made.add_argument(
        "--continue", dest="go_on", action="store_true", help="go on with the newest attempt"
    )


def _run(made: argparse.ArgumentParser) -> None:
    _stage(made)
    made.add_argument("-o", "--output", type=Path, help="also write the executed notebook here")
    made.add_argument(
        "--drop", action="append", default=[], metavar="NODE", help="leave a node out of the plan"
    )
    made.add_argument("--reason", default="", help="why a node is left out")
    made.add_argument("--approval", default="", metavar="FILE", help="a signed approval of that")


def _lab(made: argparse.ArgumentParser) -> None:
    _stage(made)
    made.add_argument("--no-browser", action="store_true", help="serve it and print the address")


def _recover(made: argparse.ArgumentParser) -> None:
    made.add_argument("stage", choices=STAGES, help="whose apply is taken back")
    _parameters(made)
    made.add_argument(
        "--nodes", action="append", default=[], metavar="NODE,...", help="only these (default: all)"
    )
    made.add_argument("--reason", default="", help="break-glass: why without an approval")
    made.add_argument("-o", "--output", type=Path, help="also write the executed notebook here")
    made.add_argument(
        "--kit", type=Path, metavar="DIR", help="a recovery kit that was used: keep its journal"
    )


def _approve(made: argparse.ArgumentParser) -> None:
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
    made.add_argument("--site", required=True, help=SITE)
    made.add_argument("--key", type=Path, required=True, help="Ed25519 private key: PEM or raw")
    made.add_argument("--passphrase-env", default="", help="variable that holds its passphrase")
    made.add_argument("--release", default="", help="of a word about a window")
    made.add_argument("--stage", default="", choices=STAGES, help="of that window")
    made.add_argument("--window", default="", metavar="START/END", help="ISO 8601 instants")
    made.add_argument("--validator", default="", help="node or address, of several with one key")
    made.add_argument("-o", "--output", type=Path, help="the file (default: the site's folder)")


def _node_report(made: argparse.ArgumentParser) -> None:
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


def _incident(made: argparse.ArgumentParser) -> None:
    made.add_argument("what", metavar="ID|RELEASE", help="one incident, or all of a release")
    made.add_argument("--site", required=True, help=SITE)
    steps = made.add_mutually_exclusive_group()
    for step, text in (
        ("close", "it is over, for the --reason given"),
        ("sign-off", "log somebody else's approval of its closing"),
        ("ratify", "log the council's approval of its break-glass"),
    ):
        steps.add_argument(f"--{step}", dest="step", action="store_const", const=step, help=text)
    made.add_argument("--reason", default="", help="why it is over")
    made.add_argument("--issue", type=int, default=0, help="a further issue to read words in")
    made.add_argument("--approval", default="", metavar="FILE", help="a signed approval")


def _attempt(made: argparse.ArgumentParser) -> None:
    made.add_argument("path", type=Path, help="folder of the attempt")


def _trusting(made: argparse.ArgumentParser) -> None:
    text = "who may sign: the site file, or one of its signers alone"
    made.add_argument("--trust", metavar="FILE", help=text)


def _verify(made: argparse.ArgumentParser) -> None:
    _attempt(made)
    text = "the head that was handed over, as sha256:DIGEST"
    made.add_argument("--head", default="", help=text)
    _trusting(made)


def _seal(made: argparse.ArgumentParser) -> None:
    _attempt(made)
    text = "sign what is sealed already, with one more key"
    made.add_argument("--sign", action="store_true", help=text)


def _diff(made: argparse.ArgumentParser) -> None:
    made.add_argument("first", type=Path, help="folder of an attempt")
    made.add_argument("second", type=Path, help="folder of the other")


def _render(made: argparse.ArgumentParser) -> None:
    made.add_argument("path", type=Path, help="folder of the attempt, or a notebook")
    made.add_argument("-o", "--output", type=Path, help="the page (default: in this folder)")
    _trusting(made)


def _status(made: argparse.ArgumentParser) -> None:
    made.add_argument("release", help="such as v1.4.0")
    made.add_argument("--site", required=True, help=SITE)


def _adopt(made: argparse.ArgumentParser) -> None:
    made.add_argument("--site", required=True, help=SITE)
    made.add_argument("--cluster", required=True, help="one of the site's clusters")
    made.add_argument("--issue", type=int, default=0, help="issue in which it is approved")
    made.add_argument("--approval", default="", help="signed approval file")
    made.add_argument(
        "--artifact", type=Path, action="append", default=[], metavar="FILE",
        help="what a running binary was delivered in: a rollback needs it; may be repeated",
    )  # fmt: skip


def _watch(made: argparse.ArgumentParser) -> None:
    made.add_argument("what", metavar="RELEASE|mainnet", help="a release, or mainnet with -f")
    made.add_argument("--site", default="", help="site file, where no parameter file names it")
    made.add_argument(
        "-f", "--parameters-file", default="", metavar="PARAMS", help="of the watched attempt"
    )
    text = "look again whenever it is due, until the watch is over"
    made.add_argument("--loop", action="store_true", help=text)


def _doctor(made: argparse.ArgumentParser) -> None:
    made.add_argument("--site", default="", help="site file (default: look at this machine alone)")


def _verify_artifact(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--artifact", required=True, metavar="F|sha256:HEX", help="file, or its digest alone"
    )
    made.add_argument("--bundle", type=Path, help="sigstore bundle")
    made.add_argument("--signature", type=Path, help="detached signature")
    made.add_argument("--certificate", type=Path, help="certificate of a detached signature")
    made.add_argument("--key", type=Path, help="PEM public key, in place of an identity")
    made.add_argument("--identity", default="", help="who must have signed (exact)")
    made.add_argument("--issuer", default="", help="who must have vouched for the identity")
    made.add_argument("--trusted-root", type=Path, help="sigstore's JSON, for an identity")
    made.add_argument("--provenance", type=Path, help="in-toto statement, or a bundle of one")
    made.add_argument("--sbom", type=Path, help="CycloneDX JSON, with its signature beside it")
    made.add_argument("--commit", default="", help="commit that it must be built from")
    made.add_argument("--offline", action="store_true", help="look nothing up in a log")


def _judge(made: argparse.ArgumentParser) -> None:
    made.epilog = (
        "A file has a column time (ISO 8601, or seconds since 1970) at a constant step and a column "
        "for each series; a missing point is never passed over. Exit code: 0 every series is proven "
        "no worse, 1 one is proven worse, 2 neither is proven, 3 a file or an argument is wrong."
    )
    made.add_argument("--baseline", type=Path, required=True, help=".csv or .parquet")
    made.add_argument("--current", type=Path, required=True, help=".csv or .parquet")
    made.add_argument(
        "--direction", choices=("lower", "higher", "either"), required=True, help="what is better"
    )
    made.add_argument(
        "--tolerance", type=float, required=True, help="how much worse is fine: 0.1 is 10 %%"
    )
    made.add_argument(
        "--absolute", action="store_true", help="tolerance in the series' unit, not as a share"
    )
    made.add_argument("--column", help="judge this series alone (default: all)")
    made.add_argument("--looks", type=int, default=1, help="how often this watch is judged")
    made.add_argument("--look", type=int, help="which of them this is, from 1")
    made.add_argument("--tail", action="store_true", help="judge the 95th percentile as well")


def _schema(made: argparse.ArgumentParser) -> None:
    text = "the site file, or a runbook's parameters"
    made.add_argument("which", choices=("site", *RUNBOOKS), help=text)


if __name__ == "__main__":
    raise SystemExit(main())
