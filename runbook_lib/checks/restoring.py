"""The recovery items that restore storage, and when they are not needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..changes.apply import Applier, Change, all_pass
from ..changes.halting import FOLLOWS, Need, corrupted, follow, halted
from ..changes.storage import plan_storage, recover_storage
from ..context import Context
from ..outcomes import CheckResult, Outcome, Row

AGAIN = "mainnet.recover.restore"


def _always(context: Context) -> Need:
    return Need([], tuple(node.name for node in context.cluster.nodes))


def _corrupted_or_halted(context: Context) -> Need:
    """A chain that stands still goes back whole: nothing tells which of its stores is sound."""
    found = corrupted(context)
    if found.nodes or any(
        row.what == FOLLOWS and row.outcome is Outcome.PASS for row in found.rows
    ):
        return found
    stopped = halted(context)
    return stopped if stopped.nodes else found


def _begun(context: Context) -> tuple[str, ...]:
    """The nodes that this attempt set out to restore: they are finished whatever is seen now."""
    mine = [
        e.body for e in context.journal if e.kind == "restore" and e.body["item"] == context.item
    ]
    return tuple(mine[-1]["nodes"]) if mine else ()


def _rows(
    context: Context,
    applier: Applier,
    need: Callable[[Context], Need],
    *,
    rest: Callable[[Context], Need] | None = None,
    log: bool = False,
) -> tuple[list[Row], int]:
    """Rows, and how many nodes were to be restored.

    What an earlier try began is finished first. Then ``rest`` judges the nodes that it did not set
    out to restore: what it saw of them is old by now.
    """
    begun = _begun(context)
    if not begun:
        found = need(context)
        names = _wanted(context, found)
        rows = _restored(context, applier, names, names, log=log) if names else []
        return [*found.rows, *rows], len(names)
    rows = recover_storage(context, applier, begun, log=log)
    others = {node.name for node in context.cluster.nodes} - set(begun)
    if rest is None or not others:
        return rows, len(begun)
    found = rest(context)
    rows += [row for row in found.rows if row.subject not in begun]
    if more := [name for name in _wanted(context, found) if name in others]:
        # How the others follow tells nothing any more: these may have been what they waited for.
        rows = [row for row in rows if row.what != FOLLOWS]
        rows += _restored(context, applier, [*begun, *more], more, log=log)
        rows += [one.row for name, one in follow(context).items() if name not in more]
    return list(dict.fromkeys(rows)), len(begun) + len(more)


def _wanted(context: Context, found: Need) -> list[str]:
    return [name for name in found.nodes if name in (context.params.nodes or found.nodes)]


def _restored(
    context: Context, applier: Applier, all_: Sequence[str], names: Sequence[str], *, log: bool
) -> list[Row]:
    """``names`` restored; ``all_`` are those that the attempt has to finish from now on."""
    context.record.append("restore", {"item": context.item, "nodes": list(all_)})
    return recover_storage(context, applier, names, log=log)


def storage_rows(context: Context, applier: Applier) -> list[Row]:
    """The storage part of mainnet.recover.stall: journalled as of the item that completes it."""
    mine = replace(context, item=AGAIN)
    rows, _ = _rows(mine, replace(applier, context=mine), halted)
    return rows


def _change(
    item: str,
    need: Callable[[Context], Need],
    unneeded: str,
    *,
    rest: Callable[[Context], Need] | None = None,
    log: bool = False,
) -> Change:
    def apply(context: Context, applier: Applier) -> CheckResult:
        rows, nodes = _rows(context, applier, need, rest=rest, log=log)
        if not nodes and all_pass(rows):
            return context.conclude(rows, passed=f"not needed: {unneeded}", empty="")
        passed = f"{nodes} nodes restored, state roots equal, following the chain"
        return context.conclude(rows, passed=passed, empty="the cluster has no such node")

    return Change(item, plan_storage, apply)


_GOES_ON = "every node follows the chain, every snapshot verifies"
restore_state = _change("development.recover.restore-state", _always, "", log=True)
storage = _change(
    "testnet.recover.storage", _corrupted_or_halted, f"{_GOES_ON}, everywhere", rest=corrupted
)
halt_fallback = _change("canary.recover.halt-fallback", halted, _GOES_ON)
restore = _change(AGAIN, halted, _GOES_ON)
