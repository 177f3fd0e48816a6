"""``runbook rehearse``: a release carried through its stages on a network of our own.

Only this module knows both sides: the rehearsal network, and the runbooks that are run against it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import commands
from .changes.adopt import adopt
from .errors import ParameterError
from .launch import run_stage
from .params import PROJECT, parse_yaml
from .rehearsal.faults import FAULTS
from .rehearsal.network import RehearsalNetwork, serve

HOME = PROJECT / ".rehearsal"
SERVED = HOME / "network"


def rehearse(args: argparse.Namespace) -> int:
    """Run the stages on a fresh network, or keep one up for others to run against."""
    if args.list_faults:
        return _list_faults(as_json=args.json)
    faults = [_fault(name) for name in args.fault]
    if args.serve:
        return _serve(args, faults)
    root = args.root or _fresh(HOME / "run")
    say = _Quiet() if args.json else _Say()
    say("starting the rehearsal network ...")
    with RehearsalNetwork(root, seed=args.seed, servers=args.servers) as network:
        os.environ.update(network.env)
        _prepare(network, faults)
        say(
            f"network up: {', '.join(network.world.clusters)}; faults: {', '.join(faults) or 'none'}"
        )
        say("development: running the notebook headless")
        file = network.params["development"]
        report = run_stage(
            "development",
            parse_yaml(file.read_bytes(), str(file)),
            params_file=str(file),
            shown=None if args.json else commands.print_standing,
        )
        code = commands.tell(report, as_json=args.json)
    say("network down")
    return code


class _Say:
    def __call__(self, text: str) -> None:
        print(text, flush=True)


class _Quiet(_Say):
    def __call__(self, text: str) -> None:
        """With --json stdout is the document alone."""


def _prepare(network: RehearsalNetwork, faults: Sequence[str]) -> None:
    """A rehearsal starts adopted: its clusters are known before anything breaks."""
    for cluster in network.world.clusters:
        adopt(str(network.site), cluster)
    for fault in faults:
        network.fault(fault)
    network.settle()


def _serve(args: argparse.Namespace, faults: Sequence[str]) -> int:
    root = args.root or SERVED
    if root == SERVED and root.exists():
        root.rename(_fresh(HOME / "network-before"))

    def ready(network: RehearsalNetwork) -> None:
        os.environ.update(network.env)
        _prepare(network, faults)
        shown = Path(os.path.relpath(network.root))
        document: dict[str, Any] = {
            "root": str(network.root),
            "site": str(network.site),
            "params": {stage: str(path) for stage, path in network.params.items()},
            "environment": str(network.root / "env.sh"),
        }
        if args.json:
            commands.print_json(document)
        else:
            print(f"the rehearsal network is up in {shown}; stop it with Ctrl-C. In another shell:")
            print(f"  . {shown}/env.sh")
            print("  papermill --engine runbook notebooks/10_development.ipynb out.ipynb \\")
            print(f"    -f {shown}/params/development.yaml", flush=True)

    serve(root, ready, seed=args.seed, servers=args.servers)
    return 0


def _fault(name: str) -> str:
    """A fault with its stage. Raises ParameterError for an unknown one."""
    known, _, stage = name.partition("@")
    if known not in FAULTS:
        raise ParameterError(f"fault: expected one of {', '.join(sorted(FAULTS))}, got {known!r}")
    return f"{known}@{stage or 'development'}"


def _list_faults(*, as_json: bool) -> int:
    rows = [(fault.name, fault.item, fault.outcome, fault.text) for fault in FAULTS.values()]
    if as_json:
        keys = ("name", "item", "outcome", "text")
        commands.print_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        from . import display

        columns = ("fault", "item", "outcome", "what is broken")
        print(display.table_card("Faults", columns, rows).text)
    return 0


def _fresh(path: Path) -> Path:
    """The first of ``path-1``, ``path-2``, ... that is not there: no rehearsal overwrites another."""
    number = 1
    while path.with_name(f"{path.name}-{number}").exists():
        number += 1
    return path.with_name(f"{path.name}-{number}")
