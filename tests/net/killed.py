"""Runs the code cells of shipped notebooks, each run a process that is killed where it is told.

``python -m tests.net.killed`` imports once what runs import, and forks: each line on its input is a
list of runs ``{"runbook", "params", "kill"}`` that begin at once, or of commands ``{"argv"}``. A line
on its output is the list of their ends ``{"code", "said"}``, once they and whatever they left at work
have ended. A run ends as its notebook would.

``kill`` is what an entry of the log must hold (its body's fields beside its kind): the run is
killed (SIGKILL, or ``signal``) as such an entry is on disk. With ``arm`` it is not: that is written to the file
``armed``, with the run's process id, for ``gate.sh`` to kill it around its next command. With
``within_s`` it is killed so many seconds after its begin, unless it has ended.
"""

import ctypes
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import seam

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


def run(given: dict[str, Any]) -> int:
    """A notebook; it is saved as its reader would find it, unless the run was to be killed."""
    told = not given.get("kill")
    if not told and (display := sys.modules.get("runbook_lib.display")):  # nobody sees its cards
        vars(display)["_card"] = lambda kind, colour, values, data: display.Card("", "", data)
    made = seam.run(given["runbook"], given["params"], without=given.get("without", ()), told=told)
    print(made.waits, made.verdict.get("refused", ""))
    if told and "refused" not in made.verdict:
        seam.save(made)
    return made.exit_code


def fork(given: dict[str, Any]) -> tuple[int, Any, Any]:
    """A run in a process of its own, and the files that hold what it says and what it has loaded."""
    said, loaded = os.memfd_create("said"), os.memfd_create("loaded")
    if pid := os.fork():
        return pid, os.fdopen(said, "rb"), os.fdopen(loaded, "rb")
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
            code = run(given)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os.write(loaded, json.dumps(sorted({*sys.modules} - {"__main__"})).encode())
        sys.stdout.flush()
        os._exit(code)


def warm(names: list[str]) -> None:
    """Load what a run has loaded, and compile the templates of cards: each fork would do it anew."""
    for name in names:
        if not name.startswith("_"):  # `_asyncio` before `asyncio` leaves half of each
            with suppress(ImportError):
                importlib.import_module(name)
    if display := sys.modules.get("runbook_lib.display"):
        for form in (vars(display)["_HTML"], vars(display)["_TEXT"]):
            for name in form._environment.list_templates(extensions=["j2"]):
                if "/" not in name and not name.endswith((".md.j2", ".sh.j2")):
                    form._environment.get_template(name)
    if http := sys.modules.get("runbook_lib.sources.http"):
        vars(http)["FIRST_WAIT_S"] = 0.0  # who does not answer is asked again at once


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for line in sys.stdin:
        asked = json.loads(line)
        for each in asked:
            if "runbook" in each:
                seam.cells(each["runbook"])  # each fork would read it anew
        begun, ends = [fork(each) for each in asked], []
        for pid, said, loaded in begun:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with said, loaded:
                said.seek(0)
                loaded.seek(0)
                ends.append({"code": code, "said": said.read().decode()})
                warm(json.loads(loaded.read() or "[]"))
        with suppress(ChildProcessError):  # what they left at work is ours to wait for
            while True:
                os.waitpid(-1, 0)
        print(json.dumps(ends), flush=True)


if __name__ == "__main__":
    main()
