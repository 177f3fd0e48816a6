"""``runbook``: thin commands over the library.

Results go to stdout (``--json``: one document), errors to stderr as ``where: what: expected X,
got Y``. Exit codes: 0 passed, 1 refused, 2 inconclusive, 3 broken or wrong usage, 4 waiting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from .commands import evidence, files, running, site, status
from .commands.printing import print_json
from .errors import RunbookError
from .playbook import NOTEBOOKS, STAGES

Run = Callable[[argparse.Namespace], int]
RUNBOOKS = sorted(NOTEBOOKS)


class _Parser(argparse.ArgumentParser):
    """Usage errors end with 3: 2 means inconclusive here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(3, f"{self.prog}: error: {message}\n")


class _Verbs:
    """The commands: each with its function, what it does in a few words, and ``--json``."""

    def __init__(self, top: argparse.ArgumentParser) -> None:
        self._added = top.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def add(self, name: str, run: Run, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = self._added.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="one JSON document on stdout")
        return made


def parser() -> argparse.ArgumentParser:
    """Every command with its options, in the order in which help lists them."""
    top = _Parser(prog="runbook", description="Staged-rollout runbooks for rpp-chain.")
    verbs = _Verbs(top)
    _stages(verbs)
    _people(verbs)
    _attempts(verbs)
    _files(verbs)
    _releases(verbs)
    return top


# --- running a stage ------------------------------------------------------------------------------


def _stages(verbs: _Verbs) -> None:
    run = verbs.add("run", running.run, "run a stage headless and seal it")
    run.add_argument("stage", choices=RUNBOOKS)
    _parameter_options(run)
    run.add_argument(
        "--continue", dest="go_on", action="store_true", help="go on with the newest attempt"
    )
    run.add_argument("-o", "--output", type=Path, help="also write the executed notebook here")
    run.add_argument(
        "--drop", action="append", default=[], metavar="NODE", help="leave a node out of the plan"
    )
    run.add_argument("--reason", default="", help="why a node is left out")
    run.add_argument("--approval", default="", metavar="FILE", help="a signed approval of that")
    _recover_options(verbs.add("recover", _recover, "take an apply back"))
    lab = verbs.add("lab", running.lab, "open a stage in JupyterLab, parameters filled in")
    lab.add_argument("stage", choices=RUNBOOKS)
    _parameter_options(lab)
    lab.add_argument(
        "--continue", dest="go_on", action="store_true", help="go on with the newest attempt"
    )
    lab.add_argument("--no-browser", action="store_true", help="only prepare and print the address")

    rehearse = verbs.add("rehearse", _rehearse, "practise on a network of our own")
    rehearse.add_argument("--fault", action="append", default=[], metavar="NAME[@STAGE]")
    rehearse.add_argument("--list-faults", action="store_true")
    rehearse.add_argument(
        "--until", choices=[s for s in STAGES if s in NOTEBOOKS], default="", help="last stage"
    )
    rehearse.add_argument("--serve", action="store_true", help="only keep the network up")
    rehearse.add_argument("--root", type=Path, help="folder of the network (default: .rehearsal/)")
    rehearse.add_argument("--seed", type=int, default=1)
    rehearse.add_argument("--servers", choices=("auto", "real", "embedded"), default="auto")


def _parameter_options(made: argparse.ArgumentParser) -> None:
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


def _recover_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("stage", choices=STAGES)
    _parameter_options(made)
    made.add_argument(
        "--nodes", action="append", default=[], metavar="NODE,...", help="only these (default: all)"
    )
    made.add_argument("--reason", default="", help="break-glass: why without an approval")
    made.add_argument("-o", "--output", type=Path, help="also write the executed notebook here")
    made.add_argument(
        "--import", dest="imported", type=Path, metavar="KIT", help="a recovery kit that was used"
    )
    made.add_argument("--no-store", action="store_true", help="the store is gone: work in --kit")
    made.add_argument("--kit", type=Path, help="the recovery kit that stands in for the store")


# --- words of people ------------------------------------------------------------------------------


def _people(verbs: _Verbs) -> None:
    adopt = verbs.add("adopt", site.adopt, "take a cluster over as it is")
    adopt.add_argument("--site", required=True)
    adopt.add_argument("--cluster", required=True)
    adopt.add_argument("--issue", type=int, default=0, help="issue in which it is approved")
    adopt.add_argument("--approval", default="", help="signed approval file")

    approve = verbs.add("approve", _approve, "sign an approval, acknowledgement or sign-off")
    approve.add_argument("digest", nargs="?", default="", help="of the plan, waiver or state")
    kinds = approve.add_mutually_exclusive_group()
    for flag, text in (
        ("--acknowledge", "a validator knows the window"),
        ("--sign-off", "a validator accepts window and plan"),
    ):
        kinds.add_argument(flag, dest="kind", action="store_const", const=flag[2:], help=text)
    approve.set_defaults(kind="approve")
    approve.add_argument("--withdraw", action="store_true", help="take back what was said")
    approve.add_argument("--site", required=True)
    approve.add_argument("--key", type=Path, required=True, help="Ed25519 private key: PEM or raw")
    approve.add_argument("--passphrase-env", default="", help="variable that holds its passphrase")
    approve.add_argument("--release", default="")
    approve.add_argument("--stage", default="", choices=STAGES)
    approve.add_argument("--window", default="", metavar="START/END", help="ISO 8601 instants")
    approve.add_argument("--validator", default="", help="node or address, of several with one key")
    approve.add_argument("-o", "--output", type=Path, help="the file (default: the site's folder)")

    _node_report_options(verbs.add("node-report", _node_report, "sign a report of a node of yours"))


def _node_report_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--node", required=True, help="its name, as the instruction has it")
    made.add_argument("--url", required=True, help="of its RPC")
    made.add_argument("--token-env", default="", help="variable that holds the RPC's token")
    made.add_argument("--config", type=Path, required=True, help="the TOML that it runs on")
    made.add_argument("--binary", type=Path, required=True, help="the binary that it runs")
    made.add_argument("--target", type=Path, required=True, help="the TOML it was to run on")
    made.add_argument("--key", type=Path, required=True, help="the validator's sign-off key")
    made.add_argument("--passphrase-env", default="", help="variable that holds its passphrase")
    made.add_argument("--release", required=True)
    made.add_argument("--stage", required=True, choices=STAGES)
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


# --- evidence -------------------------------------------------------------------------------------


def _attempts(verbs: _Verbs) -> None:
    for name, function, text in (
        ("verify", evidence.verify, "verify an attempt from its files alone"),
        ("replay", evidence.replay, "run our notebook over an attempt's tape and compare"),
        ("seal", evidence.seal, "seal an attempt that was stepped through by hand"),
        ("publish", evidence.publish, "attach a sealed apply to its release, update its issue"),
    ):
        verbs.add(name, function, text).add_argument(
            "path", type=Path, help="folder of the attempt"
        )
    render = verbs.add("render", evidence.render, "an executed notebook as one HTML page")
    render.add_argument("path", type=Path, help="folder of the attempt, or a notebook")
    render.add_argument("-o", "--output", type=Path, help="the page (default: beside the notebook)")


def _files(verbs: _Verbs) -> None:
    artifact = verbs.add(
        "verify-artifact", files.verify_artifact, "verify a release artifact's signature"
    )
    artifact.add_argument("--artifact", required=True, metavar="F|sha256:HEX")
    artifact.add_argument("--bundle", type=Path, help="sigstore bundle")
    artifact.add_argument("--signature", type=Path, help="detached signature")
    artifact.add_argument("--certificate", type=Path, help="certificate of a detached signature")
    artifact.add_argument("--key", type=Path, help="PEM public key, in place of an identity")
    artifact.add_argument("--identity", default="", help="who must have signed (exact)")
    artifact.add_argument("--issuer", default="", help="who must have vouched for the identity")
    artifact.add_argument("--trusted-root", type=Path, help="default: the one sigstore ships")
    artifact.add_argument("--provenance", type=Path, help="in-toto statement, or a bundle of one")
    artifact.add_argument("--sbom", type=Path, help="CycloneDX JSON, with its signature beside it")
    artifact.add_argument("--commit", default="", help="commit that it must be built from")
    artifact.add_argument("--offline", action="store_true", help="look nothing up in a log")

    judge = verbs.add("judge", files.judge, "judge a file of samples against its baseline")
    judge.epilog = (
        "A file has a column time (ISO 8601, or seconds since 1970) at a constant step and a column "
        "for each series; a missing point is never passed over. Exit code: 0 every series is proven "
        "no worse, 1 one is proven worse, 2 neither is proven, 3 a file or an argument is wrong."
    )
    judge.add_argument("--baseline", type=Path, required=True, help=".csv or .parquet")
    judge.add_argument("--current", type=Path, required=True, help=".csv or .parquet")
    judge.add_argument(
        "--direction", choices=("lower", "higher", "either"), required=True, help="what is better"
    )
    judge.add_argument(
        "--tolerance", type=float, required=True, help="how much worse is fine: 0.1 is 10 %%"
    )
    judge.add_argument(
        "--absolute", action="store_true", help="tolerance in the series' unit, not as a share"
    )
    judge.add_argument("--column", help="judge this series alone (default: all)")
    judge.add_argument("--looks", type=int, default=1, help="how often this watch is judged")
    judge.add_argument("--look", type=int, help="which of them this is, from 1")
    judge.add_argument("--tail", action="store_true", help="judge the 95th percentile as well")


# --- where a release and a site stand -------------------------------------------------------------


def _releases(verbs: _Verbs) -> None:
    told = verbs.add("status", status.status, "where a release stands")
    told.add_argument("release")
    told.add_argument("--site", required=True)
    _incident_options(verbs.add("incident", _incident, "what became of incidents; end one"))
    watch = verbs.add("watch", site.watch, "one look of mainnet's watch")
    watch.add_argument("what", metavar="RELEASE|mainnet", help="a release, or mainnet with -f")
    watch.add_argument("--site", default="", help="site file, where no parameter file names it")
    watch.add_argument(
        "-f", "--parameters-file", default="", metavar="PARAMS", help="of the watched attempt"
    )
    watch.add_argument(
        "--continue", dest="go_on", action="store_true", help="as for run: it always goes on"
    )
    rules = verbs.add("lint-rules", files.lint_rules, "would Prometheus load these rule files")
    rules.add_argument("path", type=Path, metavar="DIR", help="folder of rule files, or one file")
    rules.add_argument("--series", type=Path, help="names of emitted series, one a line")
    doctor = verbs.add("doctor", site.doctor, "is this machine and site able to run a stage")
    doctor.add_argument("--site", default="")
    schema = verbs.add("schema", files.schema, "JSON Schema of a file we read")
    schema.add_argument("which", choices=("site", *RUNBOOKS))


def _incident_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("what", metavar="ID|RELEASE")
    made.add_argument("--site", required=True)
    steps = made.add_mutually_exclusive_group()
    for step, text in (
        ("acknowledge", "somebody is at it"),
        ("mitigated", "its harm is contained"),
        ("close", "it is over, for the --reason given"),
        ("sign-off", "record somebody else's approval of its closing"),
        ("ratify", "record the council's approval of its break-glass"),
    ):
        steps.add_argument(f"--{step}", dest="step", action="store_const", const=step, help=text)
    made.add_argument("--reason", default="", help="why it is over")
    made.add_argument("--issue", type=int, default=0, help="a further issue to read words in")
    made.add_argument("--approval", default="", metavar="FILE", help="a signed approval")


# --- what is imported only when it is wanted ------------------------------------------------------


def _incident(args: argparse.Namespace) -> int:
    from .incident import incident

    return incident(args)


def _recover(args: argparse.Namespace) -> int:
    from .recover import recover

    return recover(args)


def _node_report(args: argparse.Namespace) -> int:
    from .node_report import node_report

    return node_report(args)


def _approve(args: argparse.Namespace) -> int:
    from .approve import approve

    return approve(args)


def _rehearse(args: argparse.Namespace) -> int:
    from .rehearse import rehearse  # servers and simulation: only when wanted

    return rehearse(args)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except RunbookError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
        if args.json:
            print_json({"outcome": "INCONCLUSIVE", "exit_code": code, "error": str(error)})
    except KeyboardInterrupt:
        print("runbook: cancelled", file=sys.stderr)
        code = 3
    except BrokenPipeError:
        code = 3
    return code


if __name__ == "__main__":
    raise SystemExit(main())
