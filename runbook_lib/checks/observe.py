"""canary.activate.observe: rewards reach the canaries alone, and they go on voting, for whole epochs.

Per epoch from the metrics store, so that nothing is lost when a kernel dies: the last stage of the
chain's pipeline counts rewards on each node, its vote latencies count votes. Balances, hashes and
slashing have no past: they are read now, and held to what was recorded before the gate was turned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from ..changes.roll import healthy
from ..context import Context, judges
from ..errors import SourceError
from ..evidence.order import effect
from ..evidence.record import Entry
from ..metrics import catalogue
from ..metrics.frames import LATE, Epoch
from ..outcomes import CheckResult, Outcome, Row, check_row, unknown_row
from ..sources.node import Consensus
from .baselines import read_catalogue
from .quiet import whole_epochs
from .rollouts import captured

if TYPE_CHECKING:
    import pandas as pd

    from ..changes.plan import Plan


Missing = Callable[[Sequence[Epoch]], int]


def epochs_since(
    context: Context, since: datetime, missing: Missing, what: str
) -> tuple[tuple[Epoch, ...], list[Row]]:
    """Every whole epoch that began after ``since``, and a row that says when enough will be over.

    ``missing`` says how many more are needed beyond those. Raises SourceError.
    """
    # From a little before, so that the height is known at once; a boundary that was passed before
    # ``since`` may be seen until ``LATE`` after it, and must not count.
    found, due = whole_epochs(context, since - LATE, missing, until=context.now, begun=since + LATE)
    if due is None:
        return found, []
    expected = f"{len(found) + missing(found)} whole epochs"
    return found, [unknown_row("epochs", what, expected, f"{len(found)} so far", return_at=due)]


REWARDS = "canary.activate.rewards-gate"
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
    return context.conclude(
        rows,
        passed=f"{wanted} whole epochs: {len(on)} canaries rewarded and voting, nobody else rewarded",
        empty="",
        data={"since": since.isoformat(), "over": over, "epochs": [_told(each) for each in window]},
    )


def observed(journal: Sequence[Entry]) -> tuple[datetime, datetime]:
    """From when to when the observed epochs went, by an attempt's record. Raises SourceError."""
    results = [
        entry.body["result"]
        for entry in journal
        if entry.kind == "result" and entry.body["item"] == observe.item
    ]
    epochs = results[-1]["data"].get("epochs") if results else None
    if not epochs:
        raise SourceError(observe.item, "expected epochs that were observed, got none")
    ends = epochs[0]["start"], epochs[-1]["end"]
    return datetime.fromisoformat(ends[0]), datetime.fromisoformat(ends[1])


def _told(epoch: Epoch) -> dict[str, str | int]:
    start, end = epoch.start.isoformat(), epoch.end.isoformat()
    return {"number": epoch.number, "start": start, "end": end}


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
        counts = {
            name: counted(seen, address, span, context.params.max_missing)
            for name, address in addresses.items()
        }
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
    if len(known) < len(consensus):
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


# --- Proof of effect ---
#
# A flag is not a feature. Each gate names a topic of the metric catalogue; its traffic must be there
# on every node whose gate is on, and nowhere else. Design: section 7.

OBSERVABLE = {"timetoke_rewards": "reward_distribution", "witness_network": "witness_gossip"}
"""Gate -> the catalogue's topic that shows it at work."""
BLOCKS = "rpp_runtime_chain_block_height_count"
"""Every node counts its blocks: where that is told, other traffic would be told too."""
LOOKBACK = timedelta(minutes=3)


@dataclass(frozen=True)
class Span:
    """A named stretch of time, such as one epoch."""

    name: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Counted:
    """How much one subject did in a span, and whether that is known; ``there``: it has a series."""

    amount: float
    covered: bool
    there: bool


def counted(rates: pd.DataFrame, subject: str, span: Span, allowed: float) -> Counted:
    """A subject's count in a span; at most ``allowed`` of its points may be missing.

    Only points whose three minutes lie wholly in the span count, scaled to the whole of it.
    """
    import numpy as np

    inside = rates[(rates.index >= span.start + LOOKBACK) & (rates.index <= span.end)]
    values = inside[subject].to_numpy() if subject in inside else np.array([])
    seen = np.isfinite(values)
    if not seen.any():
        return Counted(0.0, covered=False, there=False)
    amount = float(values[seen].mean()) * (span.end - span.start).total_seconds()
    return Counted(round(amount, 1), bool((~seen).mean() <= allowed), there=True)


def traffic(
    context: Context, candidates: Sequence[str], label: str, start: datetime, end: datetime
) -> pd.DataFrame:
    """Rates per second of the first of some counters that has any series in the window, by ``label``.

    None of them has: no columns. Raises SourceError, also for a partial answer.
    """
    from ..metrics.baseline import STEP
    from ..metrics.frames import fetch

    frame = None
    for selector in candidates:
        query = catalogue.inject(f"sum by ({label}) (rate({selector}[3m]))", context.matchers)
        frame = fetch(context.prometheus, query, start, end, STEP)
        if frame.partial:
            raise SourceError("prometheus", f"{selector}: {frame.warnings[0]}")
        if frame.labels:
            break
    assert frame is not None
    columns = {column: value for value, column in frame.columns_by(label).items()}
    return frame.values.rename(columns=columns)


def counters(context: Context, topic: str) -> list[str]:
    """Selectors of the counters that the catalogue's queries of a topic are made of."""
    found = [
        selector
        for metric in read_catalogue(context).of_topic(topic)
        for query in metric.queries
        for selector in catalogue.selectors(query)
        if selector.partition("{")[0].endswith(("_count", "_total"))
    ]
    if not found:
        raise SourceError("metrics", f"topic {topic}: expected a counter in its queries, got none")
    return found


def gated(plan: Plan, item: str, gate: str) -> tuple[list[str], list[str], list[str]]:
    """(nodes of the change, other nodes whose gate is on, nodes whose gate is off) after ``item``."""
    after = {name: state.gates for name, state in plan.untouched.items()}
    own = [number for number, phase in enumerate(plan.phases) if phase.item == item]
    for phase in plan.phases[: own[-1] + 1]:  # a change may have several
        after |= {node.node: node.after.gates for node in phase.nodes}
    mine = list(dict.fromkeys(node.node for phase in plan.of(item) for node in phase.nodes))
    on = [name for name, gates in after.items() if gates.get(gate) and name not in mine]
    off = [name for name, gates in after.items() if not gates.get(gate)]
    return [name for name in mine if name not in off], on, off


def effect_rows(
    context: Context, gate: str, on: Sequence[str], off: Sequence[str], spans: Sequence[Span]
) -> list[Row]:
    """In each span: traffic on every node of ``on``, none on any of ``off``, which told of itself.

    Raises SourceError.
    """
    label, topic = context.site.telemetry.node_label, OBSERVABLE[gate]
    start, end = spans[0].start, spans[-1].end
    seen = traffic(context, counters(context, topic), label, start, end)
    told = traffic(context, [BLOCKS], label, start, end)
    allowed = context.params.max_missing
    rows = [
        _on(node, gate, span, counted(seen, node, span, allowed)) for span in spans for node in on
    ]
    rows += [
        _off(
            node, gate, span, counted(seen, node, span, allowed), counted(told, node, span, allowed)
        )
        for span in spans
        for node in off
    ]
    if not off:
        text = "none: every node has the gate on"
        rows.append(check_row(gate, "negative control", "a node with the gate off", text, ok=True))
    return rows


def _on(node: str, gate: str, span: Span, seen: Counted) -> Row:
    what, expected = f"{OBSERVABLE[gate]}, {span.name}", "above 0"
    if seen.amount > 0 and seen.covered:
        return check_row(node, what, expected, seen.amount, ok=True)
    if not seen.there:
        return unknown_row(node, what, expected, f"no series: {gate} is on without effect")
    if not seen.covered:
        return unknown_row(node, what, expected, "too many points missing")
    return unknown_row(node, what, expected, f"0: {gate} is on without effect")


def _off(node: str, gate: str, span: Span, seen: Counted, told: Counted) -> Row:
    what, expected = f"{OBSERVABLE[gate]} with the gate off, {span.name}", "none"
    if seen.amount > 0:
        return check_row(node, what, expected, seen.amount, ok=False)
    if not told.covered:
        return unknown_row(node, what, expected, "its telemetry has holes: nothing is known")
    return check_row(node, what, expected, "none", Outcome.PASS)


def proven(context: Context, item: str, gate: str, effect: datetime) -> list[Row]:
    """Rows of a gate's effect in the minutes after a change took effect; not yet due before that."""
    from ..metrics.baseline import SETTLE

    span = Span("after the change", effect, effect + 2 * SETTLE)
    if context.now < span.end:
        text = "too early to be seen"
        return [unknown_row(gate, "effect", "traffic", text, return_at=span.end)]
    assert context.plan is not None
    mine, _, off = gated(context.plan, item, gate)
    if not mine:  # a bundle whose profile has it off: that nothing happens is no proof
        got = "none by the plan"
        return [unknown_row(gate, "effect", "a node that the change turns it on for", got)]
    return effect_rows(context, gate, mine, off, [span])
