"""One command of the site: ``python -S -E run.py ROOT VERB ...``.

Each prints one JSON object unless it stands in for a tool with another output; a failure goes to
stderr with an exit code other than 0. argparse takes longer to import than all else a verb needs.
"""

from __future__ import annotations

import sys

EXIT_USAGE = 2


def main(words: list[str]) -> None:
    sys.path[0] = __file__.rsplit("/runbook_rehearsal/", 1)[0]
    from runbook_rehearsal.commands.verbs import VERBS, Site, fail

    root, verb, *operands = (*words, "", "")[: max(len(words), 2)]
    if verb not in VERBS:
        fail(f"usage: run.py ROOT VERB ...; VERB one of {', '.join(VERBS)}", EXIT_USAGE)
    run = VERBS[verb]
    wanted = run.__code__.co_varnames[1 : run.__code__.co_argcount]
    if not 0 <= len(wanted) - len(operands) <= len(run.__defaults__ or ()):
        fail(f"usage: {verb} {' '.join(wanted).upper()}", EXIT_USAGE)
    run(Site(root), *operands)


if __name__ == "__main__":
    main(sys.argv[1:])
