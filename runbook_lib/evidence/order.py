"""The order of the stages: one opens only on the stage before it, passed and proven from its files.

What permits is the newest *applied* attempt of the stage before, of the same release and commit and
made in the same world (live, or the same rehearsal): complete, sealed, PASS, its chain and digests
verified. A plan, a replay, or an older pass behind a newer failure permits nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..canonical import canonical, digest_file
from ..errors import RunbookError, SourceError
from ..outcomes import Model, Outcome, explain
from ..playbook import STAGES
from ..sources.scope import Scope
from ..verdicts import Verdict
from .record import Entry, parse
from .seal import MANIFEST
from .standing import verdict
from .store import Attempt, Store
from .undoing import undone_by
from .verify import verify

BEFORE = dict(zip(STAGES[1:], STAGES, strict=False))
"""Stage -> the stage that must have passed before it."""


class Earlier(Model):
    """The attempt of the stage before; ``problem`` is empty when it permits the next stage.

    ``attempt`` is 0 and the rest empty when there is none. ``manifest`` is that file's digest.
    """

    stage: str
    attempt: int = 0
    name: str = ""
    head: str = ""
    manifest: str = ""
    outcome: str = ""
    ended: str = ""
    problem: str = ""


def find_earlier(store: Store, release: str, commit: str, stage: str, source: str) -> Earlier:
    """The attempt that must permit ``stage``, from the store itself. KeyError for the first."""
    return _find(store, release, commit, BEFORE[stage], source)


def permitted(
    scope: Scope, store: Store, release: str, commit: str, stage: str, source: str
) -> Earlier:
    """The same through the tape, once it permits. Raises SourceError saying what stands in the way."""

    def compute() -> str:
        found = find_earlier(store, release, commit, stage, source)
        return canonical(found.model_dump(mode="json")).decode()

    found = Earlier.model_validate_json(scope.derive(f"stage before {stage}", compute))
    if found.problem:
        raise SourceError(f"{release}/{found.stage}", found.problem)
    return found


def entries_of(scope: Scope, store: Store, found: Earlier) -> list[Entry]:
    """Its record. Raises SourceError, RecordDamaged."""
    path = store.root / Path(found.name) / "record.jsonl"
    return parse(scope.read(path), found.name)[0]


def effect(entries: Sequence[Entry], item: str) -> datetime:
    """The instant a change took effect: when the last of its nodes was first read back.

    Raises SourceError when the record says of none.
    """
    instants = [
        datetime.fromisoformat(entry.body["at"])
        for entry in entries
        if entry.kind == "state" and entry.body["item"] == item
    ]
    if not instants:
        raise SourceError("journal", f"expected a node that {item} verified, got none")
    return max(instants)


def _find(store: Store, release: str, commit: str, stage: str, source: str) -> Earlier:
    try:
        attempts = store.attempts(release)
        store.check_heads(attempts)
        applied = [
            attempt
            for attempt in attempts
            if attempt.stage == stage
            and store.opened(attempt)["mode"] == "apply"
            and store.opened(attempt)["source"] in (source, "live", "rehearsal")
        ]
        if not applied:
            got = "an attempt that applied and passed, got none yet"
            return Earlier(stage=stage, problem=f"expected {got}")
        return _judged(store, applied[-1], commit, source)
    except RunbookError as error:
        return Earlier(stage=stage, problem=str(error))


def _judged(store: Store, attempt: Attempt, commit: str, source: str) -> Earlier:
    entries, opened = attempt.record.entries(), store.opened(attempt)
    found = verdict(entries)
    manifest = attempt.folder / MANIFEST
    told = Earlier(
        stage=attempt.stage,
        attempt=attempt.number,
        name=attempt.name,
        head=attempt.record.head,
        manifest=digest_file(manifest) if manifest.is_file() else "",
        outcome=found.outcome.value,
        ended=found.ended.isoformat(),
    )
    return told.model_copy(
        update={"problem": _problem(store, attempt, opened, found, commit, source)}
    )


def _problem(
    store: Store, attempt: Attempt, opened: dict[str, str], found: Verdict, commit: str, source: str
) -> str:
    if opened["source"] != source:
        return f"expected attempt {attempt.number} made {source}, got it made {opened['source']}"
    if opened["commit"] != commit:
        return f"expected commit {commit}, got {opened['commit']} in attempt {attempt.number}"
    if found.outcome is not Outcome.PASS:
        why = found.broken[0] if found.broken else ""
        if found.blocking:
            why = f"{found.blocking[0].item}: {found.blocking[0].reason}"
        return f"expected attempt {attempt.number} PASS, got {found.outcome}: {why}"
    if by := undone_by(store, attempt.release, attempt.stage, attempt.number):
        return f"expected attempt {attempt.number} still in force, got it undone: {by}"
    rows, _ = verify(attempt.folder)
    if any(row.outcome is not Outcome.PASS for row in rows):
        return f"expected attempt {attempt.number} to verify, got: {explain(rows, '', '')}"
    return ""
