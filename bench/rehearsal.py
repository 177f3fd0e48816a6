"""The whole embedded rehearsal against one bare papermill run of its first stage's cell count.

All stages, plan and apply, the 24 h watch and the report; the network's start is not counted. The
bare runs, of which the median counts, are spread around it, so that both meet the same machine.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from stage import BIN, bare_notebook, seconds

from runbook_lib.notebook import NOTEBOOKS, code_cells
from runbook_rehearsal.network import RehearsalNetwork
from runbook_rehearsal.promote import Promotion
from runbook_rehearsal.rehearse import HISTORY_S, take_over

RUNS = 3
AIM = 20


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="runbook-bench-") as scratch:
        root = Path(scratch)
        cells = len(code_cells(nbformat.read(NOTEBOOKS / "10_development.ipynb", as_version=4)))
        bare_notebook(root / "bare.ipynb", cells)
        bare = [str(BIN / "papermill"), str(root / "bare.ipynb"), str(root / "out.ipynb")]
        before = [seconds(bare, dict(os.environ)) for _ in range(RUNS)]
        with RehearsalNetwork(
            root / "network", servers="embedded", history_s=HISTORY_S, team=True
        ) as network:
            os.environ.update(network.env)
            take_over(network)
            begun = time.perf_counter()
            promotion = Promotion(network, lambda text: None)
            runs = promotion.carry()
            if runs[-1].passed:
                promotion.report()
            ours = time.perf_counter() - begun
        after = [seconds(bare, dict(os.environ)) for _ in range(RUNS)]
    theirs = statistics.median(before + after)
    last = runs[-1]
    print(f"runbook rehearse: {ours:.1f} s for {len(runs)} runs and the report,", end=" ")
    print(f"up to {last.stage} ({last.mode}), exit code {int(last.report.exit_code)};", end=" ")
    print(f"bare papermill, {cells} cells: {theirs:.2f} s")
    print(f"ratio {ours / theirs:.1f} (aim: at most {AIM})")
    return 0 if last.passed else 1


if __name__ == "__main__":
    sys.exit(main())
