"""Whether the incidents of a release let it go on."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RunbookError
from .incident_file import FOLDER, SUFFIX
from .incidents import incidents_of, recoveries
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
