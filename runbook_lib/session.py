"""One opening of an attempt, live or in replay: what its tries may know, and where they write."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from . import playbook
from .canonical import canonical
from .evidence import events as kinds
from .evidence.log import Log, opened_by
from .evidence.status import FINAL
from .evidence.store import Attempt, Store
from .files import replace_file
from .params import StageParams, promoted, stage_params
from .plan import Plan
from .site import Site
from .sources.scope import Scope
from .sources.tape import Tape
from .verdicts import Mode, RunKind, Source

OPEN = "stage.open"
PARAMETERS = "params.yaml"
"""In an attempt's folder: what it was opened with, so that a command can go on with it."""


@dataclass
class Session:
    """One opening of an attempt. ``recorded`` holds a replayed attempt's events, else nothing.

    ``plan`` is the attempt's, once it has one. ``checks`` are those whose cells ran: a stale
    prerequisite can be judged again by them. ``shown`` are the items whose cells ran.
    """

    site: Site
    store: Store
    attempt: Attempt
    tape: Tape
    number: int
    source: Source
    operator: str
    params: StageParams
    recorded: Sequence[kinds.Event] = ()
    folders: ExitStack = field(default_factory=ExitStack)
    plan: Plan | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    shown: set[str] = field(default_factory=set)

    @property
    def stage(self) -> str:
        return self.attempt.stage

    @property
    def mode(self) -> Mode:
        return self.params.mode

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
        return opened_by(self.recorded, "recording").source if self.recorded else self.source

    @property
    def log(self) -> Log:
        return self.attempt.log

    def scope(self, item: str, number: int) -> Scope:
        """The tape scope of one try of ``item``; a guard's try asked under its change."""
        ended = kinds.of(self.recorded, kinds.RunEnded)
        under = [e.under for e in ended if (e.item, e.number) == (item, number) and e.under]
        item, number = under[-1] if under else (item, number)
        return Scope(
            self.tape,
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
        made = tempfile.TemporaryDirectory(prefix="runbook-private-", dir=parent)
        return Path(self.folders.enter_context(made))

    def next_run(self, item: str, known: Sequence[kinds.Event] | None = None) -> int:
        """The number of the next try of ``item``; in replay, that of the recorded one.

        ``known``: the events so far, for who holds the log's lock.
        """
        if self.replay:
            return last_runs(self.recorded).get(item, 0)
        started = kinds.of(self.log.events() if known is None else known, kinds.RunStarted)
        return max((e.number for e in started if e.item == item), default=0) + 1

    def may_judge_again(self, change: str, item: str, number: int) -> bool:
        """Whether a guard can be judged under a try of ``change``; in replay, if it was."""
        judged = kinds.of(self.recorded, kinds.PrerequisiteJudged)
        asked = (change, item, number)
        return not self.replay or asked in ((e.change, e.item, e.number) for e in judged)

    def journal(self, item: str, number: int) -> Sequence[kinds.Event]:
        """What a try may know of the past: in replay, the log as it was when the try began."""
        if not self.replay:
            return self.log.events()
        began = kinds.of(self.recorded, kinds.RunStarted)
        mine = (e.seq for e in began if (e.item, e.number) == (item, number))
        return self.recorded[: next(mine, None)]

    def aftermath(self, item: str, number: int) -> Sequence[kinds.Event]:
        """What is known when a try ends; in replay, the log as it was then."""
        if not self.replay:
            return self.log.events()
        for ended in kinds.of(self.recorded, *FINAL):
            if (ended.item, ended.number) == (item, number):
                return self.recorded[: ended.seq]
        return self.recorded

    def params_of(self, item: str, number: int) -> StageParams:
        """The parameters in force for a try: a try may change some of them."""
        if not self.replay:
            return self.params
        known = params_in(self.journal(item, number))
        return stage_params(self.stage, known, "recorded parameters")

    def close(self) -> None:
        self.tape.close()
        self.folders.close()


def params_in(events: Sequence[kinds.Event]) -> dict[str, Any]:
    """The parameters an attempt was opened with, and its newest session's. Raises LogDamaged."""
    session = kinds.last(events, kinds.SessionOpened)
    return {**opened_by(events, "log").params, **(session.params if session else {})}


def last_runs(events: Sequence[kinds.Event]) -> dict[str, int]:
    """Item -> number of its last try that ended."""
    return {event.item: event.number for event in kinds.of(events, *FINAL)}


def run_kind() -> RunKind:
    """Whether the engine runs this kernel, or a person steps through it."""
    return "headless" if os.environ.get("RUNBOOK_HEADLESS") else "interactive"


def hand_over(session: Session) -> None:
    """Tell the engine that started this kernel where the attempt is."""
    if target := os.environ.get("RUNBOOK_HANDOFF"):
        note = {"folder": str(session.attempt.folder), "entries": len(session.log.events())}
        replace_file(Path(target), canonical(note), lasting=False)
