"""One call of the watch: the looks that are due, who must be told, and the window when it is over.

The window begins when the journal says that the last node took the gate, and anew at a decision to
restart the watch. A look that was missed is made up from the metrics store and named "seen late".
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ..context import Context
from ..errors import SourceError
from ..evidence.order import effect
from ..fields import parse_instant
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..params import MainnetParams
from . import engaging
from .anomalies import known, open_new
from .baselines import read_catalogue
from .looks import Seen, Slot, Slots, take, watched
from .marks import restarts
from .watched import GATE, draw, whole
from .watchlog import Body, Log
from .watchrows import LATE, LIVE, line, rows

HOUR = timedelta(hours=1)
HEIGHT = "height in /status/node of every node"


class Watching:
    """One call of the watch: what it knows, what it looks at, and the rows that follow.

    Raises SourceError when the journal does not say that the gate took effect.
    """

    def __init__(self, context: Context) -> None:
        self.context, self.log = context, Log(context)
        self.catalogue = read_catalogue(context)
        self.metrics = watched(self.catalogue)
        self.effect = effect(context.journal, GATE)
        self.trouble: dict[str, str] = {}
        self.problems: list[Row] = []
        self.judged: list[Row] = []
        self._place()

    @property
    def now(self) -> datetime:
        """The instant to judge ranges at."""
        as_of = self.context.params.as_of
        return parse_instant(as_of) if as_of else self.context.now

    # --- one round ------------------------------------------------------------------------------

    def look(self, *, judge: bool) -> list[Row]:
        """Make what looks are due; with ``judge``, judge the window when it is over. The rows."""
        self.log.refresh()
        self._place()
        self.problems = []
        try:
            self._look()
        except SourceError as error:
            due = ", ".join(f"{slot.at:%H:%M}" for slot in self.missed()[:3])
            self.problems = [self.context.unreadable(f"look of {due}", "an answer", error)]
        self.engage()
        self._statuses()
        if judge and self.over and not self.missed():
            self._judge()
            self.engage()
        return rows(self)

    def engage(self) -> None:
        """Open what was found, tell people, hear them; a decision may begin the window anew."""
        now, queries = self.context.now, {"chain": HEIGHT, **self._queries()}
        for opened in open_new(self.log, self.context.attempt_name, now, queries):
            self._draw(opened)
        self.trouble = engaging.engage(self.context, self.log)
        self._place()

    def _draw(self, opened: str) -> None:
        """The figure of an anomaly of a metric: the hours before it, with the limit."""
        anomaly = next(each for each in known(self.log) if each.id == opened)
        name = anomaly.subject.partition(" ")[0]
        metric = next((each for each in self.metrics if each.name == name), None)
        if metric is None:
            return
        try:
            draw(self.context, metric, anomaly, self.context.folder / engaging.FIGURES)
        except SourceError as error:
            self.problems.append(self.context.unreadable(f"figure of {opened}", "data", error))

    def _place(self) -> None:
        params: MainnetParams = self.context.params
        again = [at for each in known(self.log) if (at := each.restarted) is not None]
        span, apart = timedelta(hours=params.watch_hours), timedelta(minutes=params.look_minutes)
        left_out = restarts(self.context.journal)
        self.slots = Slots.of(max([self.effect, *again]), span, apart, left_out)
        self.all = self.slots.all()

    def _look(self) -> None:
        due = [slot for slot in self.missed() if slot.at <= self.now]
        if not due:
            return
        seen, queries = take(self.context, self.metrics, self.slots, due, self._queries())
        for one in seen:
            self._record(one, queries)

    def _record(self, one: Seen, queries: dict[str, str]) -> None:
        live = self.now - one.slot.at < self.slots.length
        rows, height = list(one.rows), None
        if live and not self.context.params.as_of:
            row, height = self._advancing()
            rows.append(row)
        body: Body = {
            "slot": one.slot.number,
            "at": one.slot.at.isoformat(),
            "made": self.context.now.isoformat(),
            "seen": LIVE if live else LATE,
            "rows": [row.model_dump(mode="json") for row in rows],
            "levels": dict(one.levels),
            "height": height,
            "queries": {n: query for n, query in queries.items() if n not in self._queries()},
        }
        self.log.add("look", self._key(one.slot), body)

    def _advancing(self) -> tuple[Row, int | None]:
        """Whether the highest node is past where the last look saw it: nodes have no past."""
        what = "advances"
        # A look just before may have seen the same block.
        until = self.context.now - 10 * timedelta(milliseconds=self.context.cluster.block_time_ms)
        made = [b for b in self.log.of("look") if datetime.fromisoformat(b["made"]) <= until]
        before = max((body["height"] for body in made if body["height"]), default=0)
        answers = self.context.fleet.status().values()
        heights = [found.height for found in answers if not isinstance(found, SourceError)]
        expected = f"above {before}"
        if not heights:
            return unknown_row("chain height", what, expected, "no node answers"), None
        height = max(heights)
        return check_row("chain height", what, expected, height, height > before), height

    def _judge(self) -> None:
        """Judge the window, once; what could not be told then is asked again, a FAIL stays."""
        stored = self.stored()
        if stored and not _open(self.log.rows_of(stored[-1])):
            return
        self.judged = whole(self.context, self.catalogue, self.slots)
        if _open(self.judged) and all(row.outcome is not Outcome.FAIL for row in self.judged):
            return
        body = {
            "start": self.slots.anchor.isoformat(),
            "at": self.slots.end.isoformat(),
            "rows": [row.model_dump(mode="json") for row in self.judged],
        }
        self.log.add("watched", f"{self._window_key()}/{len(stored) + 1}", body)

    def stored(self) -> list[Body]:
        return [b for b in self.log.of("watched") if b["key"].startswith(self._window_key() + "/")]

    def _window_key(self) -> str:
        return f"{self.slots.anchor.isoformat()}..{self.slots.end.isoformat()}"

    # --- what is known --------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self.now >= self.slots.end

    def due(self) -> datetime | None:
        """When to look, or to see whether somebody answered, next; None when there is no need."""
        recovering = any(e.decided and e.decided.kind == "recover" for e in known(self.log))
        if recovering or self.over or self.context.params.as_of:
            return None
        left = [slot.at for slot in self.all if slot.at > self.now]
        answer = engaging.deadline(self.context, self.log)
        return min([*left[:1], *([answer] if answer else [])], default=None)

    def waits_for(self) -> str:
        return f"look {len(self.looks()) + 1} of {len(self.all)}"

    def _key(self, slot: Slot) -> str:
        return f"{self.slots.anchor.isoformat()}/{slot.number}"

    def looks(self) -> dict[int, Body]:
        """The looks of this window, by number."""
        keys = {self._key(slot): slot.number for slot in self.all}
        return {keys[b["key"]]: b for b in self.log.of("look") if b["key"] in keys}

    def missed(self) -> list[Slot]:
        made = self.looks()
        return [slot for slot in self.all if slot.number not in made]

    def _queries(self) -> dict[str, str]:
        """By metric, the query that the first look with data asked."""
        found: dict[str, str] = {}
        for body in self.log.of("look"):
            found = {**body["queries"], **found}
        return found

    # --- hourly lines ---------------------------------------------------------------------------

    def _statuses(self) -> None:
        """A line for every hour of which the last look was made."""
        for body in self.looks().values():
            passed = datetime.fromisoformat(body["at"]) - self.slots.anchor
            hour, into = divmod(passed, HOUR)
            if into >= self.slots.length:
                continue
            key = f"{self.slots.anchor.isoformat()}/{hour}"
            if not self.log.has("status", key):
                self.log.add("status", key, {"at": body["at"], "text": line(self, body)})


def _open(rows: list[Row]) -> bool:
    return any(row.outcome is Outcome.INCONCLUSIVE for row in rows)
