"""What one log amounts to: the status of each item, whether the run is complete, the verdict.

Everybody who asks (the enforce cell, the engine, ``runbook seal``, ``verify``, ``status``) judges the
same events the same way.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .. import playbook
from ..errors import LogDamaged, SourceError
from ..outcomes import Outcome
from ..verdicts import EarlierRun, ItemStatus, Verdict, WaivedRow
from . import events as kinds
from .log import opened_by

FINAL = (kinds.RunEnded, kinds.Planned, kinds.NotReached)
OPENING = (kinds.Opened, kinds.SessionOpened, kinds.WaiverAccepted)
JUDGED = (*FINAL, *OPENING, kinds.RunStarted, kinds.Enforced)
"""The events that tell whether an attempt passed."""


def statuses(events: Sequence[kinds.Event]) -> tuple[ItemStatus, ...]:
    """The status of each declared item, in the playbook's order. Raises LogDamaged."""
    return tuple(item_status(events, item) for item in opened_by(events, "log").declared)


def item_status(events: Sequence[kinds.Event], item: str) -> ItemStatus:
    """The status of one item after its last run. Raises LogDamaged for an item not known here."""
    if item not in playbook.ITEMS:
        raise LogDamaged(f"log: expected items of this version's playbook, got {item!r}")
    mine = [e for e in kinds.of(events, kinds.RunStarted, *FINAL) if e.item == item]
    finals = [event for event in mine if isinstance(event, FINAL)]
    final = finals[-1] if finals and mine[-1] is finals[-1] else None
    # Of two that ran at once what ended last counts, whichever began before.
    number = final.number if final else max((e.number for e in mine), default=0)
    earlier = tuple(
        EarlierRun(
            number=one.number,
            outcome=one.result.outcome,
            reason=one.result.reason,
            retry_reason=one.retry_reason,
        )
        for one in kinds.of(finals, kinds.RunEnded)
        if one.number != number
    )
    about: dict[str, Any] = {"item": item, "kind": playbook.ITEMS[item].kind}
    about |= {"number": number, "earlier": earlier}
    match final:
        case kinds.RunEnded(result=result):
            waived = waived_rows(events, item)
            about |= {"reason": result.reason, "result": result, "waived": waived}
            return ItemStatus(**about, state="judged")
        case kinds.Planned(reason=reason, rows=rows):
            return ItemStatus(**about, state="planned", reason=reason, planned=rows)
        case kinds.NotReached(reason=reason, due=due):
            return ItemStatus(**about, state="not-reached", reason=reason, due=due)
    reason = f"run {number} began and did not end" if mine else "has not run"
    return ItemStatus(**about, state="missing", reason=reason)


def waived_rows(events: Sequence[kinds.Event], item: str) -> tuple[WaivedRow, ...]:
    """Rows of the newest session's waivers for ``item`` (a waiver dropped later no longer counts)."""
    session = kinds.last(events, kinds.SessionOpened)
    said = ("outcome", "reason", "approved_by", "self_approved", "expires")
    return tuple(
        WaivedRow(subject=subject, **{name: getattr(waiver, name) for name in said})
        for waiver in kinds.of(events[session.seq if session else 0 :], kinds.WaiverAccepted)
        if waiver.item == item
        for subject in waiver.subjects
    )


def verdict(events: Sequence[kinds.Event], broken: Sequence[str] = ()) -> Verdict:
    """The verdict over a log. ``broken``: what whoever ran it knows beside (a dead kernel)."""
    opened, session = opened_by(events, "log"), kinds.last(events, kinds.SessionOpened)
    items, now = statuses(events), session or opened
    ends = [item.result.ended for item in items if item.result is not None]
    declared, problems = tuple(playbook.DECLARED.get(opened.stage, ())), list(broken)
    if opened.declared != declared:
        problems.append(
            f"declared items: expected the playbook's {len(declared)}, got {len(opened.declared)};"
            " the log was made by another version of the tool"
        )
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
        ended=max([opened.now, *ends]).astimezone(UTC),
        items=items,
        broken=(*problems, *_unfinished(events, items)),
        notes=tuple(_notes(events)),
    )


def passed(events: Sequence[kinds.Event]) -> bool:
    """Whether a log ended with every item it declared passed (or waived), enforced last.

    What a later version of the playbook declares does not undo it. Raises SourceError for items
    that this version does not know: an older state must not take its place.
    """
    opened = opened_by(events, "log")
    try:
        items = statuses(events)
    except LogDamaged as error:
        raise SourceError(opened.name, str(error).partition(": ")[2]) from error
    good = all(one.state == "judged" and one.outcome is Outcome.PASS for one in items)
    return bool(items) and good and not _unfinished(events, items)


def _unfinished(events: Sequence[kinds.Event], items: Sequence[ItemStatus]) -> list[str]:
    """Why a log cannot count: an item without a final result, out of order, no enforce at the end."""
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


def _notes(events: Sequence[kinds.Event]) -> list[str]:
    notes = [note.text for note in kinds.of(events, kinds.Note)]
    for event in events:
        if isinstance(event, kinds.PolicyAccepted):
            notes.append(f"policy accepted by {event.by}: {event.moved}")
        elif isinstance(event, kinds.PlanMade) and (by := ", ".join(event.approved_by)):
            notes += [f"plan approved by {by}"] if "self-approved" in by else []
    return notes


def plan_of(events: Sequence[kinds.Event]) -> kinds.PlanMade | None:
    """The plan that an attempt has."""
    return kinds.last(events, kinds.PlanMade)


def plan_digest(events: Sequence[kinds.Event]) -> str:
    """Its digest; empty for an attempt that has none."""
    plan = plan_of(events)
    return plan.digest if plan else ""


def policy_of(events: Sequence[kinds.Event]) -> str:
    """The policy digest of an attempt's newest session; empty where none is named."""
    naming = kinds.Opened | kinds.SessionOpened | kinds.PolicyAccepted
    return ["", *(event.policy for event in events if isinstance(event, naming))][-1]


def effect(events: Sequence[kinds.Event], item: str) -> datetime:
    """The instant a change took effect: when the last of its nodes was first read back.

    Raises SourceError when the log says of none.
    """
    instants = [event.at for event in kinds.of(events, kinds.NodeVerified) if event.item == item]
    if not instants:
        raise SourceError("journal", f"expected a node that {item} verified, got none")
    return max(instants)
