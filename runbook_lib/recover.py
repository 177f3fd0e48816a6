"""``runbook recover``: the newest apply of a stage taken back, headless, in one command."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from . import kit_store, kits
from .commands.printing import print_line, print_standing
from .commands.running import read_parameters, tell
from .errors import ParameterError
from .evidence.standing import verdict
from .evidence.store import Attempt, Store
from .evidence.undoing import what_to_undo
from .params import STAGE_PARAMS, RecoveryParams, StageParams, stage_params
from .site import read_site
from .verdicts import ExitCode

GOES_ON = "the recovery goes on"
NOT_ITS = frozenset({"mode", "attempt", "as_of", "wait", "waivers", "retry_reason"})
"""Parameters of an apply that mean something else to its recovery."""


def recover(args: argparse.Namespace) -> int:
    """Take an apply back, or go on with that; the verdict's exit code."""
    from .launch import run_stage

    runbook = f"{args.stage}_recovery"
    if args.no_store != (args.kit is not None) or (args.no_store and args.imported):
        raise ParameterError("recover: expected --no-store with --kit KIT, or --import KIT alone")
    if args.no_store:
        found, _ = read_parameters(args)
        args.raw += [("site", str(kit_store.without_store(args.stage, args.kit, found)))]
    params, where = parameters(args)
    refused: tuple[str, ...] = ()
    if args.imported is not None:
        brought = kits.bring_in(args.stage, args.imported, params, where)
        params["attempt"], refused = brought.attempt.number, brought.refused
        said = [f"imported {brought.added} entries into {brought.attempt.name}", *refused]
        sys.stderr.write("\n".join([*said, ""]))
        params |= {key: value for key, value in _fixed(brought.attempt).items() if key != "site"}
        params.setdefault("retry_reason", GOES_ON)
    report = run_stage(
        runbook,
        params,
        params_file=where,
        output=args.output,
        shown=None if args.json else print_standing,
        told=None if args.json else print_line,
    )
    code = tell(report, as_json=args.json)
    return code or (int(ExitCode.INCONCLUSIVE) if refused else 0)


def _fixed(attempt: Attempt) -> dict[str, Any]:
    """The parameters that an attempt was opened with."""
    return dict(attempt.record.entries()[0].body["params"])


def parameters(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The recovery's parameters, and where they come from. Raises ParameterError, StoreError.

    A parameter file of the apply will do as well. A recovery that was begun and has not passed is
    gone on with.
    """
    values, where = read_parameters(args)
    given = {name for name, _ in (*args.parameter, *args.raw)}
    theirs = set(STAGE_PARAMS[args.stage].model_fields) - set(RecoveryParams.model_fields)
    if theirs & set(values):
        values = {
            name: value
            for name, value in values.items()
            if name in given or name not in theirs | NOT_ITS
        }
    values.setdefault("mode", "apply")
    if args.nodes:
        values["nodes"] = [name for text in args.nodes for name in text.split(",") if name]
    if args.reason:
        values["break_glass"] = args.reason
    params = stage_params(f"{args.stage}_recovery", values, where)
    if params.site and not params.attempt and (number := unfinished(args.stage, params)):
        values["attempt"] = number
        values.setdefault("retry_reason", GOES_ON)
    return values, where


def unfinished(stage: str, params: StageParams) -> int:
    """The number of the newest recovery with these parameters, unless it passed; 0 for none."""
    assert isinstance(params, RecoveryParams)
    store = Store(read_site(params.site).store_path)
    mine = [
        one
        for one in store.readable(params.release, f"{stage}_recovery")[0]
        if store.opened(one)["params"] == params.fixed()
    ]
    if not mine:
        return 0
    opened, found = store.opened(mine[-1]), verdict(mine[-1].record.entries())
    undoes, _ = what_to_undo(store, params.release, stage, opened["source"], params.undoes)
    if found.exit_code is ExitCode.PASSED or opened["undoes"] != undoes:
        return 0
    return mine[-1].number
