"""The steps of a storage recovery on one node, and on many at once.

Before each command that touches data the node is proven stopped anew: its RPC refuses and its
process is gone. A node that fails is passed over, and tried again at the end when it merely could
not be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ..context import AT_ONCE, Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..sources.node import Rollout
from ..sources.process import Ended
from ..sources.storage import Kept, OfNode, Replayed, Wal, answer, wal_of
from .apply import Applier, Step, all_pass
from .snapshot import Chosen

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
        def one(name: str) -> list[Row]:
            mine = replace(self.context, scope=self.context.scope.lane(f"{name} {phase}"))
            made = One(name, mine, replace(self.applier, context=mine, rows=[]))
            try:
                return [*made.applier.rows, *do(made)]
            except SourceError as error:
                return [*made.applier.rows, unknown_row(name, phase, "readable", str(error))]

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(names, pool.map(one, names), strict=True))

    # --- one node -------------------------------------------------------------------------------

    def take_down(self, one: One) -> list[Row]:
        """Down, proven so, its log looked at; nothing of its data is touched."""
        commands, name = one.context.commands, one.name

        def verify(lock: int, outputs: Path) -> Ended:
            ended = commands.verify_snapshot(name, self.chosen.folder, outputs=outputs)
            if ended.code != FATAL:
                return ended
            return replace(ended, code=None, problem="exit 1: it could not be verified")

        def stop(lock: int, outputs: Path) -> Ended:
            return commands.stop(name, lock=lock, outputs=outputs)

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
            Step(name, "stop", stop, lambda: proven_stopped(one.context, name).outcome is _PASS),
            Step(name, "prove-stopped", lambda lock, outputs: _ended(one.stopped())),
            Step(name, "inspect-wal", one.guarded(inspect)),
        )

    def renew(self, one: One, height: int) -> list[Row]:
        """The old data aside, the snapshot in their place, proofs and log replayed."""
        commands, name, chosen = one.context.commands, one.name, self.chosen

        def keep(lock: int, outputs: Path) -> Ended:
            return commands.keep_data(name, chosen.label, lock=lock, outputs=outputs)

        def restore(lock: int, outputs: Path) -> Ended:
            return commands.restore_snapshot(
                name, chosen.folder, chosen.label, lock=lock, outputs=outputs
            )

        def replay(lock: int, outputs: Path) -> Ended:
            return commands.replay_proofs(name, height, lock=lock, outputs=outputs)

        return one.do(
            Step(name, "keep-aside", one.guarded(keep)),
            Step(name, "restore", one.guarded(restore)),
            Step(name, "replay-proofs", one.guarded(replay)),
        )

    def start(self, one: One) -> list[Row]:
        """Back up, on the data that agree."""
        commands, name = one.context.commands, one.name

        def start(lock: int, outputs: Path) -> Ended:
            return commands.start(name, lock=lock, outputs=outputs)

        return one.do(Step(name, "start", start))

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
        rows = [
            check_row(name, "restored state root", wanted[:16], said.restored_root[:16], same),
            check_row(name, "pruning proofs", "verified", _word(proven), proven),
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


def _word(proven: bool) -> str:
    return "verified" if proven else "not verified"
