"""The incidents of a store: one file each, opened and added to, never overwritten.

    <store>/.incidents/<release>-<stage>-001.jsonl

The record of the recovery that opened one names it, and the hash of its first entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..canonical import digest
from ..errors import RecordDamaged, RunbookError, StoreError
from ..files import place
from ..findings import read_or
from ..playbook import COUNCIL_WITHIN, RECOVERY
from ..sources import local
from ..wording import utc
from .record import Entry, Record, parse
from .store import INCIDENTS, Store

if TYPE_CHECKING:
    from ..sources.scope import Scope

# --- One incident: what its hash-chained file tells of it, and what is left to be done about it ---

SUFFIX = ".jsonl"
STEPS = ("opened", "acknowledged", "mitigated", "closed", "signed-off")
"""What happens to an incident, in this order."""


@dataclass(frozen=True)
class Incident:
    """One incident as its file tells it. Raises RecordDamaged in properties for odd entries."""

    id: str
    entries: Sequence[Entry]

    @property
    def opened(self) -> dict[str, Any]:
        return self.entries[0].body

    @property
    def release(self) -> str:
        return str(self.opened["release"])

    @property
    def author(self) -> str:
        return str(self.opened["author"])

    def last(self, kind: str) -> dict[str, Any] | None:
        """The body of the newest entry of a kind. A sign-off of an earlier closing is none."""
        found = [entry.body for entry in self.entries if entry.kind == kind]
        if kind == "signed-off" and found:
            closed = self.last("closed")
            if closed is None or found[-1]["digest"] != closed["digest"]:
                return None
        return found[-1] if found else None

    def when(self, kind: str) -> datetime | None:
        body = self.last(kind)
        return datetime.fromisoformat(body["at"]) if body else None

    @property
    def step(self) -> str:
        """The last of ``STEPS`` that it has come to."""
        return [step for step in STEPS if self.last(step) is not None][-1]

    @property
    def standing(self) -> str:
        """The same as a word."""
        return {"opened": "open", "signed-off": "signed off"}.get(self.step, self.step)

    @property
    def times(self) -> list[tuple[str, datetime, str]]:
        """(what, when, who) of all that happened to it."""
        return [
            (entry.kind, datetime.fromisoformat(entry.body["at"]), str(entry.body["by"]))
            for entry in self.entries
            if "by" in entry.body and "at" in entry.body
        ]

    @property
    def break_glass(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.opened.get("break_glass")
        return found

    @property
    def ratified(self) -> dict[str, Any] | None:
        """The council's decision that ratifies the break-glass."""
        found = [e.body for e in self.entries if e.kind == "decision" and e.body.get("ratifies")]
        return found[0] if found else None

    def problem(self, single_operator: bool) -> str:
        """Why it blocks its release, with what to do; empty when it is over."""
        signed = self.last("signed-off")
        if signed is None:
            held = f"closed and signed off by somebody other than {self.author}"
            since = datetime.fromisoformat((self.last(self.step) or {})["at"])
            return f"expected it {held}, got it {self.standing} since {utc(since)}"
        if signed["account"].casefold() == self.author.casefold() and not single_operator:
            return f"expected it signed off by somebody other than {self.author}, got their own"
        if self.break_glass and self.ratified is None:
            due = utc(self.ratify_until)
            return f"expected its break-glass ratified by the council until {due}, got no decision"
        return ""

    @property
    def opened_at(self) -> datetime:
        return datetime.fromisoformat(self.opened["at"])

    @property
    def ratify_until(self) -> datetime:
        """When the council's word on the recovery is due."""
        return self.opened_at + COUNCIL_WITHIN

    @property
    def filed(self) -> list[int]:
        """The forge's issues in which it was filed."""
        return [int(e.body["number"]) for e in self.entries if e.kind == "filed"]

    def decided(self, wanted: str) -> dict[str, Any] | None:
        """The council's decision on the text of that digest, as it was recorded."""
        made = (e.body for e in self.entries if e.kind == "decision")
        return next((body for body in made if body["digest"] == wanted), None)

    @property
    def to_ratify(self) -> str:
        """The digest whose approval by the council ratifies its break-glass."""
        return digest({"ratifies": self.id, "opened": self.entries[0].hash})

    def statement(self, reason: str, by: str, at: str) -> dict[str, Any]:
        """What a sign-off approves the digest of: the whole incident up to its closing, and why."""
        decisions = [e.body for e in self.entries if e.kind == "decision"]
        return {
            "closes": self.id,
            "opened": self.entries[0].hash,
            "head": self.entries[-1].hash,
            "reason": reason,
            "by": by,
            "at": at,
            "decided_late": [body["digest"] for body in decisions if body.get("late")],
        }


def parse_incident(data: bytes, name: str) -> Incident:
    """An incident out of its file's bytes. Raises RecordDamaged for anything else."""
    entries, _ = parse(data, f"{INCIDENTS}/{name}")
    found = Incident(name.removesuffix(SUFFIX), entries)
    try:
        if entries[0].kind != "opened" or found.opened["id"] != found.id:
            raise ValueError("its first entry opens another incident")
        for key in ("release", "stage", "author", "attempt"):
            if not isinstance(found.opened[key], str):
                raise TypeError(f"{key} is no text")
        for before, entry in zip(entries[:1] + entries, entries, strict=False):
            _require_sound(entry)
            if entry.kind == "closed":
                _require_own(found, entry.body, before)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"{INCIDENTS}/{name}: expected the record of an incident, got: {error!r}; restore it"
        ) from error
    return found


def _require_sound(entry: Entry) -> None:
    """Raises what an entry of another shape stumbles over."""
    body = entry.body
    if entry.kind in (*STEPS, "decision") and not datetime.fromisoformat(body["at"]).tzinfo:
        raise ValueError(f"entry {entry.seq}: an instant without its offset")
    if entry.kind in ("closed", "signed-off", "decision"):
        body["digest"]
    if entry.kind == "filed":
        int(body["number"])
    int(body.get("in_issue", 0))
    if entry.kind == "signed-off" and not isinstance(body["account"], str):
        raise TypeError("account is no text")


def _require_own(one: Incident, closed: dict[str, Any], before: Entry) -> None:
    """A closing is one of this incident as it was then: a digest approved elsewhere closes nothing."""
    said = {key: value for key, value in closed.items() if key != "digest"}
    about = {"closes": one.id, "opened": one.entries[0].hash, "head": before.hash}
    if closed["digest"] != digest(said) or not about.items() <= said.items():
        raise ValueError("a closing of something else")


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

    An incident that a recovery's record names must be there, with the first entry it had then; a
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
        elif known[name].entries[0].hash != first:
            got = "another in its place: restore it"
            problems.append(Block(name, stage, f"{expected}, got {got}", lost=True))
    for one in known.values():
        if problem := one.problem(single_operator):
            problems.append(Block(one.id, str(one.opened["stage"]), problem))
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
    """An incident that exists. Raises StoreError, RecordDamaged."""
    try:
        data = local.recorded(path_of(store, id))
    except OSError as error:
        raise StoreError(f"{id}: expected an incident in the store, got none") from error
    return parse_incident(data, f"{id}{SUFFIX}")


def incidents_of(store: Store, release: str) -> list[Incident]:
    """Every incident of a release, oldest first. Raises RecordDamaged for any that is none."""
    mine = [one for each in ids(store) if (one := load(store, each)).release == release]
    return sorted(mine, key=lambda one: (str(one.opened["at"]), one.id))


def open_incident(store: Store, body: dict[str, Any], same: Callable[[Incident], bool]) -> Incident:
    """The incident that ``same`` knows as this one, else a new one.

    ``body`` holds release, stage, author, attempt, by, at and what else is to be known.
    """
    release, stage = str(body["release"]), str(body["stage"])
    with store.release_lock(release):
        for each in reversed(ids(store)):
            one = read_or(None, partial(load, store, each), StoreError)  # whatever became of others
            if one is not None and one.release == release and same(one):
                return one
        stem, number, named = f"{release}-{stage}-", 1, set[str]()
        with suppress(RunbookError, OSError):
            named = {name for _, _, name, _ in recoveries(store, release)}
        while path_of(store, name := f"{stem}{number:03d}").exists() or name in named:
            number += 1  # the number of one that was deleted is not given again
        place(store.root, f"{INCIDENTS}/{name}{SUFFIX}")
        Record(path_of(store, name)).append("opened", {**body, "id": name})
        return load(store, name)


def add(
    store: Store,
    id: str,
    kind: str,
    body: dict[str, Any],
    *,
    after: str = "",
    first: bool = False,
) -> Incident:
    """Add an entry to an incident that has come to ``after``; with ``first`` only one of its kind.

    A closing holds of the incident as it was when it was made. Raises StoreError otherwise.
    """
    problem: list[str] = []

    def make(entries: list[Entry]) -> dict[str, Any] | None:
        now = Incident(id, entries)
        if first and now.last(kind) is not None:
            return None
        if now.last("signed-off") is not None:
            problem.append(f"{id}: expected one that is not over, got it signed off")
        elif after and now.last(after) is None:
            problem.append(f"{id}: expected it {after} first, got it {now.standing}")
        elif kind == "closed" and body["head"] != entries[-1].hash:
            problem.append(f"{id}: expected it as it was read, got more in it; close it again")
        return None if problem else body

    load(store, id)
    Record(path_of(store, id)).append_if(kind, make)
    if problem:
        raise StoreError(problem[0])
    return load(store, id)


def recoveries(store: Store, release: str) -> Iterator[tuple[str, str, str, str]]:
    """(stage, attempt, incident, its first entry's hash) of every recovery that applied.

    The last two are empty for one whose record names no incident.
    """
    made = ((name, n) for name in sorted(RECOVERY) for n in store.numbers(release, name))
    for runbook, number in made:
        attempt, stage = f"{release}/{runbook}/{number:04d}", RECOVERY[runbook]
        entries = store.record(attempt).entries()
        if not entries or entries[0].body.get("mode") != "apply":
            continue
        named = [entry.body for entry in entries if entry.kind == "incident"]
        for body in named or [{"id": "", "hash": ""}]:
            yield stage, attempt, str(body["id"]), str(body["hash"])
