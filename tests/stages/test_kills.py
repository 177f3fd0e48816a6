"""Killed in the middle of a changing command: the log says where, and the attempt goes on from there."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..conftest import until
from .conftest import Operator, entries, held, operating, processes_of

DEPLOY = "development.activate.deploy"
NODES = ("dev-1", "dev-2", "dev-3", "dev-4")


operator = held(operating, measured=False)


def running(operator: Operator, *words: str) -> list[int]:
    """The operator's processes with all of ``words`` in their command line."""
    found = []
    for pid in processes_of(operator):
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:  # it has just ended
            continue
        if set(words) <= set(argv):
            found.append(pid)
    return found


@contextmanager
def held_up(operator: Operator) -> Iterator[None]:
    """The delivery at work stands still until the end, so that no test depends on its speed."""
    pids = until(lambda: running(operator, "deploy", "dev-1"), "a delivery at work")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        until(lambda: not running(operator, "deploy", "dev-1"), "the end of the delivery")


def steps(attempt: Path) -> list[dict[str, Any]]:
    found = [entry for entry in entries(attempt) if entry["kind"] == "step"]
    return [step for step in found if step["item"] == DEPLOY]


def test_a_killed_run_goes_on_where_it_stopped(operator: Operator) -> None:
    """The log is readable and names the step; to continue repeats no step and never works
    beside a command that outlived its run. Other ends of a run are told apart by test_holes.py.
    """
    release = operator.release()
    attempt = operator.attempt(release)
    run = ("runbook", "run", "development", "-f", operator.params, "-r", "release", release)
    slow = operator.fault("slow-deploy")  # for as long as one is caught at it
    with slow, operator.start(*run) as process, held_up(operator):
        process.kill()
        process.communicate(timeout=60)
        until(lambda: not running(operator, "-m", "ipykernel_launcher"), "the end of the kernel")
        stopped = steps(attempt)
        standing = operator.run("runbook", "status", release, "--site", operator.site, "--json")
        early = operator.run(*run, "--continue")
        beside = steps(attempt)
    later = operator.run(*run, "--continue")

    assert [(s["node"], s["step"], s["phase"]) for s in stopped] == [("dev-1", "deliver", "intent")]
    row = json.loads(standing.stdout)["attempts"][0]
    assert (row["exit_code"], row["blocks"]) == (
        3,
        f"{DEPLOY}: expected a final result, its run 1 began and did not end",
    )
    assert early.returncode == 2, early.stdout
    holder = f"held by rehearsal ({release}/development/0001)"
    assert f"development: lock: expected free, got {holder}" in early.stdout
    assert beside == stopped
    assert later.returncode == 4, later.stdout + later.stderr  # the window of the baseline
    done = [s for s in steps(attempt) if s["phase"] == "done"]
    intents = Counter((s["node"], s["step"]) for s in steps(attempt) if s["phase"] == "intent")
    assert [(s["node"], s["step"]) for s in done] == [
        (node, step) for node in NODES for step in ("deliver", "restart")
    ]
    assert intents == dict.fromkeys(intents, 1)
    assert [bool(s.get("found")) for s in done] == [True] + [False] * (len(done) - 1)
    assert operator.run("runbook", "verify", attempt, "--trust", operator.site).returncode == 0
