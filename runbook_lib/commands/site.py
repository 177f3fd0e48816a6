"""Commands over a site: adopt a cluster, watch mainnet, examine machine and site."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from .. import display
from ..errors import ParameterError
from ..outcomes import Value
from ..params import stage_params
from ..verdicts import ExitCode
from ..wording import utc
from .printing import Verbs, print_json, print_standing, tell_rows
from .running import read_parameters

if TYPE_CHECKING:
    from ..watching import Looked


def options(verbs: Verbs) -> None:
    """``adopt``, ``watch`` and ``doctor``."""
    made = verbs.add("adopt", adopt, "take a cluster over as it is")
    made.add_argument("--site", required=True, help="site file, as params/sites/example.yaml")
    made.add_argument("--cluster", required=True, help="one of the site's clusters")
    made.add_argument("--issue", type=int, default=0, help="issue in which it is approved")
    made.add_argument("--approval", default="", help="signed approval file")
    made.add_argument(
        "--artifact", type=Path, action="append", default=[], metavar="FILE",
        help="what a running binary was delivered in: a rollback needs it; may be repeated",
    )  # fmt: skip

    made = verbs.add("watch", watch, "one look of mainnet's watch")
    made.add_argument("what", metavar="RELEASE|mainnet", help="a release, or mainnet with -f")
    made.add_argument("--site", default="", help="site file, where no parameter file names it")
    made.add_argument(
        "-f", "--parameters-file", default="", metavar="PARAMS", help="of the watched attempt"
    )
    made.add_argument(
        "--loop", action="store_true", help="look again whenever it is due, until the watch is over"
    )

    made = verbs.add("doctor", doctor, "is this machine and site able to run a stage")
    made.add_argument("--site", default="", help="site file (default: look at this machine alone)")


def adopt(args: argparse.Namespace) -> int:
    """Take a cluster over as it is; 4 while the approval is missing."""
    from ..changes.adopt import adopt as take_over

    done = take_over(
        args.site,
        args.cluster,
        issue=args.issue,
        approval=args.approval,
        artifacts=[path.resolve() for path in args.artifact],
    )
    document = {
        "cluster": args.cluster,
        "digest": done.digest,
        "nodes": {name: state.model_dump(mode="json") for name, state in done.states.items()},
        "approved_by": list(done.approved_by),
        "self_approved": done.self_approved,
    }
    if args.json:
        print_json(document)
    else:
        rows: list[Sequence[Value]] = []
        for name, state in done.states.items():
            gates = ", ".join(gate for gate, on in state.gates.items() if on)
            files = (state.binary[:19], state.artifact[:19] or "not known")
            rows.append((name, state.channel, gates, *files))
        columns = ("node", "channel", "gates on", "binary", "artifact")
        print(display.table_card(f"{args.cluster}: {done.digest}", columns, rows).text)
        by = ", ".join(done.approved_by) + (" (self-approved)" if done.self_approved else "")
        print(
            f"adopted, approved by {by}" if by else f"not adopted: comment `approve {done.digest}`"
        )
    return 0 if done.approved_by else int(ExitCode.WAITING)


def watch(args: argparse.Namespace) -> int:
    """One look of mainnet's watch; 4 when nothing is wrong and it is not over."""
    from ..site import read_site
    from ..sources.scope import read_clock
    from ..watching import look

    site, release = args.site, args.what
    if args.parameters_file:
        if args.what != "mainnet" or args.site:
            raise ParameterError("watch: expected `mainnet -f PARAMS` or `--site SITE RELEASE`")
        args.parameter, args.raw = [], []
        values, where = read_parameters(args)
        params = stage_params("mainnet", values, where)
        site, release = params.site, params.release
    if not site:
        raise ParameterError("watch: expected --site or a parameter file that names one, got none")
    found = look(site, release)
    while args.loop and found.due is not None:
        _told(found, as_json=args.json)
        now, _ = read_clock(read_site(site).clock)
        sleep(max(0.0, (found.due - now).total_seconds()))
        found = look(site, release)
    return _told(found, as_json=args.json)


def _told(found: Looked, *, as_json: bool) -> int:
    """Print what a look came to; its exit code."""
    result, due = found.standing.result, found.due or found.standing.return_at
    if as_json:
        rows = result.rows if result is not None else ()
        document = {
            "attempt": found.attempt.name,
            "outcome": found.standing.outcome.value,
            "exit_code": int(found.exit_code),
            "return_at": due.isoformat() if due else None,
            "status": found.line,
            "rows": [row.model_dump(mode="json") for row in rows],
        }
        print_json(document)
    else:
        print(found.line)
        print_standing(found.standing)
        if due is not None:
            print(f"look again at {utc(due)}")
    return int(found.exit_code)


def doctor(args: argparse.Namespace) -> int:
    """Is this machine, and this site, able to run a stage."""
    from ..doctor import examine

    return tell_rows("doctor", examine(args.site), args.json, {})
