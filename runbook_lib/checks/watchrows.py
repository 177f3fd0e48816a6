"""What a watch says of itself: its rows at any hour, and the hourly line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..outcomes import Outcome, Row, check_row, unknown_row
from ..wording import count, utc
from . import engaging
from .anomalies import Anomaly, known
from .watchlog import Body

if TYPE_CHECKING:
    from .rounds import Watching

LIVE, LATE = "live", "late"


def rows(watch: Watching) -> list[Row]:
    """What the watch amounts to now: looks, what lacked data, anomalies, the window."""
    found = [engaging.reachable(watch.context), *watch.problems, _made(watch), *_unseen(watch)]
    anomalies = known(watch.log)
    for each in anomalies:
        found += each.rows(watch.trouble.get(each.id, ""))
    return [*found, *_window(watch, anomalies)]


def _made(watch: Watching) -> Row:
    looks = watch.looks().values()
    late = [_clock(body) for body in looks if body["seen"] == LATE]
    expected = f"one every {watch.slots.length / timedelta(minutes=1):g} min"
    got = f"{len(looks)} of {len(watch.all)} made"
    if late:
        more = f" and {len(late) - 4} more" if len(late) > 4 else ""
        got += f", {len(late)} seen late ({', '.join(late[:4])}{more})"
    return check_row("looks", "made", expected, got, ok=True)


def _unseen(watch: Watching) -> Iterator[Row]:
    """One row for each thing of which looks had no data."""
    found: dict[str, list[tuple[str, Row]]] = {}
    for body in watch.looks().values():
        for row in watch.log.rows_of(body):
            if row.outcome is Outcome.INCONCLUSIVE:
                found.setdefault(row.subject, []).append((_clock(body), row))
    for subject, lacking in found.items():
        at, row = lacking[0]
        more = f" and at {count(len(lacking) - 1, 'more look')}" if len(lacking) > 1 else ""
        problem = f"{row.observed} at {at}{more}"
        yield unknown_row(subject, "data at every look", row.expected, problem)


def _clock(body: Body) -> str:
    return f"{datetime.fromisoformat(body['at']):%H:%M}"


def _window(watch: Watching, anomalies: Sequence[Anomaly]) -> list[Row]:
    start, end = watch.slots.anchor, watch.slots.end
    what, expected = "watched", f"over at {utc(end)}"
    begun = f"since {utc(start)}" + (" (restarted)" if start > watch.effect else "")
    if not watch.over:
        due = watch.due() or end
        return [unknown_row("window", what, expected, f"still open, {begun}", return_at=due)]
    if watch.missed():
        return [unknown_row("window", what, expected, "looks are missing")]
    judged = _judgement(watch)
    if not judged:
        text = "over, not judged yet: runbook run mainnet --continue"
        return [unknown_row("window", what, expected, text, return_at=watch.now)]
    # What is an anomaly has its own row already.
    told = {each.subject for each in anomalies}
    shown = [r for r in judged if r.outcome is not Outcome.FAIL or r.subject not in told]
    return [*shown, check_row("window", what, expected, begun, ok=True)]


def _judgement(watch: Watching) -> list[Row]:
    """What the window was last judged to be, with every FAIL of a judgement before."""
    stored = watch.stored()
    last = watch.judged or (watch.log.rows_of(stored[-1]) if stored else [])
    failing = {row.subject for row in last if row.outcome is Outcome.FAIL}
    earlier = [row for body in stored[:-1] for row in watch.log.rows_of(body)]
    kept = [r for r in earlier if r.outcome is Outcome.FAIL and r.subject not in failing]
    return [*last, *kept]


def line(watch: Watching, body: Body | None = None) -> str:
    """Height, participation, proof latency and open incidents, as of a look or the last one."""
    looks = [*watch.looks().values()]
    body = body or (looks[-1] if looks else {})
    levels: dict[str, Any] = body.get("levels", {})
    height = body.get("height")
    share, latency = levels.get("vrf_participation"), levels.get("proof_latency")
    undecided = [each.id for each in known(watch.log) if each.decided is None]
    parts = [
        f"height {height:,}" if height else "height not read",
        f"participation {share:.1%}" if share is not None else "participation unknown",
        f"proof latency {latency:.4g} ms" if latency is not None else "proof latency unknown",
        f"open incidents: {', '.join(undecided) or 'none'}",
    ]
    late = " (seen late)" if body.get("seen") == LATE else ""
    at = utc(datetime.fromisoformat(body["at"])) if body else "no look yet"
    return f"{at}{late}: {', '.join(parts)}"
