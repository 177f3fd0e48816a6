"""``python -m tests.net.freeze [GROUP | ITEM | FAULT | NOTEBOOK ...]``: write the outcomes that hold the matrix.

A change of ``outcomes.json`` is a decision, and the commit that makes it says why.
"""

import os
import sys
import tempfile
from pathlib import Path

from .matrix import GROUPS, freeze
from .practice import Practice

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, Practice(Path(folder)) as practice:
        os.environ.update(practice.network.env)
        freeze(practice, sys.argv[1:] or list(GROUPS), lambda text: print(text, flush=True))
