"""Re-run the committed notebooks over the shipped recordings; note the digests of their code.

The committed outputs are exactly that run, byte-stable, so that nbval compares something real.
``--digests`` notes the digests alone: a fresh recording needs them before there is one to replay.
``--recorded`` only names the notebooks that have a recording to replay.
"""

import json
import os
import sys
from typing import Any

import nbformat
from nbclient import NotebookClient

from runbook_lib import notebook
from runbook_lib.playbook import NOTEBOOKS
from runbook_lib.recording import RECORDINGS

LARGEST = 300_000
KEPT = {"tags"}


def main() -> int:
    for name in [name for name in os.environ if name.startswith("RUNBOOK_")]:
        del os.environ[name]
    if "--recorded" in sys.argv[1:]:
        print(
            *(notebook.NOTEBOOKS / name for runbook, name in NOTEBOOKS.items() if recorded(runbook))
        )
        return 0
    write_digests()
    if "--digests" in sys.argv[1:]:
        return 0
    for runbook, name in NOTEBOOKS.items():
        path = notebook.NOTEBOOKS / name
        if not recorded(runbook):
            print(f"{name}: no recording is shipped; `make recording` makes one")
            continue
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        client = NotebookClient(
            book,
            kernel_name=notebook.KERNEL,
            timeout=300,
            resources={"metadata": {"path": str(notebook.NOTEBOOKS)}},
            extra_arguments=["--log-level=40"],
        )
        client.execute()
        _tidy(book)
        # One value a line, so that a change is a small difference; without indents, a tenth smaller.
        value = json.loads(nbformat.writes(book))
        path.write_text(json.dumps(value, indent=0, ensure_ascii=False, sort_keys=True) + "\n")
        size = path.stat().st_size
        if size > LARGEST:
            raise SystemExit(f"{name}: expected at most {LARGEST} bytes, got {size}")
        print(f"{name}: {size} bytes")
    return 0


def recorded(runbook: str) -> bool:
    return (RECORDINGS / f"{runbook}.zip").is_file()


def write_digests() -> None:
    digests = {
        name: notebook.code_digest(notebook.read(notebook.NOTEBOOKS / name))
        for name in NOTEBOOKS.values()
    }
    notebook.DIGESTS.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")


def _tidy(book: Any) -> None:
    """Drop what differs between machines and runs: timings, versions."""
    book.metadata = {
        "kernelspec": {"display_name": "Runbook", "language": "python", "name": notebook.KERNEL},
        "language_info": {"name": "python"},
    }
    for cell in book.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in KEPT}


if __name__ == "__main__":
    raise SystemExit(main())
