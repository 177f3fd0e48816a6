"""Storage recovery by the steps of docs/storage_recovery.md, node by node, together.

The snapshot verified, the node stopped and proven so, its log inspected, its data put aside, the
snapshot restored, proofs replayed; then the state roots of all nodes are compared, and only what
agrees is started. Operators are told what to do, and seen to follow the chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from ..canonical import canonical
from ..clusters import Node
from ..context import Context
from ..errors import SourceError
from ..evidence.comment import MARKDOWN
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..sources.commands import Kept, OfNode, Replayed, SiteCommands, Wal, answer, wal_of
from ..sources.node import Rollout
from ..sources.process import Ended
from .apply import POLL_S, Applier, Step, all_pass
from .halting import follow
from .lanes import lanes
from .operators import FOLDER, LOOK_AGAIN, Instruction, tell
from .snapshot import Chosen, choose

KEY = "restore"


def restore_instructions(
    context: Context, chosen: Chosen, nodes: Sequence[Node], height: int, root: str
) -> list[Instruction]:
    """One for each operator of ``nodes``; ``root`` is the state root they must come to."""
    by: dict[str, list[str]] = {}
    for node in nodes:
        by.setdefault(node.operator, []).append(node.name)
    return [_one(context, chosen, who, names, height, root) for who, names in by.items()]


def _one(
    context: Context, chosen: Chosen, operator: str, nodes: list[str], height: int, root: str
) -> Instruction:
    name = f"{operator}.{KEY}"
    marker = f"<!-- rpp-runbook instruct={name} attempt={context.attempt_name} -->"
    document = {
        "bundle": chosen.path,
        "height": height,
        "label": chosen.label,
        "nodes": {node: {"restore": chosen.name} for node in nodes},
        "operator": operator,
        "phase": KEY,
        "plan": chosen.label,
        "release": context.params.release,
        "stage": context.stage,
        "state_root": root,
    }
    facts = {"marker": marker, "snapshot": chosen.name, "snapshot_height": chosen.height}
    told = canonical(document).decode()
    text = MARKDOWN.render("restore.md.j2", **document, **facts, document=told)
    file = context.folder / FOLDER / f"{name}.md"
    return Instruction(operator, KEY, file, marker, text, text)


A = TypeVar("A", bound=OfNode)
FATAL = 1
"""snapshot-verify's exit code for what it could not judge."""
_PASS = Outcome.PASS


def proven_stopped(context: Context, node: str) -> Row:
    """Whether a node is down: its RPC refuses connections and the site says its process is gone."""
    what, expected = "is stopped", "refuses connections, and its process is gone"
    got = context.fleet.get("/status/rollout", Rollout, [node], retries=1)[node]
    if not isinstance(got, SourceError):
        return check_row(node, what, expected, "still answers", ok=False)
    try:
        gone = context.commands.stopped(node)
    except SourceError as error:
        return unknown_row(node, what, expected, error.problem)
    if not gone:
        return check_row(node, what, expected, "its process is still there", ok=False)
    if "ConnectError" in got.problem or "got 7:" in got.problem:  # 7: curl's, refused
        return check_row(node, what, expected, expected, ok=True)
    return unknown_row(node, what, expected, f"RPC: {got.problem}")


@dataclass
class Work:
    """One recovery's nodes: their steps, what these printed, and rows by node."""

    context: Context
    applier: Applier
    chosen: Chosen
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def each(self, names: Sequence[str], phase: str, do: Callable[[One], list[Row]]) -> list[str]:
        """``do`` of all nodes at once, and again of those that could not be reached; who is done."""
        found = self._round(names, phase, do)
        left = [name for name in names if _unreached(found[name])]
        again = self._round(left, f"{phase}, again", do)
        for name in names:
            self.rows.setdefault(name, []).extend(again.get(name, found[name]))
        return [name for name in names if not _open(again.get(name, found[name]))]

    def _round(
        self, names: Sequence[str], phase: str, do: Callable[[One], list[Row]]
    ) -> dict[str, list[Row]]:
        def one(context: Context, applier: Applier, name: str) -> list[Row]:
            try:
                return [*applier.rows, *do(One(name, context, applier))]
            except SourceError as error:
                return [*applier.rows, unknown_row(name, phase, "readable", str(error))]

        return lanes(self.context, self.applier, names, f" {phase}", one)

    # --- one node -------------------------------------------------------------------------------

    def take_down(self, one: One) -> list[Row]:
        """Down, proven so, its log looked at; nothing of its data is touched."""
        commands, name = one.commands, one.name

        def verify(lock: int, outputs: Path) -> Ended:
            ended = commands.verify_snapshot(name, self.chosen.folder, outputs=outputs)
            if ended.code != FATAL:
                return ended
            return replace(ended, code=None, problem="exit 1: it could not be verified")

        def inspect(lock: int, outputs: Path) -> Ended:
            ended = commands.inspect_wal(name, outputs=outputs)
            if ended.code is None:
                return ended
            try:
                wal_of(name, ended)
            except SourceError as error:  # what cannot be read proves nothing
                return replace(ended, code=None, problem=error.problem)
            return ended

        return one.do(
            Step(name, "verify-snapshot", verify, expected="exit 0: whole, signed"),
            Step(
                name,
                "stop",
                one.change("stop"),
                lambda: proven_stopped(one.context, name).outcome is _PASS,
            ),
            Step(name, "prove-stopped", lambda lock, outputs: _ended(one.stopped())),
            Step(name, "inspect-wal", one.guarded(inspect)),
        )

    def renew(self, one: One, height: int) -> list[Row]:
        """The old data aside, the snapshot in their place, proofs and log replayed."""
        label, bundle = self.chosen.label, str(self.chosen.folder)
        steps = (
            ("keep-aside", one.change("keep_data", label=label)),
            ("restore", one.change("restore_snapshot", bundle=bundle, label=label)),
            ("replay-proofs", one.change("replay_proofs", height=str(height))),
        )
        return one.do(*(Step(one.name, what, one.guarded(run)) for what, run in steps))

    def start(self, one: One) -> list[Row]:
        """Back up, on the data that agree."""
        return one.do(Step(one.name, "start", one.change("start")))

    def kept_row(self, one: One) -> list[Row]:
        """Where the old data are, and what its log was."""
        kept = self.read("keep_data", "keep-aside", one.name, Kept).kept
        log = self.read("inspect_wal", "inspect-wal", one.name, Wal)
        found = f"corrupt: {log.problem}" if log.corrupt else f"whole up to {log.height}"
        got = f"as {kept}; its log was {found}"
        return [check_row(one.name, "old data", "kept aside", got, ok=True)]

    def judge(self, name: str, height: int) -> bool:
        """Rows of a node's report against the snapshot; whether all hold."""
        try:
            said = self.report(name)
        except SourceError as error:
            self.rows[name].append(unknown_row(name, "replay", "its report", error.problem))
            return False
        wanted = self.chosen.root or said.expected_state_root
        same = said.restored_root == wanted == said.expected_state_root
        proven = said.pruning_proof_verified and said.restored_matches_expected
        said_proven = "verified" if proven else "not verified"
        rows = [
            check_row(name, "restored state root", wanted[:16], said.restored_root[:16], same),
            check_row(name, "pruning proofs", "verified", said_proven, proven),
            check_row(name, "replayed to", height, said.height, said.height == height),
        ]
        if said.wal_corruption_detected:
            rows.append(check_row(name, "its log", "whole", "corrupt", ok=False))
        if height == self.chosen.height and said.commitment_root != said.restored_root:
            got = f"{said.commitment_root[:16]}: another without a block between"
            rows.append(check_row(name, "commitment root", wanted[:16], got, ok=False))
        self.rows[name] += rows
        return all_pass(rows)

    # --- what steps printed ---------------------------------------------------------------------

    def report(self, name: str) -> Replayed:
        """Raises SourceError."""
        return self.read("replay_proofs", "replay-proofs", name, Replayed)

    def read(self, purpose: str, step: str, name: str, model: type[A]) -> A:
        """What a done step printed, in whichever try. Raises SourceError."""
        stem = self.applier.done(name, step)
        scope = self.context.scope
        return answer(
            purpose, name, scope.read(self.context.folder / "steps" / f"{stem}.out"), model
        )


@dataclass
class One:
    """One node in a lane of its own."""

    name: str
    context: Context
    applier: Applier

    @property
    def commands(self) -> SiteCommands:
        return self.context.commands

    def change(self, purpose: str, **values: str) -> Callable[[int, Path], Ended]:
        """A command of the site that changes the node."""
        return self.commands.change(purpose, self.name, node=self.name, **values)

    def do(self, *steps: Step) -> list[Row]:
        """The steps in order, up to the first that fails; its row."""
        for step in steps:
            if not self.applier.step(step):
                break
        return self.applier.rows

    def stopped(self) -> Row:
        return proven_stopped(self.context, self.name)

    def guarded(self, run: Callable[[int, Path], Ended]) -> Callable[[int, Path], Ended]:
        """``run``, but only while the node is proven stopped: looked up each time, not recalled."""

        def guarded(lock: int, outputs: Path) -> Ended:
            row = self.stopped()
            return run(lock, outputs) if row.outcome is _PASS else _ended(row)

        return guarded


def _ended(row: Row) -> Ended:
    """A row as a command's end."""
    if row.outcome is _PASS:
        return Ended(0, b"", b"")
    got = f"{row.what}: expected it {row.expected}, got: {row.observed}; its data are untouched"
    return Ended(1 if row.outcome is Outcome.FAIL else None, b"", b"", got)


def _open(rows: Sequence[Row]) -> bool:
    return any(row.outcome is not _PASS for row in rows)


def _unreached(rows: Sequence[Row]) -> bool:
    return any(row.outcome is Outcome.INCONCLUSIVE for row in rows)


ROOTS = "state roots"


def plan_storage(context: Context) -> list[Row]:
    """What would be done to each node; which snapshot is chosen when it is."""
    names = context.params.nodes or [node.name for node in context.cluster.nodes]
    what, after = "storage", "the snapshot's, roots compared, the old data kept"
    return [check_row(name, what, "its own", after, Outcome.INCONCLUSIVE) for name in names]


def recover_storage(
    context: Context, applier: Applier, nodes: Sequence[str], *, log: bool = False
) -> list[Row]:
    """Restore the nodes to the attempt's snapshot; with ``log`` replay what was finalized since.

    A node with a deviating state root is never started; nothing is done twice, whatever was killed.
    """
    chosen, rows = choose(context)
    if chosen is None:
        return rows
    context.scope.now()
    control = {node.name: node.control for node in context.cluster.nodes}
    ours = [name for name in nodes if control[name] == "ours"]
    work = Work(context, applier, chosen)
    down = work.each(ours, "down", work.take_down)
    height = _finalized(work, down) if log else chosen.height
    ready = work.each(down, "data", lambda one: work.renew(one, height))
    agreed = _agreed(work, ready, height)
    theirs = [node for node in context.cluster.nodes if node.name in nodes and node.operator]
    told = list[Row]()
    if agreed or not ours:
        root = work.report(agreed[0]).commitment_root if agreed else chosen.root
        mine = replace(applier, rows=told)
        for made in restore_instructions(context, chosen, theirs, height, root):
            tell(context, mine, made, all_ways=True)
    started = work.each(agreed, "start", work.start)
    work.each(started, "up", work.kept_row)
    rows += [row for name in ours for row in work.rows.get(name, ())]
    rows += [row.model_copy(update={"outcome": Outcome.INCONCLUSIVE}) for row in told]
    follows = [*started, *(node.name for node in theirs)]
    whole = len(started) == len(nodes)
    if not started:
        return rows
    patience = timedelta(seconds=context.patience_s)
    if theirs:
        patience = timedelta(minutes=context.params.takeover_minutes)
    return [*rows, *_followers(context, follows, patience, whole=whole)]


def _finalized(work: Work, down: Sequence[str]) -> int:
    """The height that every log holds, fixed by the first replay; of a corrupt one the snapshot's."""
    for name in down:
        if work.applier.done(name, "replay-proofs"):
            return work.report(name).height
    logs = [work.read("inspect_wal", "inspect-wal", name, Wal) for name in down]
    heights = [-1 if log.corrupt or log.height is None else log.height for log in logs]
    return max(min(heights, default=-1), work.chosen.height)


def _agreed(work: Work, ready: Sequence[str], height: int) -> list[str]:
    """The nodes that may start: whose root is the snapshot's, and that of most of the others."""
    sound = [name for name in ready if work.judge(name, height)]
    roots = Counter(work.report(name).commitment_root for name in sound)
    for name in sound:
        mine = work.report(name).commitment_root
        shown = f"{mine[:16]} at {height:,}, as {roots[mine]} of {len(sound)} nodes"
        # Where the backup says no root, one node alone has nothing to be compared with.
        alone = not work.chosen.root and roots[mine] < 2
        ok = roots[mine] * 2 > len(sound)
        outcome = (Outcome.INCONCLUSIVE if alone else Outcome.PASS) if ok else Outcome.FAIL
        said = shown if outcome is Outcome.PASS else f"{shown}: it is not started"
        expected = "the same on all restored nodes"
        work.rows[name].append(check_row(name, ROOTS, expected, said, outcome))
    return [name for name in sound if work.rows[name][-1].outcome is Outcome.PASS]


def _followers(
    context: Context, names: Sequence[str], patience: timedelta, *, whole: bool
) -> list[Row]:
    """Every node is seen to follow the chain again; what waits for others is not yet due."""
    deadline = context.scope.reread() + patience
    while True:
        rows = [one.row for one in follow(context, names).values()]
        now = context.scope.reread()
        if all_pass(rows) or now >= deadline:
            break
        context.scope.sleep(POLL_S)
    if whole:
        return rows
    update = {"outcome": Outcome.INCONCLUSIVE, "return_at": now + LOOK_AGAIN}
    return [r if r.outcome is Outcome.PASS else r.model_copy(update=update) for r in rows]
