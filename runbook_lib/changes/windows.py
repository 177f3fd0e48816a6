"""Change windows: a change begins inside, has room to finish, and keeps out of freezes."""

from __future__ import annotations

from datetime import datetime, timedelta

from ..context import Context
from ..fields import parse_instant
from ..outcomes import Row, check_row, unknown_row
from ..params import RolloutParams
from ..wording import utc

WINDOW = "change window"


def window_rows(context: Context, steps: int, *, at: datetime | None = None) -> list[Row]:
    """Whether ``steps`` nodes can be changed now: in plan mode, at the instant that is planned.

    Before the window it is not yet due; after it, or too near its end, it fails.
    """
    params: RolloutParams = context.params
    start, end = params.window
    now = at or context.now
    planned = max(now, start) if params.mode == "plan" else now
    needs = timedelta(minutes=params.minutes_per_node) * steps
    span = f"{utc(start)} to {utc(end)}"
    rows = _freezes(context, start, end)
    if planned < start:
        got = f"it is {utc(planned)}"
        return [*rows, unknown_row("window", WINDOW, span, got, return_at=start)]
    ok = planned + needs <= end
    room = f"{max(end - planned, timedelta(0)) // timedelta(minutes=1)} min left at {utc(planned)}"
    expected = f"{span}, {needs // timedelta(minutes=1)} min before its end"
    return [*rows, check_row("window", WINDOW, expected, room, ok)]


def _freezes(context: Context, start: datetime, end: datetime) -> list[Row]:
    rows = []
    for freeze in context.site.freezes:
        if parse_instant(freeze.start) < end and start < parse_instant(freeze.end):
            got = f"frozen {freeze.start} to {freeze.end}: {freeze.reason}"
            rows.append(check_row("window", "outside every freeze", "no freeze", got, ok=False))
    return rows
