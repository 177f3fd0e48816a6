"""What two attempts differ in: items, outcomes, numbers, waivers, plan, environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RecordDamaged
from ..verdicts import Standing
from .order import plan_of
from .record import Entry, parse
from .standing import standings

ENVIRONMENT = ("release", "commit", "stage", "site", "cluster", "mode", "source", "policy")
SESSION = ("operator", "run", "version", "package")
Difference = tuple[str, str, Any, Any]
"""Where, what, and what either attempt has there; None for what it has not."""


def diff(first: Path, second: Path) -> list[Difference]:
    """Every difference between two attempts, in the playbook's order. Raises RecordDamaged, OSError."""
    before, after = _read(first), _read(second)
    return [
        *_differ("environment", _environment(before), _environment(after)),
        *_items({s.item: s for s in standings(before)}, {s.item: s for s in standings(after)}),
        *_differ("plan", _plan(before), _plan(after)),
    ]


def _read(folder: Path) -> list[Entry]:
    from ..sources.local import recorded

    entries, _ = parse(recorded(folder / "record.jsonl"), folder.name)
    if not entries or entries[0].kind != "opened":
        raise RecordDamaged(f"{folder.name}: expected the record of an attempt, got none")
    return entries


def _environment(entries: Sequence[Entry]) -> dict[str, Any]:
    opened = entries[0].body
    last = next((e.body for e in reversed(entries) if e.kind == "session"), {})
    parameters = {f"params.{key}": value for key, value in opened["params"].items()}
    named = {key: opened.get(key) for key in ENVIRONMENT} | {key: last.get(key) for key in SESSION}
    return named | parameters


def _plan(entries: Sequence[Entry]) -> dict[str, Any]:
    plan = plan_of(entries)
    return {"digest": plan.body["digest"]} if plan else {}


def _items(before: Mapping[str, Standing], after: Mapping[str, Standing]) -> Iterator[Difference]:
    for item in dict.fromkeys([*before, *after]):
        yield from _differ(item, _facts(before.get(item)), _facts(after.get(item)))


def _facts(standing: Standing | None) -> dict[str, Any]:
    """Outcome, state, waivers, and each row's numbers by subject and what was looked at."""
    if standing is None:
        return {}
    facts: dict[str, Any] = {"outcome": standing.outcome.value, "state": standing.state}
    if standing.waived:
        facts["waived"] = [f"{one.subject}: {one.reason}" for one in standing.waived]
    for row in standing.result.rows if standing.result else ():
        about = f"{row.subject}: {row.what}"
        facts |= {about: row.observed, f"{about}, expected": row.expected}
    return facts


def _differ(
    where: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Difference]:
    for what in dict.fromkeys([*before, *after]):
        if before.get(what) != after.get(what):
            yield where, what, before.get(what), after.get(what)
