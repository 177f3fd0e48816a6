"""What a record amounts to: where each item stands, whether the run is complete, the verdict.

One function for everybody who asks: the enforce cell, the engine, ``runbook seal``, ``verify`` and
``status`` all judge the same entries the same way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from .. import playbook
from ..errors import RecordDamaged, SourceError
from ..outcomes import CheckResult, Model, Outcome, Row
from ..verdicts import EarlierTry, Standing, Verdict, WaivedRow
from .record import Entry

M = TypeVar("M", bound=Model)
FINAL = ("result", "planned", "not-reached")
OPENING = ("opened", "session", "waiver")
JUDGED = (*FINAL, *OPENING, "started", "enforced")
"""The kinds of entries that tell whether an attempt passed."""


def standings(entries: Sequence[Entry]) -> tuple[Standing, ...]:
    """Where each declared item stands, in the playbook's order. Raises RecordDamaged."""
    declared = entries[0].body["declared"]
    return tuple(standing(entries, item) for item in declared)


def standing(entries: Sequence[Entry], item: str) -> Standing:
    """Where one item stands after its last try."""
    kind = playbook.ITEMS[item].kind
    mine = [e for e in entries if e.kind in ("started", *FINAL) and e.body.get("item") == item]
    finals = [entry for entry in mine if entry.kind in FINAL]
    results = [entry for entry in finals if entry.kind == "result"]
    last = finals[-1] if finals else None
    ended = last is not None and mine[-1] is last
    # Of two that ran at once what ended last counts, whichever began before.
    number = (
        last.body["number"] if last and ended else max((e.body["number"] for e in mine), default=0)
    )
    earlier = tuple(_earlier(one) for one in results if one.body["number"] != number)
    about: dict[str, Any] = {"item": item, "kind": kind, "number": number, "earlier": earlier}
    if last is None or not ended:
        reason = f"try {number} began and did not end" if mine else "has not run"
        return Standing(**about, state="missing", reason=reason)
    body = last.body
    if last.kind == "result":
        result, waived = load_result(body["result"]), waived_rows(entries, item)
        reason = body["result"]["reason"]
        return Standing(**about, state="judged", reason=reason, result=result, waived=waived)
    return Standing(
        **about,
        state="planned" if last.kind == "planned" else "not-reached",
        reason=body["reason"],
        planned=tuple(_load(Row, "planned", row) for row in body.get("rows", ())),
        due=datetime.fromisoformat(body["due"]) if body.get("due") else None,
    )


def load_result(value: Any) -> CheckResult:
    """A result out of a record. Raises RecordDamaged for anything else."""
    return _load(CheckResult, "result", value)


def _load(model: type[M], what: str, value: Any) -> M:
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecordDamaged(f"record: {what}: {where}: {first['msg']}") from error


def verdict(entries: Sequence[Entry], broken: Sequence[str] = ()) -> Verdict:
    """The verdict over a record. ``broken``: what whoever ran it knows beside (a dead kernel)."""
    if not entries or entries[0].kind != "opened":
        raise RecordDamaged("record: expected an opening entry, got none")
    opened = entries[0].body
    sessions = [entry for entry in entries if entry.kind == "session"]
    session = sessions[-1].body if sessions else {}
    items = standings(entries)
    problems = [*broken, *incomplete(entries, items)]
    return Verdict(
        release=opened["release"],
        commit=opened["commit"],
        stage=opened["stage"],
        site=opened["site"],
        mode=opened["mode"],
        attempt=opened["attempt"],
        number=session.get("number", 1),
        source=session.get("source", opened["source"]),
        run=session.get("run", opened["run"]),
        operator=session.get("operator", opened["operator"]),
        started=datetime.fromisoformat(opened["now"]),
        ended=_ended(items, datetime.fromisoformat(opened["now"])),
        items=items,
        broken=tuple(problems),
        notes=tuple(_notes(entries)),
    )


def incomplete(entries: Sequence[Entry], items: Sequence[Standing]) -> list[str]:
    """Why a record cannot count: an item without a final result, out of order, no enforce at the end."""
    problems = []
    opened = entries[0].body
    declared = list(playbook.DECLARED.get(opened["stage"], ()))
    if opened["declared"] != declared:
        problems.append(
            f"declared items: expected the playbook's {len(declared)}, got {len(opened['declared'])};"
            " the record was made by another version of the tool"
        )
    return problems + _unfinished(entries, items)


def passed(entries: Sequence[Entry]) -> bool:
    """Whether a record ended with every item it declared passed (or waived), enforced last.

    What a later version of the playbook declares does not undo it. Raises SourceError for items
    that this version does not know: an older state must not take its place.
    """
    opened = entries[0].body
    if unknown := sorted(set(opened["declared"]) - set(playbook.ITEMS)):
        where = f"{opened['release']}/{opened['stage']}/{opened['attempt']:04d}"
        raise SourceError(where, f"expected items of this version's playbook, got {unknown[0]!r}")
    items = standings(entries)
    good = all(one.state == "judged" and one.outcome is Outcome.PASS for one in items)
    return bool(items) and good and not _unfinished(entries, items)


def _unfinished(entries: Sequence[Entry], items: Sequence[Standing]) -> list[str]:
    problems = []
    missing = [standing for standing in items if standing.state == "missing"]
    problems += [
        f"{standing.item}: expected a final result,"
        f" {'its' if standing.number else 'it'} {standing.reason}"
        for standing in missing
    ]
    firsts: dict[str, int] = {}
    for entry in entries:
        if entry.kind == "result":
            firsts.setdefault(entry.body["item"], entry.seq)
    seen = [firsts[one.item] for one in items if one.item in firsts]
    if seen != sorted(seen):
        problems.append("order: expected the items in the playbook's order, got another")
    made = entries[0].body["source"]
    sources = {entry.body.get("source", made) for entry in entries if entry.kind == "session"}
    if others := sources - {made}:
        got = ", ".join(sorted(others))
        problems.append(f"source: expected every session {made}, as it was opened, got {got}")
    # Opening the attempt again, a waiver and a result all change what enforce would say.
    judged = max(entry.seq for entry in entries if entry.kind in (*FINAL, *OPENING))
    enforced = [entry.seq for entry in entries if entry.kind == "enforced"]
    if not enforced or judged > max(enforced):
        problems.append("enforce: expected it to run last, it did not; run the last cell")
    return problems


def _earlier(entry: Entry) -> EarlierTry:
    return EarlierTry(
        number=entry.body["number"],
        outcome=Outcome(entry.body["result"]["outcome"]),
        reason=entry.body["result"]["reason"],
        retry_reason=entry.body.get("retry_reason", ""),
    )


def waived_rows(entries: Sequence[Entry], item: str) -> tuple[WaivedRow, ...]:
    """Rows of the newest session's waivers for ``item`` (a waiver dropped later no longer counts)."""
    sessions = [entry.seq for entry in entries if entry.kind == "session"]
    since = sessions[-1] if sessions else 0
    rows = []
    for entry in entries[since:]:
        if entry.kind != "waiver" or entry.body["item"] != item:
            continue
        for subject in entry.body["subjects"]:
            rows.append(
                WaivedRow(
                    subject=subject,
                    outcome=Outcome(entry.body["outcome"]),
                    reason=entry.body["reason"],
                    approved_by=tuple(entry.body["approved_by"]),
                    self_approved=entry.body["self_approved"],
                    expires=datetime.fromisoformat(entry.body["expires"]),
                )
            )
    return tuple(rows)


def _ended(items: Sequence[Standing], opened: datetime) -> datetime:
    ends = [standing.result.ended for standing in items if standing.result is not None]
    return max([opened, *ends]).astimezone(UTC)


def _notes(entries: Sequence[Entry]) -> list[str]:
    notes = [entry.body["text"] for entry in entries if entry.kind == "note"]
    for entry in entries:
        if entry.kind == "policy":
            notes.append(f"policy accepted by {entry.body['by']}: {entry.body['moved']}")
        elif entry.kind == "plan" and (by := ", ".join(entry.body["approved_by"])):
            notes += [f"plan approved by {by}"] if "self-approved" in by else []
    return notes
