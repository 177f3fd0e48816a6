"""A kernel imports nothing from the folder it works in, whoever starts it and whatever lies there."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import get_kernel_spec
from jupyter_client.manager import run_kernel

import runbook_lib
from runbook_lib.errors import NotebookError
from runbook_lib.launch import prepare_copy
from runbook_lib.notebook import KERNEL, NOTEBOOKS, filled_in
from runbook_lib.playbook import NOTEBOOKS as NAMES

from ..conftest import ran
from ..messages import saying

EVIL = "import os; open(os.environ['MARK'], 'a').write(__name__ + '\\n')\n"
LAID = "runbook_lib/__init__ numpy sitecustomize runbook_lib ipykernel_launcher json jsonschema"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the store's ``recovery/`` would be, everything in it a colleague's."""
    folder = tmp_path / "recovery"
    for name in [*(f"{name}.py" for name in LAID.split()), "evil.pth"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(EVIL)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    for name in [name for name in os.environ if name.startswith("RUNBOOK_")]:
        monkeypatch.delenv(name)
    return folder


@pytest.mark.parametrize("path", ["", ".", os.pathsep, f"..{os.pathsep}."])
def test_a_kernel_started_by_its_name_runs_nothing_beside_it(
    beside: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """As plain Jupyter starts it, also where PYTHONPATH is relative."""
    monkeypatch.setenv("PYTHONPATH", path)
    said: list[Any] = []
    code = "import runbook_lib, numpy, json; print(runbook_lib.__file__)"
    with run_kernel(kernel_name=KERNEL, cwd=str(beside), startup_timeout=120) as client:
        client.execute_interactive(code, timeout=120, output_hook=said.append)

    text = "".join(message["content"].get("text", "") for message in said)
    assert text == f"{runbook_lib.__file__}\n"
    assert not (beside.parent / "mark").exists()


def test_a_run_started_in_such_a_folder_runs_nothing_beside_it(beside: Path) -> None:
    """The engine takes our kernel, whichever the notebook and the command name."""
    book = nbformat.read(NOTEBOOKS / NAMES["preflight"], as_version=4)
    book.metadata["kernelspec"]["name"] = "python3"
    nbformat.write(book, beside / "book.ipynb")
    papermill = Path(sys.executable).with_name("papermill")
    argv = (papermill, "--engine", "runbook", "-k", "python3", "book.ipynb", "out.ipynb")
    done = ran(*argv, cwd=beside, env={**os.environ, "RUNBOOK_REPLAY_OK": "1"})

    assert done.returncode in (0, 1, 2, 4), done.stderr
    assert not (beside.parent / "mark").exists()


def test_notebooks_and_copies_name_the_kernel(tmp_path: Path) -> None:
    """So that plain Jupyter starts it, for what is laid ready, too."""
    spec = get_kernel_spec(KERNEL)
    laid = [json.loads(filled_in(NOTEBOOKS / name, {})) for name in NAMES.values()]

    assert {book["metadata"]["kernelspec"]["name"] for book in laid} == {"runbook"}
    assert spec.argv[:4] == ["python", "-P", "-m", "ipykernel_launcher"]
    assert spec.env == {"PYTHONPATH": ""}


@pytest.mark.parametrize("name", ["python3", "evil", ""])
def test_a_copy_that_names_another_kernel_is_not_opened(tmp_path: Path, name: str) -> None:
    """Somebody edited it since."""
    path = prepare_copy("canary", {}, tmp_path)
    assert prepare_copy("canary", {}, tmp_path) == path
    path.write_text(path.read_text().replace('"name": "runbook"', f'"name": "{name}"'))
    with saying(NotebookError, f"{path}: expected the kernel runbook, got {name!r}; remove it"):
        prepare_copy("canary", {}, tmp_path)
