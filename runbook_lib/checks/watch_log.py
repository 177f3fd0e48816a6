"""What a watch has recorded, and who must be reachable while it goes on.

A notification that cannot be sent lies in ``outbox/`` of the attempt and goes out with the next look;
one that went out as we died is sent again. Nothing here keeps the watch from looking.
"""

import json
from datetime import timedelta

from ..canonical import canonical
from ..context import Context
from ..evidence.events import E, Event, Judged, Keyed, Looked, WindowJudged, of, read_line
from ..outcomes import Outcome
from ..playbook import COMMANDER


class WatchLog:
    """The watch's events of an attempt, oldest first, as far as this run knows them.

    The watch's cell, ``--continue`` and ``runbook watch`` write to one log, at once if need be:
    appends are idempotent by key. What others added goes through the tape, so that a replay learns
    of it at the same place.
    """

    def __init__(self, context: Context) -> None:
        self._scope, self._log = context.scope, context.log
        journal = context.journal
        self._known = journal[-1].seq + 1 if journal else 0
        self._events = of(journal, Keyed)
        self._own: set[int] = set()

    def of(self, kind: type[E]) -> list[E]:
        """The events of a kind."""
        return of(self._events, kind)

    def judged(self) -> list[Judged]:
        """What has rows: looks in the order of their instants, then judged windows."""
        looks = sorted(self.of(Looked), key=lambda look: (look.at, look.made))
        return [*looks, *self.of(WindowJudged)]

    def has(self, kind: type[Keyed], key: str) -> bool:
        return any(event.key == key for event in self.of(kind))

    def refresh(self) -> None:
        """Learn what others have added."""

        def news() -> str:
            added = self._log.events()[self._known :]
            self._known += len(added)
            theirs = [event for event in of(added, Keyed) if event.seq not in self._own]
            return canonical([event.line().decode() for event in theirs]).decode()

        found = json.loads(self._scope.derive("what others added to the watch", news))
        self._events += of([read_line(line.encode()) for line in found], Keyed)

    def add(self, event: Keyed) -> bool:
        """Add an event, unless there is one of its kind and key. Whether it was added by us."""
        kind, key = type(event), event.key
        if self.has(kind, key):
            return False

        def claim() -> str:
            def make(known: list[Event]) -> Keyed | None:
                return None if any(one.key == key for one in of(known, kind)) else event

            made = self._log.append_if(make)
            if made is not None:
                self._own.add(made.seq)
            return "ours" if made is not None else "another's"

        ours = self._scope.derive(f"{event.kind} {key}", claim) == "ours"
        if ours:
            if not self._scope.live:
                self._log.append(event)
            self._events.append(event)
        else:
            self.refresh()
        return ours


def reachable(context: Context) -> None:
    """Whether there is a commander, a way to tell them, and a place for their word."""
    what, expected = "can be told and answer", "a person, a way to tell them, a place to answer"
    problem = ""
    ways = [name for name, there in ways_of(context).items() if there]
    if not context.site.holders(COMMANDER):
        problem = f"nobody has the role {COMMANDER}; list them in the site's people"
    elif not ways:
        problem = "no way to tell them; set commands.notify, telemetry.notify or issue"
    elif not (context.params.issue or context.site.words):
        problem = "no place for their answer; set issue, or the site's words"
    outcome = Outcome.INCONCLUSIVE if problem else Outcome.PASS
    context.judge("release commander", what, expected, problem or ", ".join(ways), outcome)


def ways_of(context: Context) -> dict[str, bool]:
    site = context.site
    return {
        "command": site.commands.notify is not None,
        "webhook": site.telemetry.notify is not None,
        "comment": bool(context.params.issue),
    }


def patience(context: Context) -> timedelta:
    """How long the release commander may take to acknowledge an anomaly."""
    return timedelta(minutes=context.params.engage_minutes)
