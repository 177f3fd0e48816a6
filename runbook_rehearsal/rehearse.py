"""``runbook rehearse``: a release carried through its stages on a network of our own.

Only this module knows both sides: the rehearsal network, and the runbooks that are run against it.
"""

import argparse
import ctypes
import json
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from runbook_lib.changes.adopt import adopt
from runbook_lib.commands.printing import print_json
from runbook_lib.commands.running import report_document, tell
from runbook_lib.errors import ParameterError
from runbook_lib.playbook import NOTEBOOKS, STAGES
from runbook_lib.strict import PROJECT
from runbook_lib.verdicts import ExitCode

from .faults.table import FAULTS
from .layout import COMMANDER, ISSUE
from .network import RehearsalNetwork, serve
from .promote import Carried, Comparison, Promotion, compare, turn
from .telemetry.processes import BINARIES, binary

HOME = PROJECT / ".rehearsal"
SERVED = HOME / "network"
HISTORY_S = 36 * 3600.0
LEAN = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # Arrow's own keeps what one read took
    "MALLOC_ARENA_MAX": "1",  # or each thread keeps what it once took
    "GOGC": "25",  # Prometheus and Alertmanager: less garbage for little work
}
"""Environment of all that a rehearsal starts, unless it is set: many programs on one machine."""
M_ARENA_MAX = -8  # malloc.h


def rehearse(args: argparse.Namespace) -> int:
    """Run the stages on a fresh network, or keep one up for others to run against."""
    if args.list_faults:
        return _list_faults(as_json=args.json)
    faults = [_fault(name, args.until) for name in args.fault]
    missing = [name for name in BINARIES if args.servers == "real" and binary(name) is None]
    if missing:
        raise ParameterError(
            f"--servers real: expected {' and '.join(missing)} on PATH; install"
            f" {'them' if len(missing) > 1 else 'it'}, or rehearse on the embedded ones"
        )
    _save_memory()
    if args.serve:
        return _serve(args, faults)
    root = _usable(args.root or _fresh(HOME / "run"))
    # With --json stdout is the document alone.
    say = partial(print, file=sys.stderr if args.json else sys.stdout, flush=True)
    say("starting the rehearsal network ...")
    with RehearsalNetwork(
        root, seed=args.seed, servers=args.servers, history_s=HISTORY_S, team=True
    ) as network:
        _prepare(network, faults)
        say(
            f"network up: {', '.join(network.world.clusters)}; faults: {', '.join(faults) or 'none'}"
        )
        shown = None if args.json else say
        runs = Promotion(network, say, shown, faults).carry(_until(args.until))
        compared = [compare(fault, runs) for fault in faults]
        code = _tell(runs, compared, as_json=args.json)
        if runs[-1].passed and runs[-1].stage == STAGES[-1]:
            say("report: the stages on one page")
            report = Promotion(network, say, shown).report()
            if not args.json:
                print(f"report  {report.output}")
    say("network down")
    if code:
        say("to follow what the card says, keep one up: runbook rehearse --serve")
    return code


def _save_memory() -> None:
    """``LEAN`` for what is started from now on, and its one arena for this process."""
    os.environ.update(LEAN | os.environ)
    with suppress(AttributeError, ValueError):  # glibc alone has it
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, int(os.environ["MALLOC_ARENA_MAX"]))


def _until(stage: str) -> tuple[str, ...]:
    return STAGES[: STAGES.index(stage) + 1] if stage else STAGES


def _tell(runs: Sequence[Carried], compared: Sequence[Comparison], *, as_json: bool) -> int:
    """How the runs ended; the exit code is the last one's, 3 where a fault came out otherwise."""
    ended = runs[-1].report.exit_code
    code = int(ended if all(one.as_declared for one in compared) else ExitCode.BROKEN)
    if as_json:
        documents = [
            {"stage": run.stage, "mode": run.mode, **report_document(run.report)} for run in runs
        ]
        faults = [asdict(one) for one in compared]
        print_json({**documents[-1], "exit_code": code, "faults": faults, "runs": documents})
        return code
    for run in runs[:-1]:
        how = run.report.exit_code  # of a plan the outcome says little: nothing was made yet
        print(f"{run.stage} ({run.mode}): exit {int(how)}, {how.name.lower()} {run.report.folder}")
    tell(runs[-1].report, as_json=False)
    for one in compared:
        print(one)
    return code


def take_over(network: RehearsalNetwork) -> None:
    for cluster in network.world.clusters:
        before = [network.release.previous_artifact]
        found = adopt(str(network.site), cluster, issue=ISSUE, artifacts=before)
        if not found.approved_by:
            network.say(COMMANDER, f"approve {found.digest}")
            adopt(str(network.site), cluster, issue=ISSUE, artifacts=before)


def _prepare(network: RehearsalNetwork, faults: Sequence[str]) -> None:
    """Take the clusters over. Raises ParameterError for faults that this network cannot have."""
    for fault in faults:
        try:
            network.check_fault(fault)
        except ValueError as error:
            raise ParameterError(str(error)) from error
    os.environ.update(network.env)
    take_over(network)


def _serve(args: argparse.Namespace, faults: Sequence[str]) -> int:
    root = args.root or SERVED
    if root == SERVED and root.exists():
        _require_down(root)
        root.rename(_fresh(HOME / "network-before"))

    def ready(network: RehearsalNetwork) -> None:
        _prepare(network, faults)
        for fault in faults:
            network.fault_in_time(fault)
        network.settle()
        document: dict[str, Any] = {
            "root": str(network.root),
            "site": str(network.site),
            "params": {stage: str(path) for stage, path in network.params.items()},
            "environment": str(network.root / "env.sh"),
        }
        if args.json:
            print_json(document)
        else:
            print(_how_to_use(network), flush=True)

    serve(_usable(root), ready, seed=args.seed, servers=args.servers)
    return 0


def _how_to_use(network: RehearsalNetwork) -> str:
    def here(path: Path) -> str:
        return shlex.quote(os.path.relpath(path))

    root, given = here(network.root), f"-f {here(network.params['development'])}"
    notebook = here(PROJECT / "notebooks" / NOTEBOOKS["development"])
    activate = Path(sys.prefix) / "bin" / "activate"
    lines = [
        f". {here(activate)}" if activate.exists() else "",
        f". {here(network.root / 'env.sh')}",
        f"runbook lab development {given}    # in JupyterLab, step by step",
        f"papermill --engine runbook {notebook} out.ipynb {given}",
        f"runbook run development {given}",
        f"runbook status {network.release.version} --site {here(network.site)}",
    ]
    first = (
        f"the rehearsal network is up in {root}; stop it with Ctrl-C. In another shell, from here:"
    )
    return "\n".join([first, *(f"  {line}" for line in lines if line)])


def _require_down(root: Path) -> None:
    """A network that is up keeps its folder. Raises ParameterError."""
    try:
        pid = int(json.loads((root / "network.json").read_bytes())["pid"])
        with suppress(PermissionError):  # somebody else's: there all the same
            os.kill(pid, 0)
    except (OSError, ValueError, KeyError, TypeError):
        return  # stopped, or killed without a word
    raise ParameterError(
        f"{os.path.relpath(root)}: expected no network up, got the one of process {pid}; stop it, or"
        " name another folder with --root"
    )


def _usable(root: Path) -> Path:
    """``root``, made where it is missing; new or empty, and ours to write. Raises ParameterError."""
    got = ""
    try:
        root.mkdir(parents=True, exist_ok=True)
        got = "one in use" if any(root.iterdir()) else ""
    except OSError as error:
        got = str(error.strerror)
    if not got and not os.access(root, os.W_OK | os.X_OK):
        got = "one that cannot be written"
    if got:
        raise ParameterError(
            f"{root}: expected a new or empty folder for the network, got: {got};"
            " name another with --root"
        )
    return root


def _fault(name: str, until: str) -> str:
    """A fault with its place, by default its item's. Raises ParameterError for one that cannot come."""
    known, _, place = name.partition("@")
    if known not in FAULTS:
        near = ", ".join(get_close_matches(known, FAULTS)) or "none like it"
        raise ParameterError(
            f"fault: expected one of `runbook rehearse --list-faults`, got {known!r}; near: {near}"
        )
    text = f"{known}@{place or FAULTS[known].place(FAULTS[known].item)}"
    if (stage := turn(text)[0]) not in (stages := _until(until)):
        raise ParameterError(
            f"fault {name}: expected a stage of {', '.join(stages)}, got {stage!r}"
        )
    return text


def _list_faults(*, as_json: bool) -> int:
    rows = [(fault.name, fault.item, fault.outcome, fault.text) for fault in FAULTS.values()]
    if as_json:
        keys = ("name", "item", "outcome", "text")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        from runbook_lib import display

        columns = ("fault", "item", "outcome", "what is broken")
        print(display.table_card("Faults", columns, rows).text)
    return 0


def _fresh(path: Path) -> Path:
    number = 1
    while path.with_name(f"{path.name}-{number}").exists():
        number += 1
    return path.with_name(f"{path.name}-{number}")
