"""The recovery items that restore storage, and when they are not needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..changes.apply import Applier, Change, all_pass
from ..changes.halting import Need, corrupted, halted
from ..changes.storage import plan_storage, recover_storage
from ..context import Context
from ..outcomes import CheckResult, Row

AGAIN = "mainnet.recover.restore"


def _always(context: Context) -> Need:
    return Need([], tuple(node.name for node in context.cluster.nodes))


def _began(context: Context, item: str) -> tuple[str, ...]:
    """The nodes that this attempt has begun to restore: they are finished whatever is seen now."""
    mine = [e.body for e in context.journal if e.kind == "step" and e.body["item"] == item]
    done = {b["node"] for b in mine if b["step"] in ("stop", "keep-aside", "restore", "start")}
    return tuple(node.name for node in context.cluster.nodes if node.name in done)


def _rows(
    context: Context, applier: Applier, need: Callable[[Context], Need], *, log: bool = False
) -> tuple[list[Row], int]:
    """Rows, and how many nodes were to be restored."""
    begun = _began(context, context.item)
    found = need(context) if not begun else Need([], begun)
    if begun and need is not corrupted:  # a cluster goes back together
        found = _always(context)
    names = [name for name in found.nodes if name in (context.params.nodes or found.nodes)]
    if not names:
        return found.rows, 0
    return [*found.rows, *recover_storage(context, applier, names, log=log)], len(names)


def storage_rows(context: Context, applier: Applier) -> list[Row]:
    """The storage part of mainnet.recover.stall: journalled as of the item that completes it."""
    mine = replace(context, item=AGAIN)
    rows, _ = _rows(mine, replace(applier, context=mine), halted)
    return rows


def _change(
    item: str, need: Callable[[Context], Need], unneeded: str, *, log: bool = False
) -> Change:
    def apply(context: Context, applier: Applier) -> CheckResult:
        rows, nodes = _rows(context, applier, need, log=log)
        if not nodes and all_pass(rows):
            return context.conclude(rows, passed=f"not needed: {unneeded}", empty="")
        passed = f"{nodes} nodes restored, state roots equal, following the chain"
        return context.conclude(rows, passed=passed, empty="the cluster has no such node")

    return Change(item, plan_storage, apply)


_GOES_ON = "every node follows the chain, every snapshot verifies"
restore_state = _change("development.recover.restore-state", _always, "", log=True)
storage = _change("testnet.recover.storage", corrupted, f"{_GOES_ON}, everywhere")
halt_fallback = _change("canary.recover.halt-fallback", halted, _GOES_ON)
restore = _change(AGAIN, halted, _GOES_ON)
