"""The incidents of a store: one file each, opened and added to, never overwritten.

    <store>/.incidents/<release>-<stage>-001.jsonl

The log of the recovery that opened one names it, and the hash of its first event. On the forge it is
an issue for each audience, and people's words there end it: its file alone proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from pydantic import AwareDatetime

from ..canonical import digest
from ..errors import LogDamaged, RunbookError, SourceError, StoreError, tried
from ..files import place
from ..playbook import COUNCIL_WITHIN, RECOVERY
from ..site import Site
from ..sources import local
from ..sources.quorum import Count, Quorum, anybody, council
from ..sources.scope import live_scope
from ..sources.words import hear
from ..wording import utc
from .events import Event, IncidentNamed, Torn, Undoes, last, of, reader
from .ledger import Ledger
from .log import Log, opened_by, parse
from .store import INCIDENTS

SUFFIX = ".jsonl"


# --- the events of its log ------------------------------------------------------------------------


class Told(Event):
    by: str
    at: AwareDatetime


class IncidentOpened(Told, kind="incident-opened"):
    """By the author of the recovery ``attempt``; ``undoes`` is None where there was no apply.

    ``break_glass`` is why nobody was asked, where that was so.
    """

    release: str
    commit: str
    stage: str
    cluster: str
    attempt: str
    undoes: Undoes | None
    issue: int
    break_glass: str = ""

    @property
    def id(self) -> str:
        return f"{self.release}-{self.stage}-{self.attempt.rpartition('/')[2]}"


class IncidentClosed(Told, kind="incident-closed"):
    """Of the incident as it was at ``head``; its digest is what a sign-off approves."""

    head: str
    reason: str

    @property
    def digest(self) -> str:
        return digest(self.content)


class Agreed(Told, kind="incident-agreed"):
    """People's approval of ``digest``: of a closing, a break-glass, or the council's measures.

    ``in_issue`` and ``signed_file``: where else than in the incident's issues it was said.
    """

    digest: str
    grounds: tuple[str, ...]
    self_approved: bool = False
    in_issue: int = 0
    signed_file: str = ""


class IncidentFiled(Told, kind="incident-filed"):
    """In the forge's issue ``number``."""

    number: int


read_line = reader(Told, Torn)
"""Reads a line of an incident's log."""


# --- one incident ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Incident:
    """One incident as its file tells it; its first event is an ``IncidentOpened``."""

    id: str
    events: Sequence[Event]

    @property
    def opened(self) -> IncidentOpened:
        return of(self.events, IncidentOpened)[0]

    @property
    def closed(self) -> IncidentClosed | None:
        return last(self.events, IncidentClosed)

    def agreed(self, wanted: str) -> Agreed | None:
        """The agreement to what has that digest."""
        return next((one for one in of(self.events, Agreed) if one.digest == wanted), None)

    @property
    def signed_off(self) -> Agreed | None:
        """The agreement to its closing; that to an earlier one is none."""
        return self.agreed(self.closed.digest) if self.closed is not None else None

    @property
    def newest(self) -> Told:
        """That by which it came to where it stands."""
        return self.signed_off or self.closed or self.opened

    @property
    def status(self) -> str:
        """The same as a word."""
        return "signed off" if self.signed_off else "closed" if self.closed else "open"

    @property
    def times(self) -> list[tuple[str, datetime, str]]:
        """(what, when, who) of all that happened to it."""
        told = of(self.events, Told)
        return [(event.kind.removeprefix("incident-"), event.at, event.by) for event in told]

    def problem(self, single_operator: bool) -> str:
        """Why it blocks its release, with what to do; empty when it is over."""
        signed, author = self.signed_off, self.opened.by
        if signed is None:
            held = f"closed and signed off by somebody other than {author}"
            return f"expected it {held}, got it {self.status} since {utc(self.newest.at)}"
        if signed.by.casefold() == author.casefold() and not single_operator:
            return f"expected it signed off by somebody other than {author}, got their own"
        if self.opened.break_glass and self.agreed(self.to_ratify) is None:
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

    @property
    def to_ratify(self) -> str:
        """The digest whose approval by the council ratifies its break-glass."""
        return digest({"ratifies": self.id, "opened": self.opened.hash})


def parse_incident(data: bytes, name: str) -> Incident:
    """An incident out of its file's bytes: its opening, and closings of it as it was.

    Raises LogDamaged for anything else.
    """
    events, _ = parse(data, f"{INCIDENTS}/{name}", (), read_line)
    one, problem = Incident(name.removesuffix(SUFFIX), events), ""
    if not events or not isinstance(events[0], IncidentOpened) or one.opened.id != one.id:
        problem = "one that opens another incident"
    elif other := [e for e in events[1:] if not isinstance(e, Told | Torn)]:
        problem = f"an event {other[0].kind!r}"
    elif any(isinstance(e, IncidentClosed) and e.head != was.hash for was, e in pairwise(events)):
        problem = "a closing of something else"
    if problem:
        raise LogDamaged(
            f"{INCIDENTS}/{name}: expected the log of an incident, got {problem}; restore it"
        )
    return one


# --- those of a store -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Why an incident (or a recovery that opened none) blocks a release; ``stage`` is its own.

    ``lost``: it was removed from the store, or replaced.
    """

    name: str
    stage: str
    problem: str
    lost: bool = False


class Incidents(Ledger):
    """What the ledger says of incidents, and what is added to them."""

    def path(self, id: str) -> Path:
        return self.store.root / INCIDENTS / f"{id}{SUFFIX}"

    @property
    def ids(self) -> list[str]:
        names = self.store.names(INCIDENTS, self.scope)
        return [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]

    def load(self, id: str) -> Incident:
        """An incident that exists. Raises StoreError, LogDamaged; by the tape SourceError."""
        path = self.path(id)
        if self.scope is None:
            try:
                return parse_incident(local.recorded(path), path.name)
            except OSError as error:
                raise StoreError(f"{id}: expected an incident in the store, got none") from error
        try:
            return parse_incident(self.scope.read(path), path.name)
        except LogDamaged as error:
            name = f"{path.parent.name}/{path.name}"
            raise SourceError(name, str(error).partition(": ")[2]) from error

    def of(self, release: str) -> list[Incident]:
        """Every incident of a release, oldest first. Raises LogDamaged for any that is none."""
        mine = [one for one in map(self.load, self.ids) if one.opened.release == release]
        return sorted(mine, key=lambda one: (one.opened.at, one.id))

    def blocking(self, release: str, *, single_operator: bool) -> list[Block]:
        """What of a release's incidents blocks it, oldest first.

        An incident that a recovery's log names must be there, with the first event it had then; a
        recovery that names none has not opened one yet.
        """
        try:
            known = {one.id: one for one in self.of(release)}
            made = list(self._recoveries(release))
        except RunbookError as error:
            return [Block(INCIDENTS, "", str(error))]
        problems: list[Block] = []
        without: dict[str, str] = {}
        for stage, attempt, named in made:
            if named is None:
                without[stage] = attempt
                continue
            without.pop(stage, None)
            got, name = "", named.id
            if name not in known:
                got = f"none; it was removed from the store: restore {INCIDENTS}/{name}{SUFFIX}"
            elif known[name].opened.hash != named.first:
                got = "another in its place: restore it"
            if got:
                said = f"expected the incident that {attempt} opened, got {got}"
                problems.append(Block(name, stage, said, lost=True))
        for one in known.values():
            if problem := one.problem(single_operator):
                problems.append(Block(one.id, one.opened.stage, problem))
        said = "expected it to open an incident, got none yet: continue the recovery"
        return problems + [Block(attempt, stage, said) for stage, attempt in without.items()]

    def _recoveries(self, release: str) -> Iterator[tuple[str, str, IncidentNamed | None]]:
        """(stage, attempt, incident) of every recovery that applied; None for one that names none."""
        for runbook in sorted(RECOVERY):
            for number in self.store.numbers(release, runbook):
                attempt = f"{release}/{runbook}/{number:04d}"
                events = self.store.log(attempt).events()
                if events and opened_by(events, attempt).mode == "apply":
                    for named in (*of(events, IncidentNamed),) or (None,):
                        yield RECOVERY[runbook], attempt, named

    def open(self, opened: IncidentOpened, same: Callable[[Incident], bool]) -> Incident:
        """The incident that ``same`` knows as this one, else a new one under its recovery's number."""
        with self.store.release_lock(opened.release):
            for each in reversed(self.ids):
                with suppress(StoreError):  # whatever became of others
                    one = self.load(each)
                    if one.opened.release == opened.release and same(one):
                        return one
            place(self.store.root, f"{INCIDENTS}/{opened.id}{SUFFIX}")
            Log(self.path(opened.id), read_line).append(opened)
            return self.load(opened.id)

    def add(self, id: str, event: Told) -> Incident:
        """Add an event to an incident that is not over.

        The same is added once; a closing holds of the incident as it was when it was made. Raises
        StoreError.
        """
        problem: list[str] = []

        def make(events: list[Event]) -> Told | None:
            now, same = Incident(id, events), {**event.content, "at": ""}
            if same in [{**one.content, "at": ""} for one in of(events, type(event))]:
                return None
            if now.signed_off is not None:
                problem.append(f"{id}: expected one that is not over, got it signed off")
            elif isinstance(event, IncidentClosed) and event.head != events[-1].hash:
                problem.append(f"{id}: expected it as it was read, got more in it; close it again")
            return None if problem else event

        self.load(id)
        Log(self.path(id), read_line).append_if(make)
        if problem:
            raise StoreError(problem[0])
        return self.load(id)


# --- whether those who ended an incident still say so ---------------------------------------------


def agreement(
    one: Incident, site: Site, quorum: Quorum, wanted: str, in_issue: int, signed_file: str
) -> Count:
    """Who of a quorum approves ``wanted``. Raises SourceError."""
    issues, release = [in_issue, one.opened.issue, *one.filed], one.opened.release
    with live_scope("incident", site) as scope:
        files = [signed_file.encode()]
        heard = hear(scope, site, wanted, issues=issues, files=files, release=release)
    return quorum.count(heard, wanted)


def unsaid(one: Incident, site: Site) -> str:
    """Why nobody's word ends a signed-off incident; empty where people still say what ends it."""
    closed, signed, glass = one.closed, one.signed_off, one.agreed(one.to_ratify)
    ended = list[tuple[str, Quorum, Agreed]]()
    if closed and signed and not (site.single_operator and signed.self_approved):
        ended.append((f"it signed off by {signed.by}", anybody(site, one.opened.by), signed))
    if one.opened.break_glass and glass:
        ended.append(("its break-glass ratified by the council", council(site), glass))
    for what, quorum, made in ended:
        words = made.in_issue, made.signed_file
        said = tried(agreement, one, site, quorum, made.digest, *words)
        if isinstance(said, SourceError):
            return f"expected what ended it read again, got: {said}"
        if said.at is None:
            return f"expected {what}, got no such words"
    return ""
