"""What a log amounts to: where each item stands, whether the run is complete, the verdict.

One function for everybody who asks: the enforce cell, the engine, ``runbook seal``, ``verify`` and
``status`` all judge the same events the same way.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .. import playbook
from ..errors import SourceError
from ..outcomes import Outcome
from ..verdicts import EarlierTry, Standing, Verdict, WaivedRow
from . import events as kinds
from .log import opened_by

Final = kinds.RunEnded | kinds.Planned | kinds.NotReached
FINAL = (kinds.RunEnded, kinds.Planned, kinds.NotReached)
OPENING = (kinds.Opened, kinds.SessionOpened, kinds.WaiverAccepted)
JUDGED = (*FINAL, *OPENING, kinds.RunStarted, kinds.Enforced)
"""The events that tell whether an attempt passed."""


def standings(events: Sequence[kinds.Event]) -> tuple[Standing, ...]:
    """Where each declared item stands, in the playbook's order. Raises LogDamaged."""
    return tuple(standing(events, item) for item in opened_by(events, "log").declared)


def standing(events: Sequence[kinds.Event], item: str) -> Standing:
    """Where one item stands after its last try."""
    kind = playbook.ITEMS[item].kind
    mine = [e for e in kinds.of(events, kinds.RunStarted, *FINAL) if e.item == item]
    finals = [event for event in mine if isinstance(event, FINAL)]
    final = finals[-1] if finals and mine[-1] is finals[-1] else None
    # Of two that ran at once what ended last counts, whichever began before.
    number = final.number if final else max((e.number for e in mine), default=0)
    earlier = tuple(
        _earlier(one) for one in kinds.of(finals, kinds.RunEnded) if one.number != number
    )
    about: dict[str, Any] = {"item": item, "kind": kind, "number": number, "earlier": earlier}
    match final:
        case kinds.RunEnded(result=result):
            waived = waived_rows(events, item)
            about |= {"reason": result.reason, "result": result, "waived": waived}
            return Standing(**about, state="judged")
        case kinds.Planned(reason=reason, rows=rows):
            return Standing(**about, state="planned", reason=reason, planned=rows)
        case kinds.NotReached(reason=reason, due=due):
            return Standing(**about, state="not-reached", reason=reason, due=due)
    reason = f"try {number} began and did not end" if mine else "has not run"
    return Standing(**about, state="missing", reason=reason)


def verdict(events: Sequence[kinds.Event], broken: Sequence[str] = ()) -> Verdict:
    """The verdict over a log. ``broken``: what whoever ran it knows beside (a dead kernel)."""
    opened = opened_by(events, "log")
    session = kinds.last(events, kinds.SessionOpened)
    items, now = standings(events), session or opened
    return Verdict(
        release=opened.release,
        commit=opened.commit,
        stage=opened.stage,
        site=opened.site,
        mode=opened.mode,
        attempt=opened.attempt,
        number=session.number if session else 1,
        source=now.source,
        run=now.run,
        operator=now.operator,
        started=opened.now,
        ended=_ended(items, opened.now),
        items=items,
        broken=(*broken, *incomplete(events, items)),
        notes=tuple(_notes(events)),
    )


def incomplete(events: Sequence[kinds.Event], items: Sequence[Standing]) -> list[str]:
    """Why a log cannot count: an item without a final result, out of order, no enforce at the end."""
    problems, opened = [], opened_by(events, "log")
    declared = playbook.DECLARED.get(opened.stage, ())
    if opened.declared != tuple(declared):
        problems.append(
            f"declared items: expected the playbook's {len(declared)}, got {len(opened.declared)};"
            " the log was made by another version of the tool"
        )
    return problems + _unfinished(events, items)


def passed(events: Sequence[kinds.Event]) -> bool:
    """Whether a log ended with every item it declared passed (or waived), enforced last.

    What a later version of the playbook declares does not undo it. Raises SourceError for items
    that this version does not know: an older state must not take its place.
    """
    opened = opened_by(events, "log")
    if unknown := sorted(set(opened.declared) - set(playbook.ITEMS)):
        where = opened.name
        raise SourceError(where, f"expected items of this version's playbook, got {unknown[0]!r}")
    items = standings(events)
    good = all(one.state == "judged" and one.outcome is Outcome.PASS for one in items)
    return bool(items) and good and not _unfinished(events, items)


def _unfinished(events: Sequence[kinds.Event], items: Sequence[Standing]) -> list[str]:
    problems = [
        f"{standing.item}: expected a final result,"
        f" {'its' if standing.number else 'it'} {standing.reason}"
        for standing in items
        if standing.state == "missing"
    ]
    firsts: dict[str, int] = {}
    for ended in kinds.of(events, kinds.RunEnded):
        firsts.setdefault(ended.item, ended.seq)
    seen = [firsts[one.item] for one in items if one.item in firsts]
    if seen != sorted(seen):
        problems.append("order: expected the items in the playbook's order, got another")
    made = opened_by(events, "log").source
    if others := {session.source for session in kinds.of(events, kinds.SessionOpened)} - {made}:
        got = ", ".join(sorted(others))
        problems.append(f"source: expected every session {made}, as it was opened, got {got}")
    # Opening the attempt again, a waiver and a result all change what enforce would say.
    judged = max(event.seq for event in kinds.of(events, *FINAL, *OPENING))
    enforced = kinds.last(events, kinds.Enforced)
    if enforced is None or judged > enforced.seq:
        problems.append("enforce: expected it to run last, it did not; run the last cell")
    return problems


def _earlier(ended: kinds.RunEnded) -> EarlierTry:
    return EarlierTry(
        number=ended.number,
        outcome=ended.result.outcome,
        reason=ended.result.reason,
        retry_reason=ended.retry_reason,
    )


def waived_rows(events: Sequence[kinds.Event], item: str) -> tuple[WaivedRow, ...]:
    """Rows of the newest session's waivers for ``item`` (a waiver dropped later no longer counts)."""
    session = kinds.last(events, kinds.SessionOpened)
    return tuple(
        WaivedRow(
            subject=subject,
            outcome=waiver.outcome,
            reason=waiver.reason,
            approved_by=waiver.approved_by,
            self_approved=waiver.self_approved,
            expires=waiver.expires,
        )
        for waiver in kinds.of(events[session.seq if session else 0 :], kinds.WaiverAccepted)
        if waiver.item == item
        for subject in waiver.subjects
    )


def _ended(items: Sequence[Standing], opened: datetime) -> datetime:
    ends = [standing.result.ended for standing in items if standing.result is not None]
    return max([opened, *ends]).astimezone(UTC)


def _notes(events: Sequence[kinds.Event]) -> list[str]:
    notes = [note.text for note in kinds.of(events, kinds.Note)]
    for event in events:
        if isinstance(event, kinds.PolicyAccepted):
            notes.append(f"policy accepted by {event.by}: {event.moved}")
        elif isinstance(event, kinds.PlanMade) and (by := ", ".join(event.approved_by)):
            notes += [f"plan approved by {by}"] if "self-approved" in by else []
    return notes
