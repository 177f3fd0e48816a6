"""What a watch has recorded, and who must be reachable while it goes on.

A notification that cannot be sent lies in ``outbox/`` of the attempt and goes out with the next look;
one that went out as we died is sent again. Nothing here keeps the watch from looking.
"""

import json
from datetime import timedelta

from ..canonical import canonical
from ..context import Context
from ..evidence.events import E, Event, Keyed, of, read_line
from ..outcomes import Outcome
from ..playbook import COMMANDER


class WatchLog:
    """The watch's events of an attempt, oldest first, as this look knows them.

    The watch's cell, ``--continue`` and ``runbook watch`` write to one log, at once if need be:
    appends are idempotent by kind and key. What the log holds goes through the tape, so that a
    replay learns of it at the same place.
    """

    def __init__(self, context: Context) -> None:
        self._scope, self._log = context.scope, context.log

        def known() -> str:
            lines = [event.line().decode() for event in of(self._log.events(), Keyed)]
            return canonical(lines).decode()

        found = json.loads(self._scope.derive("what the watch knows", known))
        self._events = [read_line(line.encode()) for line in found]

    def of(self, kind: type[E]) -> list[E]:
        """The events of a kind."""
        return of(self._events, kind)

    def has(self, kind: type[Keyed], key: str) -> bool:
        return any(event.key == key for event in self.of(kind))

    def add(self, event: Keyed) -> None:
        """Add an event, unless there is one of its kind and key, which is known from then on."""
        kind, key = type(event), event.key
        if self.has(kind, key):
            return

        def claim() -> str:
            standing = list[Keyed]()

            def make(known: list[Event]) -> Keyed | None:
                standing.extend(one for one in of(known, kind) if one.key == key)
                return None if standing else event

            self._log.append_if(make)
            return standing[0].line().decode() if standing else ""

        theirs = self._scope.derive(f"{event.kind} {key}", claim)
        if not theirs and not self._scope.live:
            self._log.append(event)
        self._events.append(read_line(theirs.encode()) if theirs else event)


def reachable(context: Context) -> None:
    """Whether there is a commander, a way to tell them, and a place for their word."""
    what, expected = "can be told and answer", "a person, a way to tell them, a place to answer"
    problem = ""
    ways = [name for name, there in ways_of(context).items() if there]
    if not context.site.holders(COMMANDER):
        problem = f"nobody has the role {COMMANDER}; list them in the site's people"
    elif not ways:
        problem = "no way to tell them; set commands.notify or issue"
    elif not (context.params.issue or context.site.words):
        problem = "no place for their answer; set issue, or the site's words"
    outcome = Outcome.INCONCLUSIVE if problem else Outcome.PASS
    context.judge("release commander", what, expected, problem or ", ".join(ways), outcome)


def ways_of(context: Context) -> dict[str, bool]:
    site = context.site
    return {
        "command": site.commands.notify is not None,
        "comment": bool(context.params.issue),
    }


def patience(context: Context) -> timedelta:
    """How long the release commander may take to acknowledge an anomaly."""
    return timedelta(minutes=context.params.engage_minutes)
