"""Replaying an attempt: our own notebook over its tape, every result compared.

Never code from the evidence: the notebook that runs is the one that ships with this version.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import RecordDamaged
from ..outcomes import Row, check_row, unknown_row
from ..session import VERSION
from ..verdicts import Standing
from .record import Entry, Record
from .standing import standings

Run = Callable[[str], Any]


def replay(folder: Path, run: Run) -> tuple[list[Row], str]:
    """Rows comparing each item's recorded result with the replayed one, and the version that
    recorded it. ``run(stage)`` runs our notebook headless. Raises RecordDamaged.
    """
    recorded = Record(folder / "record.jsonl").entries()
    if not recorded or recorded[0].kind != "opened":
        raise RecordDamaged(f"{folder.name}: expected the record of an attempt, got none")
    with tempfile.TemporaryDirectory(prefix="runbook-replay-") as kept:
        report = _run(recorded[0].body["stage"], folder, Path(kept), run)
        path = Path(kept) / "record.jsonl"
        if not path.exists():
            why = "; ".join(report.problems) or "it was never opened"
            return [unknown_row("replay", "runs", "to its end", why)], VERSION
        again = Record(path).entries()
    rows = compare(recorded, again)
    rows += [unknown_row("replay", "runs", "to its end", why) for why in report.problems]
    return rows, recorded[0].body["version"]


def _run(stage: str, folder: Path, kept: Path, run: Run) -> Any:
    ours = {
        "RUNBOOK_REPLAY": str(folder.resolve()),
        "RUNBOOK_REPLAY_OK": "1",
        "RUNBOOK_REPLAY_KEEP": str(kept),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        return run(stage)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def compare(recorded: Sequence[Entry], again: Sequence[Entry]) -> list[Row]:
    """One row an item: whether state, outcome, reason, rows and data are the same."""
    pairs = zip(standings(recorded), standings(again), strict=True)
    return [_compare(was, now) for was, now in pairs]


def _compare(was: Standing, now: Standing) -> Row:
    if was.state == "missing":
        text = f"{was.state}: {was.reason}"
        return check_row(was.item, "result", text, text, ok=now.state != "judged")
    keys = ("state", "outcome", "reason", "result")
    same = all(getattr(was, key) == getattr(now, key) for key in keys)
    return check_row(was.item, "result", _short(was), "the same" if same else _short(now), same)


def _short(standing: Standing) -> str:
    return f"{standing.outcome} ({standing.state}): {standing.reason}"[:300]
