"""canary.activate.observe: rewards reach the canaries alone, and they go on voting, for whole epochs.

Per epoch from the metrics store, so that nothing is lost when a kernel dies: the last stage of the
chain's pipeline counts rewards on each node, its vote latencies count votes. Balances, hashes and
slashing have no past: they are read now, and held to what was recorded before the gate was turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from ..changes.roll import healthy
from ..context import Context, judges
from ..errors import SourceError
from ..evidence.order import effect
from ..evidence.record import Entry
from ..outcomes import CheckResult, Row, check_row, unknown_row
from ..sources.node import Consensus
from .activation_proof import Span, counted, counters, effect_rows, gated, traffic
from .quiet import epochs_since
from .regression import REWARDS, data_of, shown
from .rollouts import captured

if TYPE_CHECKING:
    from ..metrics.compare import Compared


GATE = "timetoke_rewards"
VOTES_OF_MEDIAN = 0.9
"""A canary votes as often as the others: at least this share of the median validator's votes."""
LOOKS = 3

Answers = dict[str, Consensus | SourceError]


@judges("canary.activate.observe")
def observe(context: Context) -> CheckResult:
    """At least three whole epochs since the last canary took the gate, by the journal.

    The window is the first of them, whenever it is judged. Until it is over, what is over already
    is judged. Playbook: canary, activation, 2.
    """
    assert context.plan is not None
    before = captured(context.journal, REWARDS)
    if before is None:
        raise SourceError(REWARDS, "expected balances recorded before the change, got none")
    since, wanted = effect(context.journal, REWARDS), context.params.observe_epochs
    found, rows = epochs_since(
        context, since, lambda seen: wanted - len(seen), "rewards and votes observed"
    )
    window, over = found[:wanted], len(found) >= wanted
    on, beside, off = gated(context.plan, REWARDS, GATE)
    if not on:
        got = "none by the plan"
        rows.append(unknown_row("canaries", "nodes with the gate on", "at least one", got))
    if window:
        spans = [Span(f"epoch {each.number}", each.start, each.end) for each in window]
        rows += effect_rows(context, GATE, on, off, spans)
        rows += votes(context, on, spans)
    rows += credited(context, before, on, beside, off, due=bool(window))
    rows += agreement(context, int(before["slashing"]))
    rows += healthy(context, [node.name for node in context.cluster.nodes])
    epochs = [
        {"number": each.number, "start": each.start.isoformat(), "end": each.end.isoformat()}
        for each in window
    ]
    return context.conclude(
        rows,
        passed=f"{wanted} whole epochs: {len(on)} canaries rewarded and voting, nobody else rewarded",
        empty="",
        data={"since": since.isoformat(), "over": over, "epochs": epochs},
    )


def observed(journal: Sequence[Entry]) -> tuple[datetime, datetime]:
    """From when to when the observed epochs went, by an attempt's record. Raises SourceError."""
    told = data_of(journal, observe.item)
    epochs = told[-1].get("epochs") if told else None
    if not epochs:
        raise SourceError(observe.item, "expected epochs that were observed, got none")
    start, end = epochs[0]["start"], epochs[-1]["end"]
    return datetime.fromisoformat(start), datetime.fromisoformat(end)


def votes(context: Context, canaries: Sequence[str], spans: Sequence[Span]) -> list[Row]:
    """Each canary's votes in each epoch beside the median of the other validators'.

    Nodes that do not vote are no measure, nor are canaries of each other; when less than half of
    the others are known, nothing is. Raises SourceError.
    """
    latency = next(name for name in counters(context, "consensus_latency") if "vote" in name)
    seen = traffic(context, [latency], "validator", spans[0].start, spans[-1].end)
    addresses = {node.name: node.validator for node in context.cluster.nodes}
    rows = []
    for span in spans:
        allowed = context.params.max_missing
        counts = {name: counted(seen, at, span, allowed) for name, at in addresses.items()}
        others = [counts[n] for n, address in addresses.items() if address and n not in canaries]
        known = [each.amount for each in others if each.covered]
        usual = median(known) if known and 2 * len(known) >= len(others) else 0.0
        for name in canaries:
            own, what = counts[name], f"votes, {span.name}"
            least = round(VOTES_OF_MEDIAN * usual, 1)
            expected = f"at least {least:g}, {VOTES_OF_MEDIAN:.0%} of the median validator's"
            if not usual > 0:
                got = f"votes are counted of {len(known)} of {len(others)} other validators"
                rows.append(unknown_row(name, what, expected, got))
            elif not own.covered:
                rows.append(unknown_row(name, what, expected, "too many points missing"))
            else:
                rows.append(check_row(name, what, expected, own.amount, own.amount >= least))
    return rows


def agreement(context: Context, slashed: int) -> list[Row]:
    """Every node has the block that the others have at its height, and nobody new was slashed.

    Nodes are asked up to three times until each was seen at the same height as another.
    """
    compared: set[str] = set()
    names, rows = [node.name for node in context.cluster.nodes], list[Row]()
    answers: Answers = {}
    for look in range(LOOKS):
        if look:
            context.scope.sleep(context.cluster.block_time_ms / 3000)
        answers = context.fleet.consensus()
        split, alike = _hashes(answers)
        rows, compared = rows + split, compared | alike
        if split or compared == set(names):
            break
    rows = list({row.subject: row for row in rows}.values())
    for name in names:
        answer = answers[name]
        if isinstance(answer, SourceError):
            rows.append(context.unreadable("its block", "the others'", answer))
        elif name not in compared and name not in {row.subject for row in rows}:
            got = f"nobody else at height {answer.height}"
            rows.append(unknown_row(name, "its block", "the others'", got))
    if not rows:
        got = f"{len(names)} nodes alike"
        rows.append(check_row("nodes", "block at a height", "the same hash", got, ok=True))
    return [*rows, *_slashing(answers, slashed)]


def _hashes(answers: Answers) -> tuple[list[Row], set[str]]:
    """A row for each node whose block is not the one most have; and the nodes that are alike."""
    at: dict[int, dict[str, list[str]]] = {}
    for name, answer in answers.items():
        if not isinstance(answer, SourceError):
            at.setdefault(answer.height, {}).setdefault(answer.block_hash, []).append(name)
    rows, alike = [], set[str]()
    for height, blocks in at.items():
        ranked = sorted(blocks.items(), key=lambda item: -len(item[1]))
        usual = ranked[0][1]
        if len(usual) > 1:
            alike |= set(usual)
        for digest, names in ranked[1:]:
            what, expected = f"block {height}", ranked[0][0]
            rows += [check_row(name, what, expected, digest, ok=False) for name in names]
    return rows, alike


def _slashing(answers: Answers, before: int) -> list[Row]:
    seen = [a.slashing_events for a in answers.values() if not isinstance(a, SourceError)]
    what, expected = "slashing events", f"{before}, as before the change"
    if not seen:
        return [unknown_row("slashing", what, expected, "no node answers")]
    if max(seen) < before:
        return [unknown_row("slashing", what, expected, f"{max(seen)}: the count went back")]
    return [check_row("slashing", what, expected, max(seen), max(seen) == before)]


# --- What the ledger credited ---
#
# Per block the base reward is 5, and the leader's bonus 20 % of it, rounded up (the chain's
# rpp/runtime/node.rs). Whoever shares it and by which weights (leader 0.6, witnesses 0.3): no account,
# and no two together, can be credited more than both for every block.

BASE_REWARD = 5
LEADER_BONUS = math.ceil(BASE_REWARD * 0.2)
PER_BLOCK = BASE_REWARD + LEADER_BONUS


def balances(context: Context) -> tuple[list[Row], dict[str, Any]]:
    """Height, slashing events and every validator's balance, as of now: rows, and what to keep.

    The height is read first, so that no block between is missed in a bound.
    """
    consensus, rows = context.fleet.consensus(), []
    known = {n: a for n, a in consensus.items() if not isinstance(a, SourceError)}
    amounts: dict[str, str] = {}
    for name, account in context.fleet.accounts().items():
        if isinstance(account, SourceError):
            rows.append(context.unreadable("balance before the change", "an amount", account))
            continue
        amounts[name] = str(account.balance)
        rows.append(check_row(name, "balance before the change", "any", amounts[name], ok=True))
    rows += [
        context.unreadable("height before the change", "an answer", answer)
        for answer in consensus.values()
        if isinstance(answer, SourceError)
    ]
    return rows, {
        "balances": amounts,
        "height": min((answer.height for answer in known.values()), default=0),
        "slashing": max((answer.slashing_events for answer in known.values()), default=0),
    }


def credited(
    context: Context, before: dict[str, Any], on: list[str], beside: list[str], off: list[str],
    *, due: bool,
) -> list[Row]:  # fmt: skip
    """What each validator was credited since ``before``: ``on`` some (once ``due``), ``off`` none.

    All that may be rewarded, ``beside`` too, are held to the formula together. A balance that fell
    was spent from: what it was credited cannot be known.
    """
    now, rows = context.fleet.accounts(), []
    answers = context.fleet.status().values()
    heights = [found.height for found in answers if not isinstance(found, SourceError)]
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
    together = sum(max(gains.get(name, 0), 0) for name in (*on, *beside))
    expected, what = f"at most {most} for {blocks} blocks", "credited to all that may be"
    return [*rows, check_row("rewards", what, expected, str(together), together <= most)]


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


def canary_comparison(context: Context) -> list[Compared]:
    """The observed epochs beside the canaries' past and the rest. Raises SourceError."""
    start, end = observed(context.journal)
    return shown(context, context.journal, start, end)
