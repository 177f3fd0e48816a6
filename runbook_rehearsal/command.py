"""Register the command ``rehearse`` with ``runbook`` (entry point ``runbook.commands``)."""

import argparse
from pathlib import Path

from runbook_lib.commands.printing import Verbs
from runbook_lib.playbook import STAGES


def register(verbs: Verbs) -> None:
    """Add ``rehearse`` with its options; servers and simulation are imported when it runs."""
    made = verbs.add("rehearse", _rehearse, "practise on a network of our own")
    made.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[@STAGE[/NODE]]",
        help="break this, at its item's stage by default; may be repeated",
    )
    made.add_argument("--list-faults", action="store_true", help="what can break, and who notices")
    made.add_argument("--until", choices=[*STAGES], default="", help="last stage (default: all)")
    made.add_argument("--serve", action="store_true", help="only keep the network up")
    made.add_argument("--root", type=Path, help="new folder (default: in .rehearsal/)")
    made.add_argument("--seed", type=int, default=1, help="of its chains (default: 1)")
    made.add_argument(
        "--servers",
        choices=("embedded", "real"),
        default="embedded",
        help="its telemetry: of this program (default), or prometheus and alertmanager on PATH",
    )


def _rehearse(args: argparse.Namespace) -> int:
    from .rehearse import rehearse

    return rehearse(args)
