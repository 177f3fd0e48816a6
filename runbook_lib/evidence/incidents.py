"""The incidents of a store: one file each, opened and added to, never overwritten.

    <store>/.incidents/<release>-<stage>-001.jsonl

The log of the recovery that opened one names it, and the hash of its first event. On the forge it is
an issue for each audience, and people's words there end it: its file alone proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from pydantic import AwareDatetime

from ..canonical import digest
from ..errors import LogDamaged, RunbookError, SourceError, StoreError, tried
from ..files import place
from ..outcomes import Model
from ..playbook import COUNCIL_WITHIN, RECOVERY
from ..site import Site
from ..sources import local
from ..sources.quorum import Count, anybody, council
from ..sources.scope import live_scope
from ..sources.words import Heard, hear
from ..wording import utc
from .events import E, Event, IncidentNamed, Torn, Undoes, last, of, reader
from .ledger import Ledger
from .log import Log, opened_by, parse
from .store import INCIDENTS

SUFFIX = ".jsonl"


# --- the events of its log ------------------------------------------------------------------------


class Told(Event):
    by: str
    at: AwareDatetime


class BreakGlass(Model):
    by: str
    reason: str


class IncidentOpened(Told, kind="incident-opened"):
    """``attempt`` is the recovery that opened it; ``undoes`` is None where there was no apply."""

    id: str = ""
    release: str
    commit: str
    stage: str
    cluster: str
    attempt: str
    undoes: Undoes | None
    author: str
    issue: int
    break_glass: BreakGlass | None = None


class IncidentClosed(Told, kind="incident-closed"):
    """Of the incident ``closes`` as it was at ``head``; its digest is what a sign-off approves."""

    closes: str
    opened: str
    head: str
    reason: str
    decided_late: tuple[str, ...]

    @property
    def digest(self) -> str:
        return digest(self.content)


class Spoken(Told):
    """``in_issue`` and ``signed_file``: where else than in the incident's issues it was said."""

    digest: str
    in_issue: int = 0
    signed_file: str = ""


class IncidentSignedOff(Spoken, kind="incident-signed-off"):
    account: str
    recorded_by: str
    grounds: str = ""
    self_approved: bool = False


class CouncilDecided(Spoken, kind="decision"):
    """``late``: after the time within which a break-glass must be ratified."""

    grounds: tuple[str, ...]
    ratifies: bool
    late: bool


class IncidentFiled(Told, kind="filed"):
    """In the forge's issue ``number``."""

    number: int


read_line = reader(Told, Torn)
"""Reads a line of an incident's log."""
STEPS: Mapping[type[Told], str] = {
    IncidentOpened: "open",
    IncidentClosed: "closed",
    IncidentSignedOff: "signed off",
}
"""What happens to an incident, in this order, and its status then."""


# --- one incident ---------------------------------------------------------------------------------


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
    def status(self) -> str:
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
            return f"expected it {held}, got it {self.status} since {utc(self.newest.at)}"
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
    """An incident out of its file's bytes: its opening, and closings of it as it was.

    Raises LogDamaged for anything else.
    """
    events, _ = parse(data, f"{INCIDENTS}/{name}", (), read_line)
    one, problem = Incident(name.removesuffix(SUFFIX), events), ""
    if not events or not isinstance(events[0], IncidentOpened) or one.opened.id != one.id:
        problem = "one that opens another incident"
    elif other := [e for e in events[1:] if not isinstance(e, Told | Torn)]:
        problem = f"an event {other[0].kind!r}"
    for before, event in pairwise(events):
        said = isinstance(event, IncidentClosed) and (event.closes, event.opened, event.head)
        if said and said != (one.id, events[0].hash, before.hash):
            problem = problem or "a closing of something else"
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
        """The incident that ``same`` knows as this one, else a new one, under an id of its own."""
        release = opened.release
        with self.store.release_lock(release):
            for each in reversed(self.ids):
                with suppress(StoreError):  # whatever became of others
                    one = self.load(each)
                    if one.opened.release == release and same(one):
                        return one
            stem, number, taken = f"{release}-{opened.stage}-", 1, set[str]()
            with suppress(RunbookError, OSError):
                taken = {named.id for _, _, named in self._recoveries(release) if named}
            while self.path(name := f"{stem}{number:03d}").exists() or name in taken:
                number += 1  # the number of one that was deleted is not given again
            place(self.store.root, f"{INCIDENTS}/{name}{SUFFIX}")
            Log(self.path(name), read_line).append(opened.model_copy(update={"id": name}))
            return self.load(name)

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
            if now.last(IncidentSignedOff) is not None:
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


def heard_of(one: Incident, site: Site, wanted: str, in_issue: int, signed_file: str) -> Heard:
    """What was said in the issues of the incident, ``in_issue``, and of ``wanted`` in a file's text.

    Raises SourceError.
    """
    issues, release = [in_issue, one.opened.issue, *one.filed], one.opened.release
    with live_scope("incident", site) as scope:
        files = [signed_file.encode()]
        return hear(scope, site, wanted, issues=issues, files=files, release=release)


def decision(one: Incident, count: Count, wanted: str, *, ratifies: bool) -> CouncilDecided | None:
    """The event that records what the council decided; None while it did not, or once it is there."""
    if count.at is None or any(made.digest == wanted for made in of(one.events, CouncilDecided)):
        return None
    return CouncilDecided(
        by=str(count),
        at=count.at,
        digest=wanted,
        grounds=tuple(word.grounds for word in count.words),
        ratifies=ratifies,
        late=count.at > one.ratify_until,
    )


def unsaid(one: Incident, site: Site) -> str:
    """Why nobody's word ends a signed-off incident; empty where people still say what ends it."""
    said = tried(_unsaid, one, site)
    if isinstance(said, SourceError):
        return f"expected what ended it read again, got: {said}"
    return said


def _unsaid(one: Incident, site: Site) -> str:
    closed, signed = one.last(IncidentClosed), one.last(IncidentSignedOff)
    if closed and signed and not (site.single_operator and signed.self_approved):
        heard = heard_of(one, site, closed.digest, signed.in_issue, signed.signed_file)
        said = anybody(site, one.opened.author).count(heard, closed.digest)
        if signed.account not in {word.account for word in said.words}:
            return f"expected it signed off by {signed.account}, got no such word"
    if one.opened.break_glass and (made := one.ratified):
        heard = heard_of(one, site, one.to_ratify, made.in_issue, made.signed_file)
        if council(site).count(heard, one.to_ratify).at is None:
            return "expected its break-glass ratified by the council, got no such words"
    return ""
