"""The activation of testnet or mainnet in a process of its own, without a kernel: what a test kills or interrupts.

``python activation.py STAGE PARAMS.json``: opens the stage with those parameters and steps through it.
``KILL_AT=N``: the process is killed as the N-th entry of this run has been appended
(``KILL_AFTER_S``: that much later), and ``STOP_AT=N``: interrupted there, as Ctrl-C does. ``PAUSE_AT=N``: it says so and waits for its input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

from runbook_lib import opening, playbook
from runbook_lib.checks import testnet
from runbook_lib.checks.rollouts import rollout
from runbook_lib.errors import StageRefused
from runbook_lib.evidence.record import Entry, Record
from runbook_lib.stage import open_stage
from runbook_lib.strict import PROJECT

GATES = "testnet.ready.gates"
CHANGES = {
    "testnet": ("testnet.activate.deploy", "testnet.activate.gate"),
    "mainnet": ("mainnet.activate.witness-gate",),
}


def watch_appends() -> None:
    """Count what is appended from here on, and act at the entry that the environment names."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's job ignores it
    append, count = Record.append, 0

    def counted(self: Record, kind: str, body: dict[str, Any]) -> Entry:
        nonlocal count
        entry = append(self, kind, body)
        count += 1
        if count == int(os.environ.get("KILL_AT", "0")):
            kill = partial(os.kill, os.getpid(), signal.SIGKILL)
            if after := float(os.environ.get("KILL_AFTER_S", "0")):
                timer = Timer(after, kill)
                timer.daemon = True
                timer.start()
            else:
                kill()
        if count == int(os.environ.get("STOP_AT", "0")):
            os.kill(os.getpid(), signal.SIGINT)
        if count == int(os.environ.get("PAUSE_AT", "0")):
            print("paused", flush=True)
            sys.stdin.readline()
        return entry

    Record.append = counted  # type: ignore[method-assign]


def main() -> int:
    name, file = sys.argv[1:]
    playbook.DECLARED[name] = (*([GATES] if name == "testnet" else []), *CHANGES[name])
    playbook.PLAN_BEFORE[name] = CHANGES[name][0]
    opening.require_order = lambda *given: None  # type: ignore[assignment]
    stage = open_stage(name, **json.loads(Path(file).read_text()))
    watch_appends()
    try:
        if name == "testnet":
            stage.check(testnet.gates)
        stage.plan(testnet.plan)
        # What is captured before and observed after needs telemetry, which this network has not.
        for item in CHANGES[name]:
            stage.change(rollout(item, "{nodes} as planned"))
        with suppress(StageRefused):
            stage.enforce()
        verdict = stage.verdict()
    finally:
        stage.close()
    reasons = {item.item: item.reason for item in verdict.items}
    said = {"exit_code": int(verdict.exit_code), "reasons": reasons, "project": str(PROJECT)}
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
