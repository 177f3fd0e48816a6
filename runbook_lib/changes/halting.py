"""Whether a cluster needs its storage restored: what disproves it, and what proves it.

A chain goes on when every node commits blocks, seen twice, two blocks' time apart. It is halted
when none that answers does although enough power is up to commit; with less up, nodes are missing,
and no restore brings them back. Whatever is neither is undecided, and nothing is touched: one node
that cannot be reached must not cost all others their data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from ..context import Context
from ..errors import SourceError
from ..outcomes import Outcome, Row, check_row, unknown_row
from ..sources.commands import wal_of
from ..sources.node import Consensus
from .operators import seen
from .power import powers
from .snapshot import Staged, staged
from .waiting import hold_until

BLOCKS = 2
FOLLOWS = "follows its chain"


@dataclass(frozen=True)
class Followed:
    """How a node follows its chain; ``height`` is its last one, None when it did not answer."""

    row: Row
    height: int | None
    moved: bool


@dataclass(frozen=True)
class Need:
    """The nodes whose storage must be restored; without any, rows that disprove it, or do not."""

    rows: list[Row]
    nodes: tuple[str, ...] = ()


def follow(context: Context, names: Sequence[str] | None = None) -> dict[str, Followed]:
    """Each node looked at twice, two blocks' time apart."""

    def look() -> dict[str, Consensus | SourceError]:
        return context.fleet.get("/status/consensus", Consensus, names, retries=1)

    first = look()
    pause = timedelta(milliseconds=BLOCKS * context.cluster.block_time_ms, seconds=1)
    hold_until(context, context.scope.renew() + pause, f"{BLOCKS} blocks")
    second = look()
    return {name: _followed(name, first[name], second[name]) for name in first}


def _followed(
    name: str, first: Consensus | SourceError, second: Consensus | SourceError
) -> Followed:
    expected = f"{BLOCKS} blocks on, committed by a quorum"
    if isinstance(first, SourceError):
        return Followed(check_row(name, FOLLOWS, expected, first), None, False)
    if isinstance(second, SourceError):
        return Followed(check_row(name, FOLLOWS, expected, second), None, False)
    power = f"{second.commit_power} of {second.quorum_threshold}"
    moved = second.height > first.height
    enough = int(second.commit_power) >= int(second.quorum_threshold)
    ok = moved and second.quorum_reached and enough
    got = f"height {first.height:,}, then {second.height:,}, committed by {power}"
    return Followed(check_row(name, FOLLOWS, expected, got, ok), second.height, moved)


def halted(context: Context) -> Need:
    """Whether the chain stands still: then every node must go back, together."""
    found = follow(context)
    rows = [one.row for one in found.values()]
    bundles = [row for one in staged(context) for row in one.rows]
    answering = [name for name, one in found.items() if one.height is not None]
    if not answering or any(one.moved for one in found.values()):
        return Need([*rows, *bundles])
    others = [name for name in found if name not in answering]
    heard = seen(context, others) if others else {}
    up = [*answering, *(name for name, by in heard.items() if by)]
    try:
        known = powers(context)
    except SourceError as error:
        return Need([*rows, context.unreadable("power that is up", "known", error)])
    power = sum(known.of.get(name, 0) for name in up)
    if power < known.quorum:
        got = f"{power:,}: bring back the nodes that are down first"
        row = unknown_row("the chain", "power that is up", f"{known.quorum:,} for a block", got)
        # That it stands still proves nothing yet: no chain commits without a quorum.
        unsure = {"outcome": Outcome.INCONCLUSIVE}
        opened = [r if r.outcome is Outcome.PASS else r.model_copy(update=unsure) for r in rows]
        return Need([*opened, row])
    heights = sorted({one.height for one in found.values() if one.height is not None})
    got = f"halted at {', '.join(f'{height:,}' for height in heights)}, a quorum is up"
    row = check_row("the chain", "goes on or is halted", "known", got, ok=True)
    return Need([row], tuple(node.name for node in context.cluster.nodes))


def corrupted(context: Context) -> Need:
    """Whether snapshots or logs are corrupt: on the nodes whose log is, they are restored."""
    found, bundles = follow(context), staged(context)
    ours = {node.name for node in context.cluster.nodes if node.control == "ours"}
    rows, needed = [row for one in bundles for row in one.rows], list[str]()
    newest = next((one for one in bundles if one.whole), None)
    for name, one in found.items():
        mine = [_at(context, name, newest)] if newest is not None and name in ours else []
        if one.height is None and name in ours:
            row, corrupt = _log(context, name)
            if corrupt:
                needed.append(name)
                continue
            mine.append(row)
        rows += [one.row, *mine]
    return Need(rows, tuple(needed))


def _at(context: Context, name: str, staged: Staged) -> Row:
    """The newest whole bundle, as a node fetches it."""
    what, expected = "snapshot as the node has it", f"{staged.name}: whole, signed"
    words = {0: "whole, signed", 2: "signature invalid", 3: "chunks do not match"}
    try:
        ended = context.commands.verify_snapshot(name, staged.folder)
    except SourceError as error:
        return check_row(name, what, expected, error)
    if ended.code in words:
        return check_row(name, what, expected, words[ended.code], ended.code == 0)
    return unknown_row(name, what, expected, ended.problem or f"exit {ended.code}")


def _log(context: Context, name: str) -> tuple[Row, bool]:
    """The log of a node that does not answer, and whether it is corrupt.

    It is read only where the node's process is gone.
    """
    what = "write-ahead log"
    try:
        if not context.commands.stopped(name):
            got = "its process is there, and answers nobody"
            return unknown_row(name, what, "read", got), False
        wal = wal_of(name, context.commands.inspect_wal(name))
    except SourceError as error:
        return check_row(name, what, "read", error), False
    return check_row(name, what, "whole", f"{wal.records} records", not wal.corrupt), wal.corrupt
