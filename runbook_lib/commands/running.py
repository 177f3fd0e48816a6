"""``runbook run`` and ``runbook lab``: a stage's parameters from the command line, and its run."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..params import StageParams, stage_params
from ..signatures import KEY_ENV, PASSPHRASE_ENV
from ..strict import MAX_FILE, parse_yaml
from ..verdicts import Verdict
from .printing import RUNBOOKS, Verbs, parameter_options, print_json, print_line, print_standing


def options(verbs: Verbs) -> None:
    """``run`` and ``lab``."""
    made = verbs.add("run", run, "run a stage headless and seal it")
    opened = verbs.add("lab", lab, "open a stage in JupyterLab, parameters filled in")
    for each in (made, opened):
        each.add_argument("stage", choices=RUNBOOKS, help="which runbook")
        parameter_options(each)
        each.add_argument(
            "--continue", dest="go_on", action="store_true", help="go on with the newest attempt"
        )
    made.add_argument("-o", "--output", type=Path, help="also write the executed notebook here")
    made.add_argument(
        "--drop", action="append", default=[], metavar="NODE", help="leave a node out of the plan"
    )
    made.add_argument("--reason", default="", help="why a node is left out")
    made.add_argument("--approval", default="", metavar="FILE", help="a signed approval of that")
    opened.add_argument("--no-browser", action="store_true", help="serve it and print the address")


def run(args: argparse.Namespace) -> int:
    """Run a stage headless; the verdict's exit code."""
    params, where = read_parameters(args)
    if args.drop:
        dropped = [{"node": node, "reason": args.reason, "approval": args.approval}
                   for node in args.drop]  # fmt: skip
        params["drops"] = [*params.get("drops", []), *dropped]
        params.setdefault("retry_reason", args.reason)
    if args.go_on:
        params["attempt"] = newest_attempt(args.stage, stage_params(args.stage, params, where))
    return run_and_tell(args, args.stage, params, where)


def run_and_tell(
    args: argparse.Namespace, stage: str, params: Mapping[str, Any], where: str
) -> int:
    """Run a notebook, printing each item as it ends; the verdict's exit code."""
    from ..launch import run_stage

    report = run_stage(
        stage,
        params,
        params_file=where,
        output=args.output,
        shown=None if args.json else print_standing,
        told=None if args.json else print_line,
    )
    return tell(report, as_json=args.json)


def lab(args: argparse.Namespace) -> int:
    """A copy of the notebook in a new attempt's folder, parameters filled in, open in JupyterLab."""
    from ..launch import prepare_copy
    from ..opening import prepare_attempt

    params, where = read_parameters(args)
    if args.go_on:
        params["attempt"] = newest_attempt(args.stage, stage_params(args.stage, params, where))
    attempt = prepare_attempt(args.stage, params, where)
    path = prepare_copy(args.stage, {**params, "attempt": attempt.number}, attempt.folder)
    # A file's name would be looked up from where we were started; and no address would name it.
    served = (f"--ServerApp.root_dir={path.parent}", f"--LabApp.default_url=/lab/tree/{path.name}")
    server = [sys.executable, "-P", "-m", "jupyterlab"]  # nor does it import from here
    command = [*server, *served, *["--no-browser"] * args.no_browser]
    if not args.json:
        print(f"attempt {attempt.number}: {path}")
        print(f"seal it afterwards with: {shlex.join(['runbook', 'seal', str(path.parent)])}")
        sys.stdout.flush()
        for name in (KEY_ENV, PASSPHRASE_ENV):  # what a kernel runs is judged; it must not sign
            os.environ.pop(name, None)
        os.execv(sys.executable, command)  # noqa: S606 - Ctrl-C and signals are JupyterLab's own
    print_json({"attempt": attempt.number, "notebook": str(path), "command": command})
    return 0


def tell(report: Any, *, as_json: bool) -> int:
    """Print how a run ended: the verdict, where the evidence is, what to do next."""
    verdict: Verdict | None = report.verdict
    if as_json:
        print_json(report_document(report))
    elif verdict is not None:
        from ..next_steps import verdict_card

        print(verdict_card(verdict, report.folder).text)
        if plan := _plan_of(report):
            print(f"plan      {plan}")
        if report.folder is not None:
            print(f"evidence  {report.folder}")
    return int(report.exit_code)


def report_document(report: Any) -> dict[str, Any]:
    """The one JSON document of a run."""
    from ..next_steps import next_steps

    verdict: Verdict | None = report.verdict
    items = verdict.items if verdict is not None else ()
    return {
        "outcome": verdict.outcome.value if verdict is not None else "INCONCLUSIVE",
        "exit_code": int(report.exit_code),
        "return_at": verdict.return_at.isoformat() if verdict and verdict.return_at else None,
        "items": [
            {
                "id": item.item,
                "outcome": item.outcome.value,
                "state": item.state,
                "waived": bool(item.waived),
                "reason": item.reason,
            }
            for item in items
        ],
        "plan": _plan_of(report),
        "evidence": str(report.folder) if report.folder is not None else None,
        "problems": list(report.problems),
        "next": next_steps(verdict, report.folder) if verdict is not None else [],
    }


def _plan_of(report: Any) -> str | None:
    """The digest of the plan that a run made or applied: what an approval quotes."""
    from ..evidence.comment import plan_digest
    from ..evidence.log import Log

    if report.folder is None:
        return None
    return plan_digest(Log(report.folder / "log.jsonl").events()) or None


def read_parameters(args: argparse.Namespace, reason: str = "") -> tuple[dict[str, Any], str]:
    """Parameters of a file and of ``-p``/``-r``, and where they come from. Raises ParameterError.

    A file in an attempt's folder must say what the log there says, unless there is a ``reason``.
    """
    from ..taking_back import as_logged

    values: dict[str, Any] = {}
    where = args.parameters_file or "command line"
    if args.parameters_file:
        with Path(args.parameters_file).open("rb") as file:
            values = parse_yaml(file.read(MAX_FILE + 1), args.parameters_file)
        values = as_logged(Path(args.parameters_file), values, reason)
    values |= {name: _typed(text) for name, text in args.parameter}
    values |= dict(args.raw)
    return values, where


def _typed(text: str) -> Any:
    """As papermill reads ``-p``: true/false, whole numbers and numbers; all else is text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def newest_attempt(stage: str, params: StageParams) -> int:
    """The number of the release's newest attempt at a stage in this mode. Raises StoreError.

    A plan made meanwhile does not hide the apply that waits.
    """
    from ..evidence.store import Store
    from ..site import read_site

    store = Store(read_site(params.site).store_path)
    attempts = store.attempts(params.release, stage)
    mine = [one for one in attempts if store.opened(one).mode == params.mode]
    if not mine:
        what = f"expected an attempt with mode: {params.mode} to continue, got none yet"
        raise StoreError(f"{params.release}/{stage}: {what}")
    return mine[-1].number
