"""mainnet.activate.announce: the window announced in time, new proposals frozen, both read back.

Unfreezing is a duty that stays open when the stage is over: the record says whose it is.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from ..changes.apply import Applier, Change, Step
from ..context import Context
from ..errors import SourceError
from ..files import replace_file
from ..outcomes import CheckResult, Outcome, Row, check_row, unknown_row
from ..params import RolloutParams
from ..playbook import COUNCIL, NOW_SOURCE_LAG
from ..sources.governance import Announcement, Governance
from ..sources.process import Ended
from ..wording import utc
from .rollouts import captured

ITEM = "mainnet.activate.announce"


def _text(context: Context) -> str:
    params: RolloutParams = context.params
    start, end = params.window
    return (
        f"{context.cluster.chain_id}: {params.release} will be activated on {context.cluster_name}\n"
        f"window: {utc(start)} to {utc(end)}\n"
        f"commit: {params.commit}\n"
        f"plan: {context.plan.digest if context.plan else 'none yet'}\n"
        "New governance proposals are frozen from now until the activation has been watched.\n"
    )


def _duty(context: Context) -> Row:
    """Who lifts the freeze: a member of the council, named before it begins."""
    owners = [person.account for person in context.site.people if COUNCIL in person.roles]
    what, expected = "lifts the freeze afterwards", f"somebody with the role {COUNCIL}"
    if not owners:
        return unknown_row("proposals", what, expected, "nobody in the site's people has it")
    return check_row("proposals", what, expected, owners[0], ok=True)


def _notice(context: Context, at: datetime) -> Row:
    params: RolloutParams = context.params
    start, _ = params.window
    given, wanted = start - at, timedelta(hours=params.notice_hours)
    expected, got = f"at least {wanted} before {utc(start)}", f"{given} before it"
    return check_row("announcement", "notice", expected, got, given >= wanted)


def _plan(context: Context) -> list[Row]:
    rows = [_duty(context), _notice(context, _standing(context) or context.now)]
    would = _text(context)
    return [*rows, check_row("announcement", "would say", "", would, Outcome.INCONCLUSIVE)]


def _standing(context: Context) -> datetime | None:
    """When this very window was announced, if it stands. SourceErrors are for the read-back."""
    try:
        found = _announced(context)
    except SourceError:
        return None
    return found.at if found is not None else None


def _announced(context: Context) -> Announcement | None:
    params: RolloutParams = context.params
    start, end = params.window
    mine = ("window", params.release, context.stage, start, end)
    for one in Governance(context.scope, context.site.commands).announced():
        if (one.kind, one.release, one.stage, one.start, one.end) == mine:
            return one
    return None


def _apply(context: Context, applier: Applier) -> CheckResult:
    duty = _duty(context)
    applier.rows += [duty, _notice(context, _standing(context) or context.now)]
    if all(row.outcome is Outcome.PASS for row in applier.rows):
        commands, params = context.commands, context.params
        start, end = params.window
        text = context.folder / "announcement.txt"
        replace_file(text, _text(context))

        def announce(lock: int, outputs: Path) -> Ended:
            return commands.announce(
                params.release, context.stage, start, end, text, lock=lock, outputs=outputs
            )

        def freeze(lock: int, outputs: Path) -> Ended:
            return commands.freeze_proposals(params.release, lock=lock, outputs=outputs)

        told = Step("announcement", "announce", announce, lambda: _standing(context) is not None)
        frozen = Step("proposals", "freeze", freeze, lambda: _frozen(context))
        if applier.step(told) and applier.step(frozen):
            rows, since = _read_back(context)
            applier.rows += rows
            if since is not None and _first_frozen(context) is None:
                kept = {"item": ITEM, "data": {"frozen_since": since.isoformat()}}
                context.record.append("captured", kept)
            note = f"closing duty of {duty.observed}: unfreeze governance proposals"
            noted = [e.body["text"] for e in context.record.entries() if e.kind == "note"]
            if note not in noted:
                context.record.append("note", {"text": note})
    return context.conclude(
        applier.rows,
        passed="the window is announced in time, new proposals are frozen, both read back",
        empty="nothing was announced",
        data={"unfreeze": str(duty.observed)},
    )


def _frozen(context: Context) -> bool:
    try:
        return Governance(context.scope, context.site.commands).proposals().frozen
    except SourceError:
        return False


def _read_back(context: Context) -> tuple[list[Row], datetime | None]:
    """Both as others see them, and since when proposals are frozen."""
    start, end = context.params.window
    what, expected = "stands", f"{utc(start)} to {utc(end)}"
    try:
        found = _announced(context)
        got = f"announced {utc(found.at)}" if found else "not among those that stand"
        rows = [check_row("announcement", what, expected, got, found is not None)]
        if found is not None:
            rows.append(_notice(context, found.at))
    except SourceError as error:
        rows = [context.unreadable(what, expected, error)]
    row, since = _freeze(context)
    return [*rows, row], since


def frozen_row(context: Context) -> Row:
    """Whether new proposals are frozen and none came since: judged before every wave as well.

    The freeze is the one that was read back when it was announced: between one that was lifted and
    the next, proposals may have come and gone.
    """
    return _freeze(context)[0]


def _freeze(context: Context) -> tuple[Row, datetime | None]:
    """The row, and since when proposals are frozen, where that holds."""
    what, expected = "new ones", "frozen, none since"
    try:
        found = Governance(context.scope, context.site.commands).proposals()
    except SourceError as error:
        return context.unreadable(what, expected, error), None
    since, first = found.since, _first_frozen(context)
    if not found.frozen or since is None:
        return check_row("proposals", what, expected, "not frozen", ok=False), None
    if since > context.now + NOW_SOURCE_LAG:
        got = f"frozen from {utc(since)} on, which is still to come"
        return unknown_row("proposals", what, expected, got, return_at=since), None
    if first is not None and since > first:
        got = (
            f"frozen since {utc(first)}, lifted, and frozen again {utc(since)}; start a new attempt"
        )
        return check_row("proposals", what, expected, got, ok=False), None
    late = [one.id for one in found.open if one.created_at > since]
    got = f"since {utc(since)}: {', '.join(late)}" if late else "frozen, none since"
    return check_row("proposals", what, expected, got, not late), since


def _first_frozen(context: Context) -> datetime | None:
    """Since when proposals were frozen as this attempt first read it back; None before that."""
    kept = captured(context.journal, ITEM)
    return datetime.fromisoformat(kept["frozen_since"]) if kept is not None else None


announce = Change(ITEM, _plan, _apply)
