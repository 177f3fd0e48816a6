"""``runbook run``, ``lab`` and ``recover``: a stage's parameters from the command line, and its run."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .. import launch
from ..canonical import digest_bytes
from ..changes.kit import JOURNAL
from ..errors import StoreError
from ..evidence.events import Attached
from ..evidence.log import Log
from ..evidence.status import plan_digest
from ..evidence.status import verdict as verdict_of
from ..evidence.store import Store
from ..files import keep_file
from ..next_steps import next_steps, verdict_card
from ..opening import prepare_attempt
from ..params import STAGE_PARAMS, RecoveryParams, StageParams, stage_params
from ..signatures import KEY_ENV, PASSPHRASE_ENV
from ..site import read_site
from ..sources.local import recorded
from ..strict import MAX_FILE, parse_yaml
from ..taking_back import as_logged, what_to_undo
from ..verdicts import ExitCode, Verdict
from .printing import print_json

GOES_ON = "the recovery goes on"
NOT_ITS = frozenset({"mode", "attempt", "as_of", "waivers", "retry_reason"})
"""Parameters of an apply that mean something else to its recovery."""
LONGEST_JOURNAL = 1_000_000


def run(args: argparse.Namespace) -> int:
    """Run a stage headless; the verdict's exit code."""
    params, where = read_parameters(args)
    if args.drop:
        said = {"reason": args.reason, "approval": args.approval}
        dropped = [{"node": node, **said} for node in args.drop]
        params["drops"] = [*params.get("drops", []), *dropped]
        params.setdefault("retry_reason", args.reason)
    return _run(args, args.stage, _continued(args, params, where), where)


def _run(args: argparse.Namespace, stage: str, params: Mapping[str, Any], where: str) -> int:
    """Run a notebook, printing each item as it ends; the verdict's exit code."""
    shown = None if args.json else partial(print, flush=True)
    report = launch.run_stage(stage, params, params_file=where, output=args.output, shown=shown)
    return tell(report, as_json=args.json)


def _continued(args: argparse.Namespace, params: dict[str, Any], where: str) -> dict[str, Any]:
    if not args.go_on:
        return params
    newest = newest_attempt(args.stage, stage_params(args.stage, params, where))
    return {**params, "attempt": newest}


def lab(args: argparse.Namespace) -> int:
    """A copy of the notebook in a new attempt's folder, parameters filled in, open in JupyterLab."""
    params, where = read_parameters(args)
    params = _continued(args, params, where)
    attempt = prepare_attempt(args.stage, params, where)
    path = launch.prepare_copy(args.stage, {**params, "attempt": attempt.number}, attempt.folder)
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


def recover(args: argparse.Namespace) -> int:
    """Take an apply back, or go on with that; the verdict's exit code."""
    runbook = f"{args.stage}_recovery"
    params, where = _recovery(args)
    if args.kit is not None:
        params["attempt"] = attach_journal(args.kit, runbook, params, where)
    return _run(args, runbook, params, where)


def attach_journal(kit: Path, runbook: str, params: Mapping[str, Any], where: str) -> int:
    """Keep the journal of a recovery kit that was used as a file of the recovery's attempt.

    It is neither parsed nor believed: the recovery reads every node back. Returns the attempt's
    number. Raises OSError, LogDamaged for a kit that has no readable journal.
    """
    journal = recorded(kit / JOURNAL, LONGEST_JOURNAL)
    attempt, digest = prepare_attempt(runbook, params, where), digest_bytes(journal)
    name = f"kit/journal-{digest.removeprefix('sha256:')[:12]}.tsv"
    path = keep_file(attempt.folder, name, journal)
    about = Attached(kit=kit.resolve().name, file=f"kit/{path.name}", digest=digest)
    attempt.log.append(about)
    return attempt.number


def _recovery(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The recovery's parameters, and where they come from. Raises ParameterError, StoreError.

    A parameter file of the apply will do as well. A recovery that was begun and has not passed is
    gone on with.
    """
    values, where = read_parameters(args, args.reason)
    given = {name for name, _ in (*args.parameter, *args.raw)}
    theirs = set(STAGE_PARAMS[args.stage].model_fields) - set(RecoveryParams.model_fields)
    if theirs & set(values):
        left_out = (theirs | NOT_ITS) - given
        values = {name: value for name, value in values.items() if name not in left_out}
    values.setdefault("mode", "apply")
    if args.nodes:
        values["nodes"] = [name for text in args.nodes for name in text.split(",") if name]
    if args.reason:
        values["break_glass"] = args.reason
    params = stage_params(f"{args.stage}_recovery", values, where)
    if params.site and not params.attempt and (number := _unfinished(args.stage, params)):
        values["attempt"] = number
        values.setdefault("retry_reason", GOES_ON)
    return values, where


def _unfinished(stage: str, params: StageParams) -> int:
    """The number of the newest recovery with these parameters, unless it passed; 0 for none."""
    assert isinstance(params, RecoveryParams)
    store = Store(read_site(params.site).store_path)
    found = store.readable(params.release, f"{stage}_recovery")[0]
    mine = [one for one in found if one.opened.params == params.fixed()]
    if not mine:
        return 0
    opened, code = mine[-1].opened, verdict_of(mine[-1].log.events()).exit_code
    undoes, _ = what_to_undo(store, params.release, stage, opened.source, params.undoes)
    if code is ExitCode.PASSED or opened.undoes != undoes:
        return 0
    return mine[-1].number


def tell(report: Any, *, as_json: bool) -> int:
    """Print how a run ended: the verdict, where the evidence is, what to do next."""
    verdict: Verdict | None = report.verdict
    if as_json:
        print_json(report_document(report))
    elif verdict is not None:
        print(verdict_card(verdict, report.folder).text)
        if plan := _plan_of(report):
            print(f"plan      {plan}")
        if report.folder is not None:
            print(f"evidence  {report.folder}")
    return int(report.exit_code)


def report_document(report: Any) -> dict[str, Any]:
    """The one JSON document of a run."""
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
    if report.folder is None:
        return None
    return plan_digest(Log(report.folder / "log.jsonl").events()) or None


def read_parameters(args: argparse.Namespace, reason: str = "") -> tuple[dict[str, Any], str]:
    """Parameters of a file and of ``-p``/``-r``, and where they come from. Raises ParameterError.

    A file in an attempt's folder must say what the log there says, unless there is a ``reason``.
    """
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
    store = Store(read_site(params.site).store_path)
    attempts, problems = store.readable(params.release, stage)
    if problems:
        raise StoreError(problems[0])
    mine = [one for one in attempts if one.opened.mode == params.mode]
    if not mine:
        what = f"expected an attempt with mode: {params.mode} to continue, got none yet"
        raise StoreError(f"{params.release}/{stage}: {what}")
    return mine[-1].number
