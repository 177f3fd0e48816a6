"""Runs the code cells of shipped notebooks, each run a process that is killed where it is told.

``python killed.py`` imports once what runs import, then forks: each line on its input is a list of
runs ``{"notebook", "params", "kill"}`` that begin at once, or of commands ``{"argv"}``. A line on
its output is the list of their ends ``{"code", "said"}``, once they and whatever they left at work
have ended. A run ends as its notebook would: 0 where no cell raised, else the ``exit_code`` of what
one raised.

``kill`` is what an entry of the log must hold (its body's fields beside its kind): the run is
killed (SIGKILL, or ``signal``) as such an entry is on disk. With ``arm`` it is not: that is written to the file
``armed``, with the run's process id, for ``gate.sh`` to kill it around its next command. With
``within_s`` it is killed so many seconds after its begin, unless it has ended.
"""

import ast
import ctypes
import importlib
import json
import os
import re
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LOG = "log.jsonl"
PR_SET_CHILD_SUBREAPER = 36


def kill_at(point: dict[str, Any], armed: Path) -> None:
    """Watch what would be synced to disk: a log is, after each entry."""
    if "within_s" in point:
        kill = threading.Timer(point["within_s"], os.kill, (os.getpid(), signal.SIGKILL))
        kill.daemon = True
        kill.start()
        return
    arm, mutex = point.pop("arm", ""), threading.Lock()
    how = point.pop("signal", signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's job ignores it

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name != LOG:
            return
        entry = json.loads(path.read_bytes().splitlines()[-1])
        with mutex:
            if point and point.items() <= entry.items():
                point.clear()
                if not arm:
                    os.kill(os.getpid(), how)
                    return
                armed.with_suffix(".new").write_text(f"{arm} {os.getpid()}\n")
                armed.with_suffix(".new").rename(armed)

    os.fsync = watched


def cells(notebook: Path, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Its cells with the parameters behind those that it declares, as papermill puts them."""
    found = json.loads(notebook.read_bytes())["cells"]
    at = 1 + next(i for i, c in enumerate(found) if "parameters" in c["metadata"].get("tags", ()))
    text = "".join(f"{name} = {value!r}\n" for name, value in params.items())
    injected = {
        "cell_type": "code",
        "id": "injected",
        "metadata": {"tags": ["injected-parameters"]},
    }
    return [*found[:at], {**injected, "source": text}, *found[at:]]


def play(source: str, names: dict[str, Any]) -> Any:
    """Run one cell; what its last expression comes to."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if last else None


def run(notebook: Path, params: dict[str, Any], without: Sequence[str], *, told: bool) -> int:
    names: dict[str, Any] = {}
    played, code = cells(notebook, params), 0
    for number, cell in enumerate(played, start=1):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or any(re.search(each, source) for each in without):
            continue
        cell |= {"execution_count": number, "outputs": []}
        try:
            shown = play(source, names)
        except Exception as error:
            code = getattr(error, "exit_code", 3)
            print(traceback.format_exc())
            break
        if told and hasattr(shown, "_repr_mimebundle_"):
            data, metadata = shown._repr_mimebundle_()
            output = {"output_type": "display_data", "data": data, "metadata": metadata}
            cell["outputs"].append(output)
    stage = names.get("stage")
    if stage is not None:
        book = {**json.loads(notebook.read_bytes()), "cells": played}
        (stage.folder / notebook.name).write_text(json.dumps(book))
        stage.close()
    return code


def fork(given: dict[str, Any]) -> tuple[int, Any]:
    """A run in a process of its own, and the file that holds what it says."""
    said = os.memfd_create("said")
    if pid := os.fork():
        return pid, os.fdopen(said, "rb")
    code = 3
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.setsid()
        os.fsync = lambda descriptor: None  # a kill takes nothing of what was written
        if argv := given.get("argv"):
            sys.argv = argv
            runpy.run_path(argv[0], run_name="__main__")
            code = 0
        else:
            if point := given.get("kill"):
                kill_at(point, Path(given["armed"]))
            without, told = given.get("without", ()), not given.get("kill")
            code = run(Path(given["notebook"]), given["params"], without, told=told)
        if given.get("modules"):
            Path(given["modules"]).write_text(json.dumps(sorted({*sys.modules} - {"__main__"})))
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def compile_templates(display: Any) -> None:
    """Those of cards, once: each fork would do it anew."""
    for form in (display._HTML, display._TEXT):
        for name in form._environment.list_templates(extensions=["j2"]):
            if "/" not in name and not name.endswith((".md.j2", ".sh.j2")):
                form._environment.get_template(name)


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for line in sys.stdin:
        asked = json.loads(line)
        for name in asked.get("warm", ()):
            if not name.startswith("_"):  # `_asyncio` before `asyncio` leaves half of each
                with suppress(ImportError):
                    importlib.import_module(name)
        if display := sys.modules.get("runbook_lib.display"):
            compile_templates(display)
        if http := sys.modules.get("runbook_lib.sources.http"):
            vars(http)["FIRST_WAIT_S"] = 0.0  # who does not answer is asked again at once
        begun = [fork(each) for each in asked.get("runs", ())]
        ends = []
        for pid, said in begun:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            said.seek(0)
            ends.append({"code": code, "said": said.read().decode()})
            said.close()
        with suppress(ChildProcessError):  # what they left at work is ours to wait for
            while True:
                os.waitpid(-1, 0)
        print(json.dumps(ends), flush=True)


if __name__ == "__main__":
    main()
