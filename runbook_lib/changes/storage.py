"""Storage recovery by the steps of docs/storage_recovery.md, node by node, together.

The snapshot verified, the node stopped and proven so, its log inspected, its data put aside, the
snapshot restored, proofs replayed; then the state roots of all nodes are compared, and only what
agrees is started. Operators are told what to do, and seen to follow the chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from ..context import Context
from ..outcomes import Outcome, Row, check_row
from ..sources.storage import Wal
from .apply import POLL_S, Applier, all_pass
from .followed import LOOK_AGAIN
from .halting import follow
from .restore_instruction import restore_instructions
from .snapshot import choose
from .storage_steps import Work
from .telling import tell

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
