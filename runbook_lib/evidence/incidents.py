"""The incidents of a store: one file each, opened and added to, never overwritten.

    <store>/.incidents/<release>-<stage>-001.jsonl

The log of the recovery that opened one names it, and the hash of its first event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..canonical import digest
from ..errors import LogDamaged, RunbookError, SourceError, StoreError
from ..files import place
from ..playbook import COUNCIL_WITHIN, RECOVERY
from ..sources import local
from ..wording import utc
from .events import E, Event, IncidentNamed, Torn, last, of
from .incident_events import (
    CouncilDecided,
    IncidentAcknowledged,
    IncidentClosed,
    IncidentFiled,
    IncidentMitigated,
    IncidentOpened,
    IncidentSignedOff,
    Told,
    read_line,
)
from .log import Log, opened_by, parse
from .store import INCIDENTS, Store

if TYPE_CHECKING:
    from ..sources.scope import Scope

# --- One incident: what its hash-chained file tells of it, and what is left to be done about it ---

SUFFIX = ".jsonl"
STEPS: Mapping[type[Told], str] = {
    IncidentOpened: "open",
    IncidentAcknowledged: "acknowledged",
    IncidentMitigated: "mitigated",
    IncidentClosed: "closed",
    IncidentSignedOff: "signed off",
}
"""What happens to an incident, in this order, and how it stands then."""


@dataclass(frozen=True)
class Incident:
    """One incident as its file tells it; its first event is an ``IncidentOpened``."""

    id: str
    events: Sequence[Event]

    @property
    def opened(self) -> IncidentOpened:
        return of(self.events, IncidentOpened)[0]

    def last(self, kind: type[E]) -> E | None:
        """The newest event of a kind. A sign-off of an earlier closing is none."""
        found = last(self.events, kind)
        if isinstance(found, IncidentSignedOff):
            closed = self.last(IncidentClosed)
            return found if closed is not None and found.digest == closed.digest else None
        return found

    @property
    def newest(self) -> Told:
        """That by which it came to the last of ``STEPS``."""
        return [event for step in STEPS if (event := self.last(step)) is not None][-1]

    @property
    def standing(self) -> str:
        """The same as a word."""
        return STEPS[type(self.newest)]

    @property
    def times(self) -> list[tuple[str, datetime, str]]:
        """(what, when, who) of all that happened to it."""
        told = of(self.events, Told)
        return [(event.kind.removeprefix("incident-"), event.at, event.by) for event in told]

    @property
    def ratified(self) -> CouncilDecided | None:
        """The council's decision that ratifies the break-glass."""
        return next((made for made in of(self.events, CouncilDecided) if made.ratifies), None)

    def problem(self, single_operator: bool) -> str:
        """Why it blocks its release, with what to do; empty when it is over."""
        signed, author = self.last(IncidentSignedOff), self.opened.author
        if signed is None:
            held = f"closed and signed off by somebody other than {author}"
            return f"expected it {held}, got it {self.standing} since {utc(self.newest.at)}"
        if signed.account.casefold() == author.casefold() and not single_operator:
            return f"expected it signed off by somebody other than {author}, got their own"
        if self.opened.break_glass and self.ratified is None:
            due = utc(self.ratify_until)
            return f"expected its break-glass ratified by the council until {due}, got no decision"
        return ""

    @property
    def ratify_until(self) -> datetime:
        """When the council's word on the recovery is due."""
        return self.opened.at + COUNCIL_WITHIN

    @property
    def filed(self) -> list[int]:
        """The forge's issues in which it was filed."""
        return [filed.number for filed in of(self.events, IncidentFiled)]

    def decided(self, wanted: str) -> CouncilDecided | None:
        """The council's decision on the text of that digest, as it was recorded."""
        made = of(self.events, CouncilDecided)
        return next((each for each in made if each.digest == wanted), None)

    @property
    def to_ratify(self) -> str:
        """The digest whose approval by the council ratifies its break-glass."""
        return digest({"ratifies": self.id, "opened": self.opened.hash})

    def closing(self, reason: str, by: str, at: datetime) -> IncidentClosed:
        """What a sign-off approves the digest of: the whole incident up to its closing, and why."""
        late = tuple(made.digest for made in of(self.events, CouncilDecided) if made.late)
        head, opened = self.events[-1].hash, self.opened.hash
        return IncidentClosed(
            closes=self.id, opened=opened, head=head, reason=reason, by=by, at=at, decided_late=late
        )


def parse_incident(data: bytes, name: str) -> Incident:
    """An incident out of its file's bytes. Raises LogDamaged for anything else."""
    events, _ = parse(data, f"{INCIDENTS}/{name}", (), read_line)
    found = Incident(name.removesuffix(SUFFIX), events)
    if problem := _unsound(found):
        raise LogDamaged(
            f"{INCIDENTS}/{name}: expected the log of an incident, got {problem}; restore it"
        )
    return found


def _unsound(one: Incident) -> str:
    """What is not as we write it: a closing of another incident, or of this one as it never was."""
    if not one.events or not isinstance(one.events[0], IncidentOpened) or one.opened.id != one.id:
        return "one that opens another incident"
    if other := [e for e in one.events[1:] if not isinstance(e, Told | Torn)]:
        return f"an event {other[0].kind!r}"
    for before, event in pairwise(one.events):
        said = isinstance(event, IncidentClosed) and (event.closes, event.opened, event.head)
        if said and said != (one.id, one.opened.hash, before.hash):
            return "a closing of something else"
    return ""


@dataclass(frozen=True)
class Block:
    """Why an incident (or a recovery that opened none) blocks a release; ``stage`` is its own.

    ``lost``: it was removed from the store, or replaced.
    """

    name: str
    stage: str
    problem: str
    lost: bool = False


def blocking(store: Store, release: str, *, single_operator: bool) -> list[Block]:
    """What of a release's incidents blocks it, oldest first.

    An incident that a recovery's log names must be there, with the first event it had then; a
    recovery that names none has not opened one yet.
    """
    try:
        known = {one.id: one for one in incidents_of(store, release)}
        made = list(recoveries(store, release))
    except RunbookError as error:
        return [Block(INCIDENTS, "", str(error))]
    problems: list[Block] = []
    without: dict[str, str] = {}
    for stage, attempt, name, first in made:
        if not name:
            without[stage] = attempt
            continue
        without.pop(stage, None)
        expected = f"expected the incident that {attempt} opened"
        if name not in known:
            got = f"none; it was removed from the store: restore {INCIDENTS}/{name}{SUFFIX}"
            problems.append(Block(name, stage, f"{expected}, got {got}", lost=True))
        elif known[name].opened.hash != first:
            got = "another in its place: restore it"
            problems.append(Block(name, stage, f"{expected}, got {got}", lost=True))
    for one in known.values():
        if problem := one.problem(single_operator):
            problems.append(Block(one.id, one.opened.stage, problem))
    said = "expected it to open an incident, got none yet: continue the recovery"
    problems += [Block(attempt, stage, said) for stage, attempt in without.items()]
    return problems


def path_of(store: Store, id: str) -> Path:
    return store.root / INCIDENTS / f"{id}{SUFFIX}"


def ids(store: Store, scope: Scope | None = None) -> list[str]:
    """Of all incidents, with a scope by its tape."""
    names = store.names(INCIDENTS, scope)
    return [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]


def load(store: Store, id: str) -> Incident:
    """An incident that exists. Raises StoreError, LogDamaged."""
    try:
        data = local.recorded(path_of(store, id))
    except OSError as error:
        raise StoreError(f"{id}: expected an incident in the store, got none") from error
    return parse_incident(data, f"{id}{SUFFIX}")


def read_incident(scope: Scope, store: Store, id: str) -> Incident:
    """An incident that exists, by the tape. Raises SourceError."""
    path = path_of(store, id)
    try:
        return parse_incident(scope.read(path), path.name)
    except LogDamaged as error:
        name = f"{path.parent.name}/{path.name}"
        raise SourceError(name, str(error).partition(": ")[2]) from error


def incidents_of(store: Store, release: str) -> list[Incident]:
    """Every incident of a release, oldest first. Raises LogDamaged for any that is none."""
    mine = [one for each in ids(store) if (one := load(store, each)).opened.release == release]
    return sorted(mine, key=lambda one: (one.opened.at, one.id))


def open_incident(
    store: Store, opened: IncidentOpened, same: Callable[[Incident], bool]
) -> Incident:
    """The incident that ``same`` knows as this one, else a new one, under an id of its own."""
    release = opened.release
    with store.release_lock(release):
        for each in reversed(ids(store)):
            with suppress(StoreError):  # whatever became of others
                one = load(store, each)
                if one.opened.release == release and same(one):
                    return one
        stem, number, named = f"{release}-{opened.stage}-", 1, set[str]()
        with suppress(RunbookError, OSError):
            named = {name for _, _, name, _ in recoveries(store, release)}
        while path_of(store, name := f"{stem}{number:03d}").exists() or name in named:
            number += 1  # the number of one that was deleted is not given again
        place(store.root, f"{INCIDENTS}/{name}{SUFFIX}")
        Log(path_of(store, name), read_line).append(opened.model_copy(update={"id": name}))
        return load(store, name)


def add(
    store: Store, id: str, event: Told, *, after: type[Told] | None = None, first: bool = False
) -> Incident:
    """Add an event to an incident that has come to ``after``; with ``first`` only one of its kind.

    A closing holds of the incident as it was when it was made. Raises StoreError otherwise.
    """
    problem: list[str] = []

    def make(events: list[Event]) -> Told | None:
        now = Incident(id, events)
        if first and now.last(type(event)) is not None:
            return None
        if now.last(IncidentSignedOff) is not None:
            problem.append(f"{id}: expected one that is not over, got it signed off")
        elif after and now.last(after) is None:
            problem.append(f"{id}: expected it {STEPS[after]} first, got it {now.standing}")
        elif isinstance(event, IncidentClosed) and event.head != events[-1].hash:
            problem.append(f"{id}: expected it as it was read, got more in it; close it again")
        return None if problem else event

    load(store, id)
    Log(path_of(store, id), read_line).append_if(make)
    if problem:
        raise StoreError(problem[0])
    return load(store, id)


def recoveries(store: Store, release: str) -> Iterator[tuple[str, str, str, str]]:
    """(stage, attempt, incident, its first event's hash) of every recovery that applied.

    The last two are empty for one whose log names no incident.
    """
    made = ((name, n) for name in sorted(RECOVERY) for n in store.numbers(release, name))
    for runbook, number in made:
        attempt, stage = f"{release}/{runbook}/{number:04d}", RECOVERY[runbook]
        events = store.log(attempt).events()
        if not events or opened_by(events, attempt).mode != "apply":
            continue
        for named in of(events, IncidentNamed) or [IncidentNamed(id="", first="")]:
            yield stage, attempt, named.id, named.first
