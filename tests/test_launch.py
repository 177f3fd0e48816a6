"""What is told while a kernel works: items as they end, and what a watch says every hour."""

import threading
from pathlib import Path

from runbook_lib.canonical import canonical
from runbook_lib.evidence.log import Log
from runbook_lib.launch import _follow

from .events import event


def test_the_hourly_lines_of_a_watch_are_told(tmp_path: Path) -> None:
    """Those of this run alone, beside the items that end."""
    log = Log(tmp_path / "log.jsonl")
    log.append(event("status", text="said before"))
    note, done = tmp_path / "note.json", threading.Event()
    note.write_bytes(canonical({"folder": str(tmp_path), "entries": 1}))
    log.append(event("look"))
    log.append(event("status", text="height 7"))
    log.append(event("started", item="mainnet.activate.watch", number=1))
    log.append(event("not-reached", item="mainnet.activate.watch"))
    done.set()
    shown: list[str] = []

    _follow(note, done, shown.append)

    assert [line.split() for line in shown] == [
        ["height", "7"],
        ["–", "NOT", "REACHED", "mainnet.activate.watch:", "not", "reached"],
    ]
