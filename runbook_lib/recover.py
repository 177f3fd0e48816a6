"""``runbook recover``: the newest apply of a stage taken back, headless, in one command."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .canonical import digest_bytes
from .changes.kit_script import JOURNAL
from .commands.running import read_parameters, run_and_tell
from .evidence.events import Attached
from .evidence.standing import verdict
from .evidence.store import Store
from .files import keep_file
from .opening import prepare_attempt
from .params import STAGE_PARAMS, RecoveryParams, StageParams, stage_params
from .site import read_site
from .sources.local import recorded
from .taking_back import what_to_undo
from .verdicts import ExitCode

GOES_ON = "the recovery goes on"
NOT_ITS = frozenset({"mode", "attempt", "as_of", "waivers", "retry_reason"})
"""Parameters of an apply that mean something else to its recovery."""
LONGEST_JOURNAL = 1_000_000


def recover(args: argparse.Namespace) -> int:
    """Take an apply back, or go on with that; the verdict's exit code."""
    runbook = f"{args.stage}_recovery"
    params, where = parameters(args)
    if args.kit is not None:
        params["attempt"] = attach_journal(args.kit, runbook, params, where)
    return run_and_tell(args, runbook, params, where)


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


def parameters(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
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
    if params.site and not params.attempt and (number := unfinished(args.stage, params)):
        values["attempt"] = number
        values.setdefault("retry_reason", GOES_ON)
    return values, where


def unfinished(stage: str, params: StageParams) -> int:
    """The number of the newest recovery with these parameters, unless it passed; 0 for none."""
    assert isinstance(params, RecoveryParams)
    store = Store(read_site(params.site).store_path)
    found = store.readable(params.release, f"{stage}_recovery")[0]
    mine = [one for one in found if store.opened(one).params == params.fixed()]
    if not mine:
        return 0
    opened, code = store.opened(mine[-1]), verdict(mine[-1].log.events()).exit_code
    undoes, _ = what_to_undo(store, params.release, stage, opened.source, params.undoes)
    if code is ExitCode.PASSED or opened.undoes != undoes:
        return 0
    return mine[-1].number
