"""What the ledger credited: balances before a change and now, held to the chain's reward formula.

Per block the base reward is 5, and the leader's bonus 20 % of it, rounded up (the chain's
rpp/runtime/node.rs). Whoever shares it and by which weights (leader 0.6, witnesses 0.3): no account,
and no two together, can be credited more than both for every block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..context import Context
from ..errors import SourceError
from ..outcomes import Row, check_row, unknown_row

BASE_REWARD = 5
LEADER_BONUS = math.ceil(BASE_REWARD * 0.2)
PER_BLOCK = BASE_REWARD + LEADER_BONUS


def record(context: Context) -> tuple[list[Row], dict[str, Any]]:
    """Height, slashing events and every validator's balance, as of now: rows, and what to keep.

    The height is read first, so that no block between is missed in a bound.
    """
    consensus, rows = context.fleet.consensus(), []
    known = {n: a for n, a in consensus.items() if not isinstance(a, SourceError)}
    balances: dict[str, str] = {}
    for name, account in context.fleet.accounts().items():
        if isinstance(account, SourceError):
            rows.append(context.unreadable("balance before the change", "an amount", account))
            continue
        balances[name] = str(account.balance)
        rows.append(check_row(name, "balance before the change", "any", balances[name], ok=True))
    if len(known) < len(consensus):
        rows += [
            context.unreadable("height before the change", "an answer", answer)
            for answer in consensus.values()
            if isinstance(answer, SourceError)
        ]
    return rows, {
        "balances": balances,
        "height": min((answer.height for answer in known.values()), default=0),
        "slashing": max((answer.slashing_events for answer in known.values()), default=0),
    }


def credited(
    context: Context,
    before: dict[str, Any],
    on: Sequence[str],
    beside: Sequence[str],
    off: Sequence[str],
    *,
    due: bool,
) -> list[Row]:
    """What each validator was credited since ``before``: ``on`` some (once ``due``), ``off`` none.

    All that may be rewarded, ``beside`` too, are held to the formula together. A balance that fell
    was spent from: what it was credited cannot be known.
    """
    now, rows = context.fleet.accounts(), []
    statuses = context.fleet.status()
    heights = [a.height for a in statuses.values() if not isinstance(a, SourceError)]
    if not heights:
        return [unknown_row("ledger", "height", "an answer", "no node answers")]
    blocks = max(heights) - int(before["height"])
    most, gains = blocks * PER_BLOCK, dict[str, int]()
    for name, account in now.items():
        what = "credited since before the change"
        if name not in before["balances"]:
            rows.append(unknown_row(name, what, "a balance before", "none was recorded"))
        elif isinstance(account, SourceError):
            rows.append(context.unreadable(what, "an amount", account))
        else:
            gains[name] = account.balance - int(before["balances"][name])
            rows += _gain(name, what, gains[name], most, blocks, name in off, due and name in on)
    rewarded = [name for name in (*on, *beside) if name in gains]
    together = sum(max(gains[name], 0) for name in rewarded)
    expected = f"at most {most} for {blocks} blocks"
    what = "credited to all that may be"
    rows.append(check_row("rewards", what, expected, str(together), together <= most))
    return rows


def _gain(
    name: str, what: str, gain: int, most: int, blocks: int, off: bool, wanted: bool
) -> list[Row]:
    expected = "0: its gate is off" if off else f"above 0, at most {most} for {blocks} blocks"
    if gain < 0:
        problem = f"{-gain} less than before: credits cannot be told from what was spent"
        return [unknown_row(name, what, expected, problem)]
    if off:
        return [check_row(name, what, expected, str(gain), gain == 0)]
    if gain > most:
        return [check_row(name, what, expected, str(gain), ok=False)]
    if gain == 0:
        return [unknown_row(name, what, expected, "0: no effect")] if wanted else []
    return [check_row(name, what, expected, str(gain), ok=True)]
