"""One opening of an attempt, live or in replay: what its runs may know, and where they write."""

import os
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from . import playbook
from .canonical import canonical
from .errors import StoreError
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

    ``plan`` is the attempt's, once it has one. ``checks`` are those whose cells ran: they can be
    refreshed. ``shown`` are the items whose cells ran.
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
        """The tape scope of one run of ``item``."""
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

    def next_run(self, item: str) -> int:
        """The number of the next run of ``item``; in replay, that of the recorded one."""
        if self.replay:
            return last_runs(self.recorded).get(item, 0)
        started = kinds.of(self.log.events(), kinds.RunStarted)
        return max((e.number for e in started if e.item == item), default=0) + 1

    def journal(self, item: str, number: int) -> Sequence[kinds.Event]:
        """What a run may know of the past: in replay, the log as it was when the run began."""
        if not self.replay:
            return self.log.events()
        began = kinds.of(self.recorded, kinds.RunStarted)
        mine = (e.seq for e in began if (e.item, e.number) == (item, number))
        return self.recorded[: next(mine, None)]

    def params_of(self, item: str, number: int) -> StageParams:
        """The parameters in force for a run: a run may change some of them."""
        if not self.replay:
            return self.params
        known = params_in(self.journal(item, number))
        return stage_params(self.stage, known, "recorded parameters")

    def passed_on(self, events: Sequence[kinds.Event]) -> str:
        """Why this session writes no more: another one went on with the attempt, or it was sealed."""
        opened = [e.seq for e in kinds.of(events, kinds.SessionOpened) if e.number == self.number]
        since = events[opened[0] + 1 :] if opened else ()
        ended = kinds.of(since, kinds.SessionOpened, kinds.Sealed)
        if self.replay or not ended:
            return ""
        said = "sealed" if isinstance(ended[-1], kinds.Sealed) else "continued elsewhere"
        parameters = shlex.quote(str(self.attempt.folder / PARAMETERS))
        again = f"runbook run {self.stage} --continue -f {parameters}"
        return f"{self.attempt.name}: it was {said}, and this kernel writes no more: `{again}`"

    def require_writer(self) -> None:
        """Raises StoreError once this session is over: nothing is asked, nothing is written."""
        if why := self.passed_on(self.log.events()):
            raise StoreError(why)

    def close(self) -> None:
        self.tape.close()
        self.folders.close()


def params_in(events: Sequence[kinds.Event]) -> dict[str, Any]:
    """The parameters an attempt was opened with, and its newest session's. Raises LogDamaged."""
    session = kinds.last(events, kinds.SessionOpened)
    return {**opened_by(events, "log").params, **(session.params if session else {})}


def last_runs(events: Sequence[kinds.Event]) -> dict[str, int]:
    """Item -> number of its last run that ended."""
    return {event.item: event.number for event in kinds.of(events, *FINAL)}


def run_kind() -> RunKind:
    """Whether the engine runs this kernel, or a person steps through it."""
    return "headless" if os.environ.get("RUNBOOK_HEADLESS") else "interactive"


def hand_over(session: Session) -> None:
    """Tell the engine that started this kernel where the attempt is."""
    if target := os.environ.get("RUNBOOK_HANDOFF"):
        note = {"folder": str(session.attempt.folder), "entries": len(session.log.events())}
        replace_file(Path(target), canonical(note), lasting=False)
