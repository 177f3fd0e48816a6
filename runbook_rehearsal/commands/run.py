"""One command of the site: ``python -S -E run.py --root ROOT [--by OPERATOR] VERB ...``.

Each prints one JSON object unless it stands in for a tool with another output; a failure goes to
stderr with an exit code other than 0. argparse takes longer to import than all else a verb needs.
"""

from __future__ import annotations

import sys
from importlib import import_module

MODULES = {
    "nodes": ("dry-run", "deploy", "restart", "stop", "start", "provision", "deprovision",
              "instruct"),
    "recovery": ("verify-snapshot", "inspect-wal", "keep-data", "restore-snapshot",
                 "replay-proofs"),
    "channel": ("announce", "announce-halt", "announced", "freeze", "unfreeze", "proposals",
                "notify"),
    "suites": ("suite", "soak"),
    "probe": ("probe",),
}  # fmt: skip
VALUED, FLAGS = ("--root", "--by", "--config"), ("--strict-config-validation",)
EXIT_USAGE = 2


def parse(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Operands, the verb first, and options by name; a flag that is given is its own value."""
    operands, options, left = [], {}, iter(words)
    for word in left:
        if word in VALUED or word in FLAGS:
            name = word.lstrip("-").replace("-", "_")
            options[name] = next(left, "") if word in VALUED else word
        else:
            operands.append(word)
    return operands, options


def main(words: list[str]) -> None:
    sys.path[0] = __file__.rsplit("/runbook_rehearsal/", 1)[0]
    from runbook_rehearsal.commands.site import Site, fail

    operands, options = parse(words)
    root, by = options.pop("root", ""), options.pop("by", "")
    verb = operands.pop(0) if operands else ""
    module = next((name for name, verbs in MODULES.items() if verb in verbs), "")
    if not root or not module:
        known = ", ".join(verb for verbs in MODULES.values() for verb in verbs)
        fail(f"usage: run.py --root ROOT [--by OPERATOR] VERB ...; VERB one of {known}", EXIT_USAGE)
    found = import_module(f"runbook_rehearsal.commands.{module}")
    run = getattr(found, verb.replace("-", "_"))
    wanted = run.__code__.co_varnames[1 : run.__code__.co_argcount]
    missing = len(wanted) - len(operands) - len(options)
    if not 0 <= missing <= len(run.__defaults__ or ()) or not options.keys() <= set(wanted):
        fail(f"usage: {verb} {' '.join(wanted).upper()}", EXIT_USAGE)
    run(Site(root, by), *operands, **options)


if __name__ == "__main__":
    main(sys.argv[1:])
