"""One opening of an attempt, live or in replay: what its tries may know, and where they write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from . import playbook
from .canonical import canonical
from .evidence.record import Entry, Record
from .evidence.standing import FINAL
from .evidence.store import Attempt, Store
from .files import replace_file
from .params import StageParams, promoted, stage_params
from .site import Site
from .sources.http import Http
from .sources.scope import Scope
from .sources.tape import Tape

OPEN = "stage.open"
PARAMETERS = "params.yaml"
"""In an attempt's folder: what it was opened with, so that a command can go on with it."""
Source = Literal["live", "rehearsal", "replay"]


@dataclass
class Session:
    """One opening of an attempt. ``recorded`` holds a replayed attempt's entries, else nothing."""

    stage: str
    site: Site
    store: Store
    attempt: Attempt
    tape: Tape
    outside: Http
    number: int
    mode: Literal["plan", "apply"]
    source: Source
    operator: str
    params: StageParams
    recorded: Sequence[Entry] = ()
    scratch: tempfile.TemporaryDirectory[str] | None = None
    _private: tempfile.TemporaryDirectory[str] | None = None

    @property
    def replay(self) -> bool:
        return self.source == "replay"

    @property
    def recovery(self) -> bool:
        """Whether this runbook is the way back of a stage: its items block nothing."""
        return self.stage in playbook.RECOVERY

    @property
    def promoted(self) -> str:
        """The playbook's stage this runbook is about."""
        return promoted(self.stage, self.params)

    @property
    def world(self) -> str:
        """Where the run was made: live or rehearsal, a replay's as it was recorded."""
        return str(self.recorded[0].body["source"]) if self.recorded else self.source

    @property
    def record(self) -> Record:
        return self.attempt.record

    def scope(self, item: str, number: int) -> Scope:
        """The tape scope of one try of ``item``; a guard's try asked under its change."""
        for entry in self.recorded:
            if entry.kind == "result" and (entry.body["item"], entry.body["number"]) == (
                item,
                number,
            ):
                item, number = entry.body.get("under", (item, number))
        return Scope(
            self.tape,
            self.outside,
            item,
            number,
            clock=self.site.clock,
            aliases=[
                (str(self.attempt.folder), "attempt"),
                (str(self.store.root), "store"),
                (str(self.site.kits_path), "kits"),
                (str(self.private), "private"),
            ],
        )

    @cached_property
    def private(self) -> Path:
        """A folder only we can read, for what a command must be handed and nobody may keep."""
        # Below the engine's own where there is one: a kernel that is killed cleans nothing up.
        parent = os.environ.get("RUNBOOK_SCRATCH")
        self._private = tempfile.TemporaryDirectory(prefix="runbook-private-", dir=parent)
        return Path(self._private.name)

    def next_try(self, item: str, known: Sequence[Entry] | None = None) -> int:
        """The number of the next try of ``item``; in replay, that of the recorded one.

        ``known``: the entries so far, for who holds the record's lock.
        """
        if self.replay:
            return last_tries(self.recorded).get(item, 0)
        numbers = [
            entry.body["number"]
            for entry in (self.record.entries() if known is None else known)
            if entry.kind == "started" and entry.body["item"] == item
        ]
        return max(numbers, default=0) + 1

    def may_judge_again(self, change: str, item: str, number: int) -> bool:
        """Whether a guard can be judged under a try of ``change``; in replay, if it was."""
        asked = {"change": change, "item": item, "number": number}
        return not self.replay or any(
            entry.kind == "guard" and asked.items() <= entry.body.items() for entry in self.recorded
        )

    def journal(self, item: str, number: int) -> Sequence[Entry]:
        """What a try may know of the past: in replay, the record as it was when the try began."""
        if not self.replay:
            return self.record.entries()
        return self.recorded[: _began(self.recorded, item, number)]

    def aftermath(self, item: str, number: int) -> Sequence[Entry]:
        """What is known when a try ends; in replay, the record as it was then."""
        if not self.replay:
            return self.record.entries()
        for entry in self.recorded:
            if entry.kind in FINAL and (entry.body["item"], entry.body["number"]) == (item, number):
                return self.recorded[: entry.seq]
        return self.recorded

    def params_of(self, item: str, number: int) -> StageParams:
        """The parameters in force for a try: a try may change some of them."""
        if not self.replay:
            return self.params
        seq = _began(self.recorded, item, number)
        sessions = [e for e in self.recorded[:seq] if e.kind == "session"]
        values = {
            **self.recorded[0].body["params"],
            **(sessions[-1].body["params"] if sessions else {}),
        }
        return stage_params(self.stage, values, "recorded parameters")

    def close(self) -> None:
        self.outside.close()
        for folder in (self._private, self.scratch):
            if folder is not None:
                folder.cleanup()


def last_tries(entries: Sequence[Entry]) -> dict[str, int]:
    """Item -> number of its last try that ended."""
    return {e.body["item"]: e.body["number"] for e in entries if e.kind in FINAL}


def _began(entries: Sequence[Entry], item: str, number: int) -> int:
    for entry in entries:
        if entry.kind == "started" and (entry.body["item"], entry.body["number"]) == (item, number):
            return entry.seq
    return len(entries)


def run_kind() -> Literal["headless", "interactive"]:
    """Whether the engine runs this kernel, or a person steps through it."""
    return "headless" if os.environ.get("RUNBOOK_HEADLESS") else "interactive"


def hand_over(session: Session) -> None:
    """Tell whoever started this kernel, or follows it, where the attempt is."""
    entries = len(session.record.entries())
    note = {"folder": str(session.attempt.folder), "entries": entries}
    for name in ("RUNBOOK_HANDOFF", "RUNBOOK_FOLLOW"):
        if target := os.environ.get(name):
            replace_file(Path(target), canonical(note), lasting=False)
