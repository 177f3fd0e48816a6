"""Storage recovery by the steps of docs/storage_recovery.md, node by node, together.

The snapshot verified, the node stopped and proven so, its log inspected, its data put aside, the
snapshot restored, proofs replayed; then the state roots of all nodes are compared, and only what
agrees is started. Operators are told what to do, and seen to follow the chain.

Whether a chain needs that: it goes on when every node commits blocks, seen twice, two blocks' time
apart. It is halted when none that answers does although enough power is up to commit; with less up,
nodes are missing, and no restore brings them back. Whatever is neither is undecided, and nothing is
touched: one node that cannot be reached must not cost all others their data.

A cluster goes back to the newest whole snapshot of before the apply that is undone. It is chosen
once an attempt and journalled: nodes restored by different runs must agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from ..context import Context
from ..errors import Answers, SourceError, tried
from ..evidence.events import SnapshotChosen, StepTaken, last, of
from ..evidence.posts import Post
from ..findings import Findings
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..site import Node
from ..sources import snapshots
from ..sources.commands import OfNode, Root, Wal, answer, require_well
from ..sources.node import Consensus, Rollout
from ..sources.process import Ended
from ..sources.snapshots import Bundle
from ..sources.wire import Height
from ..strict import project_path
from .apply import RECOVERY, Applier, Step, all_pass, unsure, until, walk
from .back import undone
from .operators import LOOK_AGAIN, instruct, seen, tell_all
from .power import powers
from .waiting import hold_until

Staged = tuple[Bundle, list[Row]]
"""A bundle, and what was judged of it."""


def staged(context: Context) -> list[Staged]:
    """Every bundle of the cluster, the newest first, judged; no bundle is one that is missing."""
    settings, scope = context.cluster.rollback, context.scope
    if settings is None:
        key = f"clusters.{context.cluster_name}.rollback"
        raise SourceError("snapshots", f"expected settings in the site file, got none; set {key}")
    found, keys = list[Staged](), settings.by_version
    for folder in settings.snapshots:
        for bundle in snapshots.find_bundles(scope, folder, keys):
            judged = Findings()
            snapshots.judge_bundle(scope, judged, bundle, keys, context.cluster.chain_id)
            found.append((bundle, judged.findings))
    if not found:
        raise SourceError("snapshots", "expected at least one bundle, got none")
    return sorted(found, key=lambda one: one[0].newness, reverse=True)


def choose(context: Context) -> tuple[SnapshotChosen | None, list[Row]]:
    """The attempt's snapshot, and the rows that say why that one, or why none."""
    if before := last(context.so_far, SnapshotChosen):
        return before, [_chosen(before, "chosen by this attempt before")]
    bundles = staged(context)
    good = [bundle for bundle, rows in bundles if all_pass(rows)]
    if not good:
        return None, [row for _, rows in bundles for row in rows]
    # Before the apply that is undone began its first step.
    back = undone(context)
    steps = of(back.entries, StepTaken) if back is not None else []
    since = steps[0].at.timestamp() if steps else None
    older = [bundle for bundle in good if since is not None and bundle.newness[1] < since]
    taken = (older or good)[0]
    assert taken.about is not None
    height, root = taken.about.height, taken.about.state_root
    made = SnapshotChosen(
        item=context.item,
        path=taken.place,
        name=taken.name,
        height=height,
        root=root,
        label=f"{context.params.release}-{context.stage}-{height}",
    )
    context.log.append(made)
    passed = [bundle.name for bundle, rows in bundles if not all_pass(rows)]
    why = "of before the apply" if older or since is None else "none is of before the apply"
    return made, [_chosen(made, f"{why}; not whole: {', '.join(passed)}" if passed else why)]


def _chosen(chosen: SnapshotChosen, why: str) -> Row:
    got = f"{chosen.name}, height {chosen.height:,} ({why})"
    return check_row("snapshot", "to go back to", "whole, signed, of this chain", got, ok=True)


BLOCKS = 2
FOLLOWS = "follows its chain"


@dataclass(frozen=True)
class Need:
    """The nodes whose storage must be restored; without any, rows that disprove it, or do not."""

    rows: list[Row]
    nodes: tuple[str, ...] = ()


Looked = dict[str, tuple[Row, list[Consensus]]]
"""Of each node whether it follows its chain, and its two answers; none where one failed."""


def follow(context: Context, names: Sequence[str] | None = None) -> Looked:
    """Each node looked at twice, two blocks' time apart."""

    def look() -> Answers[str, Consensus]:
        return context.fleet.get("/status/consensus", Consensus, names, retries=1)

    first = look()
    pause = timedelta(milliseconds=BLOCKS * context.cluster.block_time_ms, seconds=1)
    hold_until(context, context.scope.renew() + pause, f"{BLOCKS} blocks")
    second = look()
    expected, found = f"{BLOCKS} blocks on, committed by a quorum", Looked()
    for name in first:
        if failed := first.failed.get(name) or second.failed.get(name):
            found[name] = check_row(name, FOLLOWS, expected, failed), []
            continue
        then, now = first[name], second[name]
        power = f"{now.commit_power} of {now.quorum_threshold}"
        enough = int(now.commit_power) >= int(now.quorum_threshold)
        ok = now.height > then.height and now.quorum_reached and enough
        got = f"height {then.height:,}, then {now.height:,}, committed by {power}"
        found[name] = check_row(name, FOLLOWS, expected, got, ok), [then, now]
    return found


def diagnose(context: Context, *, logs: bool = False, halts: bool = True) -> Need:
    """What must be restored: with ``logs`` the nodes of ours whose log is corrupt, and where none is
    and the chain stands still, every node, together: nothing tells which store is sound.
    """
    found, bundles = follow(context), staged(context)
    rows = [row for _, judged in bundles for row in judged]
    if not logs:
        return _halted(context, found, rows)
    needed, goes_on = list[str](), False
    newest = next((bundle for bundle, judged in bundles if all_pass(judged)), None)
    for node in context.cluster.nodes:
        (row, answers), ours = found[node.name], node.control == "ours"
        mine = [row, _at(context, node.name, newest)] if ours and newest is not None else [row]
        goes_on |= row.outcome is Outcome.PASS
        if not answers and ours:
            log, corrupt = _log(context, node.name)
            if corrupt:
                needed.append(node.name)
                continue
            mine.append(log)
        rows += mine
    if not (needed or goes_on) and halts and (stopped := _halted(context, found, [])).nodes:
        return stopped
    return Need(rows, tuple(needed))


def _halted(context: Context, found: Looked, bundles: Sequence[Row]) -> Need:
    """Whether the chain stands still: then every node must go back."""
    rows = [row for row, _ in found.values()]
    answers = {name: pair for name, (_, pair) in found.items() if pair}
    if not answers or any(now.height > then.height for then, now in answers.values()):
        return Need([*rows, *bundles])
    others = [name for name in found if name not in answers]
    heard = seen(context, others) if others else {}
    up = [*answers, *(name for name, by in heard.items() if by)]
    known = tried(powers, context)
    if isinstance(known, SourceError):
        return Need([*rows, check_row(known.source, "power that is up", "known", known)])
    power = sum(known.of.get(name, 0) for name in up)
    if power < known.quorum:
        got = f"{power:,}: bring back the nodes that are down first"
        row = unknown_row("the chain", "power that is up", f"{known.quorum:,} for a block", got)
        # That it stands still proves nothing yet: no chain commits without a quorum.
        return Need([*unsure(rows), row])
    heights = sorted({now.height for _, now in answers.values()})
    got = f"halted at {', '.join(f'{height:,}' for height in heights)}, a quorum is up"
    row = check_row("the chain", "goes on or is halted", "known", got, ok=True)
    return Need([row], tuple(node.name for node in context.cluster.nodes))


def _at(context: Context, name: str, bundle: Bundle) -> Row:
    """The newest whole bundle, as a node fetches it."""
    what, expected = "snapshot as the node has it", f"{bundle.name}: whole, signed"
    words = {0: "whole, signed", 2: "signature invalid", 3: "chunks do not match"}
    ended = tried(context.commands.verify_snapshot, name, bundle.path)
    if isinstance(ended, SourceError):
        return check_row(name, what, expected, ended)
    if ended.code in words:
        return check_row(name, what, expected, words[ended.code], ended.code == 0)
    return unknown_row(name, what, expected, ended.problem or f"exit {ended.code}")


def _log(context: Context, name: str) -> tuple[Row, bool]:
    """The log of a node that does not answer, and whether it is corrupt.

    It is read only where the node's process is gone.
    """
    what = "write-ahead log"

    def look() -> Wal | None:
        commands = context.commands
        return wal_of(name, commands.inspect_wal(name)) if commands.stopped(name) else None

    wal = tried(look)
    if not isinstance(wal, Wal):
        got = wal or "its process is there, and answers nobody"
        return unknown_row(name, what, "read", got), False
    return check_row(name, what, "whole", f"{wal.records} records", not wal.corrupt), wal.corrupt


KEY = "restore"


def restore_instructions(
    context: Context, chosen: SnapshotChosen, nodes: Sequence[Node], height: int, root: str
) -> Iterator[Post]:
    """One for each operator of ``nodes``; ``root`` is the state root they must come to."""
    for operator in dict.fromkeys(node.operator for node in nodes):
        theirs = [node.name for node in nodes if node.operator == operator]
        document = {
            "bundle": chosen.path,
            "height": height,
            "label": chosen.label,
            "nodes": {node: {"restore": chosen.name} for node in theirs},
            "operator": operator,
            "phase": KEY,
            "plan": chosen.label,
            "release": context.params.release,
            "stage": context.stage,
            "state_root": root,
        }
        facts = {"snapshot": chosen.name, "snapshot_height": chosen.height}
        yield from instruct(context, "restore.md.j2", KEY, document, **facts)


A = TypeVar("A", bound=OfNode)
FATAL = 1
"""snapshot-verify's exit code for what it could not judge."""
Steps = dict[str, list[Step]]


def proven_stopped(context: Context, node: str) -> Row:
    """Whether a node is down: its RPC refuses connections and the site says its process is gone."""
    what, expected = "is stopped", "refuses connections, and its process is gone"
    asked = context.fleet.get("/status/rollout", Rollout, [node], retries=1)
    if not asked.failed:
        return check_row(node, what, expected, "still answers", ok=False)
    gone = tried(context.commands.stopped, node)
    if isinstance(gone, SourceError):
        return check_row(node, what, expected, gone)
    if not gone:
        return check_row(node, what, expected, "its process is still there", ok=False)
    problem = asked.failed[node].problem
    if "ConnectError" in problem or "got 7:" in problem:  # 7: curl's, refused
        return check_row(node, what, expected, expected, ok=True)
    return unknown_row(node, what, expected, f"RPC: {problem}")


DATA = (
    ("keep-aside", "keep_data"), ("restore", "restore_snapshot"), ("replay-proofs", "replay_proofs"),
)  # fmt: skip
"""What is done to a stopped node's data: a step, and the site's command for it."""


def steps_of(context: Context, chosen: SnapshotChosen, name: str, height: int) -> Steps:
    """The steps of a node by phase: before each on its data it is proven stopped."""
    commands, bundle = context.commands, project_path(chosen.path)
    given = {"node": name, "bundle": str(bundle), "label": chosen.label, "height": str(height)}
    stopped = partial(proven_stopped, context, name)

    def verify(lock: int, outputs: Path) -> Ended:
        ended = commands.verify_snapshot(name, bundle, outputs=outputs)
        unjudged = replace(ended, code=None, problem="exit 1: it could not be verified")
        return unjudged if ended.code == FATAL else ended

    def inspect(lock: int, outputs: Path) -> Ended:
        ended = commands.inspect_wal(name, outputs=outputs)
        log = tried(wal_of, name, ended)
        if ended.code is not None and isinstance(log, SourceError):
            return replace(ended, code=None, problem=log.problem)  # it proves nothing
        return ended

    def is_down() -> bool:
        return stopped().outcome is Outcome.PASS

    return {
        "down": [
            Step(name, "verify-snapshot", verify, expected="exit 0: whole, signed"),
            Step(name, "stop", commands.change("stop", name, **given), is_down),
            Step(name, "prove-stopped", precondition=stopped),
            Step(name, "inspect-wal", inspect, precondition=stopped),
        ],
        "data": [
            Step(name, step, commands.change(purpose, name, **given), precondition=stopped)
            for step, purpose in DATA
        ],
        "start": [Step(name, "start", commands.change("start", name, **given))],
    }


@dataclass
class Work:
    """One recovery's nodes: the phases they are taken through, what steps printed, rows by node."""

    context: Context
    applier: Applier
    chosen: SnapshotChosen
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def each(self, names: Sequence[str], phase: str, height: int = 0) -> list[str]:
        """The steps of a phase on all nodes at once, again on those not reached; who is done."""

        def one(context: Context, applier: Applier, name: str) -> list[Row]:
            steps = steps_of(context, self.chosen, name, height)[phase]
            with Findings(findings=applier.rows).reading(phase, "readable", name):
                all(applier.step(step) for step in steps)
            return applier.rows

        found = walk(self.context, self.applier, [names], RECOVERY, one, f" {phase}")
        for name in names:
            self.rows.setdefault(name, []).extend(found[name])
        return [name for name in names if not found[name]]

    def kept(self, name: str) -> None:
        """Where the old data are, and what its log was."""
        found, what, expected = Findings(findings=self.rows[name]), "old data", "kept aside"
        with found.reading(what, expected, name):
            kept = self.read("keep_data", "keep-aside", name, Kept).kept
            log = self.read("inspect_wal", "inspect-wal", name, Wal)
            was = f"corrupt: {log.problem}" if log.corrupt else f"whole up to {log.height}"
            found.judge(name, what, expected, f"as {kept}; its log was {was}", ok=True)

    def judge(self, name: str, height: int) -> bool:
        """Rows of a node's report against the snapshot; whether all hold."""
        found = Findings()
        with found.reading("replay", "its report", name):
            said = self.report(name)
            wanted = self.chosen.root or said.expected_state_root
            same = said.restored_root == wanted == said.expected_state_root
            found.judge(name, "restored state root", wanted[:16], said.restored_root[:16], same)
            proven = said.pruning_proof_verified and said.restored_matches_expected
            got = "verified" if proven else "not verified"
            found.judge(name, "pruning proofs", "verified", got)
            found.judge(name, "replayed to", height, said.height)
            if said.wal_corruption_detected:
                found.judge(name, "its log", "whole", "corrupt", ok=False)
            if height == self.chosen.height and said.commitment_root != said.restored_root:
                got = f"{said.commitment_root[:16]}: another without a block between"
                found.judge(name, "commitment root", wanted[:16], got, ok=False)
        self.rows[name] += found.findings
        return all_pass(found.findings)

    def report(self, name: str) -> Replayed:
        """Raises SourceError."""
        return self.read("replay_proofs", "replay-proofs", name, Replayed)

    def read(self, purpose: str, step: str, name: str, model: type[A]) -> A:
        """What a done step printed, in whichever run. Raises SourceError."""
        stem = self.applier.done(name, step)
        printed = self.context.scope.read(self.context.folder / "steps" / f"{stem}.out")
        return answer(purpose, name, printed, model)


def plan_storage(context: Context) -> list[Row]:
    """What would be done to each node; which snapshot is chosen when it is."""
    names = context.params.nodes or [node.name for node in context.cluster.nodes]
    what, after = "storage", "the snapshot's, roots compared, the old data kept"
    return [check_row(name, what, "its own", after, Outcome.INCONCLUSIVE) for name in names]


def restore_nodes(
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
    down = work.each(ours, "down")
    height = _finalized(work, down) if log else chosen.height
    ready = work.each(down, "data", height)
    agreed = _agreed(work, ready, height)
    theirs = [n for n in context.cluster.nodes if n.name in nodes and n.name not in ours]
    told = list[Row]()
    if agreed or not ours:
        root = work.report(agreed[0]).commitment_root if agreed else chosen.root
        made = restore_instructions(context, chosen, theirs, height, root)
        told = tell_all(context, applier, made)
    started = work.each(agreed, "start")
    for name in started:
        work.kept(name)
    rows += [row for name in ours for row in work.rows.get(name, ())]
    rows += told
    if not started:
        return rows
    follows = [*started, *(node.name for node in theirs)]
    patience = context.params.takeover_minutes * 60 if theirs else context.patience_s

    def look() -> list[Row]:
        return [row for row, _ in follow(context, follows).values()]

    found = until(context, look, all_pass, patience)
    # Each node is seen to follow the chain again; what waits for others is not yet due.
    whole, due = len(started) == len(nodes), context.scope.reread() + LOOK_AGAIN
    return [*rows, *(found if whole else unsure(found, due))]


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
        work.rows[name].append(check_row(name, "state roots", expected, said, outcome))
    return [name for name in sound if work.rows[name][-1].outcome is Outcome.PASS]


class Replayed(OfNode):
    """``restored_root`` is the snapshot's, ``commitment_root`` that at ``height``, after the log."""

    wal_corruption_detected: bool
    pruning_proof_verified: bool
    restored_root: Root
    expected_state_root: Root
    commitment_root: Root
    restored_matches_expected: bool
    height: Height


class Kept(OfNode):
    """The name under which the old data were put aside."""

    kept: Annotated[str, Field(min_length=1, max_length=1000)]


def wal_of(node: str, ended: Ended) -> Wal:
    """What ``inspect_wal`` printed. Raises SourceError when it failed, or printed something else."""
    printed = require_well(f"inspect_wal {node}", ended)
    return answer("inspect_wal", node, printed, Wal)
