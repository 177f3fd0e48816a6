"""Applying a change: one journal entry before each step and one after, so that any crash resumes.

Done steps are verified and not repeated. A step with an intent and no end is inspected: its
command leaves its exit code in a file even when we are gone, and the node is read back; nothing
is assumed. Every changing command inherits the cluster's lock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..canonical import canonical
from ..context import AT_ONCE, Context
from ..errors import SourceError, tried
from ..evidence.events import NodeVerified, StepPhase, StepTaken, of
from ..files import place
from ..outcomes import CheckResult, Outcome, Row, check_row, unknown_row
from ..plan import CHANNEL_AT, GATES_AT, Artifact, NodePlan, NodeState, differences, phase_of
from ..sources.node import Rollout
from ..sources.process import Ended
from ..strict import project_path
from .approvals import require_standing

POLL_S = 0.5
DONE = Ended(0, b"", b"")


@dataclass(frozen=True)
class Step:
    """A changing command: ``run`` gets the lock's descriptor and a path stem for its outputs.

    ``is_done`` tells from the node itself whether the step was done: asked when a run was
    interrupted and its command left no exit code either. ``expected`` says what a good end is.
    It runs only where its ``precondition``, looked at each time, is PASS.
    """

    node: str
    name: str
    run: Callable[[int, Path], Ended] = lambda lock, outputs: DONE
    is_done: Callable[[], bool] = lambda: False
    expected: str = "exit 0"
    precondition: Callable[[], Row] | None = None

    def ended(self, lock: int, outputs: Path) -> Ended:
        """Run it; how it ended, or why nothing was touched."""
        row = self.precondition() if self.precondition is not None else None
        if row is None or row.outcome is Outcome.PASS:
            return self.run(lock, outputs)
        got = f"{row.what}: expected it {row.expected}, got: {row.observed}; its data are untouched"
        return Ended(1 if row.outcome is Outcome.FAIL else None, b"", b"", got)


@dataclass
class Change:
    """A change item: what it would do, and how it is done (under the cluster's lock).

    A row of ``plan`` that fails refuses the plan. ``observe`` judges what came of a change that
    was made, once the lock is free. Not ``exclusive`` is one that alters no node: it does not wait
    for the cluster's lock.
    """

    item: str
    plan: Callable[[Context], list[Row]]
    apply: Callable[[Context, Applier], CheckResult]
    observe: Callable[[Context, CheckResult], CheckResult] | None = None
    exclusive: bool = True


@dataclass
class Applier:
    """Runs steps of one change under the lock ``descriptor``, journalling each.

    ``unfit`` says what has come up between waves: something pages, a waiver ended. Each step
    names ``fence``, the entry of the log by which the lock was taken.
    """

    context: Context
    descriptor: int
    unfit: Callable[[], str] = lambda: ""
    rows: list[Row] = field(default_factory=list)
    fence: int = 0
    _noted: list[StepTaken] = field(default_factory=list)

    def step(self, step: Step) -> bool:
        """Run a step unless the journal shows it done. False when the change must stop here."""
        if self._found_done(step):
            return True
        self.context.require_going_on()
        if not self._begun(step):
            require_standing(self.context)
        stem = f"{step.node}-{step.name}-{self.context.scope.number}"
        outputs = place(self.context.folder, f"steps/{stem}")
        self._note(step, "intent", stem)
        ended = step.ended(self.descriptor, outputs)
        if ended.code == 0:
            self._note(step, "done", stem)
            return True
        self._note(step, "failed", stem, code=ended.code, problem=ended.problem)
        self.rows.append(failed_row(step, ended))
        return False

    def _begun(self, step: Step) -> bool:
        """Whether a step of the same phase was done on the node: the others follow then."""
        done = [phase_of(e.step) for e in self.steps(step.node) if e.phase == "done"]
        return phase_of(step.name) in done

    def steps(self, node: str = "", name: str = "") -> list[StepTaken]:
        """The journal of this change's steps so far, or of those of a node or of a name: earlier
        runs, then this one.
        """
        return _about([*self._earlier, *self._noted], node, name)

    @property
    def _earlier(self) -> list[StepTaken]:
        steps = of(self.context.journal, StepTaken)
        return [step for step in steps if step.item == self.context.item]

    def settle(self, node: str, base: str, stands: bool) -> None:
        """Journal of the steps of ``base``, each named by its run, which of them ``stands``.

        For those of earlier runs that have no good end: no later run takes them up again.
        """
        for name in dict.fromkeys(e.step for e in _about(self._earlier, node, "")):
            if name.rpartition(".")[0] == base:
                self._found_done(Step(node, name, is_done=lambda: stands))

    def did(self, node: str, base: str) -> bool:
        """Whether some run did such a step."""
        done = [e.step for e in self.steps(node) if e.phase == "done"]
        return base in [name.rpartition(".")[0] for name in done]

    def verified(self, node: str, state: NodeState, phase: str = "") -> None:
        """Journal a node's read-back state: what the next stage expects to find.

        Once a phase: the first read-back is the instant at which it took effect.
        """
        item = self.context.item
        verified = of(self.context.so_far, NodeVerified)
        before = [(e.phase, e.state) for e in verified if (e.item, e.node) == (item, node)]
        if before[-1:] != [(phase, state)]:
            at = self.context.scope.reread()
            made = NodeVerified(item=item, node=node, phase=phase, state=state, at=at)
            self.context.log.append(made)

    def done(self, node: str, name: str) -> str:
        """The path stem of a done step's outputs; empty when it is not done."""
        return next((e.stem for e in self.steps(node, name)[::-1] if e.phase == "done"), "")

    def _note(self, step: Step, phase: StepPhase, stem: str, **more: Any) -> None:
        noted = StepTaken(
            item=self.context.item,
            node=step.node,
            step=step.name,
            phase=phase,
            stem=stem,
            at=self.context.scope.reread(),
            fence=self.fence,
            **more,
        )
        self._noted.append(self.context.log.append(noted))

    def _found_done(self, step: Step) -> bool:
        """Whether an earlier run did a step: an interrupted one by its exit code, else by the node."""
        earlier = _about(self._earlier, step.node, step.name)
        if not earlier or earlier[-1].phase == "done":
            return bool(earlier)
        stem = earlier[-1].stem
        code = self._left_behind(stem)
        if step.is_done() if code is None else code == 0:
            self._note(step, "done", stem, found=True)
            return True
        self._note(step, "inspected", stem, code=code, found=False)
        return False

    def _left_behind(self, stem: str) -> int | None:
        """The exit code an earlier run's command left, when it ended after that run was gone."""
        left = place(self.context.folder, f"steps/{stem}")
        if self.context.scope.live:
            self.context.scope.clean_files(left)
        text = tried(self.context.scope.read, left.with_name(f"{stem}.code"))
        return int(text) if isinstance(text, bytes) and text.strip().isdigit() else None


def _about(steps: Sequence[StepTaken], node: str, name: str) -> list[StepTaken]:
    return [e for e in steps if e.node == (node or e.node) and e.step == (name or e.step)]


# --- The one walk over nodes: a strategy says how ---


@dataclass(frozen=True)
class Strategy:
    """How many nodes of a wave are visited at a time; and whether the walk ``stops`` at the first
    that is not as it should be. Else it passes over it, and runs again what it could not reach.
    """

    at_once: int
    stops: bool


FORWARD, RECOVERY = Strategy(at_once=1, stops=True), Strategy(at_once=AT_ONCE, stops=False)
Waves = Sequence[Sequence[str]]


def walk(
    context: Context,
    applier: Applier,
    waves: Waves,
    strategy: Strategy,
    visit: Callable[[Context, Applier, str], list[Row]],
    about: str = "",
) -> dict[str, list[Row]]:
    """Visit the nodes of each wave; rows by node, of those that it came to.

    Each in a lane of its own, so that a replay tells them apart: by the node and what it is
    ``about``. Where the strategy stops, the rows are the change's already. What was not determined may be by the end: then it is visited again, in its wave.
    """

    def one(name: str) -> list[Row]:
        mine = replace(context, scope=context.scope.lane(f"{name}{about}"))
        rows = visit(mine, replace(applier, context=mine, rows=[]), name)
        if strategy.stops:  # whatever stops the next one, these stay
            applier.rows += rows
        return rows

    found = dict[str, list[Row]]()
    with ThreadPoolExecutor(strategy.at_once) as pool:
        # An interrupt reaches the main thread alone: one node at a time is visited there.
        each = pool.map if strategy.at_once > 1 else map
        for wave in waves:
            for start in range(0, len(wave), strategy.at_once):
                names = wave[start : start + strategy.at_once]
                found |= zip(names, each(one, names), strict=True)
                if strategy.stops and not all(all_pass(found[name]) for name in names):
                    return found
    if not strategy.stops and not about.endswith(AGAIN):
        left = [[name for name in wave if unreached(found[name])] for wave in waves]
        found |= walk(context, applier, left, strategy, visit, about + AGAIN)
    return found


AGAIN = ", again"


def unreached(rows: Sequence[Row]) -> bool:
    """Whether something of a node was not determined."""
    return any(row.outcome is Outcome.INCONCLUSIVE for row in rows)


def failed_row(step: Step, ended: Ended) -> Row:
    """The row of a command that failed, or that is still at work."""
    said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    text = ended.problem or f"exit {ended.code}: {said[-1] if said else 'no message'}"
    if ended.code is None:
        return unknown_row(step.node, step.name, step.expected, text)
    return check_row(step.node, step.name, step.expected, text, ok=False)


def derived(context: Context, what: str, compute: Callable[[], Any]) -> Any:
    """What follows from the store alone, as JSON; a replay has the answer."""
    return json.loads(context.scope.derive(what, lambda: canonical(compute()).decode()))


def all_pass(rows: list[Row]) -> bool:
    """Whether there are rows and all of them hold."""
    return bool(rows) and all(row.outcome is Outcome.PASS for row in rows)


def unsure(rows: Sequence[Row], due: datetime | None = None) -> list[Row]:
    """Rows that prove nothing yet: what is not PASS is INCONCLUSIVE, ``due`` until when."""
    update = {"outcome": Outcome.INCONCLUSIVE, "return_at": due}
    return [r if r.outcome is Outcome.PASS else r.model_copy(update=update) for r in rows]


T = TypeVar("T")


def until(
    context: Context,
    look: Callable[[], T],
    good: Callable[[T], bool],
    patience_s: float | None = None,
) -> T:
    """What ``look`` sees once that is ``good``; what it saw last when the patience is over."""
    patience_s = context.patience_s if patience_s is None else patience_s
    deadline = context.scope.reread().timestamp() + patience_s
    while True:
        seen = look()
        if good(seen) or context.scope.reread().timestamp() >= deadline:
            return seen
        context.scope.sleep(POLL_S)


# --- A node of ours: a build and a configuration put on it, and read back against the plan ---


STEPS = (("deliver", "deploy"), ("restart", "restart"))
"""What is done to a node of ours, and the site's command for it: also by a recovery kit's script."""


def install(
    context: Context,
    applier: Applier,
    node: NodePlan,
    phase: str,
    build: Artifact,
    config: Path,
    named: Callable[[str], str],
) -> list[Row]:
    """Deliver both to a node, restart it in steps of these names, and read it back."""
    given = {"node": node.node, "digest": build.digest, "config": str(config)}
    given["artifact"] = str(project_path(build.path))
    inspect = partial(runs_as_planned, context, node)
    for step, purpose in STEPS:
        run = context.commands.change(purpose, node.node, **given)
        if not applier.step(Step(node.node, named(step), run, inspect)):
            return applier.rows
    return [*applier.rows, *read_back(context, applier, node, phase)]


def runs_as_planned(context: Context, node: NodePlan) -> bool:
    """Whether a node already is what the plan makes of it; a node that cannot be read is not."""
    rollout = context.fleet.rollout([node.node]).known.get(node.node)
    return rollout is not None and all(
        row.outcome is Outcome.PASS for row in _against(context, node, rollout)
    )


def read_back(context: Context, applier: Applier, node: NodePlan, phase: str) -> list[Row]:
    """Compare gates, channel, binary and config with the plan, once the node answers.

    A restart may return at once, and the process before it answer for a while: it is waited for its
    end. What holds is journalled as the node's verified state.
    """

    def look() -> list[Row]:
        seen = tried(lambda: context.fleet.rollout([node.node])[node.node])
        if isinstance(seen, SourceError):
            text = f"no answer within {context.patience_s:g} s: {seen.problem}"
            return [check_row(node.node, SILENT, "answers /status/rollout", text, ok=False)]
        return list(_against(context, node, seen))

    rows = until(context, look, lambda rows: not _is_before(node, rows), OLD_S)
    if rows[0].what == SILENT:
        rows = until(context, look, lambda rows: rows[0].what != SILENT)
    if all_pass(rows):
        applier.verified(node.node, node.after, phase)
    return rows


def _is_before(node: NodePlan, rows: Sequence[Row]) -> bool:
    """Whether rows show just what the node was before, in all that its restart is to change."""
    was = {key: before for key, before, _ in node.changes() if key != "config"}
    shown = {row.what: row.observed for row in rows if row.outcome is Outcome.FAIL}
    return bool(was) and {key: shown.get(key) for key in was} == was


OLD_S = 10.0
"""For so long a process may answer whose restart was asked for."""
SILENT = "comes back"


def _against(context: Context, node: NodePlan, rollout: Rollout) -> Iterator[Row]:
    """A node against its plan; each thing is asked of it when its row is taken."""
    name, after = node.node, node.after
    yield check_row(name, CHANNEL_AT, after.channel, rollout.release_channel)
    wrong = differences(after.gates, rollout.feature_gates)
    for gate, expected, got in wrong:
        yield check_row(name, f"{GATES_AT}.{gate}", expected, got, ok=False)
    if not wrong:
        on = ", ".join(sorted(gate for gate, on in after.gates.items() if on))
        yield check_row(name, "gates on", on, on)
    commands = context.commands
    yield check_row(name, "binary", after.binary, tried(lambda: commands.version(name).digest))
    yield check_row(name, "config", after.config, tried(lambda: commands.read_config(name).digest))
