"""The incidents of a store: one file each, opened and added to, never overwritten.

    <store>/.incidents/<release>-<stage>-001.jsonl

The record of the recovery that opened one names it, and the hash of its first entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunbookError, StoreError
from ..fields import NAME
from .incident_file import FOLDER, SUFFIX, Incident, parse_incident
from .record import Entry, Record
from .store import Store


@dataclass(frozen=True)
class Block:
    """Why an incident (or a recovery that opened none) blocks a release; ``stage`` is its own."""

    name: str
    stage: str
    problem: str


def blocking(store: Store, release: str, *, single_operator: bool) -> list[Block]:
    """What of a release's incidents blocks it, oldest first.

    An incident that a recovery's record names must be there, with the first entry it had then; a
    recovery that names none has not opened one yet.
    """
    try:
        known = {one.id: one for one in incidents_of(store, release)}
        made = list(recoveries(store, release))
    except RunbookError as error:
        return [Block(FOLDER, "", str(error))]
    problems: list[Block] = []
    without: dict[str, str] = {}
    for stage, attempt, name, first in made:
        if not name:
            without[stage] = attempt
            continue
        without.pop(stage, None)
        expected = f"expected the incident that {attempt} opened"
        if name not in known:
            got = f"none; it was removed from the store: restore {FOLDER}/{name}{SUFFIX}"
            problems.append(Block(name, stage, f"{expected}, got {got}"))
        elif known[name].entries[0].hash != first:
            problems.append(Block(name, stage, f"{expected}, got another in its place: restore it"))
    for one in known.values():
        if problem := one.problem(single_operator):
            problems.append(Block(one.id, str(one.opened["stage"]), problem))
    said = "expected it to open an incident, got none yet: continue the recovery"
    problems += [Block(attempt, stage, said) for stage, attempt in without.items()]
    return problems


def is_id(text: str) -> bool:
    """Whether it can be an incident's name: it becomes a file's."""
    return NAME.fullmatch(text) is not None


def path_of(store: Store, id: str) -> Path:
    return store.root / FOLDER / f"{id}{SUFFIX}"


def load(store: Store, id: str) -> Incident:
    """An incident that exists. Raises StoreError, RecordDamaged."""
    try:
        data = path_of(store, id).read_bytes()
    except OSError as error:
        raise StoreError(f"{id}: expected an incident in the store, got none") from error
    return parse_incident(data, f"{id}{SUFFIX}")


def incidents_of(store: Store, release: str) -> list[Incident]:
    """Every incident of a release, oldest first. Raises RecordDamaged for any that is none."""
    names = sorted(path.name for path in (store.root / FOLDER).glob(f"*{SUFFIX}"))
    found = [load(store, name.removesuffix(SUFFIX)) for name in names]
    mine = [one for one in found if one.release == release]
    return sorted(mine, key=lambda one: (str(one.opened["at"]), one.id))


def _readable(store: Store, release: str) -> list[Incident]:
    """Those that are not damaged: a recovery opens its own whatever became of others."""
    found = []
    for path in sorted((store.root / FOLDER).glob(f"{release}-*{SUFFIX}")):
        with suppress(StoreError):
            found.append(load(store, path.name.removesuffix(SUFFIX)))
    return [one for one in found if one.release == release]


def open_incident(
    store: Store, body: dict[str, Any], same: Callable[[Incident], bool]
) -> tuple[Incident, bool]:
    """The incident that ``same`` knows as this one, else a new one; and whether it is new.

    ``body`` holds release, stage, author, attempt, by, at and what else is to be known.
    """
    release, stage = str(body["release"]), str(body["stage"])
    with store.release_lock(release):
        for one in reversed(_readable(store, release)):
            if same(one):
                return one, False
        stem, number = f"{release}-{stage}-", 1
        named = _named(store, release)
        while path_of(store, name := f"{stem}{number:03d}").exists() or name in named:
            number += 1  # the number of one that was deleted is not given again
        path_of(store, name).parent.mkdir(exist_ok=True)
        Record(path_of(store, name)).append("opened", {**body, "id": name})
        return load(store, name), True


def _named(store: Store, release: str) -> set[str]:
    with suppress(RunbookError, OSError):
        return {name for _, _, name, _ in recoveries(store, release)}
    return set()


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
    for path in sorted(store.root.glob(f"{release}/*_recovery/[0-9]*/record.jsonl")):
        attempt = str(path.parent.relative_to(store.root))
        entries = Record(path).entries()
        if not entries or entries[0].body.get("mode") != "apply":
            continue
        stage = path.parent.parent.name.removesuffix("_recovery")
        named = [entry.body for entry in entries if entry.kind == "incident"]
        for body in named or [{"id": "", "hash": ""}]:
            yield stage, attempt, str(body["id"]), str(body["hash"])
