"""The site's commands of the rehearsal network: ``python -S -E commands.py --root ROOT VERB ...``.

A stage runs dozens of them, so what they do is in ``verbs``, which Python keeps compiled.
"""

import sys

sys.path[0] = __file__.rsplit("/", 3)[0]  # the project, and not this folder of modules

from runbook_lib.rehearsal.verbs import main  # noqa: E402

if __name__ == "__main__":
    main(sys.argv[1:])
