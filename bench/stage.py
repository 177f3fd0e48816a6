"""A whole development run, full preflight, against bare papermill over as many cells.

The bare one only imports pandas, matplotlib and httpx. The network's start is not counted. Both
are whole commands, run in turn; the ratio of medians is what is compared.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from runbook_lib.changes.adopt import adopt
from runbook_lib.notebook import NOTEBOOKS, code_cells
from runbook_rehearsal.network import RehearsalNetwork

RUNS = 5
AIM = 2.2
BIN = Path(sys.executable).parent


def bare_notebook(path: Path, cells: int) -> None:
    imports = "import pandas, matplotlib.pyplot, httpx"
    book = new_notebook(
        cells=[new_code_cell(imports), *(new_code_cell("1") for _ in range(cells - 1))]
    )
    book.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    nbformat.write(book, path)


def seconds(command: list[str], env: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="runbook-bench-") as scratch:
        root = Path(scratch)
        shipped = nbformat.read(NOTEBOOKS / "10_development.ipynb", as_version=4)
        cells = len(code_cells(shipped))
        bare_notebook(root / "bare.ipynb", cells)
        with RehearsalNetwork(root / "network", servers="embedded") as network:
            os.environ.update(network.env)
            adopt(str(network.site), "development", artifacts=[network.release.previous_artifact])
            bare = [str(BIN / "papermill"), str(root / "bare.ipynb"), str(root / "out.ipynb")]
            stage = [
                str(BIN / "runbook"),
                "run",
                "development",
                "-f",
                str(network.params["development"]),
            ]
            env = dict(os.environ)
            pairs = [(seconds(bare, env), seconds(stage, env)) for _ in range(RUNS + 1)][1:]
    theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"runbook run development: {ours:.2f} s; bare papermill, {cells} cells: {theirs:.2f} s")
    print(f"ratio {ours / theirs:.2f} (aim: at most {AIM})")


if __name__ == "__main__":
    main()
