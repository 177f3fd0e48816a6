"""What a Prometheus of the rehearsal holds: samples, and what the rules made of them.

The sample of rehearsal time t lies at wall time t - offset. When the clock runs ahead, what is laid
moves back by as much, and only the time skipped is added.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from threading import RLock

import numpy as np

from ..arrays import Floats, Instants
from ..chain.timeline import LEAD_S
from .recorder import Recorder
from .rules import Rule, RuleEngine
from .tsdb import KEPT_MS, Store

TOLD_INSTANTS = ("ALERTS_FOR_STATE",)
"""Series whose values are instants of wall time themselves, in seconds."""
STEP_S = 60.0
SCRAPE_MS = 5000


class History:
    """From the recorder's origin up to ``last`` (wall, ms), a sample each ``STEP_S``. Whoever reads
    or extends it holds ``lock``."""

    def __init__(self, recorder: Recorder, rules: list[Rule]) -> None:
        self.recorder = recorder
        self.store, self.engine, self.lock = Store(), RuleEngine(rules), RLock()
        self.last = 0
        self._events, self._offset = len(recorder.world.events), recorder.world.clock.offset
        now = recorder.world.clock.now()
        steps = np.arange(recorder.origin, now - 1.0, STEP_S)
        self._lay(np.append(steps[steps > now - KEPT_MS / 1000.0], now))

    def holds(self, rules: list[Rule]) -> bool:
        """Whether it is still true: these are its rules, and nothing has altered the past since."""
        new = self.recorder.world.events[self._events :]
        return rules == self.engine.rules and not any(e.data.get("name") in LEAD_S for e in new)

    def copy(self) -> History:
        """The same samples, on the wall as the clock is now; what is laid later is in one alone."""
        made = copy(self)
        with self.lock:
            made.lock, made.store = RLock(), self.store.copy()
            made.recorder, made.engine = copy(self.recorder), copy(self.engine)
        made._move(round(self.recorder.world.clock.offset - self._offset))
        return made

    def _move(self, seconds: int) -> None:
        self._offset, self.last = self._offset + seconds, self.last - 1000 * seconds
        self.store.move(-1000 * seconds, TOLD_INSTANTS)
        self.engine.active = {
            key: replace(alert, since=alert.since - 1000 * seconds)
            for key, alert in self.engine.active.items()
        }

    def skip(self, seconds: int) -> None:
        world = self.recorder.world
        with self.lock:
            begun = self.last / 1000.0 + world.clock.offset
            world.clock.advance(seconds)
            self._move(seconds)
            origin, now = self.recorder.origin, world.clock.now()
            first = (begun - origin) // STEP_S + 1
            grid: Floats = np.arange(origin + first * STEP_S, now - 1.0, STEP_S)
            self._lay(np.append(grid[grid > begun], now))

    def scrape(self) -> None:
        with self.lock:
            clock = self.recorder.world.clock
            now = round((clock.now() - clock.offset) * 1000)
            steps: Instants = np.arange(self.last + SCRAPE_MS, now + 1, SCRAPE_MS)
            if len(steps):
                self._lay(clock.offset + steps / 1000.0)

    def _lay(self, instants: Floats) -> None:
        wall = self.recorder.lay(self.store, instants)
        self.engine.run(self.store, wall)
        self.last = int(wall[-1])
